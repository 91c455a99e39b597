//! `--freeze-holder`: ptrace pauses one thread while its stack is read.

use crate::capture::sampler::ThreadPauser;
use crate::error::Result;
use crate::ids::{Pid, Tid};
use std::any::Any;

struct PtracePauser;

impl ThreadPauser for PtracePauser {
    fn pause(&self, tid: Tid) -> Option<Box<dyn Any>> {
        let lock = remoteprocess::Thread::new(tid.0).ok()?.lock().ok()?;
        Some(Box::new(lock))
    }
}

/// A pauser of single threads of a process.
pub fn pauser(_: Pid) -> Result<Box<dyn ThreadPauser>> {
    Ok(Box::new(PtracePauser))
}
