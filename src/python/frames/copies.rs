//! The copies that walks are made in: the thread state, its chunks of frames and the single frames, once or twice, in one batch.

use crate::ids::Addr;
use crate::process::memory::{Memory, Part, ReadError};

/// Room that each thread keeps from one stack to the next. There may be thousands of threads, and a hostile one has much to copy.
const MAX_KEPT: usize = 128 << 10;
/// More than this is not copied on the mere guess that it will be wanted.
const MAX_PREFETCH: usize = 32 << 10;

/// A range of the target's memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopiedRange {
    pub at: Addr,
    pub len: usize,
    /// Where it starts in each copy.
    offset: usize,
    pub ok: [bool; 2],
    /// Whether a walk needed it.
    pub visited: bool,
}

/// Copies of the same ranges, made right after each other.
#[derive(Debug, Default)]
pub(super) struct Copies {
    pub ranges: Vec<CopiedRange>,
    parts: Vec<Part>,
    arena: Vec<u8>,
    /// The length of one copy.
    half: usize,
    /// Two copies were made along with another batch, and have not been walked yet.
    prefetched: bool,
}

impl Copies {
    /// Says what to copy, and how often.
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

    /// Makes the copies that were planned.
    pub fn make(&mut self, mem: &dyn Memory) -> Result<(), ReadError> {
        self.arena.resize(self.half * (self.parts.len() / self.ranges.len().max(1)), 0);
        mem.read_batch(&mut self.parts, &mut self.arena)?;
        self.record_success();
        Ok(())
    }

    /// The plan as part of somebody else's batch; nothing if it is too large for that.
    pub fn planned(&self) -> &[Part] {
        if self.half <= MAX_PREFETCH {
            &self.parts
        } else {
            &[]
        }
    }

    /// Takes in what somebody else's batch read of the plan.
    pub fn accept_prefetch(&mut self, parts: &[Part], bytes: &[u8]) {
        if parts.len() == self.parts.len() && bytes.len() == 2 * self.half {
            self.parts.copy_from_slice(parts);
            self.arena.clear();
            self.arena.extend_from_slice(bytes);
            self.record_success();
            self.prefetched = true;
        }
    }

    /// Whether two copies of the ranges from this one on are there already.
    pub fn are_prefetched(&self, first: Addr) -> bool {
        self.prefetched && self.ranges.first().is_some_and(|range| range.at == first)
    }

    /// As [`Copies::are_prefetched`]; they are given once.
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

    /// How many bytes the copies have together.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// The first range and what follows it, in the last copy that has it.
    pub fn first(&self) -> Option<&[u8]> {
        let range = self.ranges.first()?;
        let copy = range.ok.iter().rposition(|ok| *ok)?;
        self.arena.get(copy * self.half + range.offset..)
    }

    /// Frees what is more than a thread may keep.
    pub fn shrink(&mut self) {
        if self.arena.capacity() > MAX_KEPT {
            self.arena = Vec::new();
        }
    }

    /// Which range covers `len` bytes at `at` in one copy. The search begins after `hint`: frames lie in the order in which walks meet them.
    pub fn find(&self, copy: usize, at: Addr, len: usize, hint: usize) -> Option<usize> {
        let covers = |r: &CopiedRange| {
            let from = at.0.wrapping_sub(r.at.0);
            r.ok[copy] && from < r.len as u64 && (r.len as u64 - from) >= len as u64
        };
        let n = self.ranges.len();
        (0..n).map(|i| (hint + i) % n).find(|&i| covers(&self.ranges[i]))
    }

    /// `len` bytes at `at` out of one copy's range, marked as met.
    pub fn visit(&mut self, copy: usize, range: usize, at: Addr, len: usize) -> Option<&[u8]> {
        let half = self.half;
        let range = self.ranges.get_mut(range)?;
        range.visited = true;
        let from = copy * half + range.offset + at.0.wrapping_sub(range.at.0) as usize;
        self.arena.get(from..from + len)
    }
}
