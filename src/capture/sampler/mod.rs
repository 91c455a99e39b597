//! One look at a live interpreter: who holds each GIL, and what every thread of the process is doing.
//!
//! The order matters. First the GILs and all thread states in one batch, and in the same one the likely holder's stack, which moves; then the
//! kernel's word on the other threads, each only as far as it can have changed; then, in one batch, the stacks of those that can have moved and
//! the GILs again: a thread that held at both ends held all along, and only such a one is called asleep with the GIL. No look is lost because
//! one thread is new or gone.

mod attribute;
mod batch;
mod gil_table;
mod poll_schedule;
mod threads;

use super::bindings::{GilIds, ThreadStateBindings};
use super::stop_detector::StopDetector;
use super::thread_tracker::{PollHints, ThreadTracker};
use super::tid_resolver::TidResolver;
use crate::error::ReadError;
use crate::ids::{Addr, GilId, ThreadId, Tid};
use crate::process::target::{LiveTarget, Target};
use crate::python::attach::PythonProcess;
use crate::python::gil::{self, GilReading};
use crate::python::interpreters::RuntimeState;
use crate::python::stack::Symbols;
use crate::sample::{Sink, Stack, StackStatus, ThreadSnapshot};
use crate::units::Nanos;
use batch::Batch;
use gil_table::GilTable;
use poll_schedule::PollSchedule;
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How often the lists of interpreters and thread states are walked again within one look while they keep changing.
const MAX_WALKS: usize = 3;

/// What one look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleOutcome {
    /// The GIL and the threads were read.
    Complete,
    /// There is no interpreter: not yet, or no longer.
    NoInterpreter,
    /// The GIL could not be read, or made no sense.
    Failed,
}

/// Follows one process.
pub struct Sampler {
    python: PythonProcess,
    source: Box<dyn Target>,
    runtime_state: RuntimeState,
    tid_resolver: TidResolver,
    symbols: Symbols,
    threads: Vec<ThreadTracker>,
    schedule: PollSchedule,
    /// The kernel has not been asked for some thread's name.
    comm_pending: bool,
    /// Some thread that runs Python may have a name there that is not known.
    names_pending: bool,
    by_tstate: HashMap<Addr, usize>,
    bound_states: Vec<(Addr, u64, Option<u64>)>,
    bindings: ThreadStateBindings,
    gil_ids: GilIds,
    /// Some thread state's thread is not known yet, or two of one interpreter claim the same: their ids are about to change.
    bindings_pending: bool,
    next_id: u32,
    tids: Vec<Tid>,
    /// The list of threads before that.
    previous_tids: Vec<Tid>,
    /// Who was on the list, but began after the look that read it had.
    started_during_sample: Vec<Tid>,
    /// How many threads the kernel counted at the last look.
    task_count: Option<u64>,
    tids_read_at: Nanos,
    /// When it was last made sure that the main thread lives.
    leader_checked_at: Nanos,
    /// When the thread states were last seen to change.
    states_changed_at: Nanos,
    names_read_at: Nanos,
    /// When the last look was made, and until when it stands for what the threads do.
    last_sample: Option<Nanos>,
    accounted_until: Nanos,
    /// The same end of the look that is being made.
    weight_until: Nanos,
    empty_stack: Arc<Stack>,
    gils: GilTable,
    gils_after: Vec<Option<GilReading>>,
    batch: Batch,
    pauser: Option<Box<dyn ThreadPauser>>,
    /// Whether and how long the program stood still.
    pub stop_detector: StopDetector,
    /// Exact mode: threads that kernel events say wait for a GIL now, so that the kernel need not be asked.
    pub waiting_by_events: HashSet<Tid>,
    /// How often a thread was asked after.
    pub tasks_polled: u64,
    /// Stacks whose top moved.
    pub torn: u64,
    /// The most interpreters seen at once.
    pub interpreters: u32,
    /// The switch interval last read.
    pub interval_us: Option<u64>,
    /// Whether the main GIL was last seen switched on.
    pub gil_enabled: bool,
}

/// Stops one thread while its stack is read. Only used when the user asks for it.
pub trait ThreadPauser {
    /// Stops the thread until the guard is dropped; `None` when that could not be done.
    fn pause(&self, tid: Tid) -> Option<Box<dyn std::any::Any>>;
}

