//! `gilprof attach` from its first sample to its report: its ends, events in the target meanwhile,
//! and the terminal.

use crate::harness::{newest, Suite};
use crate::on;
use crate::support::{self, cli};
use cli::{gilprof, share, shrink, two_interpreters, until, warnings, Running};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use support::{interpreters, legacy_interpreters, scratch, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    on!(
        suite,
        two_interpreters(),
        [
            a_signal_ends_the_window_early_and_what_was_seen_is_reported,
            the_target_becomes_something_else,
            a_child_of_the_target_does_not_matter
        ]
    );
    on!(
        suite,
        newest(two_interpreters()),
        [
            even_a_slow_rate_hears_a_signal_at_once,
            a_second_signal_ends_gilprof_and_leaves_no_empty_file,
            a_signal_while_a_python_is_waited_for,
            hangups_are_heeded_unless_nohup_says_otherwise,
            a_window_without_end_ends_with_the_target_and_that_is_no_warning,
            a_terminal_has_a_live_line_and_ctrl_c,
            a_stopped_terminal_does_not_stop_the_samples
        ]
    );
    on!(
        suite,
        interpreters(),
        [the_target_ends_in_the_middle, the_target_becomes_another_python, threads_that_start_and_end_lose_no_sample]
    );
    on!(suite, legacy_interpreters(), [old_pythons_get_a_report_that_claims_no_more_than_is_known]);
    on!(suite, newest(interpreters()), [no_live_line_without_a_terminal, endings_choose_the_formats_of_files]);
}

/// An endless window on a program with two threads that compute, after gilprof's first sample.
fn endless(target: &Target, more: &[&str]) -> Running {
    let pid = target.pid().to_string();
    let running = Running::start(&[&["attach", "--pid", &pid, "--duration", "0", "--format", "json"], more].concat());
    running.measures(target);
    running
}

fn a_signal_ends_the_window_early_and_what_was_seen_is_reported(interpreter: &Interpreter) {
    for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let target = Target::start(interpreter, "steps", &[]);
        let file = scratch("early.folded");
        let running = endless(&target, &["-o", file.to_str().unwrap()]);
        running.signal(number);
        let output = running.end();
        output.ended(0, &["wrote"]);
        let report = output.report();
        assert!(report["window"]["samples"].as_u64().unwrap() > 0 && report["warnings"].as_array().unwrap().is_empty(), "{report:#}");
        std::fs::remove_file(file).unwrap();
    }
}

fn even_a_slow_rate_hears_a_signal_at_once(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "steps", &[]);
    let running = endless(&target, &["--rate", "1"]);
    running.signal(libc::SIGINT);
    let report = running.end().report();
    assert!(report["window"]["seconds"].as_f64().unwrap() < 0.9, "{report:#}");
}

fn a_second_signal_ends_gilprof_and_leaves_no_empty_file(interpreter: &Interpreter) {
    let mut target = Target::start(interpreter, "steps", &["--threads", "1"]);
    let (pid, pipe, blank) = (target.pid().to_string(), scratch("pipe.svg"), scratch("blank.json"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || {
            // A flame graph is longer than the pipe's buffer, so that gilprof stops while it
            // writes.
            let file = std::fs::File::open(pipe).unwrap();
            shrink(file.as_raw_fd());
            file
        }
    });
    let (pipe, blank) = (pipe.to_str().unwrap(), blank.to_str().unwrap());
    let running = Running::start(&["attach", "--pid", &pid, "--duration", "0", "-o", pipe, "-o", blank]);
    let file = reader.join().unwrap();
    running.measures(&target);
    // A few samples are needed, or the flame graph is empty and fits into the pipe.
    target.send("churn");
    assert_eq!(target.line(), "churned");
    assert!(std::path::Path::new(blank).exists());
    running.signal(libc::SIGINT);
    let mut flamegraph = BufReader::with_capacity(16, file);
    flamegraph.read_line(&mut String::new()).unwrap();
    running.signal(libc::SIGINT);
    running.end().ended(130, &[]);
    assert!(!std::path::Path::new(blank).exists());
    std::fs::remove_file(pipe).unwrap();
}

fn a_signal_while_a_python_is_waited_for(interpreter: &Interpreter) {
    let held = cli::Held::start(interpreter, "pass");
    let running = Running::start(&["attach", "--pid", &held.pid().to_string()]);
    assert!(running.err_line().contains("waiting a moment"));
    running.signal(libc::SIGINT);
    running.end().ended(130, &[]);
}

fn hangups_are_heeded_unless_nohup_says_otherwise(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "steps", &[]);
    let mut nohup = Command::new("nohup");
    nohup.arg(env!("CARGO_BIN_EXE_gilprof")).args(["attach", "--pid", &target.pid().to_string(), "--duration", "0", "--format", "json"]);
    let running = Running::spawn(nohup);
    running.measures(&target);
    // The mask of caught signals does not contain this one.
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
    assert_eq!(u64::from_str_radix(&caught, 16).unwrap() >> (libc::SIGHUP - 1) & 1, 0, "{status}");
    running.signal(libc::SIGHUP);
    running.signal(libc::SIGTERM);
    running.end().ended(0, &[]).report();
}

