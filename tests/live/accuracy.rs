//! gilprof's figures against the kernel's events of the same run: a small part of what
//! `scripts/eval accuracy` measures.
//!
//! The bounds of docs/accuracy.md are for an idle machine and a release build. The bounds here are
//! wider, because other programs share the cores and gilprof is a debug build. They are narrow
//! enough to tell each workload from its mirror image.

use crate::harness::{newest, Suite};
use crate::on;
use crate::support;
use serde_json::Value;
use std::process::Command;
use support::{gilprof_command, interpreters, repository, skip, Interpreter};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    for prefix in ["3.8-pyenv", "3.13-pyenv"] {
        on!(suite, labelled(prefix), [shares_are_those_of_the_kernel]);
    }
    on!(suite, without_symbols(), [shares_are_right_without_symbols]);
}

/// The exit code of `scripts/eval` where it cannot measure.
const NOT_MEASURED: i32 = 3;
const WORST: f64 = 0.05;
const MEAN: f64 = 0.02;

/// The results of all runs, or nothing where this machine cannot measure the actual states.
fn measure(label: &str, cases: &str) -> Option<Vec<Value>> {
    let seconds = if support::all() { "3" } else { "2" };
    let gilprof = gilprof_command(&[]).get_program().to_owned();
    let out = Command::new("python3")
        .arg("-B")
        .arg(repository().join("scripts/eval"))
        .args(["accuracy", "--versions", label, "--cases", cases, "--seconds", seconds, "--json"])
        .args(["--gilprof".as_ref(), gilprof.as_os_str()])
        .output()
        .unwrap();
    // With --json the text is on stderr, and stdout has the results alone.
    let text = String::from_utf8_lossy(&out.stderr);
    if out.status.code() == Some(NOT_MEASURED) {
        skip(text.trim_start_matches("skipped: ").trim_end());
        return None;
    }
    println!("{text}");
    let results: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {text}"));
    let runs = results["runs"].as_array().unwrap().clone();
    assert_eq!(runs.len(), cases.split(';').count(), "{text}");
    Some(runs)
}

fn share(row: &Value, side: &str, state: &str) -> f64 {
    row[side][state].as_f64().unwrap()
}

/// |reported - actual| of every thread of every run.
fn errors(runs: &[Value], state: &str) -> Vec<f64> {
    let rows = runs.iter().flat_map(|run| run["threads"].as_array().unwrap_or_else(|| panic!("{run}")));
    rows.map(|row| (share(row, "reported", state) - share(row, "actual", state)).abs()).collect()
}

/// The highest share of waiting that gilprof reported of a thread of this case.
fn highest_waiting(runs: &[Value], case: &str) -> f64 {
    let run = runs.iter().find(|run| run["case"] == case).unwrap();
    run["threads"].as_array().unwrap().iter().map(|row| share(row, "reported", "waiting")).fold(0.0, f64::max)
}

fn check(runs: &[Value]) {
    for state in ["waiting", "holding"] {
        let errors = errors(runs, state);
        let (worst, mean) = (errors.iter().copied().fold(0.0, f64::max), errors.iter().sum::<f64>() / errors.len() as f64);
        assert!(worst <= WORST && mean <= MEAN, "{state}: worst {worst:.3}, mean {mean:.3} of {}", errors.len());
    }
}

/// The newest interpreter with this prefix of its label. A missing version is a skip.
fn labelled(prefix: &str) -> Vec<Interpreter> {
    let found = newest(interpreters().into_iter().filter(|i| i.label.starts_with(prefix)).collect());
    if found.is_empty() {
        skip(&format!("accuracy: {prefix} is not installed"));
    }
    found
}

/// The newest interpreter, which has no symbols.
fn without_symbols() -> Vec<Interpreter> {
    let found = newest(interpreters().into_iter().filter(|i| i.minor() >= (3, 14)).collect());
    if found.is_empty() {
        skip("accuracy: neither 3.14 nor 3.15 is installed");
    }
    found
}

fn shares_are_those_of_the_kernel(interpreter: &Interpreter) {
    // A workload and its mirror image. Each pair runs on one of the two interpreters, or on both.
    let cases = match (support::all(), interpreter.minor() < (3, 12)) {
        (true, _) => "cpu 3;asleep, GIL held;asleep, released;json alone",
        (false, true) => "cpu 3;json alone",
        (false, false) => "asleep, GIL held;asleep, released",
    };
    let Some(runs) = measure(&interpreter.label, cases) else { return };
    check(&runs);
    for case in cases.split(';') {
        let waiting = highest_waiting(&runs, case);
        let right = match case {
            "asleep, released" => waiting < 0.25,
            "json alone" => waiting < 0.02,
            _ => waiting > 0.3,
        };
        assert!(right, "{case}: waiting {waiting:.3}");
    }
}

fn shares_are_right_without_symbols(interpreter: &Interpreter) {
    let Some(runs) = measure(&interpreter.label, if support::all() { "cpu 3;convoy;asleep, GIL held" } else { "convoy;asleep, GIL held" })
    else {
        return;
    };
    check(&runs);
    // A thread that its successor wakes has not requested the GIL again. An earlier version of
    // gilprof reported .04 of such a thread as starved.
    let forced = runs.iter().filter(|run| run["case"] == "asleep, GIL held").cloned().collect::<Vec<_>>();
    let worst = errors(&forced, "starved").into_iter().fold(0.0, f64::max);
    assert!(worst <= 0.03, "starved {worst:.3}");
}
