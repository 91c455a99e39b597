//! Takes one sample of a live interpreter: the holder of each GIL, and what every thread of the
//! process is doing.
//!
//! The target runs on while it is read, so the order of the reads matters:
//!
//! 1. One batch reads the GILs and all thread states, and with them the stack of the likely
//!    holder, which changes fastest.
//! 2. The `/proc/PID/task/TID` files of the other threads are read, each only if it can have
//!    changed.
//! 3. A second batch reads the stacks of the threads that can have moved, and the GILs again.
//! 4. Deep stacks are read, which takes long. By then every thread's state is known, so states do
//!    not depend on the depth of a stack. What does not fit into the time of a sample is left out:
//!    otherwise samples would be missed just when a thread with a deep stack holds the GIL.
//!
//! A thread that holds the GIL in both batches has held it throughout the sample. Only such a
//! thread is classified as asleep with the GIL. A thread that starts or exits during the sample
//! does not make the sample fail.

mod batch;
mod gil_table;
mod poll_schedule;
mod raw;
mod stacks;
mod stops;
mod tables;
mod threads;

use super::stop_detector::StopDetector;
use super::thread_reader::{PollHints, ThreadReader};
use crate::error::ReadError;
use crate::estimate::thread_estimator::ThreadEstimator;
use crate::ids::{Addr, GilId, ThreadId, Tid};
use crate::process::affinity::WorkingCpus;
use crate::process::target::{LiveTarget, ProcessAccess};
use crate::python::attach::PythonProcess;
use crate::python::gil_waits::FutexOwner;
use crate::sample::{Evidence, RawEvent, RawSample, Sink, State, ThreadInfo, ThreadSnapshot};
use crate::units::Nanos;
use batch::Batch;
use gil_table::GilTable;
use poll_schedule::PollSchedule;
use tables::{Binder, Interpreter, ListedTasks, NameSchedule, SampleTimes, ThreadTable};

pub use tables::SamplerStats;

/// How often changes of the lists of interpreters and thread states are followed within one sample
/// while they keep changing.
const MAX_FOLLOWS: usize = 3;

/// The outcome of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleOutcome {
    /// The GIL and the threads were read.
    Complete,
    /// There is no interpreter: not yet, or no longer.
    NoInterpreter,
    /// The GIL could not be read, or its data made no sense.
    Failed,
}

/// Samples one process: reads, and lets the estimator judge.
pub struct Sampler {
    interpreter: Interpreter,
    threads: ThreadTable,
    gils: GilTable,
    listed: ListedTasks,
    binder: Binder,
    names: NameSchedule,
    times: SampleTimes,
    batch: Batch,
    /// What the last sample read.
    raw: RawSample,
    pauser: Option<Box<dyn ThreadPauser>>,
    /// Whether and for how long the program was stopped.
    pub stop_detector: StopDetector,
    /// When deep stacks must have been read; `None`: no such time.
    pub stacks_until: Option<Nanos>,
    /// Read all evidence of where a runnable thread is, for a comparison.
    pub all_evidence: bool,
    /// What the samples found, and what they cost.
    pub stats: SamplerStats,
}

/// Pauses one thread while its stack is read. Used only on the user's request.
pub trait ThreadPauser {
    /// Pauses the thread until the guard is dropped; `None` if that failed.
    fn pause(&self, tid: Tid) -> Option<Box<dyn std::any::Any>>;

    /// What the user should know, if pausing often failed.
    fn warning(&self) -> Option<String>;
}

impl Sampler {
    /// A sampler of the process that `python` was found in.
    pub fn new(python: PythonProcess, pauser: Option<Box<dyn ThreadPauser>>) -> Sampler {
        Sampler { pauser, ..Sampler::from_target(Box::new(LiveTarget::new(python.pid)), python) }
    }

    /// A sampler that reads through `target`: a memory dump, or a process that is being recorded.
    pub fn from_target(target: Box<dyn ProcessAccess>, python: PythonProcess) -> Sampler {
        Sampler {
            interpreter: Interpreter::new(target, python),
            threads: ThreadTable::new(0),
            gils: GilTable::default(),
            listed: ListedTasks::default(),
            binder: Binder { bindings_pending: true, ..Binder::default() },
            names: NameSchedule::default(),
            times: SampleTimes::default(),
            batch: Batch::default(),
            raw: RawSample::default(),
            pauser: None,
            stop_detector: StopDetector::default(),
            stacks_until: None,
            all_evidence: false,
            stats: SamplerStats::default(),
        }
    }

