//! The reported states of threads whose states are known by construction, from `attach --format
//! json` on every interpreter.

use crate::harness::Suite;
use crate::support::{self, checks};
use crate::{complaining, row};
use checks::{attach, measure, number, thread, Complaints, Measured};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{interpreters, window, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    complaining!(
        suite,
        interpreters(),
        [
            three_cpu_bound_threads_hold_a_third_each_and_wait_two_thirds,
            hashing_threads_run_beside_each_other,
            sleepers_are_in_io,
            the_target_is_not_stopped
        ]
    );
}

/// The largest difference between a share and the one that the program produces.
const NEAR: f64 = 0.03;
/// In a second or two, equal threads do not share the GIL quite evenly: up to .083 was measured.
const UNEVEN: f64 = 0.15;
const UNKNOWN: f64 = 0.02;

fn state(thread: &Value, state: &str) -> f64 {
    number(thread, &format!("/states/{state}"))
}

fn named<'a>(report: &'a Value, prefix: &str) -> Vec<&'a Value> {
    let threads = report["threads"].as_array().unwrap().iter();
    threads.filter(|t| t["name"].as_str().unwrap().starts_with(prefix)).collect()
}

/// Shares as a person writes them.
fn shares(thread: &Value) -> String {
    let shares = thread["states"].as_object().unwrap().iter().map(|(k, v)| (k, v.as_f64().unwrap())).filter(|(_, v)| *v >= 0.0005);
    let words: Vec<String> = shares.map(|(k, v)| format!("{} {v:.3}", &k[..4.min(k.len())])).collect();
    format!("{}: {}", thread["name"].as_str().unwrap(), words.join(" "))
}

/// Conditions on any report.
fn sound(report: &Value, what: &str, complaints: &mut Complaints) {
    for thread in report["threads"].as_array().unwrap() {
        let sum: f64 = thread["states"].as_object().unwrap().values().map(|v| v.as_f64().unwrap()).sum();
        complaints.expect((sum - 1.0).abs() <= 0.001, || format!("{what}: {} add to {sum}", shares(thread)));
        let parts: f64 = thread["holding"].as_object().unwrap().values().map(|v| v.as_f64().unwrap()).sum();
        let holding = state(thread, "holding");
        complaints.expect((parts - holding).abs() <= 0.001, || format!("{what}: holding is {holding}, its parts add to {parts}"));
        complaints.expect(state(thread, "unknown") < UNKNOWN, || format!("{what}: {}", shares(thread)));
    }
    complaints.expect(number(report, "/window/failed") == 0.0, || format!("{what}: failed samples: {}", report["window"]));
}

/// A line of the table: the window, the GIL, the verdict, the threads.
fn show(interpreter: &Interpreter, what: &str, measured: &Measured) {
    let report = &measured.report;
    let n = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let threads: Vec<String> = report["threads"].as_array().unwrap().iter().map(shares).collect();
    row!(
        interpreter.label,
        "{what}: {} samples {} missed, busy {:.3}, {:.0} switches/s, {} x{:.2}, others {:.2} cores | {}",
        n("/window/samples"),
        n("/window/missed"),
        n("/gil/busy"),
        n("/gil/switches_per_s"),
        report["verdict"]["code"].as_str().unwrap_or("?"),
        n("/verdict/speedup/processes/estimate"),
        measured.others,
        threads.join(" | ")
    );
}

fn verdict(report: &Value, what: &str, expected: &[&str], complaints: &mut Complaints) {
    let code = report["verdict"]["code"].as_str().unwrap();
    complaints.expect(expected.contains(&code), || format!("{what}: the verdict is {code}, not {expected:?}: {}", report["verdict"]));
}

fn three_cpu_bound_threads_hold_a_third_each_and_wait_two_thirds(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "cpu", &[]);
    measure(interpreter, &target, window(4.0, 1.5), complaints, |measured, found| {
        show(interpreter, "cpu", measured);
        cpu(&measured.report, found);
        if !measured.starving(interpreter, "verdict and rate of switches") {
            cpu_on_free_cores(&measured.report, found);
        }
    });
}

