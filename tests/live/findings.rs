//! The parts of a report beside the verdict, of real programs: findings, blame, and answers to
//! `--what-if`.

use crate::harness::Suite;
use crate::support::{self, cli};
use crate::{on, once};
use cli::two_interpreters;
use serde_json::Value;
use support::{gilprof, interpreters, report, window, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    on!(suite, interpreters().into_iter().filter(|i| i.minor() >= (3, 9)), [garbage_collection_in_the_holder_is_found]);
    on!(suite, two_interpreters(), [blame_adds_up_to_waiting, one_case_is_answered]);
    once!(suite, [a_case_that_makes_no_sense_is_a_slip_of_the_pen]);
}

/// The report of a workload after a window of `seconds`.
fn reported(interpreter: &Interpreter, workload: &str, args: &[&str], seconds: f64, more: &[&str]) -> Value {
    let target = Target::start(interpreter, workload, args);
    let (pid, duration) = (target.pid().to_string(), format!("{}ms", seconds * 1e3));
    report(&[&["attach", "--pid", &pid, "--duration", &duration], more].concat())
}

fn finding<'r>(report: &'r Value, code: &str) -> Option<&'r str> {
    report["findings"].as_array().unwrap().iter().find(|f| f["code"] == code).map(|f| f["evidence"].as_str().unwrap())
}

/// The place of `gc.collecting` differs between releases.
fn garbage_collection_in_the_holder_is_found(interpreter: &Interpreter) {
    let storm = reported(interpreter, "held", &["--gc", "--threads", "2"], window(1.5, 0.8), &[]);
    assert!(finding(&storm, "garbage-collection").is_some(), "{}: {storm:#}", interpreter.label);
    let calm = reported(interpreter, "cpu", &["--threads", "2"], window(1.0, 0.6), &[]);
    assert!(finding(&calm, "garbage-collection").is_none(), "{}: {calm:#}", interpreter.label);
}

fn blame_adds_up_to_waiting(interpreter: &Interpreter) {
    for (workload, args) in [("cpu", &["--threads", "3"][..]), ("convoy", &["--hogs", "1", "--short", "2"])] {
        let report = reported(interpreter, workload, args, window(1.5, 0.8), &[]);
        let sum = |rows: &Value, of: fn(&Value) -> f64| rows.as_array().unwrap().iter().map(of).sum::<f64>();
        let waiting = sum(&report["threads"], |t| t["seconds"].as_f64().unwrap() * t["states"]["waiting"].as_f64().unwrap());
        let blamed = sum(&report["blame"], |row| row["seconds"].as_f64().unwrap());
        assert!(waiting > 0.5 && (blamed / waiting - 1.0).abs() < 0.02, "{}: {blamed} of {waiting}", interpreter.label);
    }
}

fn one_case_is_answered(interpreter: &Interpreter) {
    let report = reported(
        interpreter,
        "cpu",
        &["--threads", "2"],
        window(1.5, 0.8),
        &["--what-if", "processes=8,cores=8", "--what-if", "release=nowhere"],
    );
    let gain = &report["what_if"][0]["gain"]["estimate"].as_f64().unwrap();
    assert!((6.5..=9.5).contains(gain), "{report:#}");
    assert!(report["what_if"][1]["gain"].is_null() && report["what_if"][1]["note"].as_str().unwrap().contains("no call of C"));
}

fn a_case_that_makes_no_sense_is_a_slip_of_the_pen() {
    let out = gilprof(&["attach", "--pid", "1", "--what-if", "speed=9"]);
    let output = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(2) && output.contains("processes=N"), "{output}");
}
