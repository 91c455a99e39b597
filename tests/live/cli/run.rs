//! `gilprof run`: the program is not disturbed, its failure is passed on, and it is measured from
//! its first bytecode to its end.

use crate::harness::{newest, Suite};
use crate::support::{self, cli};
use crate::{on, once};
use cli::{quoted, shrink, two_interpreters, until, warnings, Running};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{gilprof_command, interpreters, legacy_interpreters, scratch, Interpreter};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    on!(suite, interpreters(), [a_short_program_is_measured_from_start_to_end]);
    on!(suite, legacy_interpreters(), [old_pythons_too]);
    on!(
        suite,
        two_interpreters(),
        [
            stdin_and_stdout_pass_through_byte_for_byte,
            a_command_that_becomes_python_later,
            signals_are_passed_on,
            the_report_comes_when_the_window_ends_not_the_program
        ]
    );
    on!(
        suite,
        newest(two_interpreters()),
        [
            the_exit_code_is_passed_on,
            a_shell_that_starts_python_as_a_child_gets_its_pid,
            a_signal_that_ends_the_program_is_its_exit_code,
            ignored_signals_stay_ignored,
            ctrl_c_in_a_terminal_reaches_the_program_once,
            the_program_becomes_something_else,
            a_file_that_cannot_be_written_after_all,
            a_signal_after_the_program_ends_gilprof,
            killing_gilprof_leaves_the_program_alone
        ]
    );
    once!(suite, [a_command_that_cannot_be_started, a_command_that_never_becomes_python, words_that_are_no_text_are_passed_on]);
}

