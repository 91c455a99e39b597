//! The list of the target's OS threads: follows threads that start and exit, matches them with
//! thread states, and names them.

use super::poll_schedule::index_after;
use super::tables::SampleTimes;
use super::Sampler;
use crate::capture::bindings::ThreadStateBinding;
use crate::capture::thread_reader::ThreadReader;
use crate::error::ReadError;
use crate::ids::{Addr, Tid};
use crate::python::interpreters::{RuntimeState, ThreadState};
use crate::python::thread_names;
use crate::sample::{RawEvent, Sink, ThreadInfo};
use crate::units::Nanos;
use std::collections::{HashMap, HashSet};

/// How often the lists of OS threads and thread states are read without a sign of a change. The
/// number of threads can stay the same while the threads change, and for threads without a thread
/// state there is no other sign.
const RELIST_PERIOD: Nanos = Nanos::from_millis(100);
/// The same period where the number of threads is unknown.
const RELIST_PERIOD_UNCOUNTED: Nanos = Nanos::from_millis(20);
/// The lists of a process with more threads than this are read less often, in proportion: reading
/// them takes a time in proportion too.
const MANY_THREADS: u64 = 256;
/// For so long after a change, while a thread state has no thread yet, every sample reads the list
/// of OS threads.
const SETTLING: Nanos = Nanos::from_millis(200);
/// How often names are read while some threads have none. The period doubles while no new name is
/// found.
const NAMES_PERIOD: Nanos = Nanos::from_millis(100);
const MAX_NAMES_PERIOD: Nanos = Nanos::from_millis(3_200);

/// The name of a main thread that has none in Python.
const MAIN_THREAD: &str = "main thread";

/// What identifies a thread state and its thread.
fn keys(runtime_state: &RuntimeState) -> impl Iterator<Item = (Addr, u64, Option<u64>)> + '_ {
    runtime_state.threads.iter().map(|state| (state.at, state.pthread, state.native_id))
}

impl Sampler {
    /// Finds the threads of a process that has many, before its window begins: to open their files
    /// and to read their names takes as long as many samples. Reads their stacks while `may_go_on`;
    /// the samples read the others.
    pub fn prepare(&mut self, at: Nanos, may_go_on: &dyn Fn() -> bool, sink: &mut dyn Sink) -> Result<(), ReadError> {
        if self.interpreter.target.task_count().is_none_or(|count| count <= MANY_THREADS) {
            return Ok(());
        }
        self.times.accounted_until = at;
        self.read_runtime_state(true)?;
        self.gils.update(&self.interpreter.runtime_state);
        self.bind_if_changed(at, true, sink)?;
        self.name_threads(at, sink);
        for index in 0..self.threads.readers.len() {
            if !may_go_on() {
                break;
            }
            if !self.threads.readers[index].tstate.is_null() {
                self.read_stack(index, false)?;
            }
        }
        (self.listed.prepared, self.stats.torn) = (true, 0);
        Ok(())
    }

    /// Whether the lists are due to be read.
    pub(super) fn is_list_due(&self, at: Nanos) -> bool {
        let period = if self.listed.task_count.is_some() { RELIST_PERIOD } else { RELIST_PERIOD_UNCOUNTED };
        let times = (self.listed.tids.len() as u64 / MANY_THREADS).max(1);
        at.saturating_since(self.listed.tids_read_at).as_nanos() >= period.as_nanos() * times
    }

    /// Whether thread states and threads are about to be matched. That is given up some time after
    /// the last change: a thread state may belong to no thread for ever.
    pub(super) fn is_settling(&self, at: Nanos) -> bool {
        self.binder.bindings_pending && at.saturating_since(self.binder.states_changed_at) < SETTLING
    }

