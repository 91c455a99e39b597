//! The roll of an observed process: which OS threads there are, which thread state is whose, and what they are called.

use super::Sampler;
use crate::capture::bindings::ThreadStateBinding;
use crate::capture::thread_tracker::ThreadTracker;
use crate::error::ReadError;
use crate::ids::{Addr, Tid};
use crate::python::interpreters::{RuntimeState, ThreadState};
use crate::python::thread_names;
use crate::sample::{Sink, ThreadInfo};
use crate::units::Nanos;
use std::collections::{HashMap, HashSet};

/// How often the lists of OS threads and of thread states are read when nothing asks for it. Their number may stay while who they are changes:
/// of threads without a thread state nothing else tells then.
const RELIST_PERIOD: Nanos = Nanos::from_millis(100);
/// The same, where not even their number is told.
const RELIST_PERIOD_UNCOUNTED: Nanos = Nanos::from_millis(20);
/// So long after a change the list of OS threads is read at every look while a thread state has no thread yet.
const SETTLING: Nanos = Nanos::from_millis(200);
/// How often the names of threads are read while some are not known.
const NAMES_PERIOD: Nanos = Nanos::from_millis(100);

/// What a thread state's thread is found by.
fn keys(runtime_state: &RuntimeState) -> impl Iterator<Item = (Addr, u64, Option<u64>)> + '_ {
    runtime_state.threads.iter().map(|state| (state.at, state.pthread, state.native_id))
}

impl Sampler {
    /// Whether the lists have not been read for so long that they are due.
    pub(super) fn is_list_due(&self, at: Nanos) -> bool {
        at.saturating_since(self.tids_read_at) >= if self.task_count.is_some() { RELIST_PERIOD } else { RELIST_PERIOD_UNCOUNTED }
    }

    /// Matches thread states with OS threads again, when either list has changed. `count_changed`: the kernel counts more threads, or fewer.
    pub(super) fn bind_if_changed(&mut self, at: Nanos, count_changed: bool, sink: &mut dyn Sink) -> Result<(), ReadError> {
        let same = keys(&self.runtime_state).eq(self.bound_states.iter().copied());
        if !same {
            self.states_changed_at = at;
        }
        // A thread state is made before its thread is: until they have found each other, every look tries again.
        let settling = self.bindings_pending && at.saturating_since(self.states_changed_at) < SETTLING;
        if same && !settling && !count_changed && !self.is_list_due(at) {
            return Ok(());
        }
        let check_leader =
            at.saturating_since(self.leader_checked_at) >= RELIST_PERIOD || !self.threads.iter().any(|thread| thread.facts.main);
        self.tids_read_at = at;
        self.leader_checked_at = if check_leader { at } else { self.leader_checked_at };
        std::mem::swap(&mut self.tids, &mut self.previous_tids);
        self.source.tids(&mut self.tids, check_leader).map_err(|_| ReadError::Gone)?;
        self.skip_just_started();
        if same && !settling && self.tids == self.previous_tids {
            return Ok(());
        }
        let (bound_states, holders): (Vec<_>, _) = (keys(&self.runtime_state).collect(), self.holders());
        self.remove_exited(&holders, sink);
        self.attribute_exited(at, &holders, sink);
        let known: HashMap<Tid, usize> = self.threads.iter().enumerate().map(|(i, t)| (t.facts.tid, i)).collect();
        if !same || self.tids.len() != known.len() || self.tids.iter().any(|t| !known.contains_key(t)) {
            self.track_new(at, &known, sink);
            // A binding that is no longer on the roster is looked at anew next time.
            self.bound_states = if self.bind(sink) { Vec::new() } else { bound_states };
        }
        Ok(())
    }

    /// Who began after this look did is met by the next one: else every thread's time would be longer than its life by what remains of the look
    /// that finds it, which adds up where threads are many and brief. The list is in order of birth, and their number was taken first.
    fn skip_just_started(&mut self) {
        let before = std::mem::take(&mut self.started_during_sample);
        let Some(count) = self.task_count.filter(|_| self.last_sample.is_some()) else { return };
        while self.tids.len() as u64 > count {
            // Once each, for a number that is always too low is no evidence.
            let is_new = |tid: &mut Tid| !before.contains(tid) && !self.threads.iter().any(|thread| thread.facts.tid == *tid);
            let Some(tid) = self.tids.pop_if(is_new) else { break };
            self.started_during_sample.push(tid);
        }
        if !self.started_during_sample.is_empty() {
            // The list is read again, also if as many end meanwhile.
            self.task_count = None;
        }
    }