/// `gilprof run ARGS -- python -c CODE`.
fn run(interpreter: &Interpreter, args: &[&str], code: &str) -> Command {
    let python = interpreter.command();
    let mut command = gilprof_command(&[&["run"], args, &["--"]].concat());
    command.arg(python.get_program()).args(python.get_args()).args(["-c", code]);
    for (name, value) in python.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// Python that waits until gilprof, its parent, samples it: files of its threads are open there.
const SAMPLED: &str = "
import os
def sampled():
    threads, files = '/proc/%d/task/' % os.getpid(), '/proc/%d/fd/' % os.getppid()
    for file in os.listdir(files):
        try:
            if os.readlink(files + file).startswith(threads): return True
        except OSError: pass
while not sampled(): pass
";

/// A report about a file, which is removed.
fn taken(file: &Path) -> serde_json::Value {
    let report = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    std::fs::remove_file(file).unwrap();
    report
}

/// Computes for a third of a second in `burn`, and prints the seconds that it took.
const SHORT: &str = "
import time
def burn(until):
    x = 1
    while time.time() < until:
        for i in range(2000): x = (x * 3 + i) & 65535
start = time.time()
burn(start + .33)
print(time.time() - start)
";

fn a_short_program_is_measured_from_start_to_end(interpreter: &Interpreter) {
    let file = scratch("short.json");
    let finished = Running::spawn(run(interpreter, &["-o", file.to_str().unwrap()], SHORT)).end();
    finished.ended(0, &["gilprof  pid", "samples at 1 000 Hz", "wrote"]);
    let (burnt, report) = (finished.out.trim().parse::<f64>().unwrap(), taken(&file));
    let burn = report["functions"].as_array().unwrap().iter().find(|f| f["name"] == "burn");
    let seen = burn.unwrap()["holding"].as_f64().unwrap() * report["window"]["seconds"].as_f64().unwrap();
    assert!(seen > 0.8 * burnt && seen < 1.1 * burnt, "{}: {seen} of {burnt}: {report:#}", interpreter.label);
    assert_eq!(warnings(&report), "", "the end of the program is no warning");
}

fn old_pythons_too(interpreter: &Interpreter) {
    let file = scratch("old.json");
    // Long enough for py-spy, which is slow to find an interpreter.
    let code = SHORT.replace(".33", "2");
    Running::spawn(run(interpreter, &["-o", file.to_str().unwrap()], &code)).end().ended(0, &["not visible before Python 3.7", "wrote"]);
    let report = taken(&file);
    assert!(report["gil"]["busy"].as_f64().unwrap() > 0.5, "{report:#}");
    assert!(report["target"]["command"].to_string().contains("burn"), "{report:#}");
    assert!(report["threads"][0]["cpu"].as_f64().unwrap() > 0.2, "{report:#}");
}

fn stdin_and_stdout_pass_through_byte_for_byte(interpreter: &Interpreter) {
    let bytes: Vec<u8> = (0..1_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let file = scratch("bytes");
    std::fs::write(&file, &bytes).unwrap();
    let code = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)";
    let mut command = run(interpreter, &["--format", "json"], code);
    let out = command.stdin(std::fs::File::open(&file).unwrap()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(out.stdout == bytes, "{} of {} bytes, or others", out.stdout.len(), bytes.len());
    let report: serde_json::Value = serde_json::from_slice(&out.stderr).unwrap();
    assert_eq!(report["schema"], "gilprof.report/1");
    std::fs::remove_file(file).unwrap();
}

fn the_exit_code_is_passed_on(interpreter: &Interpreter) {
    for (code, wanted) in [
        (SAMPLED, 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit(255)", 255),
        ("1 / 0", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 128 + libc::SIGTERM),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + libc::SIGKILL),
        ("import os; os.abort()", 128 + libc::SIGABRT),
    ] {
        Running::spawn(run(interpreter, &[], code)).end().ended(wanted, &[]);
    }
}

fn a_command_that_cannot_be_started() {
    let file = scratch("never.svg");
    let data = scratch("data");
    std::fs::write(&data, "no program").unwrap();
    let start = |program: &str| Running::start(&["run", "-o", file.to_str().unwrap(), "--", program]).end();
    start("/nowhere/program").ended(127, &["failed to start /nowhere/program: No such file or directory"]);
    start("gilprof-no-such-command").ended(127, &["failed to start gilprof-no-such-command"]);
    start(data.to_str().unwrap()).ended(126, &["Permission denied"]);
    assert!(!file.exists());
    std::fs::remove_file(data).unwrap();
}

/// The exit code is gilprof's own if the command succeeded, because nothing was measured.
fn a_command_that_never_becomes_python() {
    let file = scratch("never.gilprof");
    for (script, code) in [("exit 0", 8), ("exit 5", 5), ("kill -9 $$", 137)] {
        for start in [&["run"][..], &["record", "-o", file.to_str().unwrap()]] {
            let finished = Running::start(&[start, &["--", "sh", "-c", script]].concat()).end();
            finished.ended(code, &["ended before gilprof saw any Python in it (sh)", "nothing was measured, so there is no report"]);
            assert!(!file.exists());
        }
    }
    // Without `--`, and with options that are not gilprof's.
    Running::start(&["run", "sh", "-c", "exit 4"]).end().ended(4, &[]);
}

fn a_command_that_becomes_python_later(interpreter: &Interpreter) {
    let python = quoted(interpreter.path.to_str().unwrap());
    let file = scratch("later.json");
    let output = ["run", "-o", file.to_str().unwrap(), "--"];
    let later = format!("read go; exec {python} -B -c {}", quoted(SHORT));
    let script = ["sh", "-c", &later];
    let wrapped = ["env", "LATER=yes", interpreter.path.to_str().unwrap(), "-B", "-c", SHORT];
    for words in [&script[..], &wrapped[..]] {
        let mut command = gilprof_command(&[&output[..], words].concat());
        let mut running = Running::spawn_with(command.stdin(Stdio::piped()));
        running.write(b"go\n");
        let finished = running.end();
        finished.ended(0, &["wrote"]);
        assert!(taken(&file)["gil"]["busy"].as_f64().unwrap() > 0.5, "{finished:?}");
    }
}

fn a_shell_that_starts_python_as_a_child_gets_its_pid(interpreter: &Interpreter) {
    let python = quoted(interpreter.path.to_str().unwrap());
    // The shell has a command after it, so that it does not replace itself by Python.
    let script = format!("{python} -c 'import os; print(os.getpid(), flush=True); os.read(0, 1)'; exit 6");
    let mut command = gilprof_command(&["run", "--no-subprocesses", "--", "sh", "-c", &script]);
    let mut running = Running::spawn_with(command.stdin(Stdio::piped()));
    let child = running.line();
    // Printed while there is still time to attach.
    let finished = running.err_line();
    assert!(
        finished.contains("sh (pid ") && finished.contains(&format!("is not Python, but started it as process {child} (")),
        "{finished}"
    );
    assert_eq!(running.err_line(), format!("  gilprof attach --pid {child}"));
    running.close();
    running.end().ended(6, &[&format!("it started Python as process {child}"), "gilprof run -- ", "put exec before it"]);
}

/// Prints `ready`, then each signal that it gets, until its stdin ends.
const LISTENER: &str = "
import os, signal
def emitted(number, frame): os.write(1, b'%d\\n' % number)
for name in 'INT QUIT TERM HUP USR1 USR2'.split(): signal.signal(getattr(signal, 'SIG' + name), emitted)
os.write(1, b'ready\\n')
while os.read(0, 1): pass
os._exit(9)
";

fn signals_are_passed_on(interpreter: &Interpreter) {
    let mut command = run(interpreter, &[], LISTENER);
    let mut running = Running::spawn_with(command.stdin(Stdio::piped()));
    assert_eq!(running.line(), "ready");
    for number in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGTERM] {
        running.signal(number);
        assert_eq!(running.line(), number.to_string());
    }
    running.close();
    running.end().ended(9, &[]);
}

fn a_signal_that_ends_the_program_is_its_exit_code(interpreter: &Interpreter) {
    for number in [libc::SIGTERM, libc::SIGUSR1, libc::SIGHUP] {
        // Not a read, which would end with the pipe, possibly before the signal arrives.
        let code = format!("{SAMPLED}\nimport signal; os.write(1, b'ready\\n'); signal.pause()");
        let mut command = run(interpreter, &[], &code);
        let running = Running::spawn_with(command.stdin(Stdio::piped()));
        assert_eq!(running.line(), "ready");
        running.signal(number);
        running.end().ended(128 + number, &["gilprof  pid"]);
    }
}

fn ignored_signals_stay_ignored(interpreter: &Interpreter) {
    let code = "import signal; print(*[signal.getsignal(s) == signal.SIG_IGN for s in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)])";
    let inner = run(interpreter, &[], code);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP INT; exec \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args());
    let finished = Running::spawn(shell).end();
    finished.ended(0, &[]);
    assert_eq!(finished.out, "True True False\n");
}

