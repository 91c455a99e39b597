//! The kernel's events of a program with three CPU-bound threads: facts that hold whatever the
//! machine does meanwhile.

use crate::harness::{newest, Suite};
use crate::support::cli::gilprof;
use crate::support::{self, skip, Interpreter, Target, PATIENCE};
use crate::{on, row};
use gilprof::ids::{Addr, GilId, Pid, Tid};
use gilprof::process::kernel_events::{KernelEvents, Record, TargetConfig};
use gilprof::process::live::LiveMemory;
use gilprof::process::memory::Memory;
use gilprof::process::sys_linux;
use gilprof::python::attach::PythonProcess;
use gilprof::python::interpreters::RuntimeState;
use gilprof::python::kernel_config::kernel_config;
use gilprof::python::layout::Layout;
use gilprof::python::objects::read_str;
use gilprof::sample::{CpuRun, GilView, OffCpu, ThreadNow};
use gilprof::units::Nanos;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::time::Instant;

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    let mut all = support::interpreters();
    let musl: Vec<Interpreter> = support::with_musl().into_iter().filter(|musl| !all.contains(musl)).collect();
    all.extend(musl);
    on!(suite, all, [runs_follow_each_other_and_ticks_have_stacks]);
    on!(suite, newest(support::interpreters()), [ids_are_those_of_gilprofs_namespace]);
    on!(suite, support::interpreters(), [the_engine_measures_what_samples_do]);
    on!(suite, newest(support::free_threaded_interpreters()), [threads_that_hold_no_gil_have_stacks_once_their_state_is_known]);
}

/// Ticks that each thread must have had while it held the GIL.
const TICKS: usize = 30;
/// The ring is read so often.
const PAUSE: Nanos = Nanos::from_millis(50);

/// What came of one thread. A stack is its code objects, leaf first.
#[derive(Default)]
struct Seen {
    runs: Vec<(CpuRun, Option<Vec<Addr>>)>,
    ticks: Vec<(GilView, Option<Vec<Addr>>)>,
}

impl Seen {
    fn held(&self) -> impl Iterator<Item = &(GilView, Option<Vec<Addr>>)> {
        self.ticks.iter().filter(|(view, _)| view.holds.is_some())
    }
}

pub fn config(python: &PythonProcess) -> TargetConfig {
    let mut runtime = RuntimeState::default();
    runtime.walk(&LiveMemory::new(python.pid), &python.layout, python.runtime).unwrap();
    let gils: Vec<(GilId, Addr)> = runtime.gils.iter().enumerate().map(|(n, (at, _))| (GilId(n as u32), *at)).collect();
    assert!(!gils.is_empty());
    kernel_config(&python.layout, python.abi, &gils, Nanos::from_millis(1))
}

pub fn open() -> Option<KernelEvents> {
    KernelEvents::open(1000.0).map_err(|why| skip(&format!("kernel events: {why}"))).ok()
}

/// Watches until `enough`.
fn watch(events: &mut KernelEvents, pid: Pid, enough: impl Fn(&BTreeMap<Tid, Seen>) -> bool) -> BTreeMap<Tid, Seen> {
    let (mut seen, began) = (BTreeMap::<Tid, Seen>::new(), Instant::now());
    let mut next = sys_linux::monotonic();
    while !enough(&seen) {
        assert!(began.elapsed() < PATIENCE, "{} threads after {PATIENCE:?}: {:?}", seen.len(), counts(&seen));
        next += PAUSE;
        sys_linux::sleep_until(next);
        events.drain(&mut |of, tid, record| {
            assert_eq!(of, pid);
            let thread = seen.entry(tid).or_default();
            match record {
                Record::Run(run, stack) => thread.runs.push((run, stack.map(|s| s.frames.iter().map(|f| f.code).collect()))),
                Record::Tick { view, stack, .. } => thread.ticks.push((view, stack.map(|s| s.frames.iter().map(|f| f.code).collect()))),
                Record::Exited { .. } => panic!("{tid} took over an id"),
            }
        });
    }
    seen
}

fn counts(seen: &BTreeMap<Tid, Seen>) -> Vec<(Tid, usize, usize, usize)> {
    seen.iter().map(|(tid, thread)| (*tid, thread.runs.len(), thread.ticks.len(), thread.held().count())).collect()
}

