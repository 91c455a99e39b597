//! The sums that the kernel's programs make, against what the kernel and the interpreter count
//! themselves.

use crate::harness::{newest, Suite};
use crate::kernel_events::config;
use crate::support::{self, skip, Interpreter, Target};
use crate::{on, row};
use gilprof::ids::{Pid, Tid};
use gilprof::process::kernel_events::{KernelEvents, ProcessSums, Sums};
use gilprof::process::live::LiveMemory;
use gilprof::process::sys_linux;
use gilprof::python::attach::PythonProcess;
use gilprof::python::interpreters::RuntimeState;
use gilprof::units::Nanos;
use std::collections::BTreeMap;

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    let mut some = newest(support::interpreters());
    some.extend(newest(support::with_musl()));
    on!(suite, some, [each_threads_time_is_that_of_the_kernel]);
    on!(suite, support::interpreters(), [waits_are_those_that_the_interpreter_counts]);
    on!(suite, newest(support::interpreters()), [threads_that_ended_are_in_the_sums]);
}

const WINDOW: Nanos = Nanos::from_millis(1_000);
/// The kernel counts a running thread's time at its ticks.
const TOLERANCE: f64 = 0.02;

struct Watched {
    events: KernelEvents,
    pid: Pid,
    python: PythonProcess,
}

/// What is read at one instant: the sums, and CPU and run-queue time by `schedstat`.
struct Reading {
    at: Nanos,
    sums: ProcessSums,
    schedstat: BTreeMap<Tid, (f64, f64)>,
    switches: u64,
}

impl Watched {
    fn new(target: &Target) -> Option<Watched> {
        let mut events = KernelEvents::open_sums(100.0).map_err(|why| skip(&format!("kernel events: {why}"))).ok()?;
        let pid = Pid(target.pid());
        let mut python = PythonProcess::open(pid).unwrap();
        python.complete_layout(&LiveMemory::new(pid));
        events.watch(pid, &config(&python)).unwrap();
        Some(Watched { events, pid, python })
    }

    /// After some time in which every thread that ever runs has run.
    fn read_after(&self, time: Nanos) -> Reading {
        let at = sys_linux::monotonic() + time;
        sys_linux::sleep_until(at);
        let mut runtime = RuntimeState::default();
        let mem = LiveMemory::new(self.pid);
        runtime.walk(&mem, &self.python.layout, self.python.runtime).unwrap();
        runtime.read(&mem, &self.python.layout, self.python.runtime, true).unwrap();
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap().flatten();
        let schedstat = tasks.filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            let mut seconds = text.split_whitespace().map(|word| word.parse::<f64>().unwrap() / 1e9);
            Some((Tid(task.file_name().to_str()?.parse().ok()?), (seconds.next()?, seconds.next()?)))
        });
        let schedstat = schedstat.collect();
        let at = sys_linux::monotonic();
        let switches = runtime.gils[0].1.as_ref().map(|gil| gil.switches).unwrap();
        Reading { at, sums: self.events.sums(at).remove(&self.pid).unwrap(), schedstat, switches }
    }
}

impl Reading {
    fn of(&self, tid: Tid) -> Sums {
        self.sums.threads.iter().find(|thread| thread.tid == tid).unwrap_or_else(|| panic!("no sums of {tid}")).sums
    }
}

fn seconds(before: Nanos, after: Nanos) -> f64 {
    after.saturating_since(before).as_secs_f64()
}