    /// Who held the GILs when this look began, and under which thread state.
    fn holders(&self) -> Vec<(Tid, ThreadState)> {
        let holders = self.runtime_state.gils.iter().filter_map(|(_, reading)| reading.as_ref()?.holder);
        let states = holders.filter_map(|holder| self.runtime_state.threads.iter().find(|state| state.at == holder));
        let tid = |state: &ThreadState| self.bindings.foreign(state.at).or_else(|| self.tid_resolver.tid(self.source.memory(), state));
        states.filter_map(|state| Some((tid(state)?, state.clone()))).collect()
    }

    /// One that was looked at in the very moment of its end seems to sleep in exit(2) and never to run again.
    fn remove_exited(&mut self, holders: &[(Tid, ThreadState)], sink: &mut dyn Sink) {
        let listed: HashSet<Tid> = self.tids.iter().copied().collect();
        for index in (0..self.threads.len()).rev() {
            let tid = self.threads[index].facts.tid;
            if !listed.contains(&tid) {
                // It has ended before this look, unless it held the GIL when that began.
                self.remove_thread(index, holders.iter().any(|(holder, _)| *holder == tid), sink);
            }
        }
    }

    /// Holders that no look has met before, and that have ended since this one began: a thread that lives for less than a period is met at most
    /// once, and often just so.
    fn attribute_exited(&mut self, at: Nanos, holders: &[(Tid, ThreadState)], sink: &mut dyn Sink) {
        for (tid, state) in holders {
            let listed = self.tids.contains(tid) || self.started_during_sample.contains(tid);
            let known = listed || self.by_tstate.get(&state.at).is_some_and(|&i| self.threads[i].facts.tid == *tid);
            if known || self.last_sample.is_none() {
                continue;
            }
            self.track(*tid, at, sink);
            let binding = ThreadStateBinding::new(self.threads.len() - 1, state, &self.runtime_state);
            self.bind_to(&binding, sink);
            self.remove_thread(binding.thread, true, sink);
        }
    }

    fn track_new(&mut self, at: Nanos, known: &HashMap<Tid, usize>, sink: &mut dyn Sink) {
        for tid in std::mem::take(&mut self.tids) {
            if !known.contains_key(&tid) {
                self.track(tid, at, sink);
            }
            self.tids.push(tid);
        }
    }

    fn track(&mut self, tid: Tid, at: Nanos, sink: &mut dyn Sink) {
        // Each look stands for the whole time up to the last one's, the first one of a thread too: it was born in between, but its end falls
        // between two looks as well, and those that live and die between two are never met. Over many threads that adds up to the truth.
        let start = self.accounted_until;
        let since_last = self.last_sample.map(|last| at.saturating_since(last));
        let (id, main) = (self.allocate_id(), tid.0 == self.python.pid.0);
        let facts = ThreadInfo { id, tid, name: String::new(), python: false, main, gil: None };
        sink.thread(&facts);
        self.threads.push(ThreadTracker::new(self.source.as_ref(), facts, start, since_last, &self.empty_stack));
        self.schedule.push(tid);
        self.comm_pending = true;
    }

