//! Several interpreters in one process: contention belongs to a GIL, so it is reported per GIL and
//! never summed.

use crate::harness::Suite;
use crate::support::{self, checks, cli, compat};
use crate::{complaining, row};
use checks::{attach, measure, Complaints, Measured};
use cli::{until, Running};
use compat::{named, state, sum, summary, unsound};
use serde_json::Value;
use support::{interpreters, skip, window, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    complaining!(
        suite,
        interpreters(),
        [contention_is_reported_per_gil, one_gil_of_several_interpreters, an_interpreter_that_another_thread_made, a_gil_that_comes_later]
    );
}

/// The workload, if this Python supports it.
fn start(interpreter: &Interpreter, args: &[&str]) -> Option<Target> {
    let target = Target::start(interpreter, "interpreters", args);
    match target.fact("skip").as_str() {
        Some(why) => {
            skip(&format!("{}: interpreters {}: {why}", interpreter.label, args.join(" ")));
            None
        }
        None => Some(target),
    }
}

fn figures<'a>(report: &'a Value, name: &'a str) -> impl Iterator<Item = f64> + 'a {
    report["gils"].as_array().unwrap().iter().map(move |gil| gil[name].as_f64().unwrap())
}

/// The rows of one GIL: an interpreter's driver and its workers have it, and no other thread.
fn gil_of(report: &Value, index: usize, complaints: &mut Complaints) -> Option<u64> {
    let mut own = named(report, &format!("sub-{index}-"));
    own.extend(named(report, &format!("driver-{index}")));
    let gils: Vec<Option<u64>> = own.iter().map(|t| t["gil"].as_u64()).collect();
    complaints.expect(gils.len() == 2 && gils[0].is_some() && gils[0] == gils[1], || format!("interpreter {index} has {gils:?}"));
    gils.first().copied().flatten()
}

fn contention_is_reported_per_gil(interpreter: &Interpreter, complaints: &mut Complaints) {
    let Some(target) = start(interpreter, &["--own"]) else { return };
    measure(interpreter, &target, window(1.5, 0.8), complaints, |measured, complaints| own_gils(interpreter, measured, complaints));
}

fn own_gils(interpreter: &Interpreter, measured: &Measured, complaints: &mut Complaints) {
    let report = &measured.report;
    row!(interpreter.label, "{}", summary(report));
    unsound(report).into_iter().for_each(|what| complaints.add(&what));
    complaints.expect(report["target"]["interpreters"] == 3, || format!("{} interpreters", report["target"]["interpreters"]));
    // The main interpreter's GIL is idle. Each of the others is always held, with one thread
    // waiting.
    let (mut busy, mut waiters): (Vec<f64>, Vec<f64>) = (figures(report, "busy").collect(), figures(report, "waiters_mean").collect());
    row!(interpreter.label, "busy {busy:.2?} waiters {waiters:.2?}");
    complaints
        .expect(busy.len() == 3 && busy[0] < 0.1 && waiters[0] < 0.1, || format!("GILs are busy {busy:?}, waited for by {waiters:?}"));
    busy.sort_by(f64::total_cmp);
    waiters.sort_by(f64::total_cmp);
    complaints.expect(busy[1] > 0.85, || format!("busy {busy:?}"));
    complaints.expect(waiters[1] > 0.7 && waiters[2] < 1.1, || format!("waiters {waiters:?}: one for each, never summed"));
    complaints.expect((report["gil"]["waiters_mean"].as_f64().unwrap() - waiters[2]).abs() < 1e-9, || "`gil` is not one of `gils`".into());
    let gils = (gil_of(report, 0, complaints), gil_of(report, 1, complaints));
    complaints.expect(gils.0 != gils.1, || format!("two interpreters, one GIL: {gils:?}"));
    for index in 0..2 {
        let parts = [format!("sub-{index}-"), format!("driver-{index}")];
        let holding: f64 = parts.iter().map(|part| sum(report, part, "holding")).sum();
        let waiting: f64 = parts.iter().map(|part| sum(report, part, "waiting")).sum();
        complaints.expect((0.85..1.05).contains(&holding) && waiting > 0.7, || {
            format!("interpreter {index} holds {holding:.2}, waits {waiting:.2}")
        });
    }
}

