//! The page for a browser, in a real one: it shows the figures of the JSON report, its keys and
//! buttons work, it makes no request, it can be used without eyes or a mouse, and it stays small.
use crate::support::{self, viewers};
mod made;

use made::{Made, HOSTILE};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use support::{gilprof, scratch, serial_guard, Interpreter, Target};

/// The states' order in the page.
const STATES: [&str; 10] = ["python", "native", "blocked", "starved", "waiting", "native", "starved", "lock", "io", "unknown"];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn done(args: &[&str]) {
    let out = gilprof(args);
    assert!(out.status.success(), "gilprof {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// The browser's view of a page; nothing where there is no browser.
fn seen(page: &Path) -> Option<Value> {
    let axe = viewers::viewer("axe")?;
    let shots = std::env::var("GILPROF_HTML_SHOTS").unwrap_or_default();
    let folder = Path::new(&shots).join(page.file_stem().unwrap());
    let mut args = vec![text(&axe), text(page)];
    if !shots.is_empty() {
        std::fs::create_dir_all(&folder).unwrap();
        args.push(text(&folder));
    }
    viewers::node("html.mjs", &args)
}

/// No request, no error, no dialog, no serious complaint of axe-core, no content wider than the
/// window.
fn sound(browser: &Value) {
    for what in ["requests", "errors"] {
        assert_eq!(browser[what], serde_json::json!([]), "{what}");
    }
    assert_eq!(browser["dialogs"], 0);
    let views = browser["axe"].as_object().unwrap();
    assert_eq!(views.keys().map(String::as_str).collect::<Vec<_>>(), ["dark-1280", "dark-400", "light-1280", "light-400"]);
    for (view, found) in views {
        let bad: Vec<&Value> = found.as_array().unwrap().iter().filter(|v| v["impact"] == "serious" || v["impact"] == "critical").collect();
        assert!(bad.is_empty(), "{view}: {bad:#?}");
        assert!(browser["sideways"][view].as_f64().unwrap() <= 0.0, "{view} scrolls sideways: {}", browser["sideways"]);
    }
}

/// The shares of a report's thread by the page's numbers of the states.
fn shares(thread: &Value) -> [f64; 10] {
    let of = |n: usize| if n < 4 { thread["holding"][STATES[n]].as_f64().unwrap() } else { thread["states"][STATES[n]].as_f64().unwrap() };
    std::array::from_fn(of)
}

/// One process on the page against its JSON.
fn agrees(page: &Value, report: &Value) {
    let seconds = report["window"]["seconds"].as_f64().unwrap();
    let threads = report["threads"].as_array().unwrap();
    assert_eq!(page["threads"].as_array().unwrap().len(), threads.len().min(400));
    let mut tracks: BTreeMap<i64, &Value> = BTreeMap::new();
    let of_process = |track: &&Value| track["pid"] == report["target"]["pid"];
    page["tracks"].as_array().unwrap().iter().filter(of_process).for_each(|track| tracks.extend([(track["tid"].as_i64().unwrap(), track)]));
    let tids: Vec<&Value> = threads.iter().map(|thread| &thread["tid"]).collect();
    assert_eq!(tracks.len(), threads.len().min(128), "tracks of {:?}, threads {tids:?}", tracks.keys());
    for (thread, row) in threads.iter().zip(page["threads"].as_array().unwrap()) {
        assert!(row["note"].as_str().unwrap().starts_with(&thread["tid"].to_string()), "{row}");
        let (wanted, shown) = (shares(thread), &row["shares"]);
        let part = |n: usize| shown[n.to_string()].as_f64().unwrap_or(0.0);
        for (n, wanted) in wanted.iter().enumerate() {
            assert!((part(n) - wanted).abs() < 1e-4, "{} of {row}, {wanted} in the report", STATES[n]);
        }
        let sum: f64 = (0..10).map(part).sum();
        assert!((sum - 1.0).abs() < 1e-4 && (row["covered"].as_f64().unwrap() - 1.0).abs() < 0.01, "a bar is 100 %: {row}");
        let cell = |n: usize| row["cells"][n].as_str().unwrap();
        for (n, state) in ["holding", "waiting"].iter().enumerate() {
            let share = thread["states"][state].as_f64().unwrap() * 100.0;
            let shown: f64 = cell(n).trim_start_matches(['<', '>']).parse().unwrap();
            assert!((shown - share).abs() <= 0.11, "{state} of {row}: {share}");
        }
        if let Some(track) = tracks.get(&thread["tid"].as_i64().unwrap()) {
            let lived = thread["seconds"].as_f64().unwrap();
            for (n, wanted) in wanted.iter().enumerate() {
                let shown = track["seconds"][n.to_string()].as_f64().unwrap_or(0.0);
                assert!(
                    (shown - wanted * lived).abs() <= 0.01 * lived + 0.005,
                    "track {track}: {} is {} s in the report",
                    STATES[n],
                    wanted * lived
                );
            }
        }
    }
    functions(page, report);
    let waiting: f64 = threads.iter().map(|t| t["states"]["waiting"].as_f64().unwrap() * t["seconds"].as_f64().unwrap()).sum();
    let holding: f64 = threads.iter().map(|t| t["states"]["holding"].as_f64().unwrap() * t["seconds"].as_f64().unwrap()).sum();
    let native: f64 = threads.iter().map(|t| t["states"]["native"].as_f64().unwrap() * t["seconds"].as_f64().unwrap()).sum();
    let wall: f64 = threads.iter().map(|t| t["seconds"].as_f64().unwrap()).sum();
    for (mode, wanted) in [("holding", holding), ("waiting", waiting), ("native", native), ("wall", wall), ("blame", waiting)] {
        let flame = &page["flames"][mode];
        let drawn = flame["micros"].as_f64().unwrap() / 1e6;
        assert!((drawn - wanted).abs() <= 0.01 * wanted + 0.002, "{mode}: {drawn} s in the flamegraph, {wanted} s in the report");
        if drawn > 0.0 {
            let selves: f64 = flame["rows"].as_array().unwrap().iter().map(|row| row[1].as_f64().unwrap()).sum();
            assert!(selves / 1e6 <= drawn * 1.001 && selves > 0.0, "{mode}: frames themselves took {selves} us of {drawn} s");
        }
    }
    let blame: f64 = report["blame"].as_array().unwrap().iter().map(|row| row["seconds"].as_f64().unwrap()).sum();
    assert!((page["blame"].as_f64().unwrap() - blame).abs() <= 0.01 * blame + 1e-3, "{} {blame}", page["blame"]);
    assert!(seconds > 0.0 && page["gilChart"].as_str().unwrap().contains("busy"));
    for fact in report["verdict"]["because"].as_array().unwrap() {
        // The page shows text between backticks as code.
        let fact = fact.as_str().unwrap().replace('`', "");
        assert!(page["because"].as_array().unwrap().iter().any(|shown| shown == &fact), "{fact} is not on the page");
    }
    if let Some(gain) = report["verdict"]["speedup"]["processes"]["estimate"].as_f64() {
        assert!(page["gains"][0].as_str().unwrap().contains(&format!("{gain:.1}×")), "{}", page["gains"]);
    }
}

/// What the page says of several processes, against the JSON: the verdict, the table, and tracks of
/// all of them in one timeline.
fn of_service(browser: &Value, both: &Value) {
    let (shown, service) = (&browser["service"], &both["service"]);
    assert_eq!(shown["hidden"], false);
    let name = service["verdict"]["code"].as_str().unwrap().replace('-', " ");
    assert!(shown["banner"].as_str().unwrap().eq_ignore_ascii_case(&name), "{shown:#} {name}");
    let (rows, wanted) = (shown["rows"].as_array().unwrap(), service["table"].as_array().unwrap());
    assert_eq!(rows.len(), wanted.len());
    for (row, wanted) in rows.iter().zip(wanted) {
        assert_eq!(row["pid"], wanted["pid"]);
        assert!(row["words"].as_str().unwrap().contains(wanted["role"].as_str().unwrap()), "{row}");
        for key in ["busy", "waiting", "cpu"] {
            let cell = row["cells"][key].as_str().unwrap().trim_end_matches('%').trim();
            let percent: f64 = cell.trim_start_matches(['<', '>']).parse().unwrap_or_else(|e| panic!("{row}: {e}"));
            assert!((percent - 100.0 * wanted[key].as_f64().unwrap()).abs() <= 1.0, "{key} of {row}: {wanted}");
        }
    }
    let pids = |of: &Value| of["tracks"].as_array().unwrap().iter().map(|track| track["pid"].as_i64().unwrap()).collect::<BTreeSet<_>>();
    let measured: BTreeSet<i64> =
        both["reports"].as_array().unwrap().iter().map(|report| report["target"]["pid"].as_i64().unwrap()).collect();
    for process in browser["processes"].as_array().unwrap() {
        assert_eq!(pids(process), measured, "one timeline has the threads of all processes");
    }
}

/// The table of functions against the report's, row by row.
fn functions(page: &Value, report: &Value) {
    let (rows, wanted) = (page["functions"].as_array().unwrap(), report["functions"].as_array().unwrap());
    assert_eq!(rows.len(), wanted.len());
    for (row, wanted) in rows.iter().zip(wanted) {
        assert_eq!(row["name"].as_str().unwrap(), wanted["name"].as_str().unwrap());
        for key in ["inflicted_wait", "holding", "holding_native", "waiting", "native", "lock", "io"] {
            let (text, wanted) = (row["cells"][key].as_str().unwrap(), wanted[key].as_f64().unwrap());
            let shown: f64 = text.trim_start_matches('<').parse().unwrap();
            assert!((shown - wanted).abs() <= 0.0101, "{key} of {row}: {wanted}");
        }
    }
}

/// The page's reactions when it is used.
fn works(drive: &Value) {
    let flame = &drive["flame"];
    let micros = |what: &str| flame[what].as_f64().unwrap();
    assert!(micros("wall") > micros("whole") && flame["colours"].as_u64().unwrap() > 3 && flame["focusable"] == 0, "{flame:#}");
    assert!(flame["search"].as_str().unwrap().contains("matches in"), "{flame:#}");
    assert!(micros("clicked") > 0.0 && micros("clicked") < micros("wall"), "a click zooms: {flame:#}");
    assert!(micros("back") > micros("clicked") && micros("reset") == micros("wall"), "Escape and the button go back: {flame:#}");
    assert_ne!(flame["walked"], flame["where"]);
    let timeline = &drive["timeline"];
    let view = |what: &str| timeline[what].as_str().unwrap_or_default();
    for (before, after) in
        [("whole", "zoomed"), ("zoomed", "moved"), ("again", "button"), ("button", "wheel"), ("wheel", "dragged"), ("whole", "chosen")]
    {
        assert!(view(before) != view(after) && !view(after).is_empty(), "{before} and {after}: {timeline:#}");
    }
    assert_eq!(view("whole"), view("again"));
    assert!(timeline["colours"].as_u64().unwrap() > 2);
    let a_state =
        |browser: &str| ["holding", "waiting", "native", "starved", "lock", "io", "unknown"].iter().any(|state| browser.contains(state));
    assert!(a_state(view("spoken")) && a_state(view("hover")), "{timeline:#}");
    let sorted = |way: &str| {
        let column = drive["functions"][way][1].as_array().unwrap();
        column.iter().map(|c| c.as_str().unwrap().trim_start_matches('<').parse::<f64>().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(drive["functions"]["before"], "none");
    assert_eq!((&drive["functions"]["down"][0], &drive["functions"]["up"][0]), (&"descending".into(), &"ascending".into()));
    assert!(sorted("down").is_sorted_by(|a, b| a >= b) && sorted("up").is_sorted(), "{:#}", drive["functions"]);
    assert_eq!(drive["functions"]["filtered"], 0);
    assert_eq!(drive["theme"], serde_json::json!(["light", "dark"]));
}

fn interpreter() -> Option<Interpreter> {
    let found = support::interpreters().into_iter().rfind(|i| i.root.is_none());
    if found.is_none() {
        support::skip("live recordings in the browser: there is no interpreter that needs no other root");
    }
    found
}

fn record(interpreter: &Interpreter, workload: &str, args: &[&str]) -> PathBuf {
    let target = Target::start(interpreter, workload, args);
    let file = scratch(&format!("{workload}.gilprof"));
    done(&["record", "--pid", &target.pid().to_string(), "--duration", "2s", "-o", text(&file)]);
    file
}

#[test]
fn live_recordings_are_shown_with_the_figures_of_the_report() {
    let Some(interpreter) = interpreter() else { return };
    let files = {
        let _alone = serial_guard();
        // At the same time: the page has one timeline.
        std::thread::scope(|scope| {
            let other = scope.spawn(|| record(&interpreter, "cpu", &["--threads", "3"]));
            [record(&interpreter, "mixed", &[]), other.join().unwrap()]
        })
    };
    let page = scratch("live.html");
    done(&["report", text(&files[0]), text(&files[1]), "--what-if", "processes=2", "-o", text(&page)]);
    let Some(browser) = seen(&page) else { return };
    sound(&browser);
    assert_eq!((&browser["chooser"], browser["processes"].as_array().unwrap().len()), (&true.into(), 2), "a process each");
    let both = support::report(&["report", text(&files[0]), text(&files[1]), "--what-if", "processes=2"]);
    of_service(&browser, &both);
    for (report, shown) in both["reports"].as_array().unwrap().iter().zip(browser["processes"].as_array().unwrap()) {
        agrees(shown, report);
        assert!(shown["view"].as_str().unwrap().contains("every span"), "{}", shown["view"]);
    }
    works(&browser["drive"]);
    println!("interactive after {} ms", browser["interactive_ms"]);
    files.iter().chain([&page]).for_each(|file| std::fs::remove_file(file).unwrap());
}

/// A generated recording as a page, opened in the browser; its size and its JSON report.
fn made(name: &str, made: Made) -> Option<(Value, u64, Value)> {
    let [file, page, json] = ["gilprof", "html", "json"].map(|ending| scratch(&format!("{name}.{ending}")));
    made::record(&file, made);
    done(&["report", text(&file), "-o", text(&page), "-o", text(&json)]);
    let size = std::fs::metadata(&page).unwrap().len();
    let report = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let browser = seen(&page);
    [file, page, json].iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let browser = browser?;
    eprintln!("{name}: {:.2} MB, interactive after {} ms", size as f64 / 1e6, browser["interactive_ms"]);
    Some((browser, size, report))
}

#[test]
fn a_minute_of_32_threads_is_small_and_hostile_names_are_text() {
    let Some((browser, size, report)) = made("minute", Made { seconds: 60.0, threads: 32, rate_hz: 1000.0, turn: 5 }) else { return };
    assert!(size < 5_000_000, "{size} bytes");
    sound(&browser);
    let shown = &browser["processes"][0];
    agrees(shown, &report);
    works(&browser["drive"]);
    assert!(shown["view"].as_str().unwrap().contains("every span"), "{}", shown["view"]);
    assert!(shown["names"].as_str().unwrap().contains(HOSTILE), "the thread's name is shown as it is");
    assert!(shown["functions"].as_array().unwrap().iter().any(|row| row["name"] == HOSTILE));
    assert_eq!((&shown["images"], &shown["scripts"]), (&0.into(), &2.into()), "no markup came of it");
}

#[test]
fn ten_hours_of_64_threads_are_as_small() {
    let Some((browser, size, report)) = made("long", Made { seconds: 36_000.0, threads: 64, rate_hz: 1.0, turn: 3 }) else { return };
    assert!(size < 5_000_000, "{size} bytes");
    sound(&browser);
    agrees(&browser["processes"][0], &report);
    works(&browser["drive"]);
    assert!(browser["processes"][0]["view"].as_str().unwrap().contains("columns of"), "{}", browser["processes"][0]["view"]);
}