    /// Matches thread states with OS threads again if either list has changed. `count_changed`: the
    /// kernel's number of threads has changed.
    pub(super) fn bind_if_changed(&mut self, at: Nanos, count_changed: bool, sink: &mut dyn Sink) -> Result<(), ReadError> {
        let generation = Some(self.interpreter.runtime_state.generation());
        let same = self.binder.bound_generation == generation
            || keys(&self.interpreter.runtime_state).eq(self.binder.bound_states.iter().copied());
        self.binder.bound_generation = generation.filter(|_| same);
        if !same {
            self.binder.states_changed_at = at;
        }
        // A thread state is made before its thread is. Until they are matched, every sample tries
        // again.
        let settling = self.is_settling(at);
        if same && !settling && !count_changed && !self.is_list_due(at) {
            return Ok(());
        }
        let check_leader = at.saturating_since(self.listed.leader_checked_at) >= RELIST_PERIOD
            || !self.threads.readers.iter().any(|thread| thread.info.main);
        self.listed.tids_read_at = at;
        self.listed.leader_checked_at = if check_leader { at } else { self.listed.leader_checked_at };
        std::mem::swap(&mut self.listed.tids, &mut self.listed.previous_tids);
        self.interpreter.target.tids(&mut self.listed.tids, check_leader).map_err(|_| ReadError::Gone)?;
        self.skip_just_started();
        if same && !settling && self.listed.tids == self.listed.previous_tids {
            return Ok(());
        }
        let (bound_states, holders): (Vec<_>, _) = (keys(&self.interpreter.runtime_state).collect(), self.holders());
        let unseen = self.unseen_holders(&holders);
        self.remove_exited(&holders, sink);
        self.attribute_exited(at, &unseen, sink);
        let known: HashMap<Tid, usize> = self.threads.readers.iter().enumerate().map(|(i, t)| (t.info.tid, i)).collect();
        if !same || self.listed.tids.len() != known.len() || self.listed.tids.iter().any(|t| !known.contains_key(t)) {
            self.track_new(at, &known, sink);
            // If a binding's thread state no longer exists, the next sample matches again.
            self.binder.bound_states = if self.bind(sink) { Vec::new() } else { bound_states };
        }
        Ok(())
    }

    /// Leaves threads that started after this sample began to the next sample. Otherwise each
    /// thread's time would exceed its life by the rest of the sample that finds it, which adds up
    /// for many short threads. The list is in order of creation, and the number of threads was read
    /// before it.
    fn skip_just_started(&mut self) {
        let before = std::mem::take(&mut self.listed.started_during_sample);
        let Some(count) = self.listed.task_count.filter(|_| self.times.last_sample.is_some()) else { return };
        while self.listed.tids.len() as u64 > count {
            // Each thread is left out once at most, because a count that is always too low proves
            // nothing.
            let is_new = |tid: &mut Tid| !before.contains(tid) && !self.threads.readers.iter().any(|thread| thread.info.tid == *tid);
            let Some(tid) = self.listed.tids.pop_if(is_new) else { break };
            self.listed.started_during_sample.push(tid);
        }
        if !self.listed.started_during_sample.is_empty() {
            // Forces another read of the list, also if as many threads exit meanwhile.
            self.listed.task_count = None;
        }
    }

    /// The threads that held the GILs when this sample began, with their thread states.
    fn holders(&self) -> Vec<(Tid, ThreadState)> {
        let holders = self.interpreter.runtime_state.gils.iter().filter_map(|(_, reading)| reading.as_ref()?.holder);
        let states = holders.filter_map(|holder| self.interpreter.runtime_state.threads.iter().find(|state| state.at == holder));
        let tid = |state: &ThreadState| {
            self.binder.bindings.foreign(state.at).or_else(|| self.binder.tid_resolver.tid(self.interpreter.target.memory(), state))
        };
        states.filter_map(|state| Some((tid(state)?, state.clone()))).collect()
    }

    /// Removes threads that are no longer listed. The last sample of an exiting thread may have
    /// found it asleep in exit(2), as if it would never run again.
    fn remove_exited(&mut self, holders: &[(Tid, ThreadState)], sink: &mut dyn Sink) {
        let listed: HashSet<Tid> = self.listed.tids.iter().copied().collect();
        let tids = self.threads.readers.iter().map(|thread| thread.info.tid).enumerate().rev();
        // A thread exited before this sample, unless it held the GIL when the sample began.
        let held = |tid: Tid| holders.iter().any(|(holder, _)| *holder == tid);
        let gone = tids.filter(|(_, tid)| !listed.contains(tid)).map(|(index, tid)| (index, held(tid)));
        self.remove_threads(gone.collect(), sink);
    }

    /// The holders that no sample has found before and that have exited since this sample began. A
    /// thread state whose id was no thread before is left over from a fork and has not exited now.
    fn unseen_holders(&self, holders: &[(Tid, ThreadState)]) -> Vec<(Tid, ThreadState)> {
        let exists = |tid: Tid| self.listed.tids.contains(&tid) || self.listed.started_during_sample.contains(&tid);
        let is_known = |tid: Tid| exists(tid) || self.threads.readers.iter().any(|thread| thread.info.tid == tid);
        let mem = self.interpreter.target.memory();
        let is_unseen = |(tid, state): &&(Tid, ThreadState)| !is_known(*tid) && !self.binder.tid_resolver.is_still_stale(mem, state);
        holders.iter().filter(|_| self.times.last_sample.is_some()).filter(is_unseen).cloned().collect()
    }

