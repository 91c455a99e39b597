//! Every picture in its viewer: the viewer's figures are those of the report, within 1 % or
//! [`FLOOR`].
//!
//! Two programs are recorded once: one with a thread in each state, and three threads that take
//! turns at the GIL. The files have both recordings, so that each viewer must keep the processes
//! apart.

use crate::support::{self, cli, viewers};
use cli::two_interpreters;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use support::{gilprof, serial_guard, Interpreter, Target};
use viewers::{node, printed, viewer, Profiler};

/// Nanoseconds of thread time by which a figure may be off if 1 % of it is less: two samples, of
/// windows of 3000.
const FLOOR: f64 = 2e6;

/// The recordings' reports, and the files made from them.
struct Made {
    folder: PathBuf,
    reports: Vec<Value>,
}

impl Made {
    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().into()
    }
}

/// Nanoseconds by process, thread and state.
type Times = BTreeMap<(String, String, String), f64>;

/// The files of both recordings, and of the first alone.
const FILES: [&str; 6] = ["both.pb.gz", "both.speedscope.json", "both.firefox.json", "both.firefox.json.gz", "both.pftrace", "both.folded"];

/// Makes the files once in a run of the tests: nextest starts a process for each test.
fn made() -> Option<&'static Made> {
    static MADE: OnceLock<Option<Made>> = OnceLock::new();
    let make = || {
        let Some(interpreter) = two_interpreters().pop() else {
            support::skip("viewers: there is no interpreter that needs no other root");
            return None;
        };
        let _alone = serial_guard();
        let run = std::env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| std::process::id().to_string());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("viewers"); // the same each time: the files of the last run stay
        let (marker, reports) = (folder.join("run"), folder.join("reports.json"));
        if !fs::read_to_string(&marker).is_ok_and(|made_by| made_by == run) {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(&reports, record(&interpreter, &folder)).unwrap();
            fs::write(&marker, run).unwrap(); // last: until then the folder is not complete
        }
        let both: Value = serde_json::from_slice(&fs::read(&reports).unwrap()).unwrap();
        Some(Made { folder, reports: both["reports"].as_array().unwrap().clone() })
    };
    MADE.get_or_init(make).as_ref()
}

/// Records both programs, writes all files, and returns the reports' JSON.
fn record(interpreter: &Interpreter, folder: &Path) -> Vec<u8> {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_string();
    let recordings = [path("mixed.gilprof"), path("turns.gilprof")];
    for (recording, (workload, args)) in recordings.iter().zip([("mixed", &[][..]), ("cpu", &["--threads", "3"])]) {
        let target = Target::start(interpreter, workload, args);
        succeed(&["record", "--pid", &target.pid().to_string(), "--duration", "3s", "-o", recording]);
    }
    let [one, two] = &recordings;
    succeed(&["report", one, "-o", &path("one.pb.gz"), "-o", &path("one.pftrace"), "-o", &path("one.speedscope.json")]);
    let files: Vec<String> = FILES.iter().map(|name| path(name)).collect();
    let outputs = files.iter().flat_map(|file| ["-o", file]);
    let words: Vec<&str> = ["report", one, two, "--flame", "wall", "--by-thread", "--format", "json"].into_iter().chain(outputs).collect();
    succeed(&words)
}

fn succeed(args: &[&str]) -> Vec<u8> {
    let out = gilprof(args);
    assert!(out.status.success(), "gilprof {args:?}: {out:?}");
    out.stdout
}

#[track_caller]
fn near(what: &str, got: f64, wanted: f64, floor: f64) {
    assert!((got - wanted).abs() <= (wanted.abs() * 0.01).max(floor), "{what}: {got} in the viewer, {wanted} in the report");
}

/// `app.py, pid 4242`.
fn process(report: &Value) -> String {
    let script = report["target"]["command"].as_array().unwrap().iter().filter_map(|w| w.as_str()).find(|w| w.ends_with(".py")).unwrap();
    format!("{}, pid {}", script.rsplit('/').next().unwrap(), report["target"]["pid"])
}