    /// True: some thread is still bound to a thread state that is not on the roster any more.
    fn bind(&mut self, sink: &mut dyn Sink) -> bool {
        self.tid_resolver.calibrate(self.source.as_ref(), &self.runtime_state, &self.tids);
        self.bindings.retain_foreign(&self.runtime_state);
        let by_tid: HashMap<Tid, usize> = self.threads.iter().enumerate().map(|(i, t)| (t.facts.tid, i)).collect();
        self.by_tstate.clear();
        self.names_pending = true;
        let before: Vec<Addr> = self.threads.iter_mut().map(|thread| std::mem::take(&mut thread.tstate)).collect();
        // Oldest first: a thread state that was just made carries its maker's ids, and must not take its maker's place.
        self.bindings_pending = false;
        let mut bindings = Vec::with_capacity(self.runtime_state.threads.len());
        for state in self.runtime_state.threads.iter().rev() {
            let tid = self.bindings.foreign(state.at).or_else(|| self.tid_resolver.tid(self.source.memory(), state));
            let Some(&index) = tid.and_then(|tid| by_tid.get(&tid)) else {
                self.bindings_pending = true;
                continue;
            };
            self.by_tstate.insert(state.at, index);
            bindings.push(ThreadStateBinding::new(index, state, &self.runtime_state));
        }
        for binding in &bindings {
            if self.threads[binding.thread].tstate.is_null() || before.get(binding.thread) == Some(&binding.tstate) {
                self.bind_to(binding, sink);
            }
        }
        self.bindings_pending |= self.bindings.rebuild(bindings);
        self.retain_exiting_holders(&before)
    }

    /// A thread that ends takes its thread state off the list some time before it lets go of the GIL for the last time.
    fn retain_exiting_holders(&mut self, before: &[Addr]) -> bool {
        let mut kept = false;
        for holder in self.runtime_state.gils.iter().filter_map(|(_, reading)| reading.as_ref()?.holder) {
            let Some(index) = before.iter().position(|tstate| *tstate == holder) else { continue };
            if self.threads[index].tstate.is_null() && !self.by_tstate.contains_key(&holder) {
                self.threads[index].tstate = holder;
                self.by_tstate.insert(holder, index);
                kept = true;
            }
        }
        kept
    }

    pub(super) fn bind_to(&mut self, binding: &ThreadStateBinding, sink: &mut dyn Sink) {
        let gil = self.gil_ids.by_address(binding.gil);
        let thread = &mut self.threads[binding.thread];
        if thread.bind_to(binding.tstate, binding.pthread, (binding.gil, gil)) {
            sink.thread(&thread.facts);
        }
    }

    /// Follows a thread no longer. `alive`: this look has met it.
    pub(super) fn remove_thread(&mut self, index: usize, alive: bool, sink: &mut dyn Sink) {
        let mut thread = self.threads.remove(index);
        self.schedule.remove(index);
        let held = alive && self.runtime_state.gils.iter().any(|(_, r)| r.and_then(|r| r.holder) == Some(thread.tstate));
        // A sleeper may have been killed where it slept, with the whole program.
        let alive = held || alive && !thread.was_asleep();
        if alive {
            thread.attribute_last((self.accounted_until, self.weight_until), held, sink);
        }
        thread.finish(if alive { self.weight_until } else { self.accounted_until }, sink);
        self.by_tstate.retain(|_, i| *i != index);
        for i in self.by_tstate.values_mut() {
            if *i > index {
                *i -= 1;
            }
        }
        self.bindings.clear();
        // Whatever is on the list next time is matched anew.
        self.bound_states.clear();
    }

    /// What threads are called: by the kernel, from the end of the look that met them, and by Python, once that is known.
    pub(super) fn name_threads(&mut self, at: Nanos, sink: &mut dyn Sink) {
        let comm_pending = if std::mem::take(&mut self.comm_pending) { self.threads.as_mut_slice() } else { &mut [] };
        for thread in comm_pending.iter_mut().filter(|t| !t.comm_read) {
            thread.comm_read = true;
            if let Some(name) = self.source.comm(thread.facts.tid).filter(|_| !thread.named) {
                thread.facts.name = name;
                sink.thread(&thread.facts);
            }
        }
        if !self.names_pending || at.saturating_since(self.names_read_at) < NAMES_PERIOD {
            return;
        }
        self.names_read_at = at;
        self.names_pending = self.threads.iter().any(|t| !t.named && !t.tstate.is_null());
        if !self.names_pending {
            return;
        }
        // The oldest first: to a subinterpreter whichever thread runs it is its main thread.
        for interpreter in self.runtime_state.interpreters.iter().rev() {
            let names = thread_names::read(self.source.memory(), &self.python.layout, interpreter.at);
            for thread in self.threads.iter_mut().filter(|t| !t.tstate.is_null() && !t.named) {
                let Some(name) = names.get(&thread.pthread) else { continue };
                thread.named = true;
                thread.facts.name = name.clone();
                sink.thread(&thread.facts);
            }
        }
    }
}
