//! Events in the life of a program while it is measured: forks, stops, the end of its interpreter
//! or of its main thread.

use crate::harness::Suite;
use crate::support::{self, checks, cli, compat};
use crate::{complaining, row};
use checks::{attach, measure, measure_process, thread, Complaints};
use cli::{signal, state as letter, until, warnings, Running};
use compat::{named, not_computing, state, sum, summary, unsound};
use serde_json::Value;
use support::{interpreters, window, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    complaining!(
        suite,
        interpreters(),
        [
            a_fork_without_exec,
            a_fork_by_another_thread,
            a_fork_by_c_code,
            stopped_while_measured,
            stopped_before_it_was_measured,
            a_main_thread_that_ended,
            an_interpreter_that_ends_before_its_process
        ]
    );
}

fn start(interpreter: &Interpreter) -> Target {
    Target::start(interpreter, "life", &[])
}

fn endless(target: &Target) -> Running {
    let running = Running::start(&["attach", "--pid", &target.pid().to_string(), "--duration", "0", "--format", "json"]);
    running.measures(target);
    running
}

/// Ends the window after this number of further samples, whatever time the target's own work leaves
/// for them.
fn later(target: &Target) {
    let begin = ticks(target.pid());
    until("the target has worked", || ticks(target.pid()) > begin + if support::all() { 40 } else { 16 });
}

/// The process's CPU time in the kernel's ticks, a hundred a second.
fn ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
    fields.iter().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum()
}

fn sound(interpreter: &Interpreter, what: &str, report: &Value, complaints: &mut Complaints) {
    row!(interpreter.label, "{what}: {}; {}", summary(report), warnings(report));
    unsound(report).into_iter().for_each(|wrong| complaints.add(&format!("{what}: {wrong}")));
}

/// The child has a new GIL. Only one of its threads is left, with new ids.
fn forked(interpreter: &Interpreter, word: &str, complaints: &mut Complaints) {
    let mut target = start(interpreter);
    let running = endless(&target);
    target.send(word);
    let output: Value = serde_json::from_str(&target.line()).unwrap();
    let child = output["child"].as_i64().unwrap() as i32;
    later(&target);
    running.signal(libc::SIGINT);
    let report = running.end().ended(0, &[]).report();
    sound(interpreter, word, &report, complaints);
    complaints.expect(report["window"]["failed"] == 0 && warnings(&report).is_empty(), || format!("{:#}", report["window"]));
    complaints.expect(named(&report, "child-").is_empty(), || "the child's threads in the parent's report".into());
    let both = sum(&report, "worker-", "holding") + sum(&report, "worker-", "waiting");
    complaints.expect(both > 1.7, || format!("the parent's workers: {both:.2}"));

    measure_process(interpreter, child, window(0.7, 0.4), complaints, |measured, complaints| {
        let report = &measured.report;
        sound(interpreter, "the child", report, complaints);
        let both = (sum(report, "child-", "holding"), sum(report, "child-", "waiting"));
        complaints.expect((0.85..1.05).contains(&both.0) && both.1 > 0.7, || format!("the child's threads hold and wait {both:.2?}"));
        let threads = report["threads"].as_array().unwrap();
        complaints.expect(threads.len() == 3 && threads.iter().all(|t| t["python"] == true), || format!("{threads:#?}"));
        complaints.expect(threads.iter().any(|t| t["tid"] == child), || "no main thread".into());
    });
}

fn a_fork_without_exec(interpreter: &Interpreter, complaints: &mut Complaints) {
    forked(interpreter, "fork", complaints);
}

fn a_fork_by_another_thread(interpreter: &Interpreter, complaints: &mut Complaints) {
    forked(interpreter, "forkthread", complaints);
}

/// All thread states of the parent are in the child, with the parent's ids; one of them has a
/// thread.
fn a_fork_by_c_code(interpreter: &Interpreter, complaints: &mut Complaints) {
    if interpreter.has_musl() {
        return support::skip(&format!("{}: its ctypes lacks libffi", interpreter.label));
    }
    for (args, name) in [(vec![], "MainThread"), (vec!["--worker"], "forker")] {
        let target = Target::start(interpreter, "c_fork", &args);
        let child = target.fact("child").as_i64().unwrap() as i32;
        measure_process(interpreter, child, window(0.7, 0.4), complaints, |measured, complaints| {
            let report = &measured.report;
            sound(interpreter, name, report, complaints);
            compat::two_after_a_c_fork(report, name).into_iter().for_each(|wrong| complaints.add(&wrong));
            complaints.expect(thread(report, name)["tid"] == child, || format!("{name} is not the child's main thread"));
        });
        let dump = cli::gilprof(&["dump", "--pid", &child.to_string()]);
        dump.ended(0, &[]).printed(&["(late)", &format!("Thread {child} ({name})")]);
        complaints.expect(!dump.out.contains("sleeper") && !dump.out.contains("[no python"), || dump.out.clone());
    }
}