fn cpu(report: &Value, complaints: &mut Complaints) {
    sound(report, "cpu", complaints);
    let workers = named(report, "worker-");
    complaints.expect(workers.len() == 3, || format!("cpu: {} workers", workers.len()));
    let all: f64 = workers.iter().map(|worker| state(worker, "holding")).sum();
    complaints.expect((all - 1.0).abs() <= NEAR, || format!("cpu: the workers hold {all:.3} together"));
    for worker in workers {
        let (holding, waiting) = (state(worker, "holding"), state(worker, "waiting"));
        let near = (holding - 1.0 / 3.0).abs() <= UNEVEN && (holding + waiting - 1.0).abs() <= NEAR;
        complaints.expect(near, || format!("cpu: {}", shares(worker)));
    }
    let main = thread(report, "MainThread");
    // It may still wait for its turn after it has said that all are ready.
    let asleep = state(main, "lock") + state(main, "io");
    complaints.expect(asleep > 0.85 && asleep + state(main, "waiting") > 0.95, || format!("cpu: {}", shares(main)));
    complaints.expect(number(report, "/gil/busy") > 0.95, || format!("cpu: busy {}", report["gil"]["busy"]));
    let first = &report["functions"][0];
    complaints.expect(first["name"] == "burn", || format!("cpu: the first function is {first}"));
}

/// Conditions that hold only when the threads have enough cores.
fn cpu_on_free_cores(report: &Value, complaints: &mut Complaints) {
    let switches = number(report, "/gil/switches_per_s");
    complaints.expect((150.0..=260.0).contains(&switches), || format!("cpu: {switches} switches a second"));
    verdict(report, "cpu", &["switch-to-processes"], complaints);
}

fn hashing_threads_run_beside_each_other(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "hashing", &[]);
    measure(interpreter, &target, window(2.0, 1.0), complaints, |measured, found| {
        show(interpreter, "hashing", measured);
        hashing(&measured.report, found);
        if !measured.starving(interpreter, "verdict and rate of switches") {
            verdict(&measured.report, "hashing", &["already-parallel"], found);
        }
    });
}

fn hashing(report: &Value, complaints: &mut Complaints) {
    sound(report, "hashing", complaints);
    let hashers = named(report, "hasher-");
    complaints.expect(hashers.len() == 2, || format!("hashing: {} hashers", hashers.len()));
    for hasher in hashers {
        let (holding, native) = (state(hasher, "holding"), state(hasher, "native") + state(hasher, "starved"));
        complaints.expect(holding < 0.05 && native > 0.9, || format!("hashing: {}", shares(hasher)));
    }
}

fn sleepers_are_in_io(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "sleepers", &[]);
    measure(interpreter, &target, window(2.0, 1.0), complaints, |measured, found| {
        show(interpreter, "sleepers", measured);
        sleepers(&measured.report, found);
    });
}

fn sleepers(report: &Value, complaints: &mut Complaints) {
    sound(report, "sleepers", complaints);
    for kind in ["nap-", "poll-", "listen-"] {
        let sleepers = named(report, kind);
        complaints.expect(sleepers.len() == 2, || format!("sleepers: {} of {kind}", sleepers.len()));
        for sleeper in sleepers {
            complaints.expect(state(sleeper, "io") > 0.95, || format!("sleepers: {}", shares(sleeper)));
        }
    }
    verdict(report, "sleepers", &["keep-threads", "idle"], complaints);
}

/// The target is neither stopped nor traced while it is measured, and its work goes on.
fn the_target_is_not_stopped(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "cpu", &["--threads", "2"]);
    let pid = target.pid();
    let (over, before) = (AtomicBool::new(false), cpu_ticks(pid));
    let stopped = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(pid, &over));
        attach(pid, 0.5, &[]);
        over.store(true, Ordering::Relaxed);
        watcher.join().unwrap()
    });
    complaints.expect(stopped.is_empty(), || format!("seen while attached: {stopped:?}"));
    complaints.expect(cpu_ticks(pid) > before, || "the target used no CPU while attached".into());
    let (status, last) = target.finish();
    let done = last.map_or(0.0, |last| number(&last, "/done"));
    complaints.expect(status.success() && done > 0.0, || format!("{status}, {done} rounds done"));
}

/// Every sign of a stop or of a tracer, until the end.
fn watch(pid: i32, over: &AtomicBool) -> Vec<String> {
    let mut seen = Vec::new();
    while !over.load(Ordering::Relaxed) {
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default();
            let sign =
                |l: &&str| l.starts_with("State:\tT") || l.starts_with("State:\tt") || l.starts_with("TracerPid:") && *l != "TracerPid:\t0";
            seen.extend(status.lines().filter(sign).map(str::to_string));
        }
    }
    seen
}

/// The process's user time, in clock ticks.
fn cpu_ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    after_name.split_ascii_whitespace().nth(11).unwrap().parse().unwrap()
}