    /// Attributes holders that have exited since this sample began. A thread that lives for less
    /// than a period is sampled at most once, often in this way.
    fn attribute_exited(&mut self, at: Nanos, unseen: &[(Tid, ThreadState)], sink: &mut dyn Sink) {
        for (tid, state) in unseen {
            self.track(*tid, at, sink);
            let binding = ThreadStateBinding::new(self.threads.readers.len() - 1, state, &self.interpreter.runtime_state);
            self.bind_to(&binding, sink);
            self.remove_threads(vec![(binding.thread, true)], sink);
        }
    }

    fn track_new(&mut self, at: Nanos, known: &HashMap<Tid, usize>, sink: &mut dyn Sink) {
        for tid in std::mem::take(&mut self.listed.tids) {
            if !known.contains_key(&tid) {
                self.track(tid, at, sink);
            }
            self.listed.tids.push(tid);
        }
    }

    fn track(&mut self, tid: Tid, at: Nanos, sink: &mut dyn Sink) {
        // Every sample stands for the whole time since the last one, a thread's first sample too.
        // The thread started within that time, but it also exits between two samples, and threads
        // that live between two samples are never found. Over many threads these errors cancel.
        let start = self.times.accounted_until;
        let since_last = self.times.last_sample.map(|last| at.saturating_since(last));
        let (id, main) = (self.allocate_id(), tid.0 == self.interpreter.python.pid.0);
        let info = ThreadInfo { id, tid, name: String::new(), python: false, main, gil: None };
        sink.thread(&info);
        let new = ThreadReader::open(self.interpreter.target.as_ref(), info, start, since_last, &self.threads.empty_stack);
        self.threads.readers.push(new.reader);
        let event = RawEvent::Start { id, tid, at: start, stat: new.stat, just_started: new.just_started };
        self.threads.estimator.take(&event, &self.threads.empty_stack, sink);
        self.threads.schedule.push();
        self.names.comm_pending = true;
    }

    /// Binds thread states to threads. Returns true if some thread is still bound to a thread state
    /// that no longer exists.
    fn bind(&mut self, sink: &mut dyn Sink) -> bool {
        self.binder.tid_resolver.calibrate(self.interpreter.target.as_ref(), &self.interpreter.runtime_state, &self.listed.tids);
        self.binder.bindings.retain_foreign(&self.interpreter.runtime_state);
        let by_tid: HashMap<Tid, usize> = self.threads.readers.iter().enumerate().map(|(i, t)| (t.info.tid, i)).collect();
        self.binder.by_tstate.clear();
        (self.names.pending, self.names.period) = (true, NAMES_PERIOD);
        let before: Vec<Addr> = self.threads.readers.iter_mut().map(|thread| std::mem::take(&mut thread.tstate)).collect();
        let is_thread = |tid: Tid| by_tid.contains_key(&tid) || self.listed.started_during_sample.contains(&tid);
        let (mem, states) = (self.interpreter.target.memory(), &self.interpreter.runtime_state.threads);
        let tids = self.binder.tid_resolver.resolve(mem, states, Tid(self.interpreter.python.pid.0), is_thread);
        // Oldest first: a thread state that was just made carries its maker's ids, and must not
        // replace its maker's binding.
        self.binder.bindings_pending = false;
        let mut bindings = Vec::with_capacity(states.len());
        for (state, tid) in states.iter().zip(tids).rev() {
            let tid = self.binder.bindings.foreign(state.at).or(tid);
            let Some(&index) = tid.and_then(|tid| by_tid.get(&tid)) else {
                self.binder.bindings_pending |= !self.binder.tid_resolver.is_stale(state.at);
                continue;
            };
            self.binder.by_tstate.insert(state.at, index);
            bindings.push(ThreadStateBinding::new(index, state, &self.interpreter.runtime_state));
        }
        for binding in &bindings {
            if self.threads.readers[binding.thread].tstate.is_null() || before.get(binding.thread) == Some(&binding.tstate) {
                self.bind_to(binding, sink);
            }
        }
        self.binder.bindings_pending |= self.binder.bindings.rebuild(bindings);
        self.retain_exiting_holders(&before)
    }

    /// Keeps the bindings of exiting holders: a thread removes its thread state from the list some
    /// time before it releases the GIL for the last time.
    fn retain_exiting_holders(&mut self, before: &[Addr]) -> bool {
        let mut retained = false;
        for holder in self.interpreter.runtime_state.gils.iter().filter_map(|(_, reading)| reading.as_ref()?.holder) {
            let Some(index) = before.iter().position(|tstate| *tstate == holder) else { continue };
            if self.threads.readers[index].tstate.is_null() && !self.binder.by_tstate.contains_key(&holder) {
                self.threads.readers[index].tstate = holder;
                self.binder.by_tstate.insert(holder, index);
                retained = true;
            }
        }
        retained
    }