fn the_target_ends_in_the_middle(interpreter: &Interpreter) {
    let mut target = Target::start(interpreter, "steps", &[]);
    let pid = target.pid().to_string();
    let running = Running::start(&["attach", "--pid", &pid, "--duration", "1h", "--format", "json"]);
    running.measures(&target);
    target.send("exit");
    let output = running.end();
    let report = output.ended(0, &[]).report();
    assert!(warnings(&report).contains("the program ended; the report covers the"), "{}: {report:#}", interpreter.label);
}

fn a_window_without_end_ends_with_the_target_and_that_is_no_warning(interpreter: &Interpreter) {
    let mut target = Target::start(interpreter, "steps", &[]);
    let running = endless(&target, &[]);
    target.send("exit");
    assert_eq!(warnings(&running.end().ended(0, &[]).report()), "");
}

fn the_target_becomes_another_python(interpreter: &Interpreter) {
    let mut target = Target::start(interpreter, "steps", &[]);
    let running = endless(&target, &[]);
    target.send("exec");
    let threads: serde_json::Value = serde_json::from_str(&target.line()).unwrap();
    assert_eq!(target.line(), "ready");
    running.watches(&target, threads["tids"]["worker-1"].as_i64().unwrap());
    running.signal(libc::SIGINT);
    let report = running.end().ended(0, &[]).report();
    let wanted = format!("the process replaced itself by another program; it runs Python {} since", interpreter.version);
    assert_eq!(warnings(&report), wanted, "{}: {report:#}", interpreter.label);
    let seen = |tid: &serde_json::Value| report["threads"].as_array().unwrap().iter().any(|t| t["tid"] == *tid);
    let new = threads["tids"].as_object().unwrap();
    assert!(new.len() == 2 && new.values().any(seen), "{}: {report:#}", interpreter.label);
}

fn the_target_becomes_something_else(interpreter: &Interpreter) {
    let mut target = Target::start(interpreter, "steps", &[]);
    let running = endless(&target, &[]);
    target.send("shell");
    let report = running.end().ended(0, &[]).report();
    let output = warnings(&report);
    assert!(output.contains("the process replaced itself by sleep, which is not Python"), "{output}");
    // Time after the end is not counted as time without a holder. In a hundred samples of a moving
    // target, frame by frame, some find no holder.
    assert!(report["gil"]["busy"].as_f64().unwrap() > 0.6, "{report:#}");
}

fn a_child_of_the_target_does_not_matter(interpreter: &Interpreter) {
    let mut target = Target::start(interpreter, "steps", &[]);
    let running = endless(&target, &[]);
    target.send("fork");
    assert_eq!(target.line(), "forked");
    running.signal(libc::SIGINT);
    let report = running.end().ended(0, &[]).report();
    assert_eq!((warnings(&report).as_str(), report["window"]["failed"].as_u64()), ("", Some(0)), "{report:#}");
    assert_eq!(report["threads"].as_array().unwrap().len(), 3, "{report:#}");
}

fn threads_that_start_and_end_lose_no_sample(interpreter: &Interpreter) {
    let mut target = Target::start(interpreter, "steps", &["--threads", "1"]);
    let running = endless(&target, &[]);
    target.send("churn");
    assert_eq!(target.line(), "churned");
    running.signal(libc::SIGINT);
    let report = running.end().ended(0, &[]).report();
    assert_eq!((warnings(&report).as_str(), report["window"]["failed"].as_u64()), ("", Some(0)), "{}: {report:#}", interpreter.label);
    assert!(share(&report, "worker-0", "holding") > 0.1, "{}: {report:#}", interpreter.label);
}

fn old_pythons_get_a_report_that_claims_no_more_than_is_known(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let output = gilprof(&["attach", "--pid", &target.pid().to_string(), "--duration", "1s", "--format", "json"]);
    let report = output.ended(0, &[]).report();
    assert_eq!(report["verdict"]["code"], "inconclusive", "{report:#}");
    assert!(report["verdict"]["speedup"]["processes"].is_null(), "{report:#}");
    assert!(warnings(&report).contains("not visible before Python 3.7"), "{report:#}");
    // In a hundred samples of a moving target, frame by frame, some find no holder.
    assert!(report["gil"]["busy"].as_f64().unwrap() > 0.6, "{report:#}");
    let unknown: f64 = report["threads"].as_array().unwrap().iter().map(|t| t["states"]["unknown"].as_f64().unwrap()).sum();
    assert!(unknown > 1.5, "two of three threads want the GIL at any time: {report:#}");
    gilprof(&["attach", "--pid", &target.pid().to_string(), "--duration", "300ms"]).ended(0, &[]).printed(&["Inconclusive"]);
}

