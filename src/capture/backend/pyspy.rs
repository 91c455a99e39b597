//! Python 2.7 and 3.3 - 3.6 through py-spy: the holder of the GIL, and the stacks. Waiting is not
//! visible in these versions, so such threads are `unknown`.
//!
//! py-spy is configured not to stop the target, and samples at most [`MAX_RATE`] times a second: it
//! reads frame by frame and caches nothing.

use crate::capture::session::{SampleSource, Sampled, StopReason};
use crate::capture::stop_detector::{StopDetector, StopHints};
use crate::error::{Error, Result};
use crate::ids::{GilId, Pid, ThreadId, Tid};
use crate::process::live::LiveMemory;
use crate::process::target::LiveTarget;
use crate::process::task_list::TaskList;
use crate::process::threads::{self, SyscallState, TaskFiles};
use crate::process::{proc_info, pthread};
use crate::sample::*;
use crate::units::Nanos;
use py_spy::stack_trace::StackTrace;
use std::collections::HashMap;
use std::sync::Arc;

/// Highest sampling rate, in Hz.
const MAX_RATE: f64 = 100.0;
/// Consecutive failed samples after which gilprof gives up the target.
const GIVE_UP_AFTER: u64 = 100;
/// How often py-spy tries to find an interpreter, which may be starting just then; it waits 20 ms
/// between attempts.
const ATTACH_TRIES: u64 = 10;
/// The message of py-spy 0.4.3 if there is no interpreter. Its errors are `anyhow` texts without a
/// type, so only the message distinguishes a Python without an interpreter from one that py-spy
/// cannot read. Cargo.toml pins that version, so that the message cannot change unnoticed.
const NO_INTERPRETER: &str = "Failed to find a python interpreter";
const WARNING: &str = "waiting for the GIL is not visible before Python 3.7: threads that neither hold it nor do I/O are shown as unknown";

struct PySpySampler {
    pid: Pid,
    threads: HashMap<Tid, TrackedThread>,
    offset: Option<u32>,
    tasks: TaskList,
    tids: Vec<Tid>,
    empty: Arc<Stack>,
    target: LiveTarget,
    stop_detector: StopDetector,
}

struct TrackedThread {
    id: ThreadId,
    files: Option<TaskFiles>,
    last: Nanos,
    first: (Nanos, SchedStat),
    last_stat: SchedStat,
    reported: bool,
}

/// An old Python that py-spy reads.
struct PySpySource {
    spy: py_spy::PythonSpy,
    sampler: PySpySampler,
    target: TargetInfo,
    /// The time of the last good sample; before the first, of the window's beginning.
    last: Nanos,
    failed_in_a_row: u64,
}

/// Opens an old Python for a capture.
pub fn source(pid: Pid, version: &str) -> Result<Box<dyn SampleSource>> {
    let spy = open(pid, version)?;
    // Read first: a process that has exited has neither a command nor an executable.
    let target = target(pid, version);
    Ok(Box::new(PySpySource { spy, sampler: PySpySampler::new(pid), target, last: Nanos::ZERO, failed_in_a_row: 0 }))
}

impl SampleSource for PySpySource {
    fn max_rate(&self) -> f64 {
        MAX_RATE
    }

    fn prepare(&mut self, now: Nanos, _: &dyn Fn() -> bool, _: &mut dyn Sink) {
        self.last = now;
    }

    fn sample(&mut self, now: Nanos, _: Nanos, sink: &mut dyn Sink) -> Sampled {
        match self.spy.get_stack_traces() {
            Ok(traces) => {
                self.failed_in_a_row = 0;
                self.sampler.sample(now, self.last, &traces, sink);
                self.last = now;
                Sampled::Complete
            }
            Err(_) if !proc_info::is_running(self.sampler.pid) => Sampled::Ended(StopReason::TargetEnded),
            Err(e) => {
                self.failed_in_a_row += 1;
                if self.failed_in_a_row >= GIVE_UP_AFTER {
                    return Sampled::Ended(StopReason::Lost(format!("{e:#}")));
                }
                Sampled::Failed
            }
        }
    }

    fn accounted_until(&self) -> Nanos {
        self.last
    }

    fn finish(&mut self, _: Nanos, sink: &mut dyn Sink) {
        self.sampler.finish(sink);
    }

    fn target(&self) -> TargetInfo {
        self.target.clone()
    }