/// The figures of the reports.
fn times(reports: &[Value]) -> Times {
    let mut times = Times::new();
    for report in reports {
        for thread in report["threads"].as_array().unwrap() {
            let nanos = thread["seconds"].as_f64().unwrap() * 1e9;
            let (states, holding) = (&thread["states"], &thread["holding"]);
            let held = ["python", "native", "blocked", "starved"].map(|part| (format!("holding ({part})"), &holding[part]));
            let rest = ["waiting", "native", "starved", "lock", "io", "unknown"].map(|state| (state.to_string(), &states[state]));
            for (state, share) in held.into_iter().chain(rest) {
                let key = (process(report), thread["name"].as_str().unwrap().into(), state);
                *times.entry(key).or_default() += share.as_f64().unwrap() * nanos;
            }
        }
    }
    times
}

/// Both have the same times, and those of the report are not trivial.
#[track_caller]
fn same_times(got: &Times, wanted: &Times) {
    let keys: std::collections::BTreeSet<_> = got.keys().chain(wanted.keys()).collect();
    for key in keys {
        near(&format!("{key:?}"), got.get(key).copied().unwrap_or(0.0), wanted.get(key).copied().unwrap_or(0.0), FLOOR);
    }
    assert!(wanted.values().filter(|&&nanos| nanos > 50.0 * FLOOR).count() >= 10, "{wanted:#?}");
}

/// A figure of each function by its name, in nanoseconds.
fn functions(reports: &[Value], figure: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for report in reports {
        let seconds = report["window"]["seconds"].as_f64().unwrap();
        for function in report["functions"].as_array().unwrap() {
            *sums.entry(function["name"].as_str().unwrap().to_string()).or_default() += function[figure].as_f64().unwrap() * seconds * 1e9;
        }
    }
    sums
}

#[test]
fn pprof_s_tables_are_the_report_s() {
    let (Some(go), Some(made)) = (viewer("go"), made()) else { return };
    let ask = |kind: &str, words: &[&str], file: &str| {
        let mut command = Command::new(&go);
        let unit = if kind == "samples" { "-unit=count" } else { "-unit=us" };
        command.args(["tool", "pprof", unit, "-nodefraction=0", "-nodecount=10000", &format!("-sample_index={kind}")]);
        printed(command.args(words).arg(made.file(file)))
    };
    let wanted = times(&made.reports);
    for kind in ["holding", "waiting", "inflicted_wait", "native"] {
        for (file, reports) in [("one.pb.gz", &made.reports[..1]), ("both.pb.gz", &made.reports[..])] {
            let (total, flat) = top(&ask(kind, &["-top"], file));
            let functions = functions(reports, kind);
            near(kind, total, functions.values().sum(), FLOOR);
            assert!(total > 10.0 * FLOOR, "too little {kind} for a comparison");
            for (name, nanos) in &functions {
                near(&format!("{kind} of {name}"), flat.get(name).copied().unwrap_or(0.0), *nanos, FLOOR);
            }
        }
    }
    let (total, flat) = top(&ask("wall", &["-top"], "both.pb.gz"));
    near("wall", total, wanted.values().sum(), FLOOR);
    assert!(flat.contains_key("<module>") && !flat.contains_key("<unknown>"), "{flat:#?}");
    // Samples: a thousand a second for each thread.
    let (samples, _) = top(&ask("samples", &["-top"], "both.pb.gz"));
    near("samples", samples, wanted.values().sum::<f64>() / 1e6, 10.0);
    let tags = ask("wall", &["-tags"], "both.pb.gz");
    let sums = |part: fn(&(String, String, String)) -> &String| {
        wanted.iter().fold(BTreeMap::<&String, f64>::new(), |mut sums, (key, nanos)| {
            *sums.entry(part(key)).or_default() += nanos;
            sums
        })
    };
    for (label, sums) in [("process", sums(|k| &k.0)), ("thread", sums(|k| &k.1)), ("state", sums(|k| &k.2))] {
        let answer = tag(&tags, label);
        for (value, nanos) in sums {
            near(&format!("{label} {value}"), answer.get(value).copied().unwrap_or(0.0), nanos, FLOOR);
        }
    }
}

