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
    while !chunk.is_null() && left > 0 && chunks.len() < MAX_CHUNKS && !chunks.iter().any(|(at, _)| *at == chunk) {
        if !readable(mem.read(chunk, &mut header))? {
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