/// gilprof in a terminal, where the keys are typed after the text appears.
fn in_terminal(columns: &str, word: &str, keys: &str, settings: &[(&str, &str)], args: &[&str]) -> Running {
    let interpreter = two_interpreters().pop().unwrap();
    let script = support::repository().join("tests/support/terminal.py");
    let mut command = interpreter.command();
    command.arg(script).args([columns, word, keys, env!("CARGO_BIN_EXE_gilprof")]).args(args);
    command.env_remove("NO_COLOR").env("TERM", "xterm-256color").envs(settings.iter().copied());
    Running::spawn_with(command.stdin(Stdio::piped()))
}

/// Everything that the terminal showed.
fn terminal(columns: &str, word: &str, keys: &str, settings: &[(&str, &str)], args: &[&str]) -> String {
    let output = in_terminal(columns, word, keys, settings, args).end();
    assert_eq!(output.status.code(), Some(0), "{output:#?}");
    output.out
}

fn a_terminal_has_a_live_line_and_ctrl_c(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let pid = target.pid().to_string();
    let args = ["attach", "--pid", &pid, "--duration", "0"];
    let shown = terminal("80", "Ctrl-C ends", "\\x03", &[], &args);
    let (live, page) = shown.split_once("gilprof  pid").unwrap();
    assert!(live.contains(" samples  GIL busy ") && live.contains("waiting "), "{live:?}");
    assert!(page.contains("\x1b[") && page.contains("worker-0"), "colours: {page:?}");
    // However often the line is drawn, it stays one line: nothing scrolls.
    assert!(!live.contains('\n') || live.contains("\x1b[1A"), "{live:?}");

    let shown = terminal("80", "Ctrl-C ends", "\\x03", &[("NO_COLOR", "1")], &args);
    let (_, page) = shown.split_once("gilprof  pid").unwrap();
    assert!(!page.contains('\x1b'), "no colours: {page:?}");
    for line in page.lines().skip(1) {
        assert!(line.trim_end().chars().count() <= 80, "{line:?}");
    }

    // A line that is wider than the terminal is cut, not wrapped.
    let shown = terminal("30", "samples", "\\x03", &[], &args);
    let (live, _) = shown.split_once("gilprof  pid").unwrap();
    assert!(live.contains("samples") && !live.contains("Ctrl-C"), "{live:?}");
}

fn a_stopped_terminal_does_not_stop_the_samples(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let (pid, file) = (target.pid().to_string(), scratch("still.json"));
    let args = ["attach", "--pid", &pid, "--duration", "1s", "--rate", "100", "-o", file.to_str().unwrap()];
    // Ctrl-S stops the terminal's output until Ctrl-Q.
    let mut running = in_terminal("80", "samples", "\\x13", &[], &args);
    let gilprof = || std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.pid())).unwrap_or_default();
    until("gilprof is started", || !gilprof().is_empty());
    let gilprof: i32 = gilprof().trim().parse().unwrap();
    let samples = || cli::watches(gilprof, &target, target.pid().into());
    until("gilprof samples the target", samples);
    until("gilprof has ended its window", || !samples());
    running.write(b"\x11");
    running.end().ended(0, &[]);
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert!(report["window"]["samples"].as_u64().unwrap() >= 60, "{report:#}");
    std::fs::remove_file(file).unwrap();
}

fn no_live_line_without_a_terminal(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let output = gilprof(&["attach", "--pid", &target.pid().to_string(), "--duration", "500ms"]);
    assert!(output.ended(0, &[]).err.is_empty() && !output.out.contains('\x1b') && !output.out.contains('\r'), "{output:#?}");
}

fn endings_choose_the_formats_of_files(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let (svg, json, folded) = (scratch("all.svg"), scratch("all.json"), scratch("all.folded"));
    std::fs::File::create(&folded).unwrap().write_all(b"something old and rather long\n".repeat(1000).as_slice()).unwrap();
    let mut args = vec!["attach", "--pid"];
    let pid = target.pid().to_string();
    args.extend([pid.as_str(), "--duration", "500ms"]);
    for file in [&svg, &json, &folded] {
        args.extend(["-o", file.to_str().unwrap()]);
    }
    gilprof(&args).ended(0, &["all.svg", "all.json", "all.folded"]);
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    assert!(read(&svg).contains("<svg") && read(&svg).contains("burn"));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&read(&json)).unwrap()["schema"], "gilprof.report/1");
    assert!(read(&folded).contains("burn") && !read(&folded).contains("old"));
    for file in [svg, json, folded] {
        std::fs::remove_file(file).unwrap();
    }
    until("the target runs again", || cli::state(target.pid()).is_some_and(|state| state != 'T'));
}
