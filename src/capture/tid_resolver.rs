//! Which OS thread a `PyThreadState` belongs to.
//!
//! From 3.11 the thread state says so; before, it knows only `pthread_self()`. A thread state that was just made still carries the ids of
//! the thread that made it (seen on 3.7 - 3.11), so a binding holds only as long as those numbers stand unchanged.

use crate::ids::Tid;
use crate::process::memory::Memory;
use crate::process::pthread;
use crate::process::target::Target;
use crate::python::interpreters::{RuntimeState, ThreadState};
use std::collections::BTreeMap;

/// Threads that agree on the place of the id before it is no longer asked for.
const MIN_WITNESSES: usize = 2;

/// Translates ids. One per target.
#[derive(Debug, Default)]
pub struct TidResolver {
    offset: Option<u32>,
    /// How many threads that was learnt from. One alone may fit several places: the process's id is the main thread's too.
    witnesses: usize,
    /// The target's own ids to ours, when it lives in another PID namespace.
    inner_tids: Option<BTreeMap<i32, Tid>>,
}

impl TidResolver {
    /// Learns what ids the target uses, from its threads as they are now.
    pub fn calibrate(&mut self, source: &dyn Target, runtime_state: &RuntimeState, tids: &[Tid]) {
        self.inner_tids = source.inner_tids();
        let known: Vec<i32> = match &self.inner_tids {
            Some(map) => map.keys().copied().collect(),
            None => tids.iter().map(|t| t.0).collect(),
        };
        if (self.offset.is_none() || self.witnesses < MIN_WITNESSES) && runtime_state.threads.iter().any(|t| t.native_id.is_none()) {
            // Oldest first: the newest may not be bound yet.
            let mut pthreads: Vec<u64> = runtime_state.threads.iter().rev().map(|t| t.pthread).filter(|&p| p != 0).take(64).collect();
            pthreads.sort_unstable();
            pthreads.dedup();
            if self.offset.is_none() || pthreads.len() > self.witnesses {
                if let Some(offset) = pthread::calibrate(source.memory(), &pthreads, &known) {
                    (self.offset, self.witnesses) = (Some(offset), pthreads.len());
                }
            }
        }
    }

    /// The kernel's id of a thread state's thread, as gilprof sees it; `None` while it cannot be told.
    pub fn tid(&self, mem: &dyn Memory, thread: &ThreadState) -> Option<Tid> {
        let inner = match thread.native_id {
            Some(id) => i32::try_from(id).ok().filter(|&id| id > 0)?,
            None => pthread::tid(mem, thread.pthread, self.offset?)?,
        };
        match &self.inner_tids {
            Some(map) => map.get(&inner).copied(),
            None => Some(Tid(inner)),
        }
    }
}
