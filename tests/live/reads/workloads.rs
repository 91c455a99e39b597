//! The measured programs do what their names promise, on the oldest and the newest interpreter or
//! on all. gilprof itself does not run here.

use crate::harness::{newest, Suite};
use crate::on;
use crate::support;
use support::{interpreters, legacy_interpreters, oldest_and_newest, repository, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    on!(suite, oldest_and_newest(interpreters()), [every_workload_comes_to_its_handshake_and_ends_with_its_stdin]);
    on!(suite, interpreters().into_iter().chain(legacy_interpreters()), [the_pid_is_the_interpreters_own]);
    on!(suite, oldest_and_newest(interpreters()), [requests_come_at_the_promised_rate]);
    on!(suite, newest(interpreters()), [the_call_graph_has_ten_levels_and_two_callees_each]);
    on!(suite, interpreters().into_iter().filter(|i| i.root.is_none()), [examples_run_and_say_how_much_they_did]);
}

fn every_workload_comes_to_its_handshake_and_ends_with_its_stdin(interpreter: &Interpreter) {
    for name in [
        "call_heavy",
        "churn",
        "cpu",
        "crowd",
        "hashing",
        "identity",
        "interpreters",
        "life",
        "lock",
        "mixed",
        "names",
        "objects",
        "resting",
        "sleepers",
        "blocked_states",
    ] {
        let target = Target::start(interpreter, name, &[]);
        assert!(target.pid() > 1);
        let (status, _) = target.finish();
        assert!(status.success(), "{}: {name}: {status}", interpreter.label);
    }
}

fn the_pid_is_the_interpreters_own(interpreter: &Interpreter) {
    let mut target = Target::start(interpreter, "cpu", &["--threads", "1", "--facts"]);
    let tid = target.fact("tids")["worker-0"].as_i64().unwrap();
    let ours = format!("/proc/{}/task/{tid}", target.pid());
    assert!(std::path::Path::new(&ours).exists(), "{}: no {ours}", interpreter.label);
    target.kill();
    assert!(!std::path::Path::new(&ours).exists(), "{}: {ours} outlived its kill", interpreter.label);
}

fn requests_come_at_the_promised_rate(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "churn", &[]);
    let shown = threads_seen_until(&target, 30);
    assert!(shown >= 30, "{}: {shown}", interpreter.label);
    let (_, last) = target.finish();
    let last = last.unwrap();
    assert!(last["done"].as_f64().unwrap() / last["seconds"].as_f64().unwrap() > 25.0, "{}: {last}", interpreter.label);
}

/// The number of different threads that the kernel showed, when there were `enough` or the patience
/// ended.
fn threads_seen_until(target: &Target, enough: usize) -> usize {
    let start = std::time::Instant::now();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < enough && start.elapsed() < support::PATIENCE {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", target.pid())).unwrap();
        seen.extend(tasks.map(|t| t.unwrap().file_name()));
        std::thread::yield_now();
    }
    seen.len()
}

fn the_call_graph_has_ten_levels_and_two_callees_each(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "call_heavy", &[]);
    let graph = target.fact("graph").as_object().unwrap();
    assert_eq!(graph.len(), 41);
    assert!(graph.iter().all(|(caller, callees)| {
        let expected = if caller == "drive" { 4 } else { 2 * usize::from(!caller.starts_with("f9_")) };
        callees.as_array().unwrap().len() == expected
    }));
}

fn examples_run_and_say_how_much_they_did(interpreter: &Interpreter) {
    for (name, unit) in
        [("cpu_threads", "rounds/s"), ("cpu_processes", "rounds/s"), ("io_threads", "requests/s"), ("hash_threads", "MiB/s")]
    {
        let output = example(interpreter, name);
        assert!(output.starts_with("ready\n") && output.trim_end().ends_with(unit), "{}: {name}: {output:?}", interpreter.label);
    }
}

fn example(interpreter: &Interpreter, name: &str) -> String {
    let file = repository().join("examples").join(name).with_extension("py");
    let out = interpreter.command().arg(file).args(["--threads", "2", "--seconds", "0.2", "--ready-fd", "1"]).output().unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{}: {name}: {out:?}", interpreter.label);
    String::from_utf8(out.stdout).unwrap()
}