/// A time as pprof writes it in microseconds, in nanoseconds; a plain number unchanged.
fn amount(text: &str) -> f64 {
    match text.strip_suffix("us") {
        Some(micros) => micros.parse::<f64>().unwrap() * 1e3,
        None => text.parse().unwrap_or_else(|e| panic!("{text:?}: {e}")),
    }
}

/// The total of a `-top` table, and the flat figure of each function.
fn top(text: &str) -> (f64, BTreeMap<String, f64>) {
    let line = text.lines().find_map(|line| line.strip_prefix("Showing nodes accounting for ")).unwrap_or_else(|| panic!("{text}"));
    let total = amount(line.split(" of ").nth(1).unwrap().trim_end_matches(" total"));
    let mut flat = BTreeMap::new();
    for line in text.lines().skip_while(|line| !line.trim_start().starts_with("flat ")).skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        *flat.entry(words[5..].join(" ")).or_default() += amount(words[0]);
    }
    (total, flat)
}

/// The values of one label in the output of `-tags`: ` label: Total …`, then ` AMOUNT (SHARE):
/// VALUE` a line.
fn tag(text: &str, label: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().skip_while(|line| !line.trim_start().starts_with(&format!("{label}: Total "))).skip(1);
    let row = |line: &str| {
        let (amount_there, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?}"));
        (value.to_string(), amount(amount_there.split_whitespace().next().unwrap()))
    };
    lines.take_while(|line| !line.trim().is_empty()).map(row).collect()
}

#[test]
fn the_firefox_profiler_reads_states_and_waits() {
    let Some(made) = made() else { return };
    for file in ["both.firefox.json", "both.firefox.json.gz"] {
        let Some(profiler) = Profiler::load(&made.file(file)) else { return };
        let ask = |words: &[&str]| profiler.ask(words);
        let info = ask(&["profile", "info", "--all"]);
        let mut got = Times::new();
        for process in info["processes"].as_array().unwrap() {
            for thread in process["threads"].as_array().unwrap() {
                let handle = thread["threadHandle"].as_str().unwrap();
                let samples = ask(&["thread", "samples", "--thread", handle, "--include-idle"]);
                for category in samples["categoryBreakdown"]["categories"].as_array().unwrap() {
                    let pid = process["pid"].as_str().unwrap();
                    let process = format!("{}, pid {pid}", process["name"].as_str().unwrap());
                    let key = (process, thread["name"].as_str().unwrap().into(), category["name"].as_str().unwrap().into());
                    *got.entry(key).or_default() += category["samples"].as_f64().unwrap() * 1e6;
                }
                let answer = ask(&["thread", "info", "--thread", handle]);
                assert_eq!((&answer["name"], &answer["tid"]), (&thread["name"], &thread["tid"]));
                if thread["name"].as_str().unwrap().starts_with("worker-") {
                    markers(&ask(&["thread", "markers", "--thread", handle]), &got);
                }
            }
        }
        same_times(&got, &times(&made.reports));
        assert_eq!(info["processCount"], 2);
    }
}

