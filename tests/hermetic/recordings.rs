//! Recordings: what is made of them is what a live run would have made, whatever ended the run; and two of them compared.
#![allow(clippy::unwrap_used)] // clippy knows tests, not their helpers

mod cli;
mod support;

use cli::{gilprof, two_interpreters, until, warnings, Running};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{alone, gilprof_command, scratch, Interpreter, Target};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn interpreter() -> Option<Interpreter> {
    two_interpreters().pop()
}

/// Random numbers that start elsewhere each time: what fails with one of them is printed.
fn dice() -> impl FnMut(u64) -> u64 {
    let mut state = u64::from(std::process::id()) << 32 | 0x9e37;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

#[test]
fn a_report_is_what_the_live_run_wrote() {
    let _alone = alone();
    let Some(interpreter) = interpreter() else { return };
    let target = Target::start(&interpreter, "mixed", &[]);
    let pid = target.pid().to_string();
    let recording = scratch("same.gilprof");
    let files = [
        "same.json",
        "same.folded",
        "same.svg",
        "same.pb.gz",
        "same.speedscope.json",
        "same.firefox.json",
        "same.firefox.json.gz",
        "same.pftrace",
    ];
    for flame in ["holding", "wall", "blame"] {
        let live = files.map(|name| scratch(&format!("live-{name}")));
        let again = files.map(|name| scratch(&format!("again-{name}")));
        let outputs = |paths: &[PathBuf]| paths.iter().flat_map(|path| ["-o".to_string(), text(path).to_string()]).collect::<Vec<_>>();
        let mut attach = vec!["attach", "--pid", &pid, "--duration", "1s", "--flame", flame, "-o", text(&recording)];
        let (live_outputs, again_outputs) = (outputs(&live), outputs(&again));
        attach.extend(live_outputs.iter().map(String::as_str));
        let said = gilprof(&attach);
        said.ended(0, &["wrote"]);
        let mut report = vec!["report", text(&recording), "--flame", flame];
        report.extend(again_outputs.iter().map(String::as_str));
        let replayed = gilprof(&report);
        replayed.ended(0, &["wrote"]);
        assert_eq!(said.out, replayed.out);
        for (live, again) in live.iter().zip(&again) {
            assert!(fs::read(live).unwrap() == fs::read(again).unwrap(), "{live:?} and {again:?} differ");
            fs::remove_file(live).unwrap();
            fs::remove_file(again).unwrap();
        }
    }
    fs::remove_file(recording).unwrap();
}

#[test]
fn whatever_kills_it_costs_at_most_the_last_second() {
    let _alone = alone();
    let Some(interpreter) = interpreter() else { return };
    let target = Target::start(&interpreter, "cpu", &["--threads", "3"]);
    let pid = target.pid().to_string();
    let (recording, mut dice, mut worst) = (scratch("killed.gilprof"), dice(), 0.0f64);
    for round in 0..50 {
        let running = Running::start(&["record", "--pid", &pid, "-o", text(&recording)]);
        until("it has begun to record", || fs::metadata(&recording).is_ok_and(|m| m.len() > 12));
        let (after, begun) = (dice(1000), monotonic());
        until("a moment has come that was drawn by lot", || monotonic() - begun > after as f64 / 1e3);
        running.signal(libc::SIGKILL);
        let killed = monotonic();
        until("gilprof is gone", || cli::state(running.pid()).is_none_or(|state| state == 'Z'));
        drop(running);
        let said = gilprof(&["report", text(&recording), "--format", "json"]);
        said.ended(0, &[]);
        let report = said.report();
        assert!(warnings(&report).contains("breaks off"), "{report:#}");
        let window = &report["window"];
        let missing = killed - (window["begin_ns"].as_f64().unwrap() / 1e9 + window["seconds"].as_f64().unwrap());
        assert!(missing < 1.0, "round {round}, killed after {after} ms: {missing} s are missing: {window:#}");
        worst = worst.max(missing);
        // Nor is a thread's time shorter: what threads did is told of a little later than what the GIL did.
        let lived = killed - window["begin_ns"].as_f64().unwrap() / 1e9;
        for worker in report["threads"].as_array().unwrap().iter().filter(|t| t["name"].as_str().unwrap().starts_with("worker-")) {
            let missing = lived - worker["seconds"].as_f64().unwrap();
            assert!(missing < 1.0, "round {round}, killed after {after} ms: {missing} s are missing: {worker:#}");
            worst = worst.max(missing);
        }
        fs::remove_file(&recording).unwrap();
    }
    println!("50 of 50 recordings of killed runs could be read; at most {worst:.2} s are missing");
}

fn monotonic() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the one timespec that it is given.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    assert_eq!(done, 0);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

#[test]
fn a_full_disk_ends_it_with_a_message_and_a_file_that_can_be_read() {
    let _alone = alone();
    let Some(interpreter) = interpreter() else { return };
    if !support::is_root() {
        return support::skip("a full disk: mounting a small tmpfs needs root");
    }
    let target = Target::start(&interpreter, "cpu", &["--threads", "3"]);
    let (dir, program) = (scratch("small"), gilprof_command(&[]));
    fs::create_dir_all(&dir).unwrap();
    let script = "mount -t tmpfs -o size=40k none \"$1\" || exit 77
        \"$2\" record --pid \"$3\" --duration 60s -o \"$1/run.gilprof\"; echo \"code $?\" >&2
        \"$2\" report \"$1/run.gilprof\" --format json";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", text(&dir)]).arg(program.get_program()).arg(target.pid().to_string());
    let said = Running::spawn(command).end();
    if said.status.code() == Some(77) || said.err.contains("unshare") {
        return support::skip(&format!("a full disk: no tmpfs can be mounted: {}", said.err));
    }
    said.ended(0, &["run.gilprof: No space left on device", "code 10"]);
    let report = said.report();
    let seconds = report["window"]["seconds"].as_f64().unwrap();
    assert!(seconds > 0.2 && seconds < 50.0 && warnings(&report).contains("breaks off"), "{report:#}");
    fs::remove_dir(dir).unwrap();
}

#[test]
fn recording_is_quiet_and_passes_on_the_exit_code() {
    let _alone = alone();
    let Some(interpreter) = interpreter() else { return };
    let file = scratch("quiet.gilprof");
    let mut command = gilprof_command(&["record", "-o", text(&file), "--"]);
    let python = interpreter.command();
    let code = "import time\nend = time.time() + .3\nwhile time.time() < end: pass\nraise SystemExit(3)";
    command.arg(python.get_program()).args(python.get_args()).args(["-c", code]);
    let said = Running::spawn(command).end();
    said.ended(3, &["wrote"]);
    assert_eq!((said.out.as_str(), said.err.lines().count()), ("", 1), "{said:#?}");
    gilprof(&["report", text(&file)]).ended(0, &[]).printed(&["gilprof  pid", "SERIAL"]);
    gilprof(&["record", "-o", text(&file)]).ended(2, &["--pid"]);
    gilprof(&["record", "--pid", "1"]).ended(2, &["--output"]);
    fs::remove_file(file).unwrap();
}

#[test]
fn the_workers_of_one_service_side_by_side() {
    let _alone = alone();
    let Some(interpreter) = interpreter() else { return };
    let files = ["one", "two"].map(|name| scratch(&format!("{name}.gilprof")));
    let mut pids = Vec::new();
    for file in &files {
        let target = Target::start(&interpreter, "cpu", &["--threads", "2"]);
        let pid = target.pid().to_string();
        gilprof(&["record", "--pid", &pid, "--duration", "500ms", "-o", text(file)]).ended(0, &["wrote"]);
        pids.push(target.pid());
    }
    let folded = scratch("both.folded");
    let said = gilprof(&["report", text(&files[0]), text(&files[1]), "--format", "json", "-o", text(&folded)]);
    let both = said.ended(0, &[]).report();
    assert_eq!(both["schema"], "gilprof.reports/1");
    for (n, pid) in pids.iter().enumerate() {
        assert_eq!(both["reports"][n]["target"]["pid"], *pid);
        let root = format!("cpu.py, pid {pid};");
        assert!(fs::read_to_string(&folded).unwrap().contains(&root), "no {root}");
    }
    let page = gilprof(&["report", text(&files[0]), text(&files[1])]);
    page.printed(&[&format!("pid {}", pids[0]), &format!("pid {}", pids[1])]);
    files.iter().chain([&folded]).for_each(|file| fs::remove_file(file).unwrap());
}

#[test]
fn what_cannot_be_read_is_refused_in_words() {
    let file = scratch("odd.gilprof");
    for (bytes, says) in
        [(&b"\x7fELF"[..], "is no recording"), (b"gilprof\0\x09\0\0\0", "a newer gilprof wrote it (format 9"), (b"", "is no recording")]
    {
        fs::write(&file, bytes).unwrap();
        gilprof(&["report", text(&file)]).ended(12, &[says, "odd.gilprof"]);
        gilprof(&["diff", text(&file), text(&file)]).ended(12, &[says]);
        // What is asked for in the wrong place harms no file.
        gilprof(&["report", text(&file), "-o", text(&file)]).ended(2, &["odd.gilprof would be a recording"]);
        gilprof(&["diff", text(&file), text(&file), "-o", text(&file)]).ended(2, &[".svg"]);
        assert_eq!(fs::read(&file).unwrap(), bytes);
    }
    fs::remove_file(&file).unwrap();
    gilprof(&["report", text(&file)]).ended(12, &["No such file"]);
    gilprof(&["report", "/"]).ended(12, &["it is a directory"]);
    gilprof(&["report", "/dev/null"]).ended(12, &["no regular file"]);
    gilprof(&["report"]).ended(2, &["FILE"]);
}

/// Facts and times that no program has: whatever is made of them is nonsense, but gilprof ends in its own words.
#[test]
fn hostile_recordings_do_no_harm() {
    use gilprof::ids::{GilId, ThreadId, Tid};
    use gilprof::profile::file::Recorder;
    use gilprof::sample::*;
    use gilprof::units::Nanos;
    use std::sync::Arc;
    const NAME: &str = "\x1b]0;x\x07<script>\n;#\u{202e}";
    let (file, most) = (scratch("hostile.gilprof"), Nanos::from_nanos(u64::MAX));
    let numbers = [f64::MAX, -f64::MAX, 0.0, -1.0, 1e-300, 1e17, 3.0];
    for (n, number) in numbers.into_iter().enumerate() {
        let mut recorder = Recorder::new(fs::File::create(&file).unwrap());
        let function = Arc::new(Function { name: NAME.into(), file: NAME.into(), first_line: u32::MAX });
        let stack = Arc::new(Stack { frames: vec![Frame { function, line: u32::MAX }; 3000], trust: Trust::Moving });
        for id in [0, 1, u32::MAX] {
            let (tid, gil) = (Tid(i32::MIN), GilId(u32::MAX - 1 - id % 2));
            recorder.thread(&ThreadFacts { id: ThreadId(id), tid, name: NAME.into(), python: true, main: true, gil: Some(gil) });
            for (end, length) in [(u64::MAX, 9e16), (0, 1e6), (u64::MAX, 1e6), (5, 9e16)] {
                for (state, evidence) in [(State::HoldingBlocked, Evidence::GilHolder), (State::Waiting, Evidence::Conservation)] {
                    let mut split = Split::whole(state, length);
                    split.add(State::Native, length);
                    let (end, holder) = (Nanos::from_nanos(end), Some((ThreadId(1), &stack)));
                    recorder.slice(&Slice { thread: ThreadId(id), end, split, evidence, stack: &stack, holder });
                }
            }
            for at in [most, Nanos::ZERO, most] {
                let holder = [Holder::Thread(ThreadId(id)), Holder::Unmatched, Holder::Nobody][n % 3];
                recorder.gil(&GilLook {
                    gil,
                    at,
                    span: most,
                    holder,
                    switches: Some(at.as_nanos()),
                    waiters: u32::MAX,
                    collecting: Some(true),
                });
                recorder.exact(&Exact { thread: ThreadId(id), gil, stretch: Stretch::Wait, begin: most, end: at });
            }
            recorder.thread_end(ThreadId(id), ThreadTotals { cpu: most, run_queue: most, seen: [Nanos::ZERO, most][n % 2] });
        }
        let command = vec![NAME.into(); 3];
        let target = TargetFacts {
            pid: i32::MIN,
            python: NAME.into(),
            command,
            cpus: number,
            quota: Some(number),
            machine_cpus: Some(-number),
            interpreters: u32::MAX,
            switch_interval_us: Some(u64::MAX),
            gil_enabled: n % 2 == 0,
            ..TargetFacts::default()
        };
        let window = WindowFacts {
            begin: [most, Nanos::ZERO][n % 2],
            seconds: number,
            rate_hz: number,
            looks: u64::MAX,
            missed: u64::MAX,
            torn: u64::MAX,
            failed: u64::MAX,
            profiler_cpu: number,
            exact: n % 2 == 0,
            events: u64::MAX,
            warnings: vec![NAME.into()],
            ..WindowFacts::default()
        };
        recorder.finish(&target, &window).unwrap();
        let made = ["x.json", "x.svg", "x.folded", "x.pb.gz", "x.speedscope.json", "x.firefox.json", "x.pftrace"].map(scratch);
        let mut words = vec!["report", text(&file), "--flame", "wall"];
        made.iter().for_each(|path| words.extend(["-o", text(path)]));
        let said = gilprof(&words);
        said.ended(0, &[]);
        assert!(!said.out.contains(['\x1b', '\u{202e}']), "{said:?}");
        gilprof(&["diff", text(&file), text(&file)]).ended(0, &[]);
        made.iter().for_each(|path| fs::remove_file(path).unwrap());
    }
    fs::remove_file(file).unwrap();
}

/// `tests/dumps/recordings/vN.gilprof`, each written by the gilprof that first wrote format N, with the figures that it has to give for ever.
#[test]
fn recordings_of_every_version_stay_readable() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dumps/recordings");
    for version in 1..=gilprof::profile::file::VERSION {
        let file = folder.join(format!("v{version}.gilprof"));
        let said = gilprof(&["report", text(&file), "--format", "json"]);
        let report = said.ended(0, &[]).report();
        let golden: serde_json::Value = serde_json::from_str(&fs::read_to_string(file.with_extension("json")).unwrap()).unwrap();
        for part in ["target", "window", "gil", "threads", "functions", "blame"] {
            // Fields may be added.
            assert!(contains(&report[part], &golden[part]), "{part} of {file:?} is now {:#}", report[part]);
        }
    }
}

