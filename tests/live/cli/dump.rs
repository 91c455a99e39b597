//! `gilprof dump` on every interpreter: the holder, the state and the stack of every thread, as
//! text and as JSON.

use crate::harness::{newest, Suite};
use crate::on;
use crate::support::{self, cli};
use cli::{gilprof, two_interpreters};
use serde_json::Value;
use support::{interpreters, legacy_interpreters, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    on!(
        suite,
        interpreters(),
        [a_user_can_record_one, the_state_and_the_stack_of_every_thread, the_same_as_text, a_holder_is_seen_and_named]
    );
    on!(suite, legacy_interpreters(), [old_pythons_have_a_holder_and_stacks_and_no_waiting_threads]);
    on!(suite, two_interpreters(), [threads_without_a_name_in_python]);
    on!(suite, newest(interpreters()), [freezing_the_holder_leaves_it_running]);
}

fn dump(target: &Target) -> Value {
    gilprof(&["dump", "--pid", &target.pid().to_string(), "--format", "json"]).ended(0, &[]).report()
}

/// The functions of a thread's stack, leaf first.
fn functions<'a>(dump: &'a Value, thread: &str) -> Vec<&'a str> {
    let threads = dump["threads"].as_array().unwrap();
    let found = threads.iter().find(|t| t["name"] == thread).unwrap_or_else(|| panic!("no {thread}: {dump:#}"));
    found["frames"].as_array().unwrap().iter().map(|frame| frame["name"].as_str().unwrap()).collect()
}

/// A dump when the main thread is idle: after `ready` it must get the GIL once more, behind all the
/// others.
fn settled(target: &Target) -> Value {
    let rests = |dump: &Value| in_state(dump, "io") + in_state(dump, "lock") > 0;
    (0..50).map(|_| dump(target)).find(rests).unwrap_or_else(|| dump(target))
}

/// The number of threads in this state.
fn in_state(dump: &Value, state: &str) -> usize {
    dump["threads"].as_array().unwrap().iter().filter(|thread| thread["state"] == state).count()
}

fn the_state_and_the_stack_of_every_thread(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let dump = settled(&target);
    assert_eq!((&dump["schema"], &dump["python"]), (&"gilprof.dump/1".into(), &interpreter.version.as_str().into()));
    assert_eq!(dump["pid"], target.pid());
    // The GIL can switch between the reads of two threads, so a waiting thread may be reported in
    // its state just before.
    assert!(in_state(&dump, "holding") <= 1 && in_state(&dump, "waiting") >= 1, "{}: {dump:#}", interpreter.label);
    assert_eq!(in_state(&dump, "io") + in_state(&dump, "lock"), 1, "main: {}: {dump:#}", interpreter.label);
    for worker in ["worker-0", "worker-1", "worker-2"] {
        let stack = functions(&dump, worker);
        assert!(stack.len() > 3 && stack[0] == "burn" && stack[1] == "begin", "{}: {stack:?}", interpreter.label);
    }
    let main = functions(&dump, "MainThread");
    assert!(main.starts_with(&["stay", "<module>"]), "{}: {main:?}", interpreter.label);
}

