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

mod attribute;
mod batch;
mod gil_table;
mod poll_schedule;
mod stacks;
mod stops;
mod threads;

use super::bindings::{GilIds, ThreadStateBindings};
use super::stop_detector::StopDetector;
use super::thread_tracker::{PollHints, ThreadTracker};
use super::tid_resolver::TidResolver;
use crate::error::ReadError;
use crate::ids::{Addr, GilId, ThreadId, Tid};
use crate::process::affinity::WorkingCpus;
use crate::process::target::{LiveTarget, Target};
use crate::python::attach::PythonProcess;
use crate::python::gil::GilReading;
use crate::python::gil_waits::{FutexOwner, GilWaits};
use crate::python::interpreters::RuntimeState;
use crate::python::stack::Symbols;
use crate::sample::{Sink, Stack, ThreadSnapshot};
use crate::units::Nanos;
use batch::Batch;
use gil_table::GilTable;
use poll_schedule::PollSchedule;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

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

/// Samples one process.
pub struct Sampler {
    python: PythonProcess,
    target: Box<dyn Target>,
    runtime_state: RuntimeState,
    tid_resolver: TidResolver,
    symbols: Symbols,
    threads: Vec<ThreadTracker>,
    schedule: PollSchedule,
    /// The indices of threads that a sample polls in any case; empty between samples.
    wanted: Vec<usize>,
    /// Some thread's `comm` has not been read.
    comm_pending: bool,
    /// Some thread that runs Python may have a name there that has not been read.
    names_pending: bool,
    by_tstate: HashMap<Addr, usize>,
    /// The thread states that were last matched with threads.
    bound_states: Vec<(Addr, u64, Option<u64>)>,
    /// The generation of the thread states that were last found equal to `bound_states`.
    bound_generation: Option<u64>,
    bindings: ThreadStateBindings,
    gil_ids: GilIds,
    /// Some thread state's thread is not known yet, or two thread states of one interpreter name
    /// the same thread: their ids are about to change.
    bindings_pending: bool,
    next_id: u32,
    /// Threads were found before the first sample.
    prepared: bool,
    tids: Vec<Tid>,
    /// The list of threads before `tids`.
    previous_tids: Vec<Tid>,
    /// Threads that were listed but started after the sample that read the list.
    started_during_sample: Vec<Tid>,
    /// How many threads the kernel counted at the last sample.
    task_count: Option<u64>,
    tids_read_at: Nanos,
    /// When the sampler last checked that the main thread is alive.
    leader_checked_at: Nanos,
    /// When the thread states last changed.
    states_changed_at: Nanos,
    names_read_at: Nanos,
    /// The time between two reads of names.
    names_period: Nanos,
    /// The time of the last sample, and the end of the time that it stands for.
    last_sample: Option<Nanos>,
    accounted_until: Nanos,
    /// The end of the time that the current sample stands for.
    weight_until: Nanos,
    empty_stack: Arc<Stack>,
    gils: GilTable,
    gil_waits: GilWaits,
    gils_after: Vec<Option<GilReading>>,
    batch: Batch,
    pauser: Option<Box<dyn ThreadPauser>>,
    /// Whether and for how long the program was stopped.
    pub stop_detector: StopDetector,
    /// Exact mode: threads that wait for a GIL now by kernel events, so that their task state need
    /// not be read.
    pub waiting_by_events: HashSet<Tid>,
    /// The CPUs that the threads which have ended so far, or been finished, may use.
    pub working_cpus: WorkingCpus,
    /// How many times a thread's `/proc` files were read.
    pub tasks_polled: u64,
    /// Stacks that changed at the top while they were read.
    pub torn: u64,
    /// When deep stacks must have been read; `None`: no such time.
    pub stacks_until: Option<Nanos>,
    /// Stacks with frames left out because there was no time to read them.
    pub shortened: u64,
    /// The largest number of interpreters in one sample.
    pub interpreters: u32,
    /// The switch interval, as last read.
    pub interval_us: Option<u64>,
    /// Whether the main GIL was on when it was last read.
    pub gil_enabled: bool,
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
    pub fn from_target(target: Box<dyn Target>, python: PythonProcess) -> Sampler {
        Sampler {
            target,
            runtime_state: RuntimeState::default(),
            tid_resolver: TidResolver::default(),
            symbols: Symbols::default(),
            threads: Vec::new(),
            schedule: PollSchedule::default(),
            wanted: Vec::new(),
            comm_pending: false,
            names_pending: false,
            by_tstate: HashMap::new(),
            bound_states: Vec::new(),
            bound_generation: None,
            bindings: ThreadStateBindings::default(),
            gil_ids: GilIds::default(),
            stop_detector: StopDetector::default(),
            bindings_pending: true,
            next_id: 0,
            prepared: false,
            tids: Vec::new(),
            previous_tids: Vec::new(),
            started_during_sample: Vec::new(),
            task_count: None,
            tids_read_at: Nanos::ZERO,
            leader_checked_at: Nanos::ZERO,
            states_changed_at: Nanos::ZERO,
            names_read_at: Nanos::ZERO,
            names_period: Nanos::ZERO,
            last_sample: None,
            accounted_until: Nanos::ZERO,
            weight_until: Nanos::ZERO,
            empty_stack: Arc::new(Stack::empty()),
            gils: GilTable::default(),
            gil_waits: GilWaits::new(python.abi.c_library),
            gils_after: Vec::new(),
            batch: Batch::default(),
            pauser: None,
            waiting_by_events: HashSet::new(),
            working_cpus: WorkingCpus::default(),
            tasks_polled: 0,
            torn: 0,
            stacks_until: None,
            shortened: 0,
            interpreters: 0,
            interval_us: None,
            gil_enabled: true,
            python,
        }
    }

