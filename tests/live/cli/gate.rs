//! `gilprof gate` on live programs.

use crate::harness::{newest, Suite};
use crate::on;
use crate::support::{self, cli};
use cli::{cpu_ticks, two_interpreters, until, Running};
use std::io::Read;
use std::process::Stdio;
use support::gate::{outcome, Folder};
use support::{repository, Interpreter};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    on!(suite, two_interpreters(), [a_program_is_run_and_checked_and_its_function_named]);
    on!(
        suite,
        newest(two_interpreters()),
        [
            a_window_without_enough_data_is_inconclusive,
            a_command_that_does_nothing_is_inconclusive,
            a_program_that_was_not_measured_for_as_long_as_asked_is_inconclusive,
            the_commands_own_failure_is_named_and_is_no_verdict,
            runs_and_one_more_thread_against_a_baseline
        ]
    );
}

fn a_program_is_run_and_checked_and_its_function_named(python: &Interpreter) {
    let folder = Folder::new("gate-run");
    let output = folder.run(python, &["--max", "waiting <= 10%"], &["--seconds", "1.2"]);
    output.ended(1, &["FAIL", "✗ waiting <= 10%", "burn (", "gate.py:", "in thread worker-"]);
    assert_eq!(output.out, "", "stdout is the program's own");
    let output = folder.run(python, &["--max", "waiting <= 70%", "--format", "json=o.json"], &["--seconds", "1.2"]);
    output.ended(0, &["PASS"]);
    let waiting = outcome(&folder.read("o.json"))["checks"][0]["measured"]["value"].as_f64().unwrap();
    assert!((0.4..0.6).contains(&waiting), "{waiting}");
}

fn a_window_without_enough_data_is_inconclusive(python: &Interpreter) {
    let folder = Folder::new("gate-too-little");
    let limits = ["--max", "waiting <= 99%", "--max", "gil.busy <= 100%"];
    // Too few samples; a program that did not run.
    folder.run(python, &[&limits[..], &["--rate", "50"]].concat(), &["--seconds", "0.5"]).ended(3, &["are too few"]);
    let mut idle = folder.command(&[&limits[..], &["--format", "json", "--duration", "1s", "--pid"]].concat());
    let mut sleeper = python
        .command()
        .args(["-c", "import sys; print('ready', flush=True); sys.stdin.read()"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(sleeper.stdout.as_mut().unwrap(), &mut [0; 5]).unwrap();
    idle.arg(sleeper.id().to_string());
    let output = Running::spawn(idle).end();
    let outcome = outcome(&output.out);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert_eq!((output.status.code(), outcome["checks"][1]["verdict"].as_str()), (Some(3), Some("inconclusive")), "{outcome:#}");
    assert!(outcome["checks"][1]["why"].as_str().unwrap().contains("dle"), "{outcome:#}");
}

/// Its interpreter starts, sleeps and ends; or it only imports modules.
fn a_command_that_does_nothing_is_inconclusive(python: &Interpreter) {
    let folder = Folder::new("gate-nothing");
    for program in ["import time; time.sleep(1)", "import json, time; time.sleep(.3)"] {
        let inner = python.command();
        let mut command = folder.command(&["--max", "waiting <= 20%", "--max", "verdict not in [latency-victims]", "--"]);
        command.arg(inner.get_program()).args(inner.get_args()).args(["-c", program]);
        let output = Running::spawn(command).end();
        output.ended(3, &["INCONCLUSIVE", "nothing ran", "The GIL was held for "]);
    }
}

/// The program ends before the window does; a signal ends the first of several runs.
fn a_program_that_was_not_measured_for_as_long_as_asked_is_inconclusive(python: &Interpreter) {
    let folder = Folder::new("gate-cut-short");
    let limit = ["--max", "waiting <= 99%", "--duration", "60s"];
    let start = |args: &[&str], seconds: &str| {
        let workload = repository().join("tests/workloads/gate.py");
        let mut program = python.command();
        program.arg("-B").arg(workload).args(["--ready", "--seconds", seconds]).stdout(Stdio::piped());
        let mut program = program.spawn().unwrap();
        program.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
        let pid = program.id().to_string();
        let gate = Running::spawn(folder.command(&[&limit[..], args, &["--pid", &pid]].concat()));
        (gate, program)
    };
    let (gate, mut program) = start(&[], "2");
    let output = gate.end();
    program.wait().unwrap();
    output.ended(3, &[]).printed(&["INCONCLUSIVE", "the window ended after", "instead of 60.0 s"]);
    // A command that was started for the gate may end before the window.
    let output = folder.run(python, &limit, &["--seconds", "2"]);
    output.ended(0, &[]);
    let (gate, mut program) = start(&["--runs", "5"], "60");
    let pid = program.id().try_into().unwrap();
    until("gilprof samples the program", || cli::watches_main(gate.pid(), pid));
    // Enough for a verdict.
    let begin = cpu_ticks(pid);
    until("the program works", || cpu_ticks(pid) > begin + 60);
    gate.signal(libc::SIGTERM);
    let output = gate.end();
    program.kill().unwrap();
    program.wait().unwrap();
    output.ended(3, &[]).printed(&["INCONCLUSIVE", "the gate was interrupted after 1 of 5 runs"]);
}

fn the_commands_own_failure_is_named_and_is_no_verdict(python: &Interpreter) {
    let folder = Folder::new("gate-failure");
    for code in [7, 1] {
        let args = ["--max", "waiting <= 99%", "--format", "json=o.json"];
        let program = ["--seconds", "0.3", "--end", &code.to_string()];
        let how = format!("the command ended with exit code {code}");
        folder.run(python, &args, &program).ended(5, &["NOT CHECKED", &how]);
        let outcome = outcome(&folder.read("o.json"));
        assert!(outcome["error"].as_str().unwrap().contains(&how) && outcome["command_failure"]["exit_code"] == code, "{outcome:#}");
        let passed_on = [&args[..], &["--pass-exit-code"]].concat();
        folder.run(python, &passed_on, &program).ended(code, &["NOT CHECKED", &how]);
    }
}

fn runs_and_one_more_thread_against_a_baseline(python: &Interpreter) {
    let folder = Folder::new("gate-regression");
    let brief = ["--seconds", "1"];
    let output = folder.run(python, &["--baseline", "b.json", "--update-baseline", "--runs", "2", "--warmup", "1"], &brief);
    output.ended(0, &["Wrote the baseline b.json (2 runs).", "2 runs, "]);
    let output = folder.run(python, &["--baseline", "b.json"], &["--seconds", "1", "--more", "1"]);
    output.ended(1, &["waiting: +5pp, min 2pp", "added (", "gate.py:", "in thread latecomer-0", "since the baseline"]);
}
