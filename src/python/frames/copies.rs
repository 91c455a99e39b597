//! The copies that are walked: the thread state, its chunks of frames and the single frames, once
//! or twice, in one batch.

use crate::ids::Addr;
use crate::process::memory::{Memory, Part, ReadError};

/// The memory that each thread keeps from one stack to the next. There may be thousands of threads,
/// and a hostile target makes each of them large.
const MAX_KEPT: usize = 128 << 10;
/// The largest plan that is prefetched: a prefetch may turn out not to be needed.
const MAX_PREFETCH: usize = 32 << 10;
/// From so many spans on, neighbours are copied as one range: the kernel takes about as long for a
/// range as for this many bytes.
const MANY_SPANS: usize = 64;
const MAX_GAP: u64 = 1024;
/// After a range of several spans could not be read, so many plans have a range for each span.
const PLANS_APART: u8 = 32;

/// A part of the target's memory that a walk may need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub at: Addr,
    pub len: usize,
    /// It is a frame of `HeapFrames`.
    pub single: bool,
}

/// A range of the target's memory: one span, or several that are neighbours.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopiedRange {
    pub at: Addr,
    pub len: usize,
    /// Its offset in each copy.
    offset: usize,
    pub ok: [bool; 2],
    /// Whether a frame of `HeapFrames` is in it.
    pub single: bool,
}

/// Copies of the same ranges, made one right after the other.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// The thread state first, then the others by address.
    pub ranges: Vec<CopiedRange>,
    spans: Vec<Span>,
    /// The plans left that have a range for each span.
    apart: u8,
    parts: Vec<Part>,
    arena: Vec<u8>,
    /// The length of one copy.
    half: usize,
    /// Whether two copies were read in another batch and have not been walked yet.
    prefetched: bool,
}

impl Copies {
    /// Sets the ranges and the number of copies.
    pub fn plan(&mut self, tstate: Span, wanted: impl Iterator<Item = Span>, copies: usize) {
        self.prefetched = false;
        self.spans.clear();
        self.spans.extend(wanted);
        self.spans.sort_unstable_by_key(|span| span.at);
        self.ranges.clear();
        self.half = 0;
        self.push_range(tstate);
        self.apart = self.apart.saturating_sub(1);
        let gap = if self.spans.len() >= MANY_SPANS { MAX_GAP } else { 0 };
        for i in 0..self.spans.len() {
            let span = self.spans[i];
            match self.ranges[1..].last_mut().filter(|_| self.apart == 0) {
                Some(last) if span.at.0 - last.at.0 < last.len as u64 + gap => {
                    let len = last.len.max((span.at.0 - last.at.0) as usize + span.len);
                    self.half += len - last.len;
                    (last.len, last.single) = (len, last.single || span.single);
                }
                _ => self.push_range(span),
            }
        }
        self.parts.clear();
        for _ in 0..copies {
            self.parts.extend(self.ranges.iter().map(|range| Part::new(range.at, range.len)));
        }
    }

    fn push_range(&mut self, Span { at, len, single }: Span) {
        self.ranges.push(CopiedRange { at, len, offset: self.half, ok: [false; 2], single });
        self.half += len;
    }

    /// Makes the planned copies.
    pub fn make(&mut self, mem: &dyn Memory) -> Result<(), ReadError> {
        self.arena.resize(self.half * (self.parts.len() / self.ranges.len().max(1)), 0);
        mem.read_batch(&mut self.parts, &mut self.arena)?;
        self.record_success();
        Ok(())
    }

    /// The plan as part of the caller's batch; empty if it is too large for that.
    pub fn planned(&self) -> &[Part] {
        if self.half <= MAX_PREFETCH {
            &self.parts
        } else {
            &[]
        }
    }

    /// Takes the bytes of the plan from the caller's batch.
    pub fn accept_prefetch(&mut self, parts: &[Part], bytes: &[u8]) {
        if parts.len() == self.parts.len() && bytes.len() == 2 * self.half {
            self.parts.copy_from_slice(parts);
            self.arena.clear();
            self.arena.extend_from_slice(bytes);
            self.record_success();
            self.prefetched = true;
        }
    }

    /// Whether two prefetched copies are ready whose first range is at `first`.
    pub fn are_prefetched(&self, first: Addr) -> bool {
        self.prefetched && self.ranges.first().is_some_and(|range| range.at == first)
    }

    /// As [`Copies::are_prefetched`], once: the next call returns false.
    pub fn take_prefetched(&mut self, first: Addr) -> bool {
        let there = self.are_prefetched(first);
        self.prefetched = false;
        there
    }

    fn record_success(&mut self) {
        let count = self.ranges.len();
        for (i, range) in self.ranges.iter_mut().enumerate() {
            range.ok = [self.parts[i].ok, self.parts.get(i + count).is_some_and(|part| part.ok)];
        }
        if count <= self.spans.len() && self.parts.iter().any(|part| !part.ok) {
            self.apart = PLANS_APART;
        }
    }

    /// The size of all copies together, in bytes.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// The first range and the bytes after it, from the last copy that has it.
    pub fn first(&self) -> Option<&[u8]> {
        let range = self.ranges.first()?;
        let copy = range.ok.iter().rposition(|ok| *ok)?;
        self.arena.get(copy * self.half + range.offset..)
    }

    /// Frees the memory beyond what a thread may keep.
    pub fn shrink(&mut self) {
        if self.arena.capacity() > MAX_KEPT {
            self.arena = Vec::new();
        }
    }

    /// Exchanges the memory for the copies.
    pub fn swap_arena(&mut self, arena: &mut Vec<u8>) {
        std::mem::swap(&mut self.arena, arena);
    }

    /// The range that covers `len` bytes at `at` in one copy; most often the one at `hint`.
    pub fn find(&self, copy: usize, at: Addr, len: usize, hint: usize) -> Option<usize> {
        let covers = |r: &CopiedRange| {
            let from = at.0.wrapping_sub(r.at.0);
            r.ok[copy] && from < r.len as u64 && (r.len as u64 - from) >= len as u64
        };
        if self.ranges.get(hint).is_some_and(covers) {
            return Some(hint);
        }
        let others = self.ranges.get(1..)?;
        let before = others.partition_point(|r| r.at <= at);
        if before > 0 && covers(&others[before - 1]) {
            return Some(before);
        }
        self.ranges.iter().position(covers)
    }

    /// `len` bytes at `at` of one copy's range.
    pub fn visit(&self, copy: usize, range: usize, at: Addr, len: usize) -> Option<&[u8]> {
        let range = self.ranges.get(range)?;
        let from = copy * self.half + range.offset + at.0.wrapping_sub(range.at.0) as usize;
        self.arena.get(from..from + len)
    }
}