    /// A sampler of the program that the process runs now. Thread ids go on from `before`.
    pub fn continued(python: PythonProcess, pauser: Option<Box<dyn ThreadPauser>>, before: &Sampler) -> Sampler {
        Sampler { next_id: before.next_id, ..Sampler::new(python, pauser) }
    }

    /// The warning of the pauser.
    pub fn pauser_warning(&self) -> Option<String> {
        self.pauser.as_ref()?.warning()
    }

    /// An id for a new thread.
    pub fn allocate_id(&mut self) -> ThreadId {
        self.next_id += 1;
        ThreadId(self.next_id - 1)
    }

    /// The end of the time that the last sample stands for.
    pub fn accounted_until(&self) -> Nanos {
        self.accounted_until
    }

    /// The address of `_PyRuntime`.
    pub fn runtime(&self) -> Addr {
        self.python.runtime
    }

    /// The threads as of the last sample.
    pub fn threads(&self) -> &[ThreadTracker] {
        &self.threads
    }

    /// The ids and addresses of the GILs.
    pub fn gils(&self) -> impl Iterator<Item = (GilId, Addr)> + '_ {
        self.runtime_state.gils.iter().enumerate().map(|(g, (at, _))| (self.gil_ids.by_index(g), *at))
    }

    /// Takes one sample at `at`. It stands for the time from where the last sample's ended until
    /// `until`. Returns `Err` when the process as a whole cannot be read: it has ended, or access
    /// was taken away.
    pub fn sample(&mut self, at: Nanos, until: Nanos, sink: &mut dyn Sink) -> Result<SampleOutcome, ReadError> {
        if self.last_sample.is_none() {
            self.accounted_until = at;
            if std::mem::take(&mut self.prepared) {
                self.threads.iter_mut().for_each(|thread| thread.restart(at));
            }
        }
        self.weight_until = until.max(self.accounted_until);
        self.symbols.codes.begin_sample();
        self.gil_waits.begin_sample();
        let task_count = self.target.task_count();
        let count_changed = std::mem::replace(&mut self.task_count, task_count) != task_count;
        let all = self.is_list_due(at) || self.is_settling(at) || count_changed;
        self.read_runtime_state(all)?;
        self.gil_ids.update(&self.runtime_state);
        self.gils.update(&self.runtime_state);
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
            (self.last_sample, self.accounted_until) = (Some(at), self.weight_until);
            self.gils.0.iter_mut().zip(&self.runtime_state.gils).for_each(|(gil, (_, reading))| gil.previous = *reading);
        }
        Ok(outcome)
    }

    /// Resolves every thread's time at the end of the window.
    pub fn finish(&mut self, at: Nanos, sink: &mut dyn Sink) {
        for thread in &mut self.threads {
            let at = if self.last_sample.is_some() { self.accounted_until } else { at };
            thread.finish(self.target.as_ref(), at, &mut self.working_cpus, sink);
        }
        self.threads.clear();
        self.schedule = PollSchedule::default();
    }

    fn read_runtime_state(&mut self, all: bool) -> Result<(), ReadError> {
        let (layout, runtime) = (&self.python.layout, self.python.runtime);
        let mut first = Vec::new();
        for attempt in 0..MAX_FOLLOWS {
            if !self.runtime_state.interpreters.is_empty() {
                // A stack that is to be read with its thread paused is not read before the pause.
                let likely_holder_thread =
                    if attempt == 0 && self.pauser.is_none() { stacks::likely_holder(&self.gils, &mut self.threads) } else { None };
                let prefetch = likely_holder_thread.map_or(&[][..], |thread| thread.stack.prefetch_plan(layout, thread.tstate));
                if self.runtime_state.read_with_prefetch(self.target.memory(), layout, runtime, all || attempt > 0, prefetch)? {
                    self.runtime_state.restore_readings(&first);
                    self.accept_prefetch();
                    return Ok(());
                }
                if attempt == 0 {
                    // The first readings of the GILs are kept: they show the holders when the
                    // sample began. A short hold may be over after the lists have been followed.
                    first.clone_from(&self.runtime_state.gils);
                }
            }
            self.runtime_state.follow(self.target.memory(), layout, runtime)?;
        }
        // The lists keep changing. The last one is a consistent list from a moment ago; the next
        // sample finds thread states made since.
        self.runtime_state.read(self.target.memory(), layout, runtime, true).map(|_| ())
    }

    /// Uses the prefetched stack of the likely holder if that thread does hold the GIL.
    fn accept_prefetch(&mut self) {
        let (parts, bytes) = self.runtime_state.prefetched();
        let holds = |thread: &&mut ThreadTracker| {
            self.runtime_state.gils.first().is_some_and(|(_, r)| r.is_some_and(|r| r.holder == Some(thread.tstate)))
        };
        if let Some(thread) = stacks::likely_holder(&self.gils, &mut self.threads).filter(holds) {
            thread.stack.accept_prefetch(parts, bytes);
        }
    }

    fn outcome(&mut self) -> SampleOutcome {
        self.interpreters = self.interpreters.max(self.runtime_state.interpreters.len() as u32);
        match self.runtime_state.gils.first() {
            None => SampleOutcome::NoInterpreter,
            Some((_, None)) => SampleOutcome::Failed,
            Some((_, Some(reading))) => {
                self.interval_us = Some(reading.interval_us);
                self.gil_enabled = reading.enabled;
                SampleOutcome::Complete
            }
        }
    }

    /// Reads the task state of every thread that can have changed.
    fn poll_tasks(&mut self, sink: &mut dyn Sink) {
        let mut wanted = std::mem::take(&mut self.wanted);
        wanted.extend(self.holder_indices());
        if self.stop_detector.is_lasting() {
            self.schedule.select_few(wanted.drain(..));
        } else {
            if self.gils.0.len() == 1 && !self.waiting_by_events.is_empty() {
                let waits = |(_, tid): &(usize, Tid)| self.waiting_by_events.contains(tid);
                wanted.extend(self.schedule.tids().enumerate().filter(waits).map(|(index, _)| index));
            }
            self.schedule.select_due(self.weight_until, wanted.drain(..));
        }
        self.wanted = wanted;
        let traced = self.stop_detector.is_traced();
        let mut exited = Vec::new();
        // The newest first: they are the likeliest to exit soon.
        for n in (0..self.schedule.count()).rev() {
            let index = self.schedule.get(n);
            let thread = &self.threads[index];
            let cannot_have_held = self.cannot_have_held(thread);
            // Kernel events are as old as the sample. The GIL was read later and shows a thread
            // that has just got it.
            let holds = self.runtime_state.is_holder(thread.tstate);
            let waits = self.runtime_state.gils.len() == 1 && self.waiting_by_events.contains(&thread.info.tid) && !holds;
            let hints = PollHints { cannot_have_held, waiting: waits, holding: holds, traced };
            let (target, gil_waits) = (self.target.as_ref(), &mut self.gil_waits);
            let (runtime_state, layout) = (&self.runtime_state, &self.python.layout.gil);
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
            if self.threads[index].poll(target, hints, owner).is_err() {
                exited.push((index, true));
                continue;
            }
            self.tasks_polled += u64::from(!self.threads[index].is_still_waiting());
            if let Some(gil) = waits_for.filter(|gil| *gil != self.threads[index].gil) {
                let binding = self.bindings.for_thread(index).rev().find(|binding| binding.gil == gil).copied();
                binding.into_iter().for_each(|binding| self.bind_to(&binding, sink));
            }
        }
        self.remove_threads(exited, sink);
    }

    /// The indices of the threads that held the GILs when this sample began.
    fn holder_indices(&self) -> impl Iterator<Item = usize> + '_ {
        self.gils.0.iter().filter_map(|gil| gil.holder_index)
    }

    /// Whether the thread cannot have had its GIL since the last sample, and another known thread
    /// has the GIL now.
    fn cannot_have_held(&self, thread: &ThreadTracker) -> bool {
        let gil = self.gils.0.iter().zip(&self.runtime_state.gils).find(|(gil, _)| gil.at == thread.gil);
        gil.is_some_and(|(gil, (_, now))| now.is_some_and(|now| gil.cannot_have_held(&now, thread.tstate)))
    }

    /// Each thread as of the last sample, for `dump`. What one sample cannot decide is `Unknown`.
    pub fn snapshots(&self) -> Vec<(ThreadId, ThreadSnapshot)> {
        let snapshot = |thread: &ThreadTracker| {
            let (state, evidence) = thread.last_state();
            let info = &thread.info;
            let stack = thread.stack.stack().clone();
            let snapshot = ThreadSnapshot { tid: info.tid, name: info.name.clone(), python: info.python, state, evidence, stack };
            (info.id, snapshot)
        };
        self.threads.iter().map(snapshot).collect()
    }
}
