//! The threads that the kernel tells of, and the sampler's threads: one table by kernel id.

use crate::ids::{Addr, ThreadId, Tid};
use crate::python::stack::ThreadStack;
use crate::sample::{Stack, ThreadInfo};
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
}

/// The threads by kernel id.
#[derive(Debug, Default)]
pub struct KnownThreads {
    pub by_tid: HashMap<Tid, Known>,
    tids: HashMap<ThreadId, Tid>,
}

impl KnownThreads {
    /// A thread is there, or more is known of it. True for a new one.
    pub fn insert(&mut self, info: &ThreadInfo, empty: &Arc<Stack>) -> bool {
        if let Some(known) = self.by_tid.get_mut(&info.tid).filter(|known| known.info.id == info.id) {
            known.info = info.clone();
            return false;
        }
        self.by_tid.insert(info.tid, Known { info: info.clone(), stack: ThreadStack::new(empty), tstate: Addr(0) });
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
