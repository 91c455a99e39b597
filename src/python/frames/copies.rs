//! The copies that are walked: the thread state, its chunks of frames and the single frames, once
//! or twice, in one batch.

use crate::ids::Addr;
use crate::process::memory::{Memory, Part, ReadError};

/// The memory that each thread keeps from one stack to the next. There may be thousands of threads,
/// and a hostile target makes each of them large.
const MAX_KEPT: usize = 128 << 10;
/// The largest plan that is prefetched: a prefetch may turn out not to be needed.
const MAX_PREFETCH: usize = 32 << 10;

/// A range of the target's memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopiedRange {
    pub at: Addr,
    pub len: usize,
    /// Its offset in each copy.
    offset: usize,
    pub ok: [bool; 2],
    /// Whether a walk visited it.
    pub visited: bool,
}

/// Copies of the same ranges, made one right after the other.
#[derive(Debug, Default)]
pub(super) struct Copies {
    pub ranges: Vec<CopiedRange>,
    parts: Vec<Part>,
    arena: Vec<u8>,
    /// The length of one copy.
    half: usize,
    /// Whether two copies were read in another batch and have not been walked yet.
    prefetched: bool,
}

impl Copies {
    /// Sets the ranges and the number of copies.
    pub fn plan(&mut self, wanted: impl Iterator<Item = (Addr, usize)>, copies: usize) {
        self.prefetched = false;
        self.ranges.clear();
        self.half = 0;
        for (at, len) in wanted {
            self.ranges.push(CopiedRange { at, len, offset: self.half, ok: [false; 2], visited: false });
            self.half += len;
        }
        self.parts.clear();
        for _ in 0..copies {
            self.parts.extend(self.ranges.iter().map(|range| Part::new(range.at, range.len)));
        }
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

    /// The range that covers `len` bytes at `at` in one copy. The search begins after `hint`,
    /// because ranges are in the order in which walks visit them.
    pub fn find(&self, copy: usize, at: Addr, len: usize, hint: usize) -> Option<usize> {
        let covers = |r: &CopiedRange| {
            let from = at.0.wrapping_sub(r.at.0);
            r.ok[copy] && from < r.len as u64 && (r.len as u64 - from) >= len as u64
        };
        let n = self.ranges.len();
        (0..n).map(|i| (hint + i) % n).find(|&i| covers(&self.ranges[i]))
    }

    /// `len` bytes at `at` of one copy's range, which is marked as visited.
    pub fn visit(&mut self, copy: usize, range: usize, at: Addr, len: usize) -> Option<&[u8]> {
        let half = self.half;
        let range = self.ranges.get_mut(range)?;
        range.visited = true;
        let from = copy * half + range.offset + at.0.wrapping_sub(range.at.0) as usize;
        self.arena.get(from..from + len)
    }
}
