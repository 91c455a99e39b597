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
use crate::process::memory::Memory;
use crate::process::pthread;
use crate::process::target::Target;
use crate::python::interpreters::{RuntimeState, ThreadState};
use std::collections::{BTreeMap, HashMap, HashSet};

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
    /// Maps the target's own thread ids to gilprof's, when the target lives in another PID
    /// namespace.
    inner_tids: Option<BTreeMap<i32, Tid>>,
    /// The thread states whose ids were no thread of the process when they were last resolved, with
    /// those ids.
    stale: HashMap<Addr, Tid>,
}

impl TidResolver {
    /// Calibrates the offset and the id map from the target's current threads.
    pub fn calibrate(&mut self, target: &dyn Target, runtime_state: &RuntimeState, tids: &[Tid]) {
        self.inner_tids = target.inner_tids();
        let known: Vec<i32> = match &self.inner_tids {
            Some(map) => map.keys().copied().collect(),
            None => tids.iter().map(|t| t.0).collect(),
        };
        let ids: HashSet<u64> = if self.is_calibrated() { HashSet::new() } else { known.iter().map(|&id| id as u64).collect() };
        if !self.is_calibrated() && runtime_state.threads.iter().any(|t| t.native_id.is_none_or(|id| !ids.contains(&id))) {
            // Oldest first: the newest thread state may still carry its maker's ids.
            let mut pthreads: Vec<u64> =
                runtime_state.threads.iter().rev().map(|t| t.pthread).filter(|&p| p != 0).take(MAX_WITNESSES).collect();
            pthreads.sort_unstable();
            pthreads.dedup();
            if self.offset.is_none() || pthreads.len() > self.witnesses {
                if let Some(calibration) = pthread::calibrate(target.memory(), &pthreads, &known) {
                    (self.offset, self.witnesses) = (Some(calibration.offset), calibration.witnesses);
                }
            }
        }
    }

    fn is_calibrated(&self) -> bool {
        self.offset.is_some() && self.witnesses >= MIN_WITNESSES
    }

    /// The thread of each thread state, as far as it is known. `is_thread`: whether the process has
    /// a thread with this id. `main`: the id of its main thread.
    pub fn resolve(&mut self, mem: &dyn Memory, states: &[ThreadState], main: Tid, is_thread: impl Fn(Tid) -> bool) -> Vec<Option<Tid>> {
        let mut tids: Vec<Option<Tid>> = states.iter().map(|state| self.tid(mem, state)).collect();
        let stale = states.iter().zip(&tids).filter_map(|(state, tid)| Some((state.at, tid.filter(|&tid| !is_thread(tid))?)));
        self.stale = stale.collect();
        tids.iter_mut().for_each(|tid| *tid = tid.filter(|&tid| is_thread(tid)));
        if is_thread(main) && !tids.contains(&Some(main)) {
            let mut unknown = tids.iter_mut().zip(states).filter(|(tid, state)| tid.is_none() && state.native_id.is_some());
            if let Some((tid, _)) = unknown.find(|(_, state)| self.tid_by_pthread(mem, state) == Some(main)) {
                *tid = Some(main);
            }
        }
        tids
    }

    /// The id in this thread state, if it was no thread of the process when it was last resolved.
    pub fn stale_id(&self, state: Addr) -> Option<Tid> {
        self.stale.get(&state).copied()
    }

    /// The kernel's id of a thread state's thread, in gilprof's PID namespace, by the thread state
    /// alone. `None` while it is unknown.
    pub fn tid(&self, mem: &dyn Memory, state: &ThreadState) -> Option<Tid> {
        match state.native_id {
            Some(id) => self.outer(i32::try_from(id).ok().filter(|&id| id > 0)?),
            None => self.tid_by_pthread(mem, state),
        }
    }

    fn tid_by_pthread(&self, mem: &dyn Memory, state: &ThreadState) -> Option<Tid> {
        self.outer(pthread::tid(mem, state.pthread, self.offset?)?)
    }

    fn outer(&self, inner: i32) -> Option<Tid> {
        match &self.inner_tids {
            Some(map) => map.get(&inner).copied(),
            None => Some(Tid(inner)),
        }
    }
}