    fn fill_stats(&self, stats: &mut CaptureStats) {
        stats.stops = self.sampler.stop_detector.stops().collect();
        stats.warnings.push(WARNING.into());
    }
}

fn open(pid: Pid, version: &str) -> Result<py_spy::PythonSpy> {
    let config = py_spy::Config { blocking: py_spy::config::LockingStrategy::NonBlocking, ..py_spy::Config::default() };
    py_spy::PythonSpy::retry_new(pid.0, &config, ATTACH_TRIES).map_err(|e| {
        let message = format!("{e:#}");
        if message.contains(NO_INTERPRETER) {
            let why = "py-spy finds no interpreter in it: it has not created one yet, or has finalized it".into();
            return Error::NotReady { pid, why };
        }
        Error::UnsupportedVersion { pid, version: version.into(), why: format!("py-spy reports: {message}") }
    })
}

/// Takes one sample of an old Python.
pub fn dump(pid: Pid, version: &str) -> Result<(TargetInfo, Vec<ThreadSnapshot>)> {
    let traces = open(pid, version)?.get_stack_traces().map_err(|e| Error::Garbage { pid, what: format!("py-spy reports: {e:#}") })?;
    let mut sampler = PySpySampler::new(pid);
    sampler.tasks.read(&mut sampler.tids, true).map_err(|_| Error::Gone { pid, when: String::new() })?;
    let stacks = sampler.stacks(&traces);
    let snapshot = |tid: &Tid| {
        let known = stacks.get(tid);
        let kernel = TaskFiles::open(pid, *tid).and_then(|files| files.syscall_state()).ok()?;
        let (state, evidence) = classify(kernel, known.is_some_and(|(trace, _)| trace.owns_gil));
        let name = known.and_then(|(trace, _)| trace.thread_name.clone()).or_else(|| threads::comm(pid, *tid)).unwrap_or_default();
        let stack = known.map_or(&sampler.empty, |(_, stack)| stack).clone();
        Some(ThreadSnapshot { tid: *tid, name, python: known.is_some(), state, evidence, stack })
    };
    Ok((target(pid, version), sampler.tids.iter().filter_map(snapshot).collect()))
}

fn classify(kernel: SyscallState, holds: bool) -> (State, Evidence) {
    match kernel {
        SyscallState::Runnable if holds => (State::HoldingPython, Evidence::GilHolder),
        _ if holds => (State::HoldingBlocked, Evidence::GilHolder),
        SyscallState::Syscall(_) | SyscallState::OutsideSyscall => (State::Io, Evidence::Syscall),
        SyscallState::Futex(_) | SyscallState::Runnable => (State::Unknown, Evidence::Unread),
    }
}

fn target(pid: Pid, version: &str) -> TargetInfo {
    let limits = proc_info::CpuLimits::from_pid(pid);
    TargetInfo {
        pid: pid.0,
        parent: proc_info::parent(pid).map(|parent| parent.0),
        python: version.into(),
        executable: proc_info::exe(pid).unwrap_or_default(),
        command: proc_info::command(pid),
        gil_enabled: true,
        interpreters: 1,
        cpus: limits.cpus(),
        quota: limits.quota,
        machine_cpus: limits.machine,
        ..TargetInfo::default()
    }
}

impl PySpySampler {
    fn new(pid: Pid) -> PySpySampler {
        PySpySampler {
            pid,
            threads: HashMap::new(),
            offset: None,
            tasks: TaskList::new(pid),
            tids: Vec::new(),
            empty: Arc::new(Stack::empty()),
            target: LiveTarget::new(pid),
            stop_detector: StopDetector::default(),
        }
    }

