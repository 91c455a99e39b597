//! A thread for each request, under contention: no sample fails because a thread starts or ends,
//! and every thread is counted.

use crate::harness::Suite;
use crate::support::{self, checks};
use crate::{complaining, row};
use checks::{measure, number, Complaints, Measured};
use serde_json::Value;
use std::cell::Cell;
use support::{interpreters, oldest_and_newest, window, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    complaining!(suite, interpreters(), [no_sample_fails_while_threads_come_and_go]);
    complaining!(suite, oldest_and_newest(interpreters()), [short_lived_threads_wait_most_of_their_time]);
}

/// The window, in seconds.
fn whole() -> f64 {
    window(3.0, 1.2)
}

/// New threads a second that the workload tries to start.
const RATE: f64 = 50.0;
/// The main thread, two that compute, four that accept.
const LASTING: usize = 7;

fn no_sample_fails_while_threads_come_and_go(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "churn", &[]);
    measure(interpreter, &target, whole(), complaints, |measured, found| {
        show(interpreter, measured);
        check(&measured.report, found);
    });
    let (status, last) = target.finish();
    complaints.expect(status.success() && last.is_some(), || format!("the target ended with {status}: {last:?}"));
}

/// Measured alone: new threads wait for the GIL, not for a core.
fn short_lived_threads_wait_most_of_their_time(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "churn", &[]);
    let met = Cell::new(0.0);
    measure(interpreter, &target, whole(), complaints, |measured, found| {
        show(interpreter, measured);
        met.set(short(&measured.report).0.len() as f64 / number(&measured.report, "/window/seconds"));
        if !measured.starving(interpreter, "the share of waiting") {
            check_on_free_cores(&measured.report, found);
        }
    });
    // The workload's own count is exact. A thread that gets the GIL at once ends before the next
    // sample, so not every thread is seen.
    let served = target.finish().1.map_or(0.0, |last| number(&last, "/done") / number(&last, "/seconds"));
    let right = met.get() > 0.3 * served && met.get() < 1.1 * served + 5.0 && served > 0.5 * RATE;
    complaints.expect(right, || format!("{:.1} short-lived threads a second met, {served:.1} served", met.get()));
}

fn threads(report: &Value) -> &[Value] {
    report["threads"].as_array().unwrap()
}

fn seconds(thread: &Value) -> f64 {
    thread["seconds"].as_f64().unwrap()
}

/// The number of threads that started and ended, and the time that they were seen.
fn short(report: &Value) -> (Vec<&Value>, f64) {
    let short: Vec<&Value> = threads(report).iter().filter(|t| seconds(t) < 0.9 * whole()).collect();
    let time = short.iter().map(|t| seconds(t)).sum();
    (short, time)
}

/// The share of a state in the short-lived threads' time.
fn part(report: &Value, state: &str) -> f64 {
    let (short, time) = short(report);
    short.iter().map(|t| number(t, &format!("/states/{state}")) * seconds(t)).sum::<f64>() / time.max(1e-9)
}

fn show(interpreter: &Interpreter, measured: &Measured) {
    let report = &measured.report;
    let states = ["holding", "waiting", "native", "starved", "lock", "io", "unknown"];
    let parts: Vec<String> = states.iter().map(|s| format!("{} {:.3}", &s[..4.min(s.len())], part(report, s))).collect();
    let (short, time) = short(report);
    row!(
        interpreter.label,
        "churn: {} samples {} missed {} failed {} torn, busy {:.3}, others {:.2} cores, {} short-lived threads of {:.1} ms: {}",
        report["window"]["samples"],
        report["window"]["missed"],
        report["window"]["failed"],
        report["window"]["torn"],
        number(report, "/gil/busy"),
        measured.others,
        short.len(),
        1e3 * time / short.len().max(1) as f64,
        parts.join(" ")
    );
}

fn check(report: &Value, complaints: &mut Complaints) {
    complaints.expect(report["window"]["failed"] == 0, || format!("{} failed samples", report["window"]["failed"]));
    for thread in threads(report) {
        let sum: f64 = thread["states"].as_object().unwrap().values().map(|v| v.as_f64().unwrap()).sum();
        complaints.expect((sum - 1.0).abs() <= 0.001, || format!("{} of {:.4} s: shares add to {sum}", thread["name"], seconds(thread)));
    }
    let lasting = threads(report).iter().filter(|t| seconds(t) > 0.99 * whole()).count();
    complaints.expect(lasting == LASTING, || format!("{lasting} threads lived through the window"));
    let unknown = part(report, "unknown");
    complaints.expect(unknown < 0.05, || format!("unknown {unknown:.3} of the short-lived threads' time"));
}

/// Of 40 threads of 10 ms some get the GIL at once: they waited .79 to .97 of their time in 24
/// runs.
fn check_on_free_cores(report: &Value, complaints: &mut Complaints) {
    complaints.expect(number(report, "/gil/busy") > 0.9, || format!("busy {}", report["gil"]["busy"]));
    let (of_all, waiting) = (number(report, "/gil/waiters_mean"), part(report, "waiting"));
    complaints.expect(waiting > 0.7 && of_all > 1.0, || format!("waiting {waiting:.3} of their time, {of_all:.2} waiters"));
}