impl Sampler {
    /// Starts following the process that `python` was found in.
    pub fn new(python: PythonProcess, pauser: Option<Box<dyn ThreadPauser>>) -> Sampler {
        Sampler { pauser, ..Sampler::from_target(Box::new(LiveTarget::new(python.pid)), python) }
    }

    /// Looks at a process by way of `source`: a recorded one, or one that is being recorded.
    pub fn from_target(source: Box<dyn Target>, python: PythonProcess) -> Sampler {
        Sampler {
            source,
            python,
            runtime_state: RuntimeState::default(),
            tid_resolver: TidResolver::default(),
            symbols: Symbols::default(),
            threads: Vec::new(),
            schedule: PollSchedule::default(),
            comm_pending: false,
            names_pending: false,
            by_tstate: HashMap::new(),
            bound_states: Vec::new(),
            bindings: ThreadStateBindings::default(),
            gil_ids: GilIds::default(),
            stop_detector: StopDetector::default(),
            bindings_pending: true,
            next_id: 0,
            tids: Vec::new(),
            previous_tids: Vec::new(),
            started_during_sample: Vec::new(),
            task_count: None,
            tids_read_at: Nanos::ZERO,
            leader_checked_at: Nanos::ZERO,
            states_changed_at: Nanos::ZERO,
            names_read_at: Nanos::ZERO,
            last_sample: None,
            accounted_until: Nanos::ZERO,
            weight_until: Nanos::ZERO,
            empty_stack: Arc::new(Stack::empty()),
            gils: GilTable::default(),
            gils_after: Vec::new(),
            batch: Batch::default(),
            pauser: None,
            waiting_by_events: HashSet::new(),
            tasks_polled: 0,
            torn: 0,
            interpreters: 0,
            interval_us: None,
            gil_enabled: true,
        }
    }

    /// Follows the program that the process runs now, with the thread numbers going on from `before`.
    pub fn continued(python: PythonProcess, pauser: Option<Box<dyn ThreadPauser>>, before: &Sampler) -> Sampler {
        Sampler { next_id: before.next_id, ..Sampler::new(python, pauser) }
    }

    /// A number for a new thread.
    pub fn allocate_id(&mut self) -> ThreadId {
        self.next_id += 1;
        ThreadId(self.next_id - 1)
    }

    /// Until when the last look stands for what threads do.
    pub fn accounted_until(&self) -> Nanos {
        self.accounted_until
    }

    /// Where `_PyRuntime` is.
    pub fn runtime(&self) -> Addr {
        self.python.runtime
    }

    /// The threads as the last look left them.
    pub fn threads(&self) -> &[ThreadTracker] {
        &self.threads
    }

