//! The parts of a report beside the verdict, of real programs: findings, blame, and answers to
//! `--what-if`.

use crate::harness::Suite;
use crate::support::{self, cli, compat};
use crate::{on, once};
use cli::two_interpreters;
use serde_json::Value;
use std::process::Command;
use support::{gilprof, interpreters, report, window, Folder, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    on!(suite, interpreters(), [garbage_collection_in_the_holder_is_found]);
    on!(
        suite,
        two_interpreters(),
        [
            blame_adds_up_to_waiting,
            library_code_has_its_caller_and_a_pools_task_a_process_pool,
            one_case_is_answered,
            workers_that_share_a_core_have_one,
            native_threads_that_call_back_are_named,
            a_library_that_joins_a_thread_which_needs_the_gil_is_a_deadlock,
            native_threads_that_end_have_their_cpu_time
        ]
    );
    once!(suite, [a_case_that_makes_no_sense_is_a_slip_of_the_pen]);
}

/// The report of a workload after a window of `seconds`.
fn reported(interpreter: &Interpreter, workload: &str, args: &[&str], seconds: f64, more: &[&str]) -> Value {
    let target = Target::start(interpreter, workload, args);
    let (pid, duration) = (target.pid().to_string(), format!("{}ms", seconds * 1e3));
    report(&[&["attach", "--pid", &pid, "--duration", &duration], more].concat())
}

fn finding<'r>(report: &'r Value, code: &str) -> Option<&'r str> {
    report["findings"].as_array().unwrap().iter().find(|f| f["code"] == code).map(|f| f["evidence"].as_str().unwrap())
}

/// The place of `gc.collecting` differs between releases.
fn garbage_collection_in_the_holder_is_found(interpreter: &Interpreter) {
    let storm = reported(interpreter, "held", &["--gc", "--threads", "2"], window(1.5, 0.8), &[]);
    assert!(finding(&storm, "garbage-collection").is_some(), "{}: {storm:#}", interpreter.label);
    let calm = reported(interpreter, "cpu", &["--threads", "2"], window(1.0, 0.6), &[]);
    assert!(finding(&calm, "garbage-collection").is_none(), "{}: {calm:#}", interpreter.label);
}

fn blame_adds_up_to_waiting(interpreter: &Interpreter) {
    for (workload, args) in [("cpu", &["--threads", "3"][..]), ("convoy", &["--hogs", "1", "--short", "2"])] {
        let report = reported(interpreter, workload, args, window(1.5, 0.8), &[]);
        let sum = |rows: &Value, of: fn(&Value) -> f64| rows.as_array().unwrap().iter().map(of).sum::<f64>();
        let waiting = sum(&report["threads"], |t| t["seconds"].as_f64().unwrap() * t["states"]["waiting"].as_f64().unwrap());
        let blamed = sum(&report["blame"], |row| row["seconds"].as_f64().unwrap());
        assert!(waiting > 0.5 && (blamed / waiting - 1.0).abs() < 0.02, "{}: {blamed} of {waiting}", interpreter.label);
    }
}

/// Tasks of a pool that encode JSON in Python code of the standard library.
const ENCODERS: &str = r#"
import concurrent.futures, json, os
DATA = {"key %d" % n: list(range(20)) for n in range(50)}
def export():
    while True:
        json.dumps(DATA, indent=1)
pool = concurrent.futures.ThreadPoolExecutor(2)
tasks = [pool.submit(export) for n in range(2)]
os.write(1, b"ready\n")
os.read(0, 1)
os._exit(0)
"#;

fn library_code_has_its_caller_and_a_pools_task_a_process_pool(interpreter: &Interpreter) {
    let folder = Folder::new("encoders");
    let script = folder.path().join("shop.py");
    std::fs::write(&script, ENCODERS).unwrap();
    let mut command = interpreter.command();
    command.arg(&script);
    let target = Target::start_command(command);
    let duration = format!("{}ms", window(1.5, 0.8) * 1e3);
    let report = report(&["attach", "--pid", &target.pid().to_string(), "--duration", &duration]);
    let label = &interpreter.label;
    let worst = &report["functions"][0];
    assert!(worst["file"].as_str().unwrap().ends_with("/json/encoder.py"), "{label}: {worst:#}");
    let caller = &worst["called_from"];
    assert_eq!(
        (caller["name"].as_str(), caller["line"].as_u64(), caller["call_line"].as_u64()),
        (Some("export"), Some(4), Some(6)),
        "{label}"
    );
    // Beside other programs the verdict may be another one.
    let verdict = &report["verdict"];
    if verdict["code"] == "switch-to-processes" {
        let step = verdict["next_steps"][0].as_str().unwrap();
        assert!(step.starts_with("Use a process pool in place of the thread pool that runs export (shop.py:4)"), "{label}: {step}");
        assert_eq!(verdict["sketches"][0]["lines"][2], "    results = list(pool.map(export, items))", "{label}");
    }
}

fn one_case_is_answered(interpreter: &Interpreter) {
    let report = reported(
        interpreter,
        "cpu",
        &["--threads", "2"],
        window(1.5, 0.8),
        &["--what-if", "processes=8,cores=8", "--what-if", "release=nowhere"],
    );
    let gain = &report["what_if"][0]["gain"]["estimate"].as_f64().unwrap();
    assert!((6.5..=9.5).contains(gain), "{report:#}");
    assert!(report["what_if"][1]["gain"].is_null() && report["what_if"][1]["note"].as_str().unwrap().contains("no call of C"));
}

