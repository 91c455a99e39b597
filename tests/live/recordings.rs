//! Recordings: their reports are those of a live run, whatever ended the run; and comparisons of
//! two recordings.

use crate::harness::Suite;
use crate::once;
use crate::support::{self, cli};
use cli::{gilprof, two_interpreters, until, warnings, Running};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{gilprof_command, scratch, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    once!(
        suite,
        [
            a_report_is_what_the_live_run_wrote,
            a_kill_costs_at_most_the_last_second,
            a_full_disk_ends_it_with_a_message_and_a_file_that_can_be_read,
            recording_is_quiet_and_passes_on_the_exit_code,
            the_workers_of_one_service_side_by_side,
            two_runs_of_one_program_do_not_differ_and_another_does
        ]
    );
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn interpreter() -> Option<Interpreter> {
    let found = two_interpreters().pop();
    if found.is_none() {
        support::skip("recordings: there is no interpreter that needs no other root");
    }
    found
}

/// Random numbers with a new seed in each run. A failure prints its number.
fn dice() -> impl FnMut(u64) -> u64 {
    let mut state = u64::from(std::process::id()) << 32 | 0x9e37;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

fn a_report_is_what_the_live_run_wrote() {
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
        let output = gilprof(&attach);
        output.ended(0, &["wrote"]);
        let mut report = vec!["report", text(&recording), "--flame", flame];
        report.extend(again_outputs.iter().map(String::as_str));
        let replayed = gilprof(&report);
        replayed.ended(0, &["wrote"]);
        assert_eq!(output.out, replayed.out);
        for (live, again) in live.iter().zip(&again) {
            assert!(fs::read(live).unwrap() == fs::read(again).unwrap(), "{live:?} and {again:?} differ");
            fs::remove_file(live).unwrap();
            fs::remove_file(again).unwrap();
        }
    }
    fs::remove_file(recording).unwrap();
}

fn a_kill_costs_at_most_the_last_second() {
    let Some(interpreter) = interpreter() else { return };
    let target = Target::start(&interpreter, "cpu", &["--threads", "3"]);
    let pid = target.pid().to_string();
    let (recording, mut dice, mut worst) = (scratch("killed.gilprof"), dice(), 0.0f64);
    let rounds = if support::all() { 50 } else { 10 };
    for round in 0..rounds {
        let running = Running::start(&["record", "--pid", &pid, "-o", text(&recording)]);
        until("it has begun to record", || fs::metadata(&recording).is_ok_and(|m| m.len() > 12));
        let (after, begun) = (dice(1000), monotonic());
        until("a random moment has come", || monotonic() - begun > after as f64 / 1e3);
        running.signal(libc::SIGKILL);
        let killed = monotonic();
        until("gilprof is gone", || cli::state(running.pid()).is_none_or(|state| state == 'Z'));
        drop(running);
        let output = gilprof(&["report", text(&recording), "--format", "json"]);
        output.ended(0, &[]);
        let report = output.report();
        assert!(warnings(&report).contains("breaks off"), "{report:#}");
        let window = &report["window"];
        let missing = killed - (window["begin_ns"].as_f64().unwrap() / 1e9 + window["seconds"].as_f64().unwrap());
        assert!(missing < 1.0, "round {round}, killed after {after} ms: {missing} s are missing: {window:#}");
        worst = worst.max(missing);
        // A thread's time is not shorter either. The states of threads are emitted a little later
        // than those of the GIL.
        let lived = killed - window["begin_ns"].as_f64().unwrap() / 1e9;
        for worker in report["threads"].as_array().unwrap().iter().filter(|t| t["name"].as_str().unwrap().starts_with("worker-")) {
            let missing = lived - worker["seconds"].as_f64().unwrap();
            assert!(missing < 1.0, "round {round}, killed after {after} ms: {missing} s are missing: {worker:#}");
            worst = worst.max(missing);
        }
        fs::remove_file(&recording).unwrap();
    }
    println!("{rounds} of {rounds} recordings of killed runs could be read; at most {worst:.2} s are missing");
}

fn monotonic() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the given timespec.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    assert_eq!(done, 0);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

fn a_full_disk_ends_it_with_a_message_and_a_file_that_can_be_read() {
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
    let output = Running::spawn(command).end();
    if output.status.code() == Some(77) || output.err.contains("unshare") {
        return support::skip(&format!("a full disk: no tmpfs can be mounted: {}", output.err));
    }
    output.ended(0, &["run.gilprof: No space left on device", "code 10"]);
    let report = output.report();
    let seconds = report["window"]["seconds"].as_f64().unwrap();
    assert!(seconds > 0.2 && seconds < 50.0 && warnings(&report).contains("breaks off"), "{report:#}");
    fs::remove_dir(dir).unwrap();
}

fn recording_is_quiet_and_passes_on_the_exit_code() {
    let Some(interpreter) = interpreter() else { return };
    let file = scratch("quiet.gilprof");
    let mut command = gilprof_command(&["record", "-o", text(&file), "--"]);
    let python = interpreter.command();
    let code = "import time\nend = time.time() + .3\nwhile time.time() < end: pass\nraise SystemExit(3)";
    command.arg(python.get_program()).args(python.get_args()).args(["-c", code]);
    let output = Running::spawn(command).end();
    output.ended(3, &["wrote"]);
    assert_eq!((output.out.as_str(), output.err.lines().count()), ("", 1), "{output:#?}");
    gilprof(&["report", text(&file)]).ended(0, &[]).printed(&["gilprof  pid", "Serial"]);
    gilprof(&["record", "-o", text(&file)]).ended(2, &["--pid"]);
    gilprof(&["record", "--pid", "1"]).ended(2, &["--output"]);
    fs::remove_file(file).unwrap();
}

fn the_workers_of_one_service_side_by_side() {
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
    let output = gilprof(&["report", text(&files[0]), text(&files[1]), "--format", "json", "-o", text(&folded)]);
    let both = output.ended(0, &[]).report();
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

fn two_runs_of_one_program_do_not_differ_and_another_does() {
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