    /// A sampler of the program that the process runs now. Thread ids go on from `before`.
    pub fn continued(python: PythonProcess, pauser: Option<Box<dyn ThreadPauser>>, before: &Sampler) -> Sampler {
        let (threads, all_evidence) = (ThreadTable::new(before.threads.next_id), before.all_evidence);
        Sampler { threads, all_evidence, ..Sampler::new(python, pauser) }
    }

    /// The warning of the pauser.
    pub fn pauser_warning(&self) -> Option<String> {
        self.pauser.as_ref()?.warning()
    }

    /// An id for a new thread.
    pub fn allocate_id(&mut self) -> ThreadId {
        self.threads.next_id += 1;
        ThreadId(self.threads.next_id - 1)
    }

    /// The end of the time that the last sample stands for.
    pub fn accounted_until(&self) -> Nanos {
        self.times.accounted_until
    }

    /// The address of `_PyRuntime`.
    pub fn runtime(&self) -> Addr {
        self.interpreter.python.runtime
    }

    /// The threads as of the last sample, with their states.
    pub fn threads(&self) -> impl Iterator<Item = (&ThreadInfo, (State, Evidence))> {
        self.threads.readers.iter().zip(self.threads.estimator.threads()).map(|(reader, history)| (&reader.info, history.last_state()))
    }

    /// The CPUs that the threads which have ended so far, or been finished, may use.
    pub fn working_cpus(&self) -> &WorkingCpus {
        &self.threads.working_cpus
    }

    /// `switch_number` of a GIL in the last sample.
    pub fn switches(&self, gil: GilId) -> Option<u64> {
        self.raw.gils.iter().find(|raw| raw.id == gil)?.reading.map(|now| now.switches)
    }