    /// The GILs with their numbers.
    pub fn gils(&self) -> impl Iterator<Item = (GilId, Addr)> + '_ {
        self.runtime_state.gils.iter().enumerate().map(|(g, (at, _))| (self.gil_ids.by_index(g), *at))
    }

    /// Looks once, at `at`. The look stands for the time from where the last one's ended until `until`.
    /// `Err` when the process as a whole cannot be read: it is gone, or access was taken away.
    pub fn sample(&mut self, at: Nanos, until: Nanos, sink: &mut dyn Sink) -> Result<SampleOutcome, ReadError> {
        if self.last_sample.is_none() {
            self.accounted_until = at;
        }
        self.weight_until = until.max(self.accounted_until);
        self.symbols.codes.begin_sample();
        let task_count = self.source.task_count();
        let count_changed = std::mem::replace(&mut self.task_count, task_count) != task_count;
        let all = self.is_list_due(at) || self.bindings_pending || count_changed;
        self.read_roster(all)?;
        self.gil_ids.update(&self.runtime_state);
        self.gils.update(&self.runtime_state);
        self.bind_if_changed(at, count_changed, sink)?;
        self.read_holders_stacks(sink)?;
        self.poll_tasks(sink);
        self.read_changed()?;
        self.resolve_foreign_states(sink)?;
        self.detect_stop(at);
        self.name_threads(at, sink);
        let outcome = self.outcome();
        // Else nothing is known, and the next look that tells stands for this time too. Threads that an ended interpreter leaves behind sleep.
        if outcome == SampleOutcome::Complete {
            self.attribute(sink);
            (self.last_sample, self.accounted_until) = (Some(at), self.weight_until);
            self.gils.0.iter_mut().zip(&self.runtime_state.gils).for_each(|(gil, (_, reading))| gil.previous = *reading);
        }
        Ok(outcome)
    }

    /// The window ends: settles every thread's time.
    pub fn finish(&mut self, at: Nanos, sink: &mut dyn Sink) {
        for thread in &mut self.threads {
            thread.finish(if self.last_sample.is_some() { self.accounted_until } else { at }, sink);
        }
        self.threads.clear();
        self.schedule = PollSchedule::default();
    }

    fn read_roster(&mut self, all: bool) -> Result<(), ReadError> {
        let (layout, runtime) = (&self.python.layout, self.python.runtime);
        let mut first = Vec::new();
        for attempt in 0..MAX_WALKS {
            if !self.runtime_state.interpreters.is_empty() {
                // Who is to be stopped before it is read is not read before.
                let likely_holder_thread =
                    if attempt == 0 && self.pauser.is_none() { likely_holder(&self.gils, &mut self.threads) } else { None };
                let along = likely_holder_thread.map_or(&[][..], |thread| thread.stack.prefetch_plan(layout, thread.tstate));
                if self.runtime_state.read_with_prefetch(self.source.memory(), layout, runtime, all || attempt > 0, along)? {
                    self.runtime_state.restore_readings(&first);
                    self.accept_prefetch();
                    return Ok(());
                }
                if attempt == 0 {
                    // Who held when the look began, rather than after the lists were followed: a short hold may be over by then.
                    first.clone_from(&self.runtime_state.gils);
                    self.runtime_state.follow_heads(self.source.memory(), layout);
                    continue;
                }
            }
            match self.runtime_state.walk(self.source.memory(), layout, runtime) {
                Ok(()) | Err(ReadError::Unmapped { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        // It keeps changing. What was walked last is a true list of a moment ago; threads made since are met at the next look.
        self.runtime_state.read(self.source.memory(), layout, runtime, true).map(|_| ())
    }

    /// The stack of the likely holder was read with the GIL, and is wanted if it holds.
    fn accept_prefetch(&mut self) {
        let (parts, bytes) = self.runtime_state.prefetched();
        let holds = |thread: &&mut ThreadTracker| {
            self.runtime_state.gils.first().is_some_and(|(_, r)| r.is_some_and(|r| r.holder == Some(thread.tstate)))
        };
        if let Some(thread) = likely_holder(&self.gils, &mut self.threads).filter(holds) {
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

    /// The holders' stacks first: they move.
    fn read_holders_stacks(&mut self, sink: &mut dyn Sink) -> Result<(), ReadError> {
        for g in 0..self.runtime_state.gils.len() {
            self.gils.0[g].holder_at = None;
            let Some(holder) = self.runtime_state.gils[g].1.and_then(|r| r.holder) else { continue };
            if let Some(&index) = self.by_tstate.get(&holder) {
                let binding = self.bindings.for_state(holder);
                (self.gils.0[g].holder_at, self.gils.0[g].unambiguous) = (Some(index), binding.is_none());
                if let Some(binding) = binding {
                    self.bind_to(&binding, sink);
                }
                self.read_stack(index, true)?;
            }
        }
        Ok(())
    }

    fn read_stack(&mut self, index: usize, holds: bool) -> Result<(), ReadError> {
        let thread = &mut self.threads[index];
        let tid = thread.facts.tid;
        let _paused = self.pauser.as_ref().filter(|_| holds).and_then(|f| f.pause(tid));
        let still = !holds && thread.is_asleep();
        thread.stack.read(self.source.memory(), &self.python.layout, &mut self.symbols, thread.tstate, still)?;
        thread.gil_requested = thread.stack.gil_requested();
        if thread.stack.stack().status == StackStatus::Torn {
            self.torn += 1;
        }
        Ok(())
    }

    /// The kernel's word on every thread that can have moved.
    fn poll_tasks(&mut self, sink: &mut dyn Sink) {
        let holds = |index| self.gils.0.iter().any(|gil| gil.holder_at == Some(index));
        let waits = |tid| self.gils.0.len() == 1 && self.waiting_by_events.contains(&tid);
        self.schedule.select_due(self.weight_until, |index, tid| holds(index) || waits(tid));
        // The newest first, which are the likeliest to be gone soon. Who is gone was the last of those that are left to ask after.
        for n in (0..self.schedule.count()).rev() {
            let index = self.schedule.get(n);
            let (gils, layout) = (&self.runtime_state.gils, &self.python.layout);
            // While some GIL's place is not known, a futex that is on none of the known ones may be on that.
            let known = |yes: bool| (yes || self.runtime_state.complete).then_some(yes);
            let waits_for = Cell::new(None);
            let on_gil = |futex| {
                waits_for.set(gils.iter().find(|(at, _)| gil::is_wait(&layout.gil, *at, futex)).map(|(at, _)| *at));
                known(waits_for.get().is_some())
            };
            let thread = &self.threads[index];
            let cannot_have_held = self.cannot_have_held(thread);
            // Events are as old as the look; the GIL was read since, and knows better of one who has just got it.
            let holds = self.runtime_state.is_holder(thread.tstate);
            let waits = gils.len() == 1 && self.waiting_by_events.contains(&thread.facts.tid) && !holds;
            if self.threads[index]
                .poll(self.source.as_ref(), PollHints { cannot_have_held, waiting: waits, holding: holds }, on_gil)
                .is_err()
            {
                self.remove_thread(index, true, sink);
                continue;
            }
            self.tasks_polled += u64::from(!self.threads[index].is_still_waiting());
            if let Some(gil) = waits_for.get().filter(|gil| *gil != self.threads[index].gil) {
                let binding = self.bindings.for_thread(index).rev().find(|binding| binding.gil == gil).copied();
                binding.into_iter().for_each(|binding| self.bind_to(&binding, sink));
            }
        }
    }

    /// Holders that are not the thread they name (see `bindings`).
    fn resolve_foreign_states(&mut self, sink: &mut dyn Sink) -> Result<(), ReadError> {
        let count = if self.bindings.may_be_foreign(self.python.layout.minor) { self.runtime_state.gils.len() } else { 0 };
        for g in 0..count {
            // One that let go during this look may well sleep by now.
            let reading = self.runtime_state.gils[g].1.filter(|reading| self.gils_after.get(g) == Some(&Some(*reading)));
            let Some(holder) = reading.and_then(|r| r.holder) else { continue };
            let Some(sleeper) = self.bindings.resolve_foreign_holder(holder, &self.threads) else { continue };
            // Whose it is is known at the next look; at this one it is not the sleeper's.
            self.by_tstate.remove(&holder);
            self.bound_states.clear();
            self.bind_to(&sleeper, sink);
            self.read_stack(sleeper.thread, false)?;
        }
        Ok(())
    }

    /// What the threads of a stopped program do is not what they were at when it was stopped.
    fn detect_stop(&mut self, at: Nanos) {
        let outside_syscall = self.schedule.indices().any(|i| self.threads[i].is_outside_syscall());
        if self.stop_detector.check(self.source.as_ref(), at, outside_syscall) {
            self.threads.iter_mut().for_each(ThreadTracker::mark_stopped);
            self.schedule.wake_all();
        }
    }

    /// Whether a thread cannot have had its GIL since the last look, and another that is known has it now.
    fn cannot_have_held(&self, thread: &ThreadTracker) -> bool {
        let gil = self.gils.0.iter().zip(&self.runtime_state.gils).find(|(gil, _)| gil.at == thread.gil);
        gil.is_some_and(|(gil, (_, now))| now.is_some_and(|now| gil.cannot_have_held(&now, thread.tstate)))
    }

    /// Each thread as the last look saw it, for `dump`; what one look cannot tell is `Unknown`.
    pub fn snapshots(&self) -> Vec<(ThreadId, ThreadSnapshot)> {
        let snapshot = |thread: &ThreadTracker| {
            let (state, evidence) = thread.last_state();
            let facts = &thread.facts;
            let stack = thread.stack.stack().clone();
            let snapshot = ThreadSnapshot { tid: facts.tid, name: facts.name.clone(), python: facts.python, state, evidence, stack };
            (facts.id, snapshot)
        };
        self.threads.iter().map(snapshot).collect()
    }
}

/// The thread that held the only GIL when the last look began: most often it still does.
fn likely_holder<'a>(gils: &GilTable, threads: &'a mut [ThreadTracker]) -> Option<&'a mut ThreadTracker> {
    let [gil] = gils.0.as_slice() else { return None };
    let (index, id, _) = gil.holder.as_ref()?;
    threads.get_mut(*index).filter(|thread| thread.facts.id == *id && !thread.tstate.is_null())
}
