//! Where a thread's frames are, 3.11+: the chunks of its data stack, newest first.

use super::super::layout::Layout;
use crate::ids::Addr;
use crate::process::memory::{Memory, ReadError};

/// The largest number of chunks; each is 16 KiB, or as large as one frame needs.
const MAX_CHUNKS: usize = 64;
/// A chunk that claims to be larger is read only this far.
const MAX_CHUNK: u64 = 256 * 1024;
/// The largest size of all chunks of one thread together; frames beyond that are read one by one. A
/// thousand frames take a tenth of it.
const MAX_BYTES: u64 = 2 << 20;
/// Bytes above the used part of a chunk that are copied too, so that a stack that grows a little is
/// still covered.
const SLACK: u64 = 768;

/// Replaces `chunks` by the used parts of the thread's chunks. Keeps them when the thread state
/// cannot be read.
pub(super) fn find(mem: &dyn Memory, layout: &Layout, tstate: Addr, chunks: &mut Vec<(Addr, usize)>) -> Result<(), ReadError> {
    let Some(data) = layout.thread.datastack else { return Ok(()) };
    let mut bytes = vec![0; layout.thread.size as usize];
    if !readable(mem.read(tstate, &mut bytes))? {
        return Ok(());
    }
    let (Some(mut chunk), Some(top)) = (data.chunk.read_from(&bytes), data.top.read_from(&bytes)) else { return Ok(()) };
    chunks.clear();
    let (mut header, mut left) = (vec![0; data.data as usize], MAX_BYTES);
    for _ in 0..MAX_CHUNKS {
        let known = chunks.iter().any(|(at, _)| *at == chunk);
        if chunk.is_null() || left == 0 || known || !readable(mem.read(chunk, &mut header))? {
            break;
        }
        let size = data.chunk_size.read_from(&header).unwrap_or(0).min(MAX_CHUNK);
        let used = if top.within(chunk, size) { (top.0 - chunk.0 + SLACK).min(size) } else { size }.min(left);
        if used > 0 {
            chunks.push((chunk, used as usize));
        }
        left -= used;
        chunk = data.previous.read_from(&header).unwrap_or_default();
    }
    Ok(())
}

/// The chunks, newest first, down to the one with the cut.
pub(super) fn used(chunks: &[(Addr, usize)], cut: Addr) -> &[(Addr, usize)] {
    let with_cut = chunks.iter().position(|(start, size)| !cut.is_null() && cut.within(*start, *size as u64));
    &chunks[..with_cut.map_or(chunks.len(), |n| n + 1)]
}

fn readable(read: Result<(), ReadError>) -> Result<bool, ReadError> {
    match read {
        Ok(()) => Ok(true),
        Err(ReadError::Unmapped { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::replay::ReplayMemory;
    use crate::python::layout::{for_version, LayoutTable, Minor};
    use std::cell::Cell;

    const TSTATE: Addr = Addr(0x10_000);
    const CHUNKS: [Addr; 2] = [Addr(0x20_000), Addr(0x30_000)];

    /// Memory that fails the test after so many reads.
    struct Limited(ReplayMemory, Cell<usize>);

    impl Memory for Limited {
        fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
            self.1.set(self.1.get().checked_sub(1).expect("the walk does not end"));
            self.0.read(at, into)
        }
    }

    /// The chunks found where both have this size and the second one's predecessor is the first.
    fn found(size: u64, first_previous: Addr) -> Vec<(Addr, usize)> {
        let Some(LayoutTable::Complete(layout)) = for_version(Minor(3, 12)) else { panic!("3.12 has a whole table") };
        let data = layout.thread.datastack.unwrap();
        let mut memory = ReplayMemory::new();
        memory.map(TSTATE, vec![0; layout.thread.size as usize]);
        memory.poke_u64(TSTATE.offset(data.chunk.offset() as u64), CHUNKS[0].0);
        for (at, previous) in CHUNKS.into_iter().zip([first_previous, CHUNKS[0]]) {
            memory.map(at, vec![0; 0x1000]);
            memory.poke_u64(at.offset(data.previous.offset() as u64), previous.0);
            memory.poke_u64(at.offset(data.chunk_size.offset() as u64), size);
        }
        let mut chunks = Vec::new();
        find(&Limited(memory, Cell::new(MAX_CHUNKS + 1)), layout, TSTATE, &mut chunks).unwrap();
        chunks
    }

    #[test]
    fn chunks_that_lead_back_end_the_walk_at_any_size() {
        for previous in CHUNKS {
            assert_eq!(found(0, previous), [], "an empty chunk has no frames");
        }
        assert_eq!(found(0x1000, CHUNKS[0]), [(CHUNKS[0], 0x1000)]);
        assert_eq!(found(0x1000, CHUNKS[1]), CHUNKS.map(|at| (at, 0x1000)));
    }
}
