//! Programs whose children do the work: the report of one process says so, and the gate measures
//! them.

use crate::harness::{newest, Suite};
use crate::support::{self, checks, cli, gate};
use crate::{complaining, on, row};
use checks::{attach, number, Complaints};
use serde_json::Value;
use support::{interpreters, oldest_and_newest, repository, Folder, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    complaining!(suite, oldest_and_newest(interpreters()), [workers_of_a_pool]);
    complaining!(suite, cli::two_interpreters(), [processes_below_a_shell, children_that_are_not_python]);
    on!(suite, newest(cli::two_interpreters()), [a_gate_of_one_process_needs_the_work_there]);
}

/// Cores that two children use together at least, however many other programs run.
const CORES: f64 = 0.08;

fn findings(report: &Value) -> Vec<&Value> {
    report["findings"].as_array().unwrap().iter().filter(|finding| finding["code"] == "work-in-children").collect()
}

/// Complains unless the report names these children, and advises to measure one of them.
fn expect_children(target: &Target, report: &Value, complaints: &mut Complaints) {
    let mut pids: Vec<i64> = target.fact("children").as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap()).collect();
    let found = &report["children"];
    let listed = found["processes"].as_array().cloned().unwrap_or_default();
    let mut python: Vec<i64> = listed.iter().filter(|p| p["kind"] == "python").map(|p| p["pid"].as_i64().unwrap()).collect();
    pids.sort_unstable();
    python.sort_unstable();
    complaints.expect(pids == python && found["python_processes"] == 2, || format!("children {pids:?}: {found:#}"));
    complaints.expect(found["python_cores"].as_f64() > Some(CORES), || format!("{found:#}"));
    let text = findings(report).iter().map(|f| format!("{} {}", f["evidence"], f["advice"])).collect::<String>();
    complaints.expect(pids.iter().all(|pid| text.contains(&format!("{pid} ("))), || format!("{pids:?}: {text}"));
    let verdict = &report["verdict"];
    complaints.expect(verdict["code"] == "inconclusive" && verdict["confidence"] != "high", || format!("{verdict:#}"));
    let step = verdict["next_steps"][0].as_str().unwrap_or_default();
    complaints.expect(step.ends_with(&format!("gilprof attach --subprocesses --pid {}", target.pid())), || step.to_string());
}

fn workers_of_a_pool(interpreter: &Interpreter, complaints: &mut Complaints) {
    if interpreter.has_musl() {
        return support::skip(&format!("{}: its multiprocessing has no semaphores", interpreter.label));
    }
    let target = Target::start(interpreter, "family", &["--how", "pool"]);
    let (folder, pid) = (Folder::new("family"), target.pid());
    let file = folder.path().join("run.gilprof");
    checks::measure(interpreter, &target, 0.6, complaints, |measured, complaints| {
        row!(interpreter.label, "pool: {}", measured.report["children"]);
        expect_children(&target, &measured.report, complaints);
    });
    let report = attach(pid, 0.4, &["-o", file.to_str().unwrap()]);
    let again = support::report(&["report", file.to_str().unwrap()]);
    complaints.expect(again["children"] == report["children"] && again["findings"] == report["findings"], || format!("{again:#}"));
}

fn processes_below_a_shell(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "family", &["--how", "tree"]);
    checks::measure(interpreter, &target, 0.6, complaints, |measured, complaints| {
        row!(interpreter.label, "tree: {}", measured.report["children"]);
        expect_children(&target, &measured.report, complaints);
    });
}

fn children_that_are_not_python(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "family", &["--how", "other"]);
    checks::measure(interpreter, &target, 0.6, complaints, |measured, complaints| {
        let report = &measured.report;
        row!(interpreter.label, "other: {}", report["children"]);
        complaints.expect(number(report, "/children/other_cores") > CORES && findings(report).is_empty(), || format!("{report:#}"));
        let headline = report["verdict"]["headline"].as_str().unwrap();
        complaints.expect(headline.contains("not Python"), || headline.into());
    });
}

/// Runs the gate on the workload, and returns its outcome with its exit code.
fn gate_of(interpreter: &Interpreter, folder: &gate::Folder, args: &[&str]) -> (Option<i32>, Value) {
    let mut command = folder.command(&["--no-subprocesses", "--max", "waiting <= 20%", "--format", "json=o.json", "--"]);
    command.arg(&interpreter.path).arg("-B").arg(repository().join("tests/workloads/family.py")).args(args);
    let output = cli::Running::spawn(command).end();
    (output.status.code(), gate::outcome(&folder.read("o.json")))
}

fn a_gate_of_one_process_needs_the_work_there(interpreter: &Interpreter) {
    let folder = gate::Folder::new("gate-family");
    for how in ["pool", "chain", "tree"] {
        let (code, outcome) = gate_of(interpreter, &folder, &["--how", how, "--seconds", "12"]);
        let why = outcome["checks"][0]["why"].as_str().unwrap();
        row!(interpreter.label, "{how}: {code:?} {why}");
        assert!(code == Some(3) && why.contains("was not measured"), "{how}: {outcome:#}");
    }
    for args in [&["--how", "other", "--own"][..], &["--how", "pool", "--own"]] {
        let (code, outcome) = gate_of(interpreter, &folder, &[args, &["--seconds", "12"]].concat());
        let why = outcome["checks"][0]["why"].as_str().unwrap();
        row!(interpreter.label, "{args:?}: {code:?} {why}");
        // It may lack cores, if other programs run.
        assert!(code == Some(0) || code == Some(3) && !why.contains("was not measured"), "{args:?}: {outcome:#}");
    }
}
