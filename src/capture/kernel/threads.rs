//! The threads that the kernel tells of, and the sampler's threads: one table by kernel id.

use crate::ids::{Addr, ThreadId, Tid};
use crate::python::stack::ThreadStack;
use crate::sample::{CpuRun, Stack, ThreadInfo, ThreadTotals};
use crate::units::Nanos;
use std::collections::HashMap;
use std::sync::Arc;

/// A thread with an id.
#[derive(Debug)]
pub struct Known {
    pub info: ThreadInfo,
    /// Names the frames that the kernel programs read.
    pub stack: ThreadStack,
    /// Its thread state, as last given to the programs.
    pub tstate: Addr,
    /// What its time is known from.
    pub since: Nanos,
    cpu: Nanos,
    run_queue: Nanos,
    last_end: Option<Nanos>,
}

/// The threads by kernel id.
#[derive(Debug, Default)]
pub struct KnownThreads {
    pub by_tid: HashMap<Tid, Known>,
    tids: HashMap<ThreadId, Tid>,
}

impl Known {
    /// Adds a run to the totals.
    pub fn count(&mut self, run: &CpuRun) {
        self.cpu += run.end.saturating_since(run.begin.max(self.since));
        let runnable = run.wakeup.map(|wakeup| wakeup.at).or(self.last_end);
        if let Some(runnable) = runnable {
            self.run_queue += run.begin.saturating_since(runnable.max(self.since));
        }
        self.last_end = Some(run.end);
    }

    /// The totals of a thread that ended, or whose window ends, at `at`.
    pub fn totals(&self, at: Nanos) -> ThreadTotals {
        ThreadTotals { cpu: self.cpu, run_queue: self.run_queue, seen: at.saturating_since(self.since) }
    }
}

impl KnownThreads {
    /// A thread is there since `since`, or more is known of it. True for a new one.
    pub fn insert(&mut self, info: &ThreadInfo, since: Nanos, empty: &Arc<Stack>) -> bool {
        if let Some(known) = self.by_tid.get_mut(&info.tid).filter(|known| known.info.id == info.id) {
            known.info = info.clone();
            return false;
        }
        let (cpu, run_queue) = (Nanos::ZERO, Nanos::ZERO);
        let known = Known { info: info.clone(), stack: ThreadStack::new(empty), tstate: Addr(0), since, cpu, run_queue, last_end: None };
        self.by_tid.insert(info.tid, known);
        self.tids.insert(info.id, info.tid);
        true
    }

    /// The thread with this id.
    pub fn get(&self, id: ThreadId) -> Option<&Known> {
        self.by_tid.get(self.tids.get(&id)?).filter(|known| known.info.id == id)
    }

    /// Removes the thread with this id.
    pub fn remove(&mut self, id: ThreadId) -> Option<Known> {
        let tid = self.tids.remove(&id)?;
        if self.by_tid.get(&tid)?.info.id != id {
            return None;
        }
        self.by_tid.remove(&tid)
    }
}