/// Three threads have held the GIL at enough ticks and have slept for it.
fn three_took_turns(seen: &BTreeMap<Tid, Seen>) -> bool {
    let took_turns = |thread: &&Seen| thread.held().count() >= TICKS && thread.runs.iter().any(|(run, _)| run.off == OffCpu::GilFutex);
    seen.values().filter(took_turns).count() >= 3
}

fn runs_follow_each_other_and_ticks_have_stacks(interpreter: &Interpreter) {
    let Some(mut events) = open() else { return };
    let target = Target::start(interpreter, "cpu", &["--facts"]);
    let pid = Pid(target.pid());
    let mut python = PythonProcess::open(pid).unwrap();
    python.complete_layout(&LiveMemory::new(pid));
    events.watch(pid, &config(&python)).unwrap();
    let seen = watch(&mut events, pid, three_took_turns);
    let mut names = HashMap::new();
    let mut workers = 0;
    for (name, tid) in target.fact("tids").as_object().unwrap() {
        let thread = &seen[&Tid(tid.as_i64().unwrap() as i32)];
        follow_each_other(name, thread);
        for (view, stack) in thread.held() {
            assert!(view.locked && !view.last_holder.is_null(), "{name}: {view:?}");
            let stack = stack.as_ref().unwrap();
            assert!(stack.iter().all(|code| !code.is_null()), "{name}: {stack:?}");
            for code in stack {
                names.entry(*code).or_insert_with(|| function(&python.layout, pid, *code));
            }
            let stack: Vec<&str> = stack.iter().map(|code| names[code].as_str()).collect();
            assert!(stack.starts_with(&["burn", "begin"]) && stack.len() >= 4, "{name}: {stack:?}");
        }
        for (_, stack) in thread.runs.iter().filter(|(run, _)| run.off == OffCpu::GilFutex) {
            assert!(stack.as_ref().is_none_or(|codes| codes.len() >= 4), "{name}: {stack:?}");
        }
        workers += 1;
    }
    assert_eq!((workers, events.lost()), (3, Some(0)));
    now_is_after_the_last_run(&events, &seen);
    row!(interpreter.label, "(thread, runs, ticks, ticks with the GIL): {:?}, cost {:?}", counts(&seen), events.cost());
}

fn function(layout: &Layout, pid: Pid, code: Addr) -> String {
    let mem = LiveMemory::new(pid);
    let name = mem.read_ptr(code.offset(layout.code.name.offset() as u64)).unwrap();
    read_str(&mem, layout, name, 100).unwrap()
}

fn follow_each_other(name: &str, thread: &Seen) {
    for pair in thread.runs.windows(2) {
        let [(before, _), (after, _)] = pair else { continue };
        assert_eq!(before.number + 1, after.number, "{name}: runs are missing between {before:#?} and {after:#?}");
        assert!(before.begin <= before.end && before.end <= after.begin, "{name}: {before:?}, then {after:?}");
        let slept = !matches!(before.off, OffCpu::Preempted | OffCpu::PreemptedInGilCall);
        assert_eq!(slept, after.wakeup.is_some(), "{name}: {before:?}, then {after:?}");
        if let Some(wakeup) = after.wakeup {
            assert!(before.end <= wakeup.at && wakeup.at <= after.begin, "{name}: {before:?}, then {after:?}");
        }
    }
}

fn now_is_after_the_last_run(events: &KernelEvents, seen: &BTreeMap<Tid, Seen>) {
    let mut there = 0;
    events.now(&mut |_, tid, now| {
        let (ThreadNow::OnCpu { number, .. } | ThreadNow::OffCpu { number, .. }) = now;
        let last = seen.get(&tid).and_then(|thread| thread.runs.last()).map_or(0, |(run, _)| run.number);
        assert!(number >= last, "{tid}: {now:?} after run {last}");
        there += 1;
    });
    assert!(there >= 3, "{there} threads");
}