fn each_threads_time_is_that_of_the_kernel(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "mixed", &["--facts"]);
    let Some(watched) = Watched::new(&target) else { return };
    let (before, after) = (watched.read_after(Nanos::from_millis(200)), watched.read_after(WINDOW));
    let wall = seconds(before.at, after.at);
    let mut waiting = 0.0;
    for (name, tid) in target.fact("tids").as_object().unwrap() {
        let tid = Tid(tid.as_i64().unwrap() as i32);
        if name == "lock" {
            assert!(after.sums.threads.iter().all(|thread| thread.tid != tid), "it slept all the time");
            continue;
        }
        let (a, b) = (before.of(tid), after.of(tid));
        let on_cpu = seconds(a.on_cpu, b.on_cpu);
        let queued = seconds(a.queued, b.queued) + seconds(a.queued_after_wait, b.queued_after_wait);
        let asleep = seconds(a.asleep, b.asleep);
        let waited = seconds(a.waiting, b.waiting);
        row!(interpreter.label, "{name}: {on_cpu:.3} on a CPU, {waited:.3} waiting, {queued:.3} queued, {asleep:.3} asleep of {wall:.3} s");
        assert!((on_cpu + queued + asleep + waited - wall).abs() < TOLERANCE, "{name}: {a:?} {b:?}");
        let ((cpu_a, queue_a), (cpu_b, queue_b)) = (before.schedstat[&tid], after.schedstat[&tid]);
        assert!((on_cpu - (cpu_b - cpu_a)).abs() < TOLERANCE, "{name}: {on_cpu}, by schedstat {}", cpu_b - cpu_a);
        assert!((queued - (queue_b - queue_a)).abs() < TOLERANCE, "{name}: {queued}, by schedstat {}", queue_b - queue_a);
        match name.as_str() {
            "sleep" => assert!(asleep > 0.3 && b.waits > a.waits, "{a:?} {b:?}"),
            "python" => assert!(waited > 0.1 && asleep < 0.01 && b.ticks_with_gil > 0, "{a:?} {b:?}"),
            "native-held" => assert!(asleep < 0.01 && b.ticks_with_gil as f64 > 0.8 * b.ticks as f64, "{a:?} {b:?}"),
            _ => assert!(b.ticks_with_gil as f64 <= 0.3 * b.ticks as f64, "{a:?} {b:?}"),
        }
        waiting += waited;
    }
    let of_gil = |reading: &Reading| reading.sums.gils[0].1.waiting;
    let by_gil = seconds(of_gil(&before), of_gil(&after));
    assert!((by_gil - waiting).abs() < 0.1, "{by_gil} by GIL, {waiting} by thread");
    assert_eq!(watched.events.cost().unwrap().events, 0, "records");
}

/// Three threads that compute: one holds, two wait, and each change of the holder ends one wait.
fn waits_are_those_that_the_interpreter_counts(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &["--facts"]);
    let Some(watched) = Watched::new(&target) else { return };
    let (before, after) = (watched.read_after(Nanos::from_millis(200)), watched.read_after(WINDOW));
    let switches = (after.switches - before.switches) as f64;
    let total = |reading: &Reading, of: fn(&Sums) -> f64| reading.sums.threads.iter().map(|thread| of(&thread.sums)).sum::<f64>();
    let grown = |of: fn(&Sums) -> f64| total(&after, of) - total(&before, of);
    let (waits, wall) = (grown(|sums| sums.waits as f64), seconds(before.at, after.at));
    let (waiting, queued) = (grown(|sums| sums.waiting.as_secs_f64()), grown(|sums| (sums.queued + sums.queued_after_wait).as_secs_f64()));
    row!(interpreter.label, "{waits} waits, {switches} switches of the GIL; {waiting:.3} s waiting, {queued:.3} s queued in {wall:.3} s");
    assert!((waits - switches).abs() <= 4.0 + 0.05 * switches, "{waits} waits, {switches} switches");
    assert!(waiting + queued > 1.9 * wall && waiting < 2.05 * wall, "{waiting} {queued} of {wall}");
    let gil = after.sums.gils[0].1;
    assert!(gil.ticks_with_gil > 0 && gil.waits as f64 >= waits, "{gil:?}");
}

/// CPU time of a process by `stat`, with threads that have ended.
fn process_cpu(pid: Pid) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let ticks: f64 = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2).map(|word| word.parse::<f64>().unwrap()).sum();
    ticks / 100.0
}

fn threads_that_ended_are_in_the_sums(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "churn", &[]);
    let Some(watched) = Watched::new(&target) else { return };
    let before = (watched.read_after(Nanos::from_millis(200)), process_cpu(watched.pid));
    let after = (watched.read_after(WINDOW), process_cpu(watched.pid));
    let on_cpu = |reading: &Reading| {
        reading.sums.ended.on_cpu.as_secs_f64() + reading.sums.threads.iter().map(|thread| thread.sums.on_cpu.as_secs_f64()).sum::<f64>()
    };
    let (ours, kernels) = (on_cpu(&after.0) - on_cpu(&before.0), after.1 - before.1);
    let ended = seconds(before.0.sums.ended.on_cpu, after.0.sums.ended.on_cpu);
    row!(interpreter.label, "{ours:.3} s on a CPU, {kernels:.3} by the kernel; {ended:.3} of threads that ended");
    assert!((ours - kernels).abs() < 0.05 * kernels + 0.03, "{ours}, by the kernel {kernels}");
    assert!(ended > 0.0);
}
