//! Finds the OS thread that a `PyThreadState` belongs to.
//!
//! From 3.11 the thread state holds the native thread id. Before 3.11 it holds only
//! `pthread_self()`, and the id is read from the C library's thread descriptor at that address
//! (`process::pthread`).
//!
//! Folklore: a thread state that was just made still carries the ids of the thread that made it
//! (seen on 3.7 - 3.11), so a binding holds only as long as those ids stay the same.
//!
//! Folklore: after a fork by C code, which runs none of `os.fork`'s hooks, all thread states of the
//! parent are still listed with the parent's native ids (seen on 3.11 - 3.15; uWSGI forks so). Only
//! the main thread is alive. The C library's descriptor has its new id, so such a thread state is
//! found there; the others belong to no thread.

use crate::ids::{Addr, Tid};
use crate::process::inner_tids::InnerTids;
use crate::process::memory::Memory;
use crate::process::pthread;
use crate::process::target::ProcessAccess;
use crate::python::interpreters::{RuntimeState, ThreadState};
use std::collections::{HashMap, HashSet};

/// How many threads must agree on the offset of the id before calibration ends.
const MIN_WITNESSES: usize = 2;
/// The largest number of descriptors that one calibration reads.
const MAX_WITNESSES: usize = 256;

/// Translates the ids of one target.
#[derive(Debug, Default)]
pub struct TidResolver {
    offset: Option<u32>,
    /// How many threads `offset` fits. One thread may fit several offsets, because the process id
    /// is the main thread's id too.
    witnesses: usize,
    /// The descriptors and the ids of the last calibration, which need not be repeated on the same.
    calibrated_on: (Vec<u64>, Vec<i32>),
    /// The threads' ids, if the target lives in another PID namespace.
    inner_tids: Option<InnerTids>,
    /// The thread states whose ids were no thread of the process when they were last resolved, with
    /// those ids, as the target sees them.
    stale: HashMap<Addr, i32>,
}

impl TidResolver {
    /// Calibrates the offset and the id map from the target's current threads.
    pub fn calibrate(&mut self, target: &dyn ProcessAccess, runtime_state: &RuntimeState, tids: &[Tid]) {
        if self.inner_tids.is_some() || target.is_in_inner_namespace() {
            self.inner_tids.get_or_insert_default().update(tids, |tid| target.inner_tid(tid));
        }
        if self.is_calibrated() {
            return;
        }
        let known: Vec<i32> = match &self.inner_tids {
            Some(inner) => inner.inner().collect(),
            None => tids.iter().map(|t| t.0).collect(),
        };
        let ids: HashSet<u64> = known.iter().map(|&id| id as u64).collect();
        if runtime_state.threads.iter().all(|t| t.native_id.is_some_and(|id| ids.contains(&id))) {
            return;
        }
        // Oldest first: the newest thread state may still carry its maker's ids.
        let mut pthreads: Vec<u64> =
            runtime_state.threads.iter().rev().map(|t| t.pthread).filter(|&p| p != 0).take(MAX_WITNESSES).collect();
        pthreads.sort_unstable();
        pthreads.dedup();
        let set = (pthreads, known);
        if (self.offset.is_none() || set.0.len() > self.witnesses) && set != self.calibrated_on {
            if let Some(calibration) = pthread::calibrate(target.memory(), &set.0, &set.1) {
                (self.offset, self.witnesses) = (Some(calibration.offset), calibration.witnesses);
            }
            self.calibrated_on = set;
        }
    }

    fn is_calibrated(&self) -> bool {
        self.offset.is_some() && self.witnesses >= MIN_WITNESSES
    }

    /// The thread of each thread state, as far as it is known. `is_thread`: whether the process has
    /// a thread with this id. `main`: the id of its main thread.
    pub fn resolve(&mut self, mem: &dyn Memory, states: &[ThreadState], main: Tid, is_thread: impl Fn(Tid) -> bool) -> Vec<Option<Tid>> {
        self.stale.clear();
        let mut tids = Vec::with_capacity(states.len());
        for state in states {
            let inner = self.inner_tid(mem, state);
            let tid = inner.and_then(|inner| self.outer(inner)).filter(|&tid| is_thread(tid));
            self.stale.extend(inner.filter(|_| tid.is_none()).map(|inner| (state.at, inner)));
            tids.push(tid);
        }
        if is_thread(main) && !tids.contains(&Some(main)) {
            let mut unknown = tids.iter_mut().zip(states).filter(|(tid, state)| tid.is_none() && state.native_id.is_some());
            let is_main = |state: &ThreadState| self.inner_tid_by_pthread(mem, state).and_then(|inner| self.outer(inner)) == Some(main);
            if let Some((tid, _)) = unknown.find(|(_, state)| is_main(state)) {
                *tid = Some(main);
            }
        }
        tids
    }

    /// Whether the id in this thread state was no thread of the process when it was last resolved.
    pub fn is_stale(&self, state: Addr) -> bool {
        self.stale.contains_key(&state)
    }

    /// Whether the id in this thread state is the one that was no thread of the process.
    pub fn is_still_stale(&self, mem: &dyn Memory, state: &ThreadState) -> bool {
        self.stale.get(&state.at).is_some_and(|&stale| self.inner_tid(mem, state) == Some(stale))
    }

    /// The kernel's id of a thread state's thread, in gilprof's PID namespace, by the thread state
    /// alone. `None` while it is unknown.
    pub fn tid(&self, mem: &dyn Memory, state: &ThreadState) -> Option<Tid> {
        self.outer(self.inner_tid(mem, state)?)
    }

    /// The same in the target's own PID namespace.
    fn inner_tid(&self, mem: &dyn Memory, state: &ThreadState) -> Option<i32> {
        match state.native_id {
            Some(id) => i32::try_from(id).ok().filter(|&id| id > 0),
            None => self.inner_tid_by_pthread(mem, state),
        }
    }

    fn inner_tid_by_pthread(&self, mem: &dyn Memory, state: &ThreadState) -> Option<i32> {
        pthread::tid(mem, state.pthread, self.offset?)
    }

    fn outer(&self, inner: i32) -> Option<Tid> {
        match &self.inner_tids {
            Some(map) => map.outer(inner),
            None => Some(Tid(inner)),
        }
    }
}