/// A stopped program does nothing. No thread is blamed for that, and the report says so.
fn stopped_while_measured(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = start(interpreter);
    let running = endless(&target);
    later(&target);
    signal(target.pid(), libc::SIGSTOP);
    until("the target stands", || letter(target.pid()) == Some('T'));
    // gilprof's own CPU time shows that it samples the stopped program.
    let begin = ticks(running.pid());
    until("gilprof goes on sampling", || ticks(running.pid()) > begin + 4);
    signal(target.pid(), libc::SIGCONT);
    later(&target);
    running.signal(libc::SIGINT);
    let report = running.end().ended(0, &[]).report();
    sound(interpreter, "stopped", &report, complaints);
    complaints.expect(warnings(&report).contains("stood still"), || format!("no such warning: {:?}", warnings(&report)));
    let blocked: f64 = named(&report, "worker-").iter().map(|t| t["holding"]["blocked"].as_f64().unwrap()).sum();
    complaints.expect(blocked < 0.05, || format!("held asleep: {blocked:.2}"));
    complaints.expect(report["verdict"]["code"] != "blocked-holding-gil", || report["verdict"].to_string());
    for worker in named(&report, "worker-") {
        complaints.expect(state(worker, "unknown") > 0.05 && state(worker, "io") < 0.05, || worker["states"].to_string());
    }
}

fn stopped_before_it_was_measured(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = start(interpreter);
    signal(target.pid(), libc::SIGSTOP);
    until("the target stands", || letter(target.pid()) == Some('T'));
    let report = attach(target.pid(), 0.4, &[]);
    sound(interpreter, "stopped all along", &report, complaints);
    complaints.expect(warnings(&report).contains("stood still"), || format!("no such warning: {:?}", warnings(&report)));
    complaints.expect(["inconclusive", "idle"].iter().any(|code| report["verdict"]["code"] == *code), || report["verdict"].to_string());
    complaints.expect(named(&report, "").iter().all(|t| state(t, "unknown") > 0.95), || summary(&report));
    signal(target.pid(), libc::SIGCONT);
    measure(interpreter, &target, window(0.7, 0.4), complaints, |measured, complaints| {
        not_computing(&measured.report, 2).into_iter().for_each(|wrong| complaints.add(&wrong));
    });
}

/// The kernel shows such a process as a zombie without memory or executable. Its other threads have
/// both.
fn a_main_thread_that_ended(interpreter: &Interpreter, complaints: &mut Complaints) {
    if support::lacks(interpreter, "ctypes") {
        return;
    }
    let mut target = start(interpreter);
    let running = endless(&target);
    later(&target);
    target.send("endmain");
    until("the main thread has ended", || letter(target.pid()) == Some('Z'));
    later(&target);
    running.signal(libc::SIGINT);
    let report = running.end().ended(0, &[]).report();
    sound(interpreter, "ended meanwhile", &report, complaints);
    complaints.expect(report["window"]["failed"] == 0 && warnings(&report).is_empty(), || {
        format!("{}: {:?}", report["window"]["failed"], warnings(&report))
    });
    let (whole, main) = (report["window"]["seconds"].as_f64().unwrap(), thread(&report, "MainThread")["seconds"].as_f64().unwrap());
    complaints.expect(main < whole * 0.9, || format!("the main thread lived {main:.2} of {whole:.2} s"));
    for worker in named(&report, "worker-") {
        complaints.expect(worker["seconds"].as_f64().unwrap() > whole * 0.9, || format!("a worker was lost: {worker}"));
    }

    measure(interpreter, &target, window(0.7, 0.4), complaints, |measured, complaints| {
        let report = &measured.report;
        sound(interpreter, "ended before", report, complaints);
        not_computing(report, 2).into_iter().for_each(|wrong| complaints.add(&wrong));
        complaints.expect(named(report, "MainThread").is_empty(), || "a thread that is gone is listed".into());
        complaints.expect(!report["target"]["executable"].as_str().unwrap().is_empty(), || report["target"].to_string());
        complaints.expect(!report["target"]["command"][0].as_str().unwrap().starts_with('['), || report["target"].to_string());
    });
    let dump = cli::gilprof(&["dump", "--pid", &target.pid().to_string()]);
    dump.ended(0, &[]).printed(&["worker-0", "worker-1", "burn"]);
}

/// The interpreter ends in the middle of the window, the process does not.
fn an_interpreter_that_ends_before_its_process(interpreter: &Interpreter, complaints: &mut Complaints) {
    if support::lacks(interpreter, "ctypes") {
        return;
    }
    let mut target = start(interpreter);
    let running = endless(&target);
    later(&target);
    target.send("finalize");
    assert_eq!(target.line(), "ended");
    let report = running.end().ended(0, &[]).report();
    sound(interpreter, "finalized", &report, complaints);
    complaints.expect(warnings(&report).contains("ended its interpreter"), || format!("no such warning: {:?}", warnings(&report)));
    complaints.expect(sum(&report, "worker-", "holding") > 0.8, || summary(&report));
}