fn one_gil_of_several_interpreters(interpreter: &Interpreter, complaints: &mut Complaints) {
    let Some(target) = start(interpreter, &[]) else { return };
    measure(interpreter, &target, window(1.5, 0.8), complaints, |measured, complaints| shared_gil(interpreter, measured, complaints));
}

fn shared_gil(interpreter: &Interpreter, measured: &Measured, complaints: &mut Complaints) {
    let report = &measured.report;
    row!(interpreter.label, "{}", summary(report));
    unsound(report).into_iter().for_each(|what| complaints.add(&what));
    let target = &report["target"]["interpreters"];
    complaints.expect(*target == 3 && report["gils"].is_null(), || format!("{target} interpreters, GILs {}", report["gils"]));
    let of = |name: &str| sum(report, "sub-", name) + sum(report, "driver-", name);
    let (holding, waiting) = (of("holding"), of("waiting"));
    complaints.expect((0.9..1.02).contains(&holding) && waiting > 2.6, || format!("four threads hold {holding:.2} and wait {waiting:.2}"));
    complaints.expect(state(named(report, "MainThread")[0], "holding") < 0.05, || "MainThread holds".into());
}

/// Up to 3.12, `_xxsubinterpreters` runs an interpreter with a thread state that has the ids of the
/// thread that created it.
fn an_interpreter_that_another_thread_made(interpreter: &Interpreter, complaints: &mut Complaints) {
    let Some(target) = start(interpreter, &["--foreign", "--interpreters", "1"]) else { return };
    measure(interpreter, &target, window(1.0, 0.7), complaints, |measured, complaints| {
        let report = &measured.report;
        row!(interpreter.label, "{}", summary(report));
        unsound(report).into_iter().for_each(|what| complaints.add(&what));
        // The main thread sleeps in read(2) all the time, with whichever ids.
        let main = named(report, "MainThread")[0];
        complaints.expect(state(main, "io") > 0.95, || format!("the main thread: {}", main["states"]));
        complaints.expect(report["verdict"]["code"] != "blocked-holding-gil", || report["verdict"].to_string());
        let holding = sum(report, "sub-", "holding") + sum(report, "driver-", "holding");
        complaints.expect((0.85..1.05).contains(&holding), || format!("driver and worker hold {holding:.2}"));
    });
}

/// A GIL keeps its number when another GIL is created: the counts of one must not go to the other.
fn a_gil_that_comes_later(interpreter: &Interpreter, complaints: &mut Complaints) {
    let Some(mut target) = start(interpreter, &["--own", "--interpreters", "1", "--late"]) else { return };
    let pid = target.pid().to_string();
    let running = Running::start(&["attach", "--pid", &pid, "--duration", "0", "--format", "json"]);
    running.measures(&target);
    target.send("another");
    assert_eq!(target.line(), "late");
    let drivers = || std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    until("gilprof has met all threads", || {
        let tids = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        tids.filter_map(|t| t.file_name().to_str()?.parse().ok()).filter(|&tid| cli::watches(running.pid(), &target, tid)).count()
            == drivers()
    });
    // The main thread needs its GIL to create the interpreter. The window is long in comparison.
    let enough = cli::cpu_ticks(target.pid()) + if support::all() { 100 } else { 60 };
    until("the interpreters have worked for a second", || cli::cpu_ticks(target.pid()) >= enough);
    running.signal(libc::SIGINT);
    let report = running.end().ended(0, &[]).report();
    row!(interpreter.label, "{}", summary(&report));
    let busy: Vec<f64> = figures(&report, "busy").collect();
    let switches: Vec<&Value> = report["gils"].as_array().unwrap().iter().map(|g| &g["switches_per_s"]).collect();
    row!(interpreter.label, "busy {busy:.2?} switches {switches:?}");
    // The first subinterpreter's GIL keeps its number, and no GIL's counts decrease.
    complaints.expect(busy.len() == 3 && busy[0] < 0.3 && busy[1] > 0.4, || format!("busy {busy:?}"));
    let first = gil_of(&report, 0, complaints);
    complaints.expect(first == Some(1), || "the first subinterpreter's GIL is not the second".into());
    complaints.expect(switches.iter().all(|s| s.is_f64()), || format!("switches {switches:?}"));
    let after = attach(target.pid(), 0.2, &[]);
    complaints.expect(after["gils"].as_array().is_some_and(|g| g.len() == 3), || format!("{:#}", after["gils"]));
}