/// The main thread may use every core, and the threads that work only one.
fn workers_that_share_a_core_have_one(interpreter: &Interpreter) {
    let cores = |args: &[&str]| {
        let report = reported(interpreter, "cpu", args, window(1.0, 0.6), &[]);
        (report["target"]["cpus"].as_f64().unwrap(), report["verdict"]["speedup"]["processes"]["estimate"].as_f64().unwrap_or(1.0))
    };
    let (free, free_gain) = cores(&["--threads", "2"]);
    if free < 2.0 {
        return support::skip("threads on one core: there is only one");
    }
    let (pinned, gain) = cores(&["--threads", "2", "--pinned"]);
    eprintln!("{}: {free} cores, gain {free_gain:.2}; pinned: {pinned} core, gain {gain:.2}", interpreter.label);
    // Beside other programs, two processes would get more of that core than one.
    assert!(pinned == 1.0 && gain < free_gain, "{}: {pinned} cores, {gain:.2} and {free_gain:.2}", interpreter.label);
}

/// Threads of a library. `callers` call Python in turn with work of their own, `brief` starts one
/// thread after another, each for 150 ms of work. `join` waits for a thread that calls Python.
const NATIVE: &str = r#"
#include <pthread.h>
#include <time.h>
#include <unistd.h>
static unsigned work(unsigned x) { for (int i = 0; i < 400000; i++) x = x * 1664525 + 1013904223; return x; }
static void *caller(void *call) { for (volatile unsigned x = 1;; ((void (*)(void))call)()) x = work(x); return 0; }
void callers(void *call) { pthread_t t; for (int n = 0; n < 2; n++) pthread_create(&t, 0, caller, call); }
static void *short_life(void *unused) {
    struct timespec used;
    volatile unsigned x = 1;
    do { x = work(x); clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used); } while (used.tv_nsec < 150000000);
    return unused;
}
static void *starter(void *unused) { for (pthread_t t;;) { pthread_create(&t, 0, short_life, 0); pthread_join(t, 0); } return unused; }
void brief(void) { pthread_t t; pthread_create(&t, 0, starter, 0); }
static void *once(void *call) { if (write(1, "ready\n", 6) == 6) ((void (*)(void))call)(); return 0; }
void join(void *call) { pthread_t t; pthread_create(&t, 0, once, call); pthread_join(t, 0); }
"#;

/// The report of a program with these threads; none and a skip without a C compiler.
fn with_native_threads(interpreter: &Interpreter, start: &str) -> Option<Value> {
    let folder = Folder::new("native");
    let (source, library) = (folder.path().join("native.c"), folder.path().join("native.so"));
    std::fs::write(&source, NATIVE).unwrap();
    if !compat::succeeds(Command::new("cc").args(["-O1", "-shared", "-fPIC", "-pthread", "-o"]).arg(&library).arg(&source)) {
        support::skip("threads of a C library: no C compiler");
        return None;
    }
    let code = format!(
        "import ctypes, os\nlib = ctypes.CDLL({:?})\ncall = ctypes.CFUNCTYPE(None)\n\
         def on_event():\n    for i in range(20000): pass\nback = call(on_event)\n{start}\nos.write(1, b'ready\\n')\nos.read(0, 1)\nos._exit(0)",
        library.to_str().unwrap()
    );
    let mut command = interpreter.command();
    command.args(["-c", &code]);
    let target = Target::start_command(command);
    let duration = format!("{}ms", window(1.5, 1.2) * 1e3);
    Some(report(&["attach", "--pid", &target.pid().to_string(), "--duration", &duration]))
}

fn native_threads_that_call_back_are_named(interpreter: &Interpreter) {
    let Some(report) = with_native_threads(interpreter, "lib.callers(back)") else { return };
    let evidence = finding(&report, "foreign-threads").unwrap_or_else(|| panic!("{}: {report:#}", interpreter.label));
    // In a short window one of the two may get the GIL seldom.
    assert!(evidence.contains("Python did not start") && evidence.contains("back into Python"), "{evidence}");
}

fn a_library_that_joins_a_thread_which_needs_the_gil_is_a_deadlock(interpreter: &Interpreter) {
    // PyDLL keeps the GIL during the call.
    let Some(report) = with_native_threads(interpreter, "ctypes.PyDLL(lib._name).join(back)") else { return };
    let verdict = &report["verdict"];
    let headline = verdict["headline"].as_str().unwrap();
    assert!(
        verdict["code"] == "blocked-holding-gil" && headline.starts_with("Deadlock: 1 thread waits"),
        "{}: {report:#}",
        interpreter.label
    );
    let because = verdict["because"].as_array().unwrap();
    assert!(because[0].as_str().unwrap().contains(" holds the GIL and sleeps in <module>"), "{because:?}");
}

fn native_threads_that_end_have_their_cpu_time(interpreter: &Interpreter) {
    let Some(report) = with_native_threads(interpreter, "lib.brief()") else { return };
    let of = |thread: &Value, what: &str| thread.pointer(what).unwrap().as_f64().unwrap();
    let brief: Vec<&Value> = report["threads"].as_array().unwrap().iter().filter(|t| of(t, "/states/io") < 0.5).collect();
    let seconds = |of_life: &str| -> f64 { brief.iter().map(|t| of(t, of_life) * of(t, "/seconds")).sum() };
    let (native, cpu) = (seconds("/states/native"), seconds("/cpu"));
    eprintln!("{}: {} threads, native {native:.2} s, cpu {cpu:.2} s", interpreter.label, brief.len());
    assert!(!brief.is_empty() && cpu > 0.7 * native, "{}: native {native:.2} s, cpu {cpu:.2} s", interpreter.label);
}

fn a_case_that_makes_no_sense_is_a_slip_of_the_pen() {
    let out = gilprof(&["attach", "--pid", "1", "--what-if", "speed=9"]);
    let output = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(2) && output.contains("processes=N"), "{output}");
}