/// Waits and holds are markers with a length, which add up to the thread's time. A wait names the
/// holder and its function.
fn markers(answer: &Value, got: &Times) {
    let thread = answer["friendlyThreadName"].as_str().unwrap();
    for (marker, label, state) in
        [("GIL wait", "Waited for the GIL, held by worker-", "waiting"), ("GIL hold", "Held the GIL in burn (cpu.py:", "holding")]
    {
        let kind =
            answer["byType"].as_array().unwrap().iter().find(|kind| kind["markerName"] == marker).unwrap_or_else(|| panic!("{answer:#}"));
        let mean = kind["durationStats"]["avg"].as_f64().unwrap();
        let of_state = got.iter().filter(|((_, name, of), _)| name == thread && of.starts_with(state));
        near(&format!("{marker} of {thread}"), mean * kind["count"].as_f64().unwrap() * 1e6, of_state.map(|(_, nanos)| nanos).sum(), FLOOR);
        for top in kind["topMarkers"].as_array().unwrap() {
            let (says, length) = (top["label"].as_str().unwrap(), top["duration"].as_f64().unwrap());
            assert!(
                says.starts_with(label) && says.contains("burn (cpu.py:") && !says.contains(thread) && length > 0.0,
                "{thread}: {top:#}"
            );
        }
    }
}

#[test]
fn speedscope_shows_each_thread_s_time() {
    let (Some(release), Some(made)) = (viewer("speedscope"), made()) else { return };
    let files = ["both.speedscope.json", "one.speedscope.json", "both.pb.gz"];
    let paths = files.map(|name| made.file(name));
    let words: Vec<&str> = [release.to_str().unwrap()].into_iter().chain(paths.iter().map(String::as_str)).collect();
    let Some(answer) = node("speedscope.mjs", &words) else { return };
    for file in files {
        assert_eq!(answer[file]["errors"], serde_json::json!([]), "{file}");
    }
    for (file, reports) in [(files[0], &made.reports[..]), (files[1], &made.reports[..1])] {
        let wanted = times(reports);
        let mut got = Times::new();
        for profile in answer[file]["profiles"].as_array().unwrap() {
            let (process, what) = profile["name"].as_str().unwrap().rsplit_once(": ").unwrap();
            let of_process = |state: &str| -> f64 {
                wanted.iter().filter(|((of, _, is), _)| of == process && is.starts_with(state)).map(|(_, nanos)| nanos).sum()
            };
            let rows: Vec<(&str, f64)> =
                profile["rows"].as_array().unwrap().iter().map(|row| (row["name"].as_str().unwrap(), shown(&row["self"]))).collect();
            let all: f64 = rows.iter().map(|(_, nanos)| nanos).sum();
            match what {
                "time holding the GIL" => near(what, all, of_process("holding"), FLOOR),
                "time waiting for the GIL" => near(what, all, of_process("waiting"), FLOOR),
                thread => rows.into_iter().filter(|row| row.1 > 0.0).for_each(|(state, nanos)| {
                    let state =
                        state.strip_prefix('[').and_then(|s| s.strip_suffix(']')).unwrap_or_else(|| panic!("{state} has time itself"));
                    got.insert((process.into(), thread.into(), state.into()), nanos);
                }),
            }
        }
        same_times(&got, &wanted);
    }
    // Of pprof's file, the viewer shows the default type.
    let rows = answer["both.pb.gz"]["profiles"][0]["rows"].as_array().unwrap();
    for (name, nanos) in functions(&made.reports, "waiting") {
        let of_name = rows.iter().filter(|row| row["name"] == *name); // both programs have a `burn`
        near(&format!("waiting of {name}"), of_name.map(|row| shown(&row["self"])).sum(), nanos, FLOOR);
    }
}

/// `1.47s (23%)`, as speedscope writes times, in nanoseconds.
fn shown(cell: &Value) -> f64 {
    let text = cell.as_str().unwrap().split_whitespace().next().unwrap();
    let units = [("ns", 1.0), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)];
    let (number, unit) = units.iter().find_map(|(unit, nanos)| Some((text.strip_suffix(unit)?, nanos))).unwrap_or_else(|| panic!("{cell}"));
    number.parse::<f64>().unwrap_or_else(|e| panic!("{cell}: {e}")) * unit
}

