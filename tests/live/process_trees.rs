//! A program and the Python processes below it, measured together.

use crate::harness::{newest, Suite};
use crate::support::{self, checks, cli, gate};
use crate::{complaining, on, row};
use checks::{number, Complaints};
use cli::{gilprof, quoted, Running};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use support::{gilprof_command, interpreters, oldest_and_newest, repository, Folder, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    complaining!(suite, oldest_and_newest(interpreters()), [each_worker_has_a_report_of_its_own]);
    complaining!(suite, newest(cli::two_interpreters()), [idle_workers_are_idle]);
    on!(
        suite,
        cli::two_interpreters(),
        [
            no_worker_that_ended_is_lost,
            programs_below_a_shell,
            a_kill_of_gilprof_keeps_all_processes,
            without_subprocesses_the_first_one_is_measured,
            the_id_of_a_thread_stands_for_its_process,
            what_is_for_one_process_says_so
        ]
    );
    on!(suite, newest(cli::two_interpreters()), [the_gate_checks_the_worst_process]);
}

const KINDS: [&str; 4] = ["fork", "spawn", "forkserver", "executor"];

/// The reports of one or several processes.
fn reports(all: &Value) -> Vec<&Value> {
    match all["reports"].as_array() {
        Some(reports) => reports.iter().collect(),
        None => vec![all],
    }
}

fn pids(all: &Value) -> Vec<i64> {
    reports(all).iter().map(|report| report["target"]["pid"].as_i64().unwrap()).collect()
}

fn children(target: &Target) -> BTreeSet<i64> {
    target.fact("children").as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap()).collect()
}

/// The report of `attach --subprocesses`.
fn attach(target: &Target, seconds: f64, more: &[&str]) -> Value {
    checks::attach(target.pid(), seconds, &[&["--subprocesses"], more].concat())
}

fn tree(how: &str, more: &[&str], interpreter: &Interpreter) -> Target {
    Target::start(interpreter, "tree", &[&["--how", how], more].concat())
}

fn each_worker_has_a_report_of_its_own(interpreter: &Interpreter, complaints: &mut Complaints) {
    if interpreter.has_musl() {
        return support::skip(&format!("{}: its multiprocessing has no semaphores", interpreter.label));
    }
    for how in KINDS {
        let target = tree(how, &[], interpreter);
        let all = attach(&target, 0.8, &[]);
        let (found, workers) = (pids(&all), children(&target));
        let distinct: BTreeSet<i64> = found.iter().copied().collect();
        complaints.expect(distinct.len() == found.len(), || format!("{how}: a process is there twice: {found:?}"));
        complaints.expect(found.first() == Some(&target.pid().into()), || format!("{how}: {found:?} do not begin with {}", target.pid()));
        complaints.expect(distinct.is_superset(&workers), || format!("{how}: {workers:?} are not all in {found:?}"));
        for report in reports(&all) {
            let (pid, busy) = (report["target"]["pid"].as_i64().unwrap(), number(report, "/gil/busy"));
            let waiters = number(report, "/gil/waiters_mean");
            row!(interpreter.label, "{how}: pid {pid} GIL busy {busy:.2}, {waiters:.2} wait");
            let works = workers.contains(&pid);
            complaints.expect(works == (busy > 0.5 && waiters > 1.0), || format!("{how}: {pid} of {workers:?}: busy {busy}, {waiters}"));
            complaints.expect(report.get("children").is_none(), || format!("{how}: {pid} lists children that are measured: {report:#}"));
        }
    }
}

/// A process that idles is hardly sampled; its report still has all its time.
fn idle_workers_are_idle(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = tree("fork", &["--rest"], interpreter);
    let all = attach(&target, 0.8, &[]);
    let workers = children(&target);
    for report in reports(&all).into_iter().filter(|report| workers.contains(&report["target"]["pid"].as_i64().unwrap())) {
        let main = &report["threads"][0];
        let (asleep, seconds) = (number(main, "/states/io") + number(main, "/states/lock"), number(report, "/window/seconds"));
        row!(interpreter.label, "asleep {asleep:.3} of {seconds:.2} s");
        complaints.expect(asleep > 0.9 && report["threads"].as_array().unwrap().len() == 1, || format!("{report:#}"));
        complaints.expect((number(main, "/seconds") - seconds).abs() < 0.05, || format!("{main:#} in {seconds} s"));
    }
    complaints.expect(pids(&all).len() == 3, || format!("{:?}", pids(&all)));
}

fn no_worker_that_ended_is_lost(interpreter: &Interpreter) {
    let folder = Folder::new("turns");
    let file = folder.path().join("turns.gilprof");
    let workload = repository().join("tests/workloads/tree.py");
    let mut command = gilprof_command(&["record", "-o", text(&file), "--"]);
    command.arg(&interpreter.path).arg("-B").arg(workload).args(["--how", "turns", "--count", "10"]);
    let finished = Running::spawn(command).end();
    finished.ended(0, &["wrote"]);
    let started: Value = serde_json::from_str(&finished.out).unwrap();
    let all = support::report(&["report", text(&file)]);
    let started: BTreeSet<i64> = started["children"].as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap()).collect();
    let found: BTreeSet<i64> = pids(&all).into_iter().skip(1).collect();
    row!(interpreter.label, "{} of {} workers", found.len(), started.len());
    assert_eq!(found, started);
    for report in reports(&all).into_iter().skip(1) {
        assert!(number(report, "/gil/busy") > 0.5, "{report:#}");
    }
}

