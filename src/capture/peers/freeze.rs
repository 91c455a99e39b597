//! `--freeze-holder`: one thread is stopped by ptrace while its stack is read, and goes on at once.

use crate::capture::observe::Freeze;
use crate::error::Result;
use crate::ids::{Pid, Tid};
use std::any::Any;

struct Ptrace;

impl Freeze for Ptrace {
    fn freeze(&self, tid: Tid) -> Option<Box<dyn Any>> {
        let lock = remoteprocess::Thread::new(tid.0).ok()?.lock().ok()?;
        Some(Box::new(lock))
    }
}

/// A stopper of single threads of a process.
pub fn freezer(_: Pid) -> Result<Box<dyn Freeze>> {
    Ok(Box::new(Ptrace))
}