#[test]
fn perfetto_s_trace_processor_finds_states_counters_and_arrows() {
    let (Some(ui), Some(made)) = (viewer("perfetto"), made()) else { return };
    let Some(answer) = node("perfetto.mjs", &[ui.to_str().unwrap(), &made.file("one.pftrace"), &made.file("both.pftrace")]) else { return };
    for (file, reports) in [("one.pftrace", &made.reports[..1]), ("both.pftrace", &made.reports[..])] {
        let answer = &answer[file];
        assert_eq!(answer["errors"], serde_json::json!([]), "{file}");
        let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_string();
        let mut got = Times::new();
        for row in answer["states"].as_array().unwrap() {
            let state = text(row, "state").replace("GIL wait", "waiting");
            *got.entry((text(row, "process"), text(row, "thread"), state)).or_default() += row["nanos"].as_f64().unwrap();
        }
        same_times(&got, &times(reports));
        for report in reports {
            let counter = |name: &str| {
                let mut rows = answer["counters"].as_array().unwrap().iter();
                rows.find(|row| text(row, "process") == process(report) && row["name"] == name).unwrap_or_else(|| panic!("{answer:#}"))
            };
            near("GIL busy", counter("GIL 0 busy")["mean"].as_f64().unwrap(), report["gil"]["busy"].as_f64().unwrap(), 0.002);
            let behind = answer["behind"].as_array().unwrap().iter().find(|row| text(row, "process") == process(report)).unwrap();
            let inflicted: f64 = functions(std::slice::from_ref(report), "inflicted_wait").values().sum();
            near("waiting with a known holder", behind["nanos"].as_f64().unwrap(), inflicted, FLOOR);
            let waiters = counter("GIL 0 waiters");
            let (mean, most) = (waiters["mean"].as_f64().unwrap(), waiters["most"].as_f64().unwrap());
            assert!(mean > 0.5 && mean <= 1.01 * report["gil"]["waiters_mean"].as_f64().unwrap() && most >= 2.0, "{waiters:#}");
        }
        let arrows = &answer["arrows"];
        assert!(arrows["count"].as_f64().unwrap() > 100.0, "{arrows:#}");
        for never in ["to_itself", "not_of_holds", "between_processes"] {
            assert_eq!(arrows[never].as_f64(), Some(0.0), "{never}: {arrows:#}");
        }
        // An arrow leads from the point where one thread released the GIL to the point where the
        // other took it, not from the middle of a hold.
        assert!(arrows["longest"].as_f64().unwrap() <= 3.001e6, "{arrows:#}");
    }
}

#[test]
fn folded_stacks_in_other_readers() {
    let Some(made) = made() else { return };
    // Process, thread, …, [state], and microseconds.
    let reader = "import sys, json, collections
sums = collections.Counter()
for line in open(sys.argv[1]):
    stack, _, count = line.rstrip('\\n').rpartition(' ')
    frames = stack.split(';')
    sums[json.dumps([frames[0], frames[1], frames[-1][1:-1]])] += int(count)
print(json.dumps([[json.loads(key), count] for key, count in sums.items()]))";
    let folded = made.file("both.folded");
    let answer: Vec<([String; 3], f64)> = serde_json::from_str(&printed(Command::new("python3").args(["-c", reader, &folded]))).unwrap();
    let got: Times = answer.into_iter().map(|([process, thread, state], micros)| ((process, thread, state), micros * 1e3)).collect();
    let wanted = times(&made.reports);
    same_times(&got, &wanted);
    let (text, mut svg) = (fs::read_to_string(&folded).unwrap(), Vec::new());
    inferno::flamegraph::from_lines(&mut inferno::flamegraph::Options::default(), text.lines(), &mut svg).unwrap();
    let svg = String::from_utf8(svg).unwrap();
    let all = svg.split("<title>all (").nth(1).unwrap().split(' ').next().unwrap().replace(',', "");
    near("inferno's total", all.parse::<f64>().unwrap() * 1e3, wanted.values().sum(), FLOOR);
}