/// The thread ids of a program in another PID namespace are those that gilprof sees.
fn ids_are_those_of_gilprofs_namespace(interpreter: &Interpreter) {
    let Some(mut events) = open() else { return };
    let mut inside = Command::new("unshare");
    inside.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    let target = Target::start_through(inside, interpreter, "cpu", &["--facts"]);
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", target.pid())).unwrap();
    let pid = Pid(children.split_whitespace().next().unwrap().parse().unwrap());
    let python = PythonProcess::open(pid).unwrap();
    events.watch(pid, &config(&python)).unwrap();
    let seen = watch(&mut events, pid, three_took_turns);
    let mut inner: Vec<i64> = target.fact("tids").as_object().unwrap().values().map(|tid| tid.as_i64().unwrap()).collect();
    let numbers = |tid: &Tid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).unwrap();
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap().to_string();
        ids.split_whitespace().last().unwrap().parse::<i64>().unwrap()
    };
    let mut held: Vec<i64> = seen.iter().filter(|(_, thread)| thread.held().count() >= TICKS).map(|(tid, _)| numbers(tid)).collect();
    inner.sort_unstable();
    held.sort_unstable();
    assert_eq!(held, inner);
    assert_eq!(events.lost(), Some(0));
}

/// Three threads that compute take turns, whatever else uses the CPUs: one holds, two wait.
fn the_engine_measures_what_samples_do(interpreter: &Interpreter) {
    if open().is_none() {
        return;
    }
    let target = Target::start(interpreter, "cpu", &["--threads", "3"]);
    let pid = target.pid().to_string();
    let report = gilprof(&["attach", "--engine", "kernel", "--pid", &pid, "--duration", "1s", "--format", "json"]).report();
    let window = &report["window"];
    assert_eq!((&window["engine"], &window["resolver"]), (&json!("kernel"), &json!("events")), "{window:#}");
    assert_eq!(window["lost_events"], 0, "{window:#}");
    let sum = |state: &str| -> f64 { report["threads"].as_array().unwrap().iter().map(|t| t["states"][state].as_f64().unwrap()).sum() };
    let holding = sum("holding");
    let waiting = sum("waiting");
    assert!((holding - 1.0).abs() < 0.1 && (waiting + sum("starved") - 2.0).abs() < 0.1, "{holding} {waiting}: {report:#}");
    assert!(waiting > 1.5, "{waiting}: {report:#}");
    let name = report["functions"][0]["name"].as_str().unwrap();
    assert!(!name.starts_with(['[', '(']), "{name}: {report:#}");
}

/// With the GIL off no thread holds one, so only `set_tstate` leads to the stacks.
fn threads_that_hold_no_gil_have_stacks_once_their_state_is_known(interpreter: &Interpreter) {
    let Some(mut events) = open() else { return };
    let target = Target::start(interpreter, "cpu", &["--facts"]);
    let pid = Pid(target.pid());
    let python = PythonProcess::open(pid).unwrap();
    let mut runtime = RuntimeState::default();
    runtime.walk(&LiveMemory::new(pid), &python.layout, python.runtime).unwrap();
    events.watch(pid, &config(&python)).unwrap();
    let ticked = |seen: &BTreeMap<Tid, Seen>| seen.values().filter(|thread| thread.ticks.len() >= TICKS).count() >= 3;
    let unknown = watch(&mut events, pid, ticked);
    assert!(unknown.values().flat_map(|thread| &thread.ticks).all(|(view, stack)| view.holds.is_none() && stack.is_none()));
    for thread in &runtime.threads {
        events.set_tstate(Tid(thread.native_id.unwrap() as i32), thread.at).unwrap();
    }
    let first = runtime.threads.iter().find(|thread| thread.native_id != Some(pid.0 as u64)).unwrap();
    let other = runtime.threads.iter().find(|thread| thread.at != first.at).unwrap();
    let wrong = Tid(first.native_id.unwrap() as i32);
    // The state of another thread is ignored.
    events.set_tstate(wrong, other.at).unwrap();
    let known = watch(&mut events, pid, |seen| {
        ticked(seen) && seen.iter().filter(|(tid, thread)| **tid != wrong && thread.ticks.iter().any(|(_, s)| s.is_some())).count() >= 2
    });
    for (tid, thread) in &known {
        let stacks = thread.ticks.iter().filter_map(|(_, stack)| stack.as_ref());
        assert!(stacks.clone().all(|codes| codes.len() >= 4), "{tid}");
        assert!(*tid != wrong || stacks.clone().next().is_none(), "{tid}: the stack of another thread");
    }
    assert_eq!(events.lost(), Some(0));
}