/// The root is no Python.
fn programs_below_a_shell(interpreter: &Interpreter) {
    let python = quoted(interpreter.path.to_str().unwrap());
    // One write each, because both write to the same pipe.
    let code = "import os; os.write(1, b\"%d\\n\" % os.getpid()); os.read(0, 1)";
    let script = format!("{python} -c '{code}' <&3 & {python} -c '{code}' <&3 & wait; exit 6");
    let mut command = gilprof_command(&["run", "--format", "json", "--", "sh", "-c", &format!("exec 3<&0; {script}")]);
    let mut running = Running::spawn_with(command.stdin(std::process::Stdio::piped()));
    let started: BTreeSet<i64> = (0..2).map(|_| running.line().trim().parse().unwrap()).collect();
    for &pid in &started {
        cli::until("gilprof samples both", || cli::watches_main(running.pid(), pid as i32));
    }
    running.close();
    let finished = running.end();
    assert_eq!(finished.status.code(), Some(6), "{finished:?}");
    let json = finished.err.find('{').map(|at| &finished.err[at..]).unwrap();
    let all: Value = serde_json::Deserializer::from_str(json).into_iter().next().unwrap().unwrap();
    assert_eq!(pids(&all).into_iter().collect::<BTreeSet<_>>(), started);
}

fn a_kill_of_gilprof_keeps_all_processes(interpreter: &Interpreter) {
    let target = tree("fork", &[], interpreter);
    let folder = Folder::new("killed");
    let file = folder.path().join("killed.gilprof");
    let running = Running::start(&["record", "--subprocesses", "--pid", &target.pid().to_string(), "-o", text(&file)]);
    let wanted: BTreeSet<i64> = children(&target).into_iter().chain([target.pid().into()]).collect();
    let is_recorded = || {
        let output = gilprof(&["report", text(&file), "--format", "json"]);
        let all: Option<Value> = serde_json::from_str(&output.out).ok();
        all.is_some_and(|all| pids(&all).into_iter().collect::<BTreeSet<_>>() == wanted)
    };
    cli::until("all processes are in the file", is_recorded);
    running.signal(9);
    drop(running);
    let all = support::report(&["report", text(&file)]);
    assert_eq!(pids(&all).into_iter().collect::<BTreeSet<_>>(), wanted);
    for report in reports(&all) {
        assert!(cli::warnings(report).contains("breaks off"), "{report:#}");
    }
}

fn without_subprocesses_the_first_one_is_measured(interpreter: &Interpreter) {
    let workload = repository().join("tests/workloads/tree.py");
    let mut command = gilprof_command(&["run", "--no-subprocesses", "--format", "json", "--"]);
    command.arg(&interpreter.path).arg("-B").arg(workload).args(["--how", "fork", "--seconds", "5"]);
    let finished = Running::spawn(command).end();
    finished.ended(0, &["gilprof.report/1"]);
}

fn the_id_of_a_thread_stands_for_its_process(interpreter: &Interpreter) {
    let target = tree("fork", &[], interpreter);
    let tasks = std::fs::read_dir(format!("/proc/{}/task", target.pid())).unwrap();
    let mut tids = tasks.flatten().map(|task| task.file_name().to_str().unwrap().parse::<i32>().unwrap());
    let thread = tids.find(|tid| *tid != target.pid()).unwrap();
    let all = checks::attach(thread, 0.4, &["--subprocesses"]);
    let wanted: BTreeSet<i64> = children(&target).into_iter().chain([target.pid().into()]).collect();
    assert_eq!(pids(&all).into_iter().collect::<BTreeSet<_>>(), wanted);
}

fn what_is_for_one_process_says_so(_: &Interpreter) {
    let pid = std::process::id().to_string();
    gilprof(&["attach", "-s", "--engine", "kernel", "--pid", &pid]).ended(2, &["the kernel engine is for one process"]);
    gilprof(&["attach", "-s", "--runtime", "1", "--pid", &pid]).ended(2, &["--runtime is for one process"]);
    gilprof(&["attach", "-s", "--max-cpu", "0%", "--pid", &pid]).ended(2, &["above 0 %"]);
}

/// The main process does next to nothing; its workers contend, or have one thread each.
fn the_gate_checks_the_worst_process(interpreter: &Interpreter) {
    let folder = gate::Folder::new("gate-tree");
    let workload = repository().join("tests/workloads/tree.py");
    for (more, code) in [(&[][..], 1), (&["--calm"], 0)] {
        let mut command = folder.command(&["--max", "waiting <= 20%", "--format", "json=o.json", "--"]);
        command.arg(&interpreter.path).arg("-B").arg(&workload).args(["--how", "fork", "--seconds", "15"]).args(more);
        let finished = Running::spawn(command).end();
        let outcome = gate::outcome(&folder.read("o.json"));
        let check = &outcome["checks"][0];
        row!(interpreter.label, "{more:?}: {:?} {}", finished.status.code(), check["measured_text"]);
        if code == 1 {
            assert_eq!((finished.status.code(), &check["verdict"]), (Some(1), &Value::from("fail")), "{outcome:#}");
            assert!(check["culprit"]["name"] == "compute" && check["process"].is_number(), "{check:#}");
        } else {
            let starved = finished.err.contains("hort of CPU");
            assert!(finished.status.code() == Some(if starved { 3 } else { 0 }), "{outcome:#}");
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