    pub(super) fn bind_to(&mut self, binding: &ThreadStateBinding, sink: &mut dyn Sink) {
        let gil = self.gils.id_at(binding.gil);
        let thread = &mut self.threads.readers[binding.thread];
        if thread.bind_to(binding.tstate, binding.pthread, (binding.gil, gil)) {
            sink.thread(&thread.info);
        }
    }

    /// Stops tracking the threads at these indices, which are in descending order: the newest
    /// first. Each with whether it existed when this sample began.
    pub(super) fn remove_threads(&mut self, gone: Vec<(usize, bool)>, sink: &mut dyn Sink) {
        if gone.is_empty() {
            return;
        }
        for &(index, existed) in &gone {
            let reader = &self.threads.readers[index];
            let held = existed && self.interpreter.runtime_state.is_holder(reader.tstate);
            // A sleeping thread may have been killed in its sleep, together with the whole program.
            let existed = held || existed && !self.threads.estimator.thread(index).history().was_asleep();
            let SampleTimes { accounted_until, weight_until, .. } = self.times;
            if existed {
                let (span, in_c_call) = ((accounted_until, weight_until), reader.stack.in_c_call());
                self.threads.estimator.take(&RawEvent::Last { index, span, held, in_c_call }, reader.stack.stack(), sink);
            }
            self.finish_thread(index, if existed { weight_until } else { accounted_until }, sink);
        }
        let gone: Vec<usize> = gone.into_iter().rev().map(|(index, _)| index).collect();
        let mut index = 0;
        self.threads.readers.retain(|_| {
            index += 1;
            gone.binary_search(&(index - 1)).is_err()
        });
        self.threads.estimator.take(&RawEvent::Remove(&gone), &self.threads.empty_stack, sink);
        self.threads.schedule.remove(&gone);
        for gil in &mut self.gils.all {
            gil.holder_index = gil.holder_index.and_then(|index| index_after(&gone, index));
        }
        self.binder.by_tstate.retain(|_, index| index_after(&gone, *index).map(|after| *index = after).is_some());
        self.binder.bindings.clear();
        self.match_again();
    }

    /// Makes the next sample match all thread states again.
    pub(super) fn match_again(&mut self) {
        self.binder.bound_states.clear();
        self.binder.bound_generation = None;
    }

    /// Names threads: by `comm` at the end of the sample that found them, and by Python's name once
    /// that is known.
    pub(super) fn name_threads(&mut self, at: Nanos, sink: &mut dyn Sink) {
        let comm_pending = if std::mem::take(&mut self.names.comm_pending) { self.threads.readers.as_mut_slice() } else { &mut [] };
        for thread in comm_pending.iter_mut().filter(|t| !t.comm_read) {
            thread.comm_read = true;
            if let Some(name) = self.interpreter.target.comm(thread.info.tid).filter(|_| !thread.named) {
                thread.info.name = if is_blank(&name) { format!("thread {}", thread.info.tid) } else { name };
                sink.thread(&thread.info);
            }
        }
        if !self.names.pending || at.saturating_since(self.names.read_at) < self.names.period {
            return;
        }
        self.names.read_at = at;
        let unnamed = |thread: &&ThreadReader| !thread.named && !thread.tstate.is_null();
        let wanted: HashSet<u64> = self.threads.readers.iter().filter(unnamed).map(|thread| thread.pthread).collect();
        self.names.pending = !wanted.is_empty();
        if !self.names.pending {
            return;
        }
        self.names.period = Nanos::from_nanos(self.names.period.as_nanos() * 2).min(MAX_NAMES_PERIOD);
        // The oldest first: a subinterpreter calls whichever thread runs it its main thread.
        let interpreters = self.interpreter.runtime_state.interpreters.iter().rev().map(|interpreter| interpreter.at);
        let names = thread_names::read_missing(self.interpreter.target.memory(), &self.interpreter.python.layout, interpreters, |ident| {
            wanted.contains(&ident)
        });
        for thread in self.threads.readers.iter_mut().filter(|t| !t.tstate.is_null() && !t.named) {
            let Some(name) = names.get(&thread.pthread) else { continue };
            (thread.named, self.names.period) = (true, NAMES_PERIOD);
            if !is_blank(name) {
                thread.info.name = name.clone();
                sink.thread(&thread.info);
            }
        }
        // Under gevent `threading` knows greenlets and no threads. The kernel's name of a main
        // thread is that of the program.
        if let Some(main) = self.threads.readers.iter_mut().find(|t| t.info.main && t.info.python && !t.named && t.info.name != MAIN_THREAD)
        {
            main.info.name = MAIN_THREAD.into();
            sink.thread(&main.info);
        }
    }
}

/// Whether a name has nothing to be seen.
fn is_blank(name: &str) -> bool {
    name.chars().all(char::is_whitespace)
}