fn contains(now: &serde_json::Value, then: &serde_json::Value) -> bool {
    match (now, then) {
        (serde_json::Value::Object(now), serde_json::Value::Object(then)) => {
            then.iter().all(|(key, then)| now.get(key).is_some_and(|now| contains(now, then)))
        }
        (serde_json::Value::Array(now), serde_json::Value::Array(then)) => {
            now.len() == then.len() && now.iter().zip(then).all(|(now, then)| contains(now, then))
        }
        (now, then) => now == then,
    }
}

#[test]
fn two_runs_of_one_program_do_not_differ_and_another_does() {
    let _alone = alone();
    let Some(interpreter) = interpreter() else { return };
    let files = ["base", "same", "more"].map(|name| scratch(&format!("{name}.gilprof")));
    for (file, threads) in files.iter().zip(["2", "2", "3"]) {
        let target = Target::start(&interpreter, "cpu", &["--threads", threads]);
        gilprof(&["record", "--pid", &target.pid().to_string(), "--duration", "2s", "-o", text(file)]).ended(0, &["wrote"]);
    }
    let diff = |new: &PathBuf, args: &[&str]| gilprof(&[&["diff", text(&files[0]), text(new)], args].concat());
    let same = diff(&files[1], &["--format", "json"]);
    assert_eq!(same.ended(0, &[]).report()["real"], false, "{}", same.out);
    let svg = scratch("diff.svg");
    let more = diff(&files[2], &["-o", text(&svg)]);
    more.ended(0, &["wrote"]).printed(&["DIFFERENT", "waiting", "threads waiting"]);
    assert!(fs::read_to_string(&svg).unwrap().contains("red has grown"));
    diff(&files[2], &["-o", "x.folded"]).ended(2, &[".svg"]);
    files.iter().chain([&svg]).for_each(|file| fs::remove_file(file).unwrap());
}
