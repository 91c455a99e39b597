//! Finds the OS thread that a `PyThreadState` belongs to.
//!
//! From 3.11 the thread state holds the native thread id. Before 3.11 it holds only
//! `pthread_self()`, and the id is read from the C library's thread descriptor at that address
//! (`process::pthread`).
//!
//! Folklore: a thread state that was just made still carries the ids of the thread that made it
//! (seen on 3.7 - 3.11), so a binding holds only as long as those ids stay the same.

use crate::ids::Tid;
use crate::process::memory::Memory;
use crate::process::pthread;
use crate::process::target::Target;
use crate::python::interpreters::{RuntimeState, ThreadState};
use std::collections::BTreeMap;

/// How many threads must agree on the offset of the id before calibration ends.
const MIN_WITNESSES: usize = 2;

/// Translates the ids of one target.
#[derive(Debug, Default)]
pub struct TidResolver {
    offset: Option<u32>,
    /// How many threads `offset` was calibrated from. One thread may fit several offsets, because
    /// the process id is the main thread's id too.
    witnesses: usize,
    /// Maps the target's own thread ids to gilprof's, when the target lives in another PID
    /// namespace.
    inner_tids: Option<BTreeMap<i32, Tid>>,
}

impl TidResolver {
    /// Calibrates the offset and the id map from the target's current threads.
    pub fn calibrate(&mut self, target: &dyn Target, runtime_state: &RuntimeState, tids: &[Tid]) {
        self.inner_tids = target.inner_tids();
        let known: Vec<i32> = match &self.inner_tids {
            Some(map) => map.keys().copied().collect(),
            None => tids.iter().map(|t| t.0).collect(),
        };
        if (self.offset.is_none() || self.witnesses < MIN_WITNESSES) && runtime_state.threads.iter().any(|t| t.native_id.is_none()) {
            // Oldest first: the newest thread state may still carry its maker's ids.
            let mut pthreads: Vec<u64> = runtime_state.threads.iter().rev().map(|t| t.pthread).filter(|&p| p != 0).take(64).collect();
            pthreads.sort_unstable();
            pthreads.dedup();
            if self.offset.is_none() || pthreads.len() > self.witnesses {
                if let Some(offset) = pthread::calibrate(target.memory(), &pthreads, &known) {
                    (self.offset, self.witnesses) = (Some(offset), pthreads.len());
                }
            }
        }
    }

    /// The kernel's id of a thread state's thread, in gilprof's PID namespace. `None` while it is
    /// unknown.
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