fn ctrl_c_in_a_terminal_reaches_the_program_once(interpreter: &Interpreter) {
    // Its stdin is no terminal, but its terminal sends Ctrl-C all the same. The program asks
    // gilprof for USR1, which arrives after earlier signals.
    let code = format!(
        "{SAMPLED}
import signal
emitted = []
def interrupted(number, frame):
    emitted.append(number)
    os.kill(os.getppid(), signal.SIGUSR1)
def asked(number, frame):
    os.write(1, b'emitted %d\\n' % len(emitted))
    os._exit(0)
signal.signal(signal.SIGINT, interrupted)
signal.signal(signal.SIGUSR1, asked)
os.write(1, b'listening\\n')
while True: signal.pause()
"
    );
    let words = ["run", "--", interpreter.path.to_str().unwrap(), "-B", "-c", &code];
    let gilprof: Vec<String> = [env!("CARGO_BIN_EXE_gilprof")].iter().chain(&words).map(|word| quoted(word)).collect();
    let mut terminal = interpreter.command();
    terminal.arg(support::repository().join("tests/support/terminal.py")).args(["80", "listening", "\\x03", "sh", "-c"]);
    terminal.arg(format!("exec {} </dev/null", gilprof.join(" ")));
    let finished = Running::spawn_with(terminal.stdin(Stdio::piped())).end();
    finished.ended(0, &[]).printed(&["emitted 1", "gilprof  pid"]);
    assert!(!finished.out.contains(" samples  GIL busy "), "the screen is the program's: {finished:#?}");
}

