//! A process that does not exist: memory built by hand or loaded from a dump, with the kernel's
//! data of its threads. Tests make it fail where they need to.

use super::memory::{Memory, ReadError};
use super::memory_dump::{DumpHead, MemoryDump};
use super::target::ProcessAccess;
use super::threads::{TaskFileContents, TaskFiles};
use crate::ids::{Addr, Pid, Tid};
use std::collections::BTreeMap;
use std::io;

/// Memory kept as ranges of bytes. A read must lie within one range.
#[derive(Clone, Debug, Default)]
pub struct ReplayMemory {
    ranges: BTreeMap<u64, Vec<u8>>,
}

impl ReplayMemory {
    /// Memory without any mapping.
    pub fn new() -> ReplayMemory {
        ReplayMemory::default()
    }

    /// Maps `bytes` at `at`, replacing a range that starts at the same address.
    pub fn map(&mut self, at: Addr, bytes: Vec<u8>) -> &mut Self {
        self.ranges.insert(at.0, bytes);
        self
    }

    /// Writes into a mapped range; `false` if the place is not completely mapped.
    pub fn poke(&mut self, at: Addr, bytes: &[u8]) -> bool {
        let Some((start, range)) = self.ranges.range_mut(..=at.0).next_back() else { return false };
        let from = (at.0 - start) as usize;
        match range.get_mut(from..from.saturating_add(bytes.len())) {
            Some(place) => {
                place.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }

    /// Writes a little-endian u64 into a mapped range.
    pub fn poke_u64(&mut self, at: Addr, value: u64) -> bool {
        self.poke(at, &value.to_le_bytes())
    }
}

impl Memory for ReplayMemory {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        let unmapped = ReadError::Unmapped { at, len: into.len() };
        let (start, range) = self.ranges.range(..=at.0).next_back().ok_or(unmapped)?;
        let from = (at.0 - start) as usize;
        let bytes = range.get(from..from.saturating_add(into.len())).ok_or(unmapped)?;
        into.copy_from_slice(bytes);
        Ok(())
    }
}

/// A recorded process. Its memory may be replaced by another, such as one that fails.
#[derive(Clone, Debug)]
pub struct ReplayTarget<M> {
    /// The kernel's data.
    pub head: DumpHead,
    /// The memory.
    pub memory: M,
}

impl ReplayTarget<ReplayMemory> {
    /// Replays everything as it was recorded.
    pub fn from_dump(dump: &MemoryDump) -> ReplayTarget<ReplayMemory> {
        let ranges = dump.ranges.iter().map(|(at, bytes)| (at.0, bytes.clone())).collect();
        ReplayTarget { head: dump.head.clone(), memory: ReplayMemory { ranges } }
    }
}

impl<M: Memory> ProcessAccess for ReplayTarget<M> {
    fn pid(&self) -> Pid {
        Pid(self.head.pid)
    }
    fn memory(&self) -> &dyn Memory {
        &self.memory
    }
    fn tids(&self, into: &mut Vec<Tid>, _check_leader: bool) -> io::Result<()> {
        into.clear();
        into.extend(self.head.threads.iter().map(|task| Tid(task.tid)));
        Ok(())
    }
    fn open(&self, tid: Tid) -> io::Result<TaskFiles> {
        let task = self.head.threads.iter().find(|task| task.tid == tid.0);
        let contents = task.and_then(|task| {
            let bytes = |text: &String| text.clone().into_bytes();
            let (schedstat, stack) = (task.schedstat.as_ref().map(bytes), task.stack.as_ref().map(bytes));
            Some(TaskFileContents { syscall: bytes(task.syscall.as_ref()?), schedstat, stack })
        });
        contents.map(TaskFiles::from_backend).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
    fn comm(&self, tid: Tid) -> Option<String> {
        self.head.threads.iter().find(|task| task.tid == tid.0)?.name.clone()
    }
    fn is_in_inner_namespace(&self) -> bool {
        self.head.threads.iter().any(|task| task.inner_tid.is_some())
    }
    fn inner_tid(&self, tid: Tid) -> Option<i32> {
        self.head.threads.iter().find(|task| task.tid == tid.0)?.inner_tid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_whole_or_an_error() {
        let mut memory = ReplayMemory::new();
        memory.map(Addr(100), vec![1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(memory.read_u32(Addr(104)), Ok(0x0807_0605));
        assert!(memory.read_u32(Addr(105)).is_err());
        assert!(memory.read_u32(Addr(99)).is_err());
        assert!(memory.poke(Addr(100), &[9]));
        assert!(!memory.poke(Addr(107), &[9, 9]));
    }
}
