//! Shared by the compatibility tests: a workload under any launcher, and what its report must
//! contain.

use crate::support::{self, Interpreter};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The folder of the workloads.
pub fn workload(name: &str) -> PathBuf {
    support::repository().join("tests/workloads").join(name).with_extension("py")
}

/// Whether a command can be started and succeeds. Its output is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Interpreters whose files are in this root, so that other programs can copy and run them.
pub fn in_this_root() -> Vec<Interpreter> {
    support::interpreters().into_iter().filter(|i| i.root.is_none()).collect()
}

/// The folder above an interpreter's `bin`.
pub fn home(interpreter: &Interpreter) -> PathBuf {
    interpreter.path.parent().and_then(std::path::Path::parent).unwrap().to_path_buf()
}

/// The shared library of an interpreter that has one.
pub fn library(interpreter: &Interpreter) -> Option<PathBuf> {
    let (major, minor) = interpreter.minor();
    let begins = format!("libpython{major}.{minor}");
    let is_it = |name: &str| name.starts_with(&begins) && name.contains(".so.");
    let files = std::fs::read_dir(home(interpreter).join("lib")).ok()?;
    files.flatten().find(|file| file.file_name().to_str().is_some_and(is_it)).map(|file| file.path())
}

/// A share of a thread's states.
pub fn state(thread: &Value, state: &str) -> f64 {
    thread["states"][state].as_f64().unwrap()
}

/// The threads with this prefix of their names.
pub fn named<'a>(report: &'a Value, prefix: &str) -> Vec<&'a Value> {
    report["threads"].as_array().unwrap().iter().filter(|t| t["name"].as_str().unwrap().starts_with(prefix)).collect()
}

/// The sum of a state over the threads with this prefix of their names.
pub fn sum(report: &Value, prefix: &str, of: &str) -> f64 {
    named(report, prefix).into_iter().map(|t| state(t, of)).sum()
}

/// Faults of a report of any program: states that do not add up to 1, or samples that failed.
pub fn unsound(report: &Value) -> Option<String> {
    for thread in report["threads"].as_array().unwrap() {
        let total: f64 = thread["states"].as_object().unwrap().values().map(|s| s.as_f64().unwrap()).sum();
        if (total - 1.0).abs() > 1e-4 {
            return Some(format!("the states of {} add to {total}", thread["name"]));
        }
    }
    let samples = |name: &str| report["window"][name].as_u64().unwrap();
    (samples("samples") == 0 || samples("failed") * 10 > samples("samples"))
        .then(|| format!("{} of {} samples failed", samples("failed"), samples("samples")))
}

/// Faults of a report on `count` threads called `worker-…` that compute in `burn`: they share one
/// GIL and need it all the time.
pub fn not_computing(report: &Value, count: usize) -> Option<String> {
    let (workers, holding, waiting) =
        (named(report, "worker-").len(), sum(report, "worker-", "holding"), sum(report, "worker-", "waiting"));
    let away = count as f64 - holding - waiting;
    let burn = report["functions"].as_array().unwrap().iter().find(|f| f["name"] == "burn").map_or(0.0, |f| f["holding"].as_f64().unwrap());
    let right = workers == count && (0.8..1.05).contains(&holding) && away < 0.35 && burn > 0.7;
    unsound(report).or_else(|| {
        (!right).then(|| format!("{workers} workers hold {holding:.2} and wait {waiting:.2}, burn holds {burn:.2}, of {count} threads"))
    })
}

/// Faults of a report on a process that `c_fork.py` forked: the thread that forked, and a new one,
/// share the GIL, and there are no others.
pub fn two_after_a_c_fork(report: &Value, name: &str) -> Option<String> {
    let threads = report["threads"].as_array().unwrap();
    let ours = |t: &Value| t["python"] == true && (t["name"] == name || t["name"] == "late") && state(t, "holding") > 0.15;
    let (holding, waiting) = (sum(report, "", "holding"), sum(report, "", "waiting"));
    let right = threads.len() == 2 && threads.iter().all(ours) && (0.85..1.05).contains(&holding) && waiting > 0.7;
    (!right).then(|| format!("not {name} and late by turns: {}", summary(report)))
}

/// One line of a report, for the table that a test prints.
pub fn summary(report: &Value) -> String {
    let workers = named(report, "");
    let shares: Vec<String> = workers
        .iter()
        .map(|t| {
            let of = |name| state(t, name) * 100.0;
            format!(
                "{} h{:.0} w{:.0} n{:.0} s{:.0} l{:.0} i{:.0} u{:.0}",
                t["name"].as_str().unwrap(),
                of("holding"),
                of("waiting"),
                of("native"),
                of("starved"),
                of("lock"),
                of("io"),
                of("unknown")
            )
        })
        .collect();
    let verdict = report["verdict"]["code"].as_str().unwrap();
    format!("{verdict}; busy {:.2}; {}", report["gil"]["busy"].as_f64().unwrap(), shares.join(" | "))
}