fn the_report_comes_when_the_window_ends_not_the_program(interpreter: &Interpreter) {
    let mut command = run(interpreter, &["--duration", "300ms"], "import os; os.read(0, 1); os._exit(2)");
    let mut running = Running::spawn_with(command.stdin(Stdio::piped()));
    while !running.err_line().contains("gilprof used") {}
    assert!(cli::state(running.pid()).is_some());
    running.close();
    running.end().ended(2, &[]);
}

fn the_program_becomes_something_else(interpreter: &Interpreter) {
    let code = format!("{SHORT}\nimport os, sys; sys.stdout.flush(); os.execvp('sh', ['sh', '-c', 'exec cat; exit 8'])");
    let mut command = run(interpreter, &["--no-subprocesses"], &code);
    let mut running = Running::spawn_with(command.stdin(Stdio::piped()));
    running.line();
    while !running.err_line().contains("replaced itself by cat") {}
    running.write(b"still here\n");
    assert_eq!(running.line(), "still here");
    running.close();
    running.end().ended(0, &[]);
    // The other program may start Python.
    let mut running = Running::spawn_with(run(interpreter, &[], &code).stdin(Stdio::piped()));
    running.line();
    running.close();
    running.end().ended(0, &[]);
}

fn a_file_that_cannot_be_written_after_all(interpreter: &Interpreter) {
    let full = scratch("full.json");
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    for (end, wanted) in [("", 10), ("raise SystemExit(3)", 3)] {
        let program = format!("{SAMPLED}\n{end}");
        let finished = Running::spawn(run(interpreter, &["-o", full.to_str().unwrap()], &program)).end();
        finished.ended(wanted, &["full.json: No space left on device", "gilprof  pid"]);
    }
    std::fs::remove_file(full).unwrap();
}

fn a_signal_after_the_program_ends_gilprof(interpreter: &Interpreter) {
    let (pipe, blank) = (scratch("pipe.svg"), scratch("blank.json"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe: PathBuf = pipe.clone();
        move || {
            let file = std::fs::File::open(pipe).unwrap();
            shrink(file.as_raw_fd());
            file
        }
    });
    let args = ["-o", pipe.to_str().unwrap(), "-o", blank.to_str().unwrap()];
    // The kernel takes long to free the memory. Until then it cannot be read, but the parent does
    // not know of the end yet.
    let code = format!("{SAMPLED}\nheld = b'x' * (1 << 29); os._exit(0)");
    let running = Running::spawn(run(interpreter, &args, &code));
    let mut flamegraph = BufReader::with_capacity(16, reader.join().unwrap());
    flamegraph.read_line(&mut String::new()).unwrap();
    // gilprof is writing, and the program ended before.
    running.signal(libc::SIGINT);
    running.end().ended(130, &[]);
    assert!(!blank.exists());
    std::fs::remove_file(pipe).unwrap();
}

fn words_that_are_no_text_are_passed_on() {
    let mut command = gilprof_command(&["run", "--", "sh", "-c", "printf %s \"$1\"", "sh"]);
    let word = std::ffi::OsStr::from_bytes(b"a\xff'b");
    let out = command.arg(word).output().unwrap();
    assert_eq!(out.stdout, b"a\xff'b");
}

fn killing_gilprof_leaves_the_program_alone(interpreter: &Interpreter) {
    let code = "import os; os.write(1, b'%d\\n' % os.getpid()); os.read(0, 1); os.write(1, b'bye\\n')";
    let mut command = run(interpreter, &[], code);
    let (stdin, mut to) = std::io::pipe().unwrap();
    let running = Running::spawn_with(command.stdin(stdin));
    drop(command);
    let child: i32 = running.line().parse().unwrap();
    running.signal(libc::SIGKILL);
    until("gilprof is gone", || cli::state(running.pid()).is_none_or(|state| state == 'Z'));
    assert!(cli::state(child).is_some_and(|state| state != 'T' && state != 't'));
    to.write_all(b"x").unwrap();
    assert_eq!(running.line(), "bye");
    until("the program is gone", || cli::state(child).is_none_or(|state| state == 'Z'));
}