/// gevent replaces the keys of `threading._active`, so that no thread is found there. An empty name
/// is no name.
fn threads_without_a_name_in_python(interpreter: &Interpreter) {
    let code = "import os, threading, time\nt = threading.Thread(target=time.sleep, args=(1000,), daemon=True)\nt.start()\nt.name = ''\n";
    let greenlets = "threading._active = {id(t): t for t in threading._active.values()}\n";
    for (more, main) in [(greenlets, "main thread"), ("", "MainThread")] {
        let mut command = interpreter.command();
        command.args(["-c", &format!("{code}{more}os.write(1, b'ready\\n')\nos.read(0, 1)\nos._exit(0)")]);
        let target = Target::start_command(command);
        let report = dump(&target);
        let names: Vec<&str> = report["threads"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
        assert!(names.len() == 2 && names[0] == main && names[1].contains("python"), "{}: {names:?}", interpreter.label);
    }
}

fn the_same_as_text(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let output = gilprof(&["dump", "--pid", &target.pid().to_string()]);
    output.ended(0, &[]).printed(&[
        &format!("Process {}: ", target.pid()),
        &format!("Python {} (", interpreter.version),
        &format!("Thread {} (MainThread): ", target.pid()),
        " (worker-0): ",
        "    burn (cpu.py:",
        "    begin (harness.py:",
    ]);
    assert!(output.err.is_empty() && !output.out.contains('\x1b'), "{output:#?}");
}

fn a_holder_is_seen_and_named(interpreter: &Interpreter) {
    // A single thread that computes keeps the GIL, except while the main thread needs it: never,
    // once that waits for its stdin.
    let target = Target::start(interpreter, "cpu", &["--threads", "1"]);
    let dump = settled(&target);
    let worker = dump["threads"].as_array().unwrap().iter().find(|t| t["name"] == "worker-0").unwrap();
    assert_eq!((&worker["state"], &worker["python"]), (&"holding".into(), &true.into()), "{}: {dump:#}", interpreter.label);
}

fn old_pythons_have_a_holder_and_stacks_and_no_waiting_threads(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let pid = target.pid().to_string();
    let output = gilprof(&["dump", "--pid", &pid]);
    let note = format!("of Python {}, gilprof sees the thread that holds the GIL but not", interpreter.version);
    output.ended(0, &[&note]).printed(&[&format!("Python {} (", interpreter.version), "    burn (cpu.py:", "    begin (harness.py:"]);
    // Between two holders no thread holds. A sample at that moment is right.
    let dumps: Vec<Value> = (0..20).map(|_| dump(&target)).collect();
    assert!(dumps.iter().all(|dump| in_state(dump, "holding") <= 1 && in_state(dump, "waiting") == 0));
    assert!(dumps.iter().any(|dump| in_state(dump, "holding") == 1), "{:#}", dumps[0]);
    assert!(dumps.iter().all(|dump| in_state(dump, "unknown") >= 2), "{:#}", dumps[0]);
}

fn freezing_the_holder_leaves_it_running(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let output = gilprof(&["dump", "--pid", &target.pid().to_string(), "--freeze-holder"]);
    output.ended(0, &[]).printed(&["worker-0", "burn (cpu.py:"]);
    // The main thread may not have begun to count yet, so its CPU time must grow. A thread that was
    // left stopped would keep the GIL.
    let cpu =
        || std::fs::read_to_string(format!("/proc/{}/stat", target.pid())).unwrap().split(' ').nth(13).unwrap().parse::<u64>().unwrap();
    let (before, deadline) = (cpu(), std::time::Instant::now() + support::PATIENCE);
    while cpu() < before + 10 {
        assert!(std::time::Instant::now() < deadline, "its CPU time stands still");
        std::thread::yield_now();
    }
    assert!(target.finish().0.success());
}

/// `gilprof dump --record-memory` writes such a sample.
fn a_user_can_record_one(interpreter: &Interpreter) {
    use std::os::unix::fs::PermissionsExt;
    let target = support::Target::start(interpreter, "resting", &[]);
    let file = support::scratch("recorded.sample");
    let path = file.to_str().unwrap();
    let out = support::gilprof(&["dump", "--pid", &target.pid().to_string(), "--record-memory", path]);
    let output = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && output.contains(path), "{}: {output}", interpreter.label);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again =
        crate::support::recorded::Replay::new(&gilprof::process::memory_dump::MemoryDump::parse(&std::fs::read(&file).unwrap()).unwrap());
    std::fs::remove_file(&file).unwrap();
    assert!(again.text().contains(" wörker: ") && again.text().contains("    sleeper "), "{}: {}", interpreter.label, again.text());
}
