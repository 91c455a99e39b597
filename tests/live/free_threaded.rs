//! A free-threaded build with its GIL off, and with its GIL on again.

use crate::harness::Suite;
use crate::support::{self, checks, cli, compat};
use crate::{complaining, row};
use checks::{measure, number, Complaints};
use compat::{named, not_computing, state, summary, unsound, workload};
use serde_json::Value;
use std::process::Command;
use support::{free_threaded_interpreters, skip, window, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    complaining!(
        suite,
        with_a_free_threaded_build(),
        [threads_compute_beside_each_other, a_lock_is_named, collections_stop_all_threads, with_its_gil_on_it_is_as_any_other]
    );
}

fn with_a_free_threaded_build() -> Vec<Interpreter> {
    let found = free_threaded_interpreters();
    if found.is_empty() {
        skip("free-threaded Python: scripts/setup-pythons found none");
    }
    found
}

/// A workload, with its GIL on or off whatever it imports.
fn start(interpreter: &Interpreter, gil: &str, name: &str, args: &[&str]) -> Target {
    let mut command: Command = interpreter.command();
    command.env("PYTHON_GIL", gil).arg(workload(name)).args(args);
    Target::start_command(command)
}

fn finding<'r>(report: &'r Value, code: &str) -> Option<&'r Value> {
    report["findings"].as_array().unwrap().iter().find(|f| f["code"] == code)
}

/// Conditions on any report with the GIL off: no thread holds it or waits for it.
fn expect_off(report: &Value, complaints: &mut Complaints) {
    unsound(report).into_iter().for_each(|what| complaints.add(&what));
    let target = &report["target"];
    complaints.expect(target["free_threaded"] == true && target["gil_enabled"] == false, || target.to_string());
    let verdict = &report["verdict"];
    complaints.expect(verdict["code"] == "gil-disabled" && verdict["speedup"]["processes"].is_null(), || verdict.to_string());
    for thread in named(report, "") {
        complaints.expect(state(thread, "holding") + state(thread, "waiting") == 0.0, || summary(report));
    }
    complaints.expect(number(report, "/gil/busy") == 0.0, || format!("busy {}", report["gil"]["busy"]));
}

fn threads_compute_beside_each_other(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = start(interpreter, "0", "cpu", &["--threads", "3"]);
    measure(interpreter, &target, window(1.5, 0.8), complaints, |measured, found| {
        let report = &measured.report;
        row!(interpreter.label, "off, cpu: {}", summary(report));
        expect_off(report, found);
        let workers = named(report, "worker-");
        let computing = |thread: &&Value| state(thread, "native") + state(thread, "starved") > 0.95;
        found.expect(workers.len() == 3 && workers.iter().all(computing), || summary(report));
        let cpu: f64 = workers.iter().map(|t| number(t, "/cpu")).sum();
        let native: f64 = workers.iter().map(|t| state(t, "native")).sum();
        found.expect((cpu - native).abs() < 0.1, || format!("native {native:.2} of {cpu:.2} cores"));
        found.expect(report["functions"][0]["name"] == "burn", || report["functions"].to_string());
    });
    cli::gilprof(&["dump", "--pid", &target.pid().to_string()]).ended(0, &[]).printed(&["free-threaded, the GIL is off"]);
}

/// Three threads that compute with one `threading.Lock`, in turns.
fn a_lock_is_named(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = start(interpreter, "0", "shared_lock", &["--threads", "3"]);
    measure(interpreter, &target, window(1.5, 0.8), complaints, |measured, found| {
        let report = &measured.report;
        row!(interpreter.label, "off, lock: {}", summary(report));
        expect_off(report, found);
        // A thread without a CPU does not come to the lock.
        if measured.starving(interpreter, "waiting for a lock") {
            return;
        }
        let lock: f64 = named(report, "worker-").iter().map(|t| state(t, "lock")).sum();
        // Two of three wait, except while the next one has the lock and no CPU yet.
        found.expect((1.5..2.1).contains(&lock), || summary(report));
        let evidence = finding(report, "lock-bound").map(|f| f["evidence"].to_string()).unwrap_or_default();
        found
            .expect(evidence.contains("in_turn") && evidence.contains("shared_lock.py"), || format!("{evidence} {:#}", report["findings"]));
    });
}

fn collections_stop_all_threads(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = start(interpreter, "0", "held", &["--gc", "--threads", "2"]);
    measure(interpreter, &target, window(1.5, 0.8), complaints, |measured, found| {
        let report = &measured.report;
        row!(interpreter.label, "off, gc: {}; {}", summary(report), report["verdict"]["because"]);
        expect_off(report, found);
        found.expect(report["verdict"]["because"].to_string().contains("arbage collection"), || report["verdict"].to_string());
    });
}

fn with_its_gil_on_it_is_as_any_other(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = start(interpreter, "1", "cpu", &["--threads", "3"]);
    measure(interpreter, &target, window(1.5, 0.8), complaints, |measured, found| {
        let report = &measured.report;
        row!(interpreter.label, "on, cpu: {}", summary(report));
        not_computing(report, 3).into_iter().for_each(|what| found.add(&what));
        let target = &report["target"];
        found.expect(target["free_threaded"] == true && target["gil_enabled"] == true, || target.to_string());
        found.expect(finding(report, "gil-disabled").is_some(), || format!("{:#}", report["findings"]));
    });
}