    fn sample(&mut self, at: Nanos, before: Nanos, traces: &[StackTrace], sink: &mut dyn Sink) {
        if self.tasks.read(&mut self.tids, true).is_err() {
            return;
        }
        let stacks = self.stacks(traces);
        // At this rate every sample can check for a stop.
        let hints = StopHints { outside_syscall: true, stopped: None };
        let stopped = self.stop_detector.detect(&self.target, at, hints).is_some();
        self.stop_detector.count(at, stopped);
        for tid in self.tids.clone() {
            let known = stacks.get(&tid);
            self.track(tid, before, known.is_some_and(|_| true), known.and_then(|(trace, _)| trace.thread_name.clone()), sink);
        }
        let holder = stacks.iter().find(|(_, (trace, _))| trace.owns_gil).map(|(tid, (_, stack))| (*tid, stack.clone()));
        let holder_id = holder.as_ref().and_then(|(tid, _)| self.threads.get(tid)).map(|f| f.id);
        for (tid, tracked) in &mut self.threads {
            let Some(Ok(kernel)) = tracked.files.as_ref().map(TaskFiles::syscall_state) else { continue };
            let holds = holder.as_ref().is_some_and(|(h, _)| h == tid);
            let (state, evidence) = if stopped { (State::Unknown, Evidence::Stopped) } else { classify(kernel, holds) };
            let stack = stacks.get(tid).map_or(&self.empty, |(_, stack)| stack);
            let waited_on = holder.as_ref().zip(holder_id).filter(|_| !holds).map(|((_, stack), id)| (id, stack));
            let times = StateTimes::single(state, at.saturating_since(tracked.last).as_nanos() as f64);
            tracked.last = at;
            // Saved at each sample: at the end the thread may have exited.
            if let Some(Ok(Some(stat))) = tracked.files.as_ref().map(TaskFiles::schedstat) {
                tracked.last_stat = stat;
            }
            sink.slice(&StateSlice { thread: tracked.id, end: at, times, evidence, stack, holder: waited_on });
        }
        if stopped {
            return;
        }
        let holder = match (holder_id, holder) {
            (Some(id), _) => Holder::Thread(id),
            (None, Some(_)) => Holder::Unmatched,
            (None, None) => Holder::Nobody,
        };
        sink.gil(&GilSample { gil: GilId(0), at, span: at.saturating_since(before), holder, switches: None, waiters: 0, collecting: None });
    }

    /// Each thread's trace, by kernel thread id.
    fn stacks<'a>(&mut self, traces: &'a [StackTrace]) -> HashMap<Tid, (&'a StackTrace, Arc<Stack>)> {
        let mem = LiveMemory::new(self.pid);
        if self.offset.is_none() {
            let pthreads: Vec<u64> = traces.iter().map(|t| t.thread_id).collect();
            let tids: Vec<i32> = self.tids.iter().map(|t| t.0).collect();
            self.offset = pthread::calibrate(&mem, &pthreads, &tids).map(|found| found.offset);
        }
        let tid = |trace: &StackTrace| {
            let native_id = trace.os_thread_id.and_then(|id| i32::try_from(id).ok());
            native_id.or_else(|| pthread::tid(&mem, trace.thread_id, self.offset?)).map(Tid)
        };
        traces.iter().filter_map(|trace| Some((tid(trace)?, (trace, Arc::new(stack(trace)))))).collect()
    }

    fn track(&mut self, tid: Tid, start: Nanos, python: bool, name: Option<String>, sink: &mut dyn Sink) {
        let id = ThreadId(self.threads.len() as u32);
        let pid = self.pid;
        let tracked = self.threads.entry(tid).or_insert_with(|| {
            let files = TaskFiles::open(pid, tid).ok();
            let stat = files.as_ref().and_then(|f| f.schedstat().ok().flatten()).unwrap_or_default();
            TrackedThread { id, files, last: start, first: (start, stat), last_stat: stat, reported: false }
        });
        if tracked.reported {
            return;
        }
        tracked.reported = python;
        let name = name.or_else(|| threads::comm(pid, tid)).unwrap_or_default();
        sink.thread(&ThreadInfo { id: tracked.id, tid, name, python, main: tid.0 == pid.0, gil: python.then_some(GilId(0)) });
    }

    fn finish(&mut self, sink: &mut dyn Sink) {
        for tracked in self.threads.values() {
            let (since, base) = tracked.first;
            let totals = ThreadTotals {
                seen: tracked.last.saturating_since(since),
                cpu: tracked.last_stat.cpu.saturating_since(base.cpu),
                run_queue: tracked.last_stat.run_queue.saturating_since(base.run_queue),
            };
            sink.thread_end(tracked.id, totals);
        }
    }
}

/// Converts a trace. py-spy's frames are leaf first.
fn stack(trace: &StackTrace) -> Stack {
    let frame = |f: &py_spy::Frame| Frame {
        function: Arc::new(Function { name: f.name.clone(), file: f.filename.clone(), first_line: 0 }),
        line: u32::try_from(f.line).unwrap_or(0),
    };
    Stack { frames: trace.frames.iter().rev().map(frame).collect(), status: StackStatus::Complete }
}