    /// The ids and addresses of the GILs.
    pub fn gils(&self) -> impl Iterator<Item = (GilId, Addr)> + '_ {
        self.gils.all.iter().map(|gil| (gil.id, gil.at))
    }

    /// Takes one sample at `at`. It stands for the time from where the last sample's ended until
    /// `until`. Returns `Err` when the process as a whole cannot be read: it has ended, or access
    /// was taken away.
    pub fn sample(&mut self, at: Nanos, until: Nanos, sink: &mut dyn Sink) -> Result<SampleOutcome, ReadError> {
        if self.times.last_sample.is_none() {
            self.times.accounted_until = at;
            if std::mem::take(&mut self.listed.prepared) {
                for (index, reader) in self.threads.readers.iter_mut().enumerate() {
                    let event = RawEvent::Restart { index, at, stat: reader.restart(at) };
                    self.threads.estimator.take(&event, &self.threads.empty_stack, sink);
                }
            }
        }
        self.times.weight_until = until.max(self.times.accounted_until);
        self.interpreter.symbols.codes.begin_sample();
        self.interpreter.gil_waits.begin_sample();
        let task_count = self.interpreter.target.task_count();
        let count_changed = std::mem::replace(&mut self.listed.task_count, task_count) != task_count;
        let all = self.is_list_due(at) || self.is_settling(at) || count_changed;
        self.read_runtime_state(all)?;
        self.gils.update(&self.interpreter.runtime_state);
        self.bind_if_changed(at, count_changed, sink)?;
        self.read_holders_stacks(sink)?;
        self.poll_tasks(sink);
        self.read_changed()?;
        self.resolve_foreign_states(sink)?;
        let is_stopped = self.detect_stop(at);
        self.name_threads(at, sink);
        let outcome = self.outcome();
        // After any other outcome nothing is known, and the next complete sample stands for this
        // time too. Threads that an ended interpreter leaves behind sleep.
        if outcome == SampleOutcome::Complete {
            self.attribute(is_stopped, sink);
            (self.times.last_sample, self.times.accounted_until) = (Some(at), self.times.weight_until);
        }
        Ok(outcome)
    }

    /// Begins every thread's history anew at `at`: its time until then was measured otherwise.
    pub fn start_over(&mut self, at: Nanos, sink: &mut dyn Sink) {
        for (index, reader) in self.threads.readers.iter_mut().enumerate() {
            let (stat, _) = reader.last_counts(self.interpreter.target.as_ref());
            self.threads.estimator.take(&RawEvent::Restart { index, at, stat }, &self.threads.empty_stack, sink);
        }
        self.times.accounted_until = at;
    }

    /// Resolves every thread's time at the end of the window.
    pub fn finish(&mut self, at: Nanos, sink: &mut dyn Sink) {
        let at = if self.times.last_sample.is_some() { self.times.accounted_until } else { at };
        (0..self.threads.readers.len()).for_each(|index| self.finish_thread(index, at, sink));
        let all: Vec<usize> = (0..self.threads.readers.len()).collect();
        self.threads.estimator.take(&RawEvent::Remove(&all), &self.threads.empty_stack, sink);
        self.threads.readers.clear();
        self.threads.schedule = PollSchedule::default();
    }

    /// Resolves a thread's pending time, and emits its end.
    fn finish_thread(&mut self, index: usize, at: Nanos, sink: &mut dyn Sink) {
        let reader = &mut self.threads.readers[index];
        let (stat, cpus) = reader.last_counts(self.interpreter.target.as_ref());
        let last = self.threads.estimator.take(&RawEvent::Finish { index, at, stat }, reader.stack.stack(), sink);
        sink.thread_end(reader.info.id, reader.totals(at, last, cpus, &mut self.threads.working_cpus));
    }

    fn read_runtime_state(&mut self, all: bool) -> Result<(), ReadError> {
        let (layout, runtime) = (&self.interpreter.python.layout, self.interpreter.python.runtime);
        let mut first = Vec::new();
        for attempt in 0..MAX_FOLLOWS {
            if !self.interpreter.runtime_state.interpreters.is_empty() {
                // A stack that is to be read with its thread paused is not read before the pause.
                let likely_holder_thread =
                    if attempt == 0 && self.pauser.is_none() { stacks::likely_holder(&self.raw, &mut self.threads.readers) } else { None };
                let prefetch = likely_holder_thread.map_or(&[][..], |thread| thread.stack.prefetch_plan(layout, thread.tstate));
                if self.interpreter.runtime_state.read_with_prefetch(
                    self.interpreter.target.memory(),
                    layout,
                    runtime,
                    all || attempt > 0,
                    prefetch,
                )? {
                    self.interpreter.runtime_state.restore_readings(&first);
                    self.accept_prefetch();
                    return Ok(());
                }
                if attempt == 0 {
                    // The first readings of the GILs are kept: they show the holders when the
                    // sample began. A short hold may be over after the lists have been followed.
                    first.clone_from(&self.interpreter.runtime_state.gils);
                }
            }
            self.interpreter.runtime_state.follow(self.interpreter.target.memory(), layout, runtime)?;
        }
        // The lists keep changing. The last one is a consistent list from a moment ago; the next
        // sample finds thread states made since.
        self.interpreter.runtime_state.read(self.interpreter.target.memory(), layout, runtime, true).map(|_| ())
    }

    /// Uses the prefetched stack of the likely holder if that thread does hold the GIL.
    fn accept_prefetch(&mut self) {
        let (parts, bytes) = self.interpreter.runtime_state.prefetched();
        let holds = |thread: &&mut ThreadReader| {
            self.interpreter.runtime_state.gils.first().is_some_and(|(_, r)| r.is_some_and(|r| r.holder == Some(thread.tstate)))
        };
        if let Some(thread) = stacks::likely_holder(&self.raw, &mut self.threads.readers).filter(holds) {
            thread.stack.accept_prefetch(parts, bytes);
        }
    }

    fn outcome(&mut self) -> SampleOutcome {
        self.stats.interpreters = self.stats.interpreters.max(self.interpreter.runtime_state.interpreters.len() as u32);
        match self.interpreter.runtime_state.gils.first() {
            None => SampleOutcome::NoInterpreter,
            Some((_, None)) => SampleOutcome::Failed,
            Some((_, Some(reading))) => {
                self.stats.interval_us = Some(reading.interval_us);
                self.stats.gil_enabled = reading.enabled;
                SampleOutcome::Complete
            }
        }
    }

    /// Reads the task state of every thread that can have changed.
    fn poll_tasks(&mut self, sink: &mut dyn Sink) {
        let mut wanted = std::mem::take(&mut self.threads.wanted);
        wanted.extend(self.holder_indices());
        if self.stop_detector.is_lasting() {
            self.threads.schedule.select_few(wanted.drain(..));
        } else {
            self.threads.schedule.select_due(self.times.weight_until, wanted.drain(..));
        }
        self.threads.wanted = wanted;
        let traced = self.stop_detector.is_traced();
        let mut exited = Vec::new();
        // The newest first: they are the likeliest to exit soon.
        for n in (0..self.threads.schedule.count()).rev() {
            let index = self.threads.schedule.get(n);
            let thread = &self.threads.readers[index];
            let cannot_have_held = self.cannot_have_held(thread);
            let holding = self.interpreter.runtime_state.is_holder(thread.tstate);
            let hints = PollHints { cannot_have_held, holding, traced, all_evidence: self.all_evidence };
            let (target, gil_waits) = (self.interpreter.target.as_ref(), &mut self.interpreter.gil_waits);
            let history = self.threads.estimator.thread(index).history();
            let (runtime_state, layout) = (&self.interpreter.runtime_state, &self.interpreter.python.layout.gil);
            let mut waits_for = None;
            let owner = |futex| {
                let owner = gil_waits.owner(target.memory(), layout, &runtime_state.gils, futex);
                waits_for = if let FutexOwner::Gil(gil) = owner { Some(gil) } else { None };
                // While some GIL's address is unknown, a futex of no known GIL may belong to it.
                if waits_for.is_none() && !runtime_state.complete {
                    FutexOwner::Unknown
                } else {
                    owner
                }
            };
            if self.threads.readers[index].poll(target, history, hints, owner).is_err() {
                exited.push((index, true));
                continue;
            }
            self.stats.tasks_polled += u64::from(!self.threads.readers[index].is_still_waiting());
            if let Some(gil) = waits_for.filter(|gil| *gil != self.threads.readers[index].gil) {
                let binding = self.binder.bindings.for_thread(index).rev().find(|binding| binding.gil == gil).copied();
                binding.into_iter().for_each(|binding| self.bind_to(&binding, sink));
            }
        }
        self.remove_threads(exited, sink);
    }

    /// The indices of the threads that held the GILs when this sample began.
    fn holder_indices(&self) -> impl Iterator<Item = usize> + '_ {
        self.gils.all.iter().filter_map(|gil| gil.holder_index)
    }

    /// Whether the thread cannot have had its GIL since the last sample, and another known thread
    /// has the GIL now. False where the holder is ambiguous: up to 3.12 a thread may run under a
    /// thread state with another thread's ids, and the real holder would then never be polled.
    fn cannot_have_held(&self, thread: &ThreadReader) -> bool {
        let Some(g) = self.gils.index_of(thread.gil) else { return false };
        let (gil, now) = (&self.gils.all[g], self.interpreter.runtime_state.gils[g].1);
        let history = || self.threads.estimator.gil(gil.id);
        gil.holder_index.is_some()
            && gil.unambiguous
            && now.is_some_and(|now| history().is_some_and(|history| !history.may_have_held(&now, thread.tstate)))
    }

    /// Each thread as of the last sample, for `dump`. What one sample cannot decide is `Unknown`.
    pub fn snapshots(&self) -> Vec<(ThreadId, ThreadSnapshot)> {
        let snapshot = |(thread, history): (&ThreadReader, &ThreadEstimator)| {
            let (state, evidence) = history.last_state();
            let info = &thread.info;
            let stack = thread.stack.stack().clone();
            let snapshot = ThreadSnapshot { tid: info.tid, name: info.name.clone(), python: info.python, state, evidence, stack };
            (info.id, snapshot)
        };
        self.threads.readers.iter().zip(self.threads.estimator.threads()).map(snapshot).collect()
    }
}
