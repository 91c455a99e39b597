//! Maps `pthread_self()` to the kernel's thread id, for Python up to 3.10, which stores only the
//! former, and for forked processes in which Python's copy of the latter is the parent's.
//!
//! The C library keeps the id as an int inside `struct pthread`: glibc 2.36 and 2.43 at +720 on
//! x86-64, musl 1.2.3 at +48. The offset is private to it, so it is calibrated on the target's own
//! threads instead of assumed.

use super::memory::{Memory, Part};
use crate::ids::Addr;
use std::collections::{BTreeSet, HashSet};

/// The offset seen so far; preferred if several fit.
const SEEN_AT: u32 = 720;
/// How much of `struct pthread` is searched.
const SEARCHED: usize = 1536;
/// How much is searched where memory ends before that. musl puts the struct and 1024 bytes of
/// thread-specific data at the end of the stack's mapping.
const SEARCHED_AT_END: usize = 1024;

/// Where `struct pthread` has the thread's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdOffset {
    /// The offset in bytes.
    pub offset: u32,
    /// For how many threads one of the process's ids stands there.
    pub witnesses: usize,
}

/// Finds the offset of the thread id inside `struct pthread`: the offset that yields one of `tids`
/// for the most threads, and no id twice. `None` if no offset fits.
pub fn calibrate(mem: &dyn Memory, pthreads: &[u64], tids: &[i32]) -> Option<IdOffset> {
    // Each offset at which no two threads share an id, with the ids found there so far.
    let mut places: Vec<(u32, Vec<i32>)> = (0..SEARCHED as u32 - 4).step_by(4).map(|offset| (offset, Vec::new())).collect();
    let tids: HashSet<i32> = tids.iter().copied().collect();
    // A thread state that was just created still has its creator's value.
    let distinct: BTreeSet<u64> = pthreads.iter().copied().collect();
    let mut parts: Vec<Part> = distinct.iter().map(|&at| Part::new(Addr(at), SEARCHED)).collect();
    let mut bytes = vec![0; parts.len() * SEARCHED];
    mem.read_batch(&mut parts, &mut bytes).ok()?;
    for (part, bytes) in parts.iter().zip(bytes.chunks_mut(SEARCHED)) {
        let mut read_less = || mem.read(part.at, &mut bytes[..SEARCHED_AT_END]).is_ok();
        let len = if part.ok {
            SEARCHED
        } else if read_less() {
            SEARCHED_AT_END
        } else {
            continue;
        };
        places.retain_mut(|(offset, held)| match crate::process::pod::at::<i32>(&bytes[..len], *offset as usize) {
            Some(id) if held.contains(&id) => false,
            Some(id) => {
                held.extend(tids.contains(&id).then_some(id));
                true
            }
            None => false,
        });
    }
    // A thread that has exited has none of these ids, so the best offset need not fit all threads.
    let witnesses = places.iter().map(|(_, held)| held.len()).max().filter(|&most| most > 0)?;
    places.retain(|(_, held)| held.len() == witnesses);
    let seen = places.iter().find(|(offset, _)| *offset == SEEN_AT);
    seen.or(places.first()).map(|(offset, _)| IdOffset { offset: *offset, witnesses })
}

/// The kernel's id of one thread.
pub fn tid(mem: &dyn Memory, pthread: u64, offset: u32) -> Option<i32> {
    let id = mem.read_u32(Addr(pthread).offset(u64::from(offset))).ok()? as i32;
    (id > 0).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::replay::ReplayMemory;

    fn thread_block(at: u64, id_at: usize, id: i32) -> (Addr, Vec<u8>) {
        let mut bytes = vec![0; SEARCHED];
        bytes[id_at..id_at + 4].copy_from_slice(&id.to_le_bytes());
        // A second offset that holds the process's id in every thread, as glibc's pid cache once
        // did for the main thread.
        bytes[100..104].copy_from_slice(&7i32.to_le_bytes());
        (Addr(at), bytes)
    }

    #[test]
    fn the_place_that_fits_every_thread() {
        let mut memory = ReplayMemory::new();
        for (at, id) in [(0x1000, 7), (0x9000, 8)] {
            let (at, bytes) = thread_block(at, 640, id);
            memory.map(at, bytes);
        }
        let found = |pthreads: &[u64], tids: &[i32]| calibrate(&memory, pthreads, tids).map(|found| (found.offset, found.witnesses));
        assert_eq!(found(&[0x1000, 0x9000], &[9]), None);
        assert_eq!(found(&[0x1000, 0x9000], &[8, 9]), Some((640, 1)), "the first has ended");
        // +100 holds 7 in both threads, and 7 is a thread's id too; but no two threads share an id.
        assert_eq!(found(&[0x1000, 0x9000], &[7, 8, 9]), Some((640, 2)));
        assert_eq!(found(&[0x1000, 0x9000, 0x9000, 0xdead_0000], &[7, 8]), Some((640, 2)), "one given twice, one that is gone");
        assert_eq!(tid(&memory, 0x9000, 640), Some(8));
        assert_eq!(found(&[], &[7]), None);
    }

    #[test]
    fn memory_may_end_soon_after_the_block() {
        let mut memory = ReplayMemory::new();
        for (at, id) in [(0x1000, 7), (0x9000, 8)] {
            let (at, mut bytes) = thread_block(at, 48, id);
            bytes.truncate(SEARCHED_AT_END);
            memory.map(at, bytes);
        }
        assert_eq!(calibrate(&memory, &[0x1000, 0x9000], &[7, 8]), Some(IdOffset { offset: 48, witnesses: 2 }));
    }
}
