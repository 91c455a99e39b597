//! gilprof's figures against the kernel's own events, on the same run: a bounded part of what `scripts/accuracy` measures.
//!
//! The bounds of docs/accuracy.md are for a machine that has nothing else to do and a release build. Here, where others share the cores
//! and gilprof is a debug build, they are wider, but narrow enough for each workload and its mirror image never to be confused.

use crate::harness::{newest, Suite};
use crate::support;
use crate::{on, once};
use serde_json::Value;
use std::process::Command;
use support::{gilprof_command, interpreters, repository, scratch, skip, Interpreter};

/// What this file checks, and on which interpreters.
pub fn cases(suite: &mut Suite) {
    once!(suite, [a_thread_that_ends_within_the_window_is_judged_by_its_own_life]);
    for prefix in ["3.8-pyenv", "3.13-pyenv"] {
        on!(suite, labelled(prefix), [shares_are_those_of_the_kernels_events]);
    }
    on!(suite, without_symbols(), [so_they_are_without_symbols]);
}

/// What scripts/accuracy ends with where it cannot run.
const NOT_HERE: i32 = 3;
const WORST: f64 = 0.12;
const MEAN: f64 = 0.03;

/// The rows of all runs, or nothing where this machine has no exact source.
fn measure(label: &str, cases: &str) -> Option<Vec<Value>> {
    let seconds = if support::all() { "3" } else { "2" };
    let json = scratch("accuracy.json");
    let gilprof = gilprof_command(&[]).get_program().to_owned();
    let out = Command::new(repository().join("scripts/accuracy"))
        .args(["--versions", label, "--cases", cases, "--seconds", seconds, "--json"])
        .args([json.as_os_str(), "--gilprof".as_ref(), &gilprof])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    if out.status.code() == Some(NOT_HERE) {
        skip(said.trim_start_matches("skipped: ").trim_end());
        return None;
    }
    println!("{said}");
    let runs: Vec<Value> = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(runs.len(), cases.split(';').count(), "{said}\n{}", String::from_utf8_lossy(&out.stderr));
    Some(runs)
}

fn share(row: &Value, side: &str, state: &str) -> f64 {
    row[side][state].as_f64().unwrap()
}

/// |said - true| of every thread of every run.
fn errors(runs: &[Value], state: &str) -> Vec<f64> {
    let rows = runs.iter().flat_map(|run| run["threads"].as_array().unwrap_or_else(|| panic!("{run}")));
    rows.map(|row| (share(row, "said", state) - share(row, "true", state)).abs()).collect()
}

/// The highest share of waiting that a thread of this case was said to have.
fn highest_waiting(runs: &[Value], case: &str) -> f64 {
    let run = runs.iter().find(|run| run["case"] == case).unwrap();
    run["threads"].as_array().unwrap().iter().map(|row| share(row, "said", "waiting")).fold(0.0, f64::max)
}

fn check(runs: &[Value]) {
    for state in ["waiting", "holding"] {
        let errors = errors(runs, state);
        let (worst, mean) = (errors.iter().copied().fold(0.0, f64::max), errors.iter().sum::<f64>() / errors.len() as f64);
        assert!(worst <= WORST && mean <= MEAN, "{state}: worst {worst:.3}, mean {mean:.3} of {}", errors.len());
    }
}

/// The newest interpreter whose label begins so. A version that is missing is a skip.
fn labelled(prefix: &str) -> Vec<Interpreter> {
    let found = newest(interpreters().into_iter().filter(|i| i.label.starts_with(prefix)).collect());
    if found.is_empty() {
        skip(&format!("accuracy: {prefix} is not installed"));
    }
    found
}

/// The newest, which has no symbols.
fn without_symbols() -> Vec<Interpreter> {
    let found = newest(interpreters().into_iter().filter(|i| i.minor() >= (3, 14)).collect());
    if found.is_empty() {
        skip("accuracy: neither 3.14 nor 3.15 is installed");
    }
    found
}

/// One that lived for three of the window's five seconds and waited for two of them, as both sides told of it.
const ENDS_EARLY: &str = r#"
import measure, truth
said = {"tid": 7, "name": "worker", "seconds": 3.0, "states": {"waiting": 2 / 3, "native": 1 / 3}, "holding": {}, "cpu": 1 / 3}
true = {7: {(truth.WAITING, truth.ASLEEP): 2 * truth.SECOND, (truth.OUT, truth.ON): truth.SECOND}}
row, = measure.compare([said], true, 5 * truth.SECOND, "uprobes")
for state in ("waiting", "native"):
    print(state, "%.4f %.4f" % (row["said"][state], row["true"][state]))
"#;

fn a_thread_that_ends_within_the_window_is_judged_by_its_own_life() {
    let folders = ["tests/accuracy", "tests/support"].map(|folder| repository().join(folder));
    let out = Command::new("python3").args(["-Bc", ENDS_EARLY]).env("PYTHONPATH", std::env::join_paths(folders).unwrap()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert_eq!(said, "waiting 0.6667 0.6667\nnative 0.3333 0.3333\n", "{}", String::from_utf8_lossy(&out.stderr));
}

fn shares_are_those_of_the_kernels_events(interpreter: &Interpreter) {
    let Some(runs) = measure(&interpreter.label, "cpu 3;asleep, GIL held;asleep, released;json alone") else { return };
    check(&runs);
    for case in ["cpu 3", "asleep, GIL held"] {
        assert!(highest_waiting(&runs, case) > 0.3, "{case}");
    }
    assert!(highest_waiting(&runs, "asleep, released") < 0.25, "released");
    assert!(highest_waiting(&runs, "json alone") < 0.02, "alone");
}

fn so_they_are_without_symbols(interpreter: &Interpreter) {
    let Some(runs) = measure(&interpreter.label, "cpu 3;convoy;asleep, GIL held") else { return };
    check(&runs);
    // Woken by its taker it has not asked for the GIL again, and was told as starved for that: by .04.
    let forced = runs.iter().filter(|run| run["case"] == "asleep, GIL held").cloned().collect::<Vec<_>>();
    let worst = errors(&forced, "starved").into_iter().fold(0.0, f64::max);
    assert!(worst <= 0.03, "starved {worst:.3}");
}
