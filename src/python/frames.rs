//! A thread's frames, from its thread state to the root, without stopping the thread.
//!
//! The target runs while it is read. So everything that a walk may need is copied twice in one
//! batch, both copies are walked, and only the frames on which both walks agree, counted from the
//! root, are returned. (Seen on 3.13 with tiny functions called every 40 ns: reading frame by
//! frame, 85 % of stacks hold a pair of frames that the program cannot make; with one copy 12.5 %;
//! with two agreeing copies none.) A read is not repeated when only the top of the stack changed:
//! that would prefer shallow stacks. A read is repeated only when a copy lacked an address that the
//! walk led to, or a walk did not end at the root. Frames agree only up to the first caller whose
//! position changed: without that rule, one stack in a hundred named a line that had not made the
//! call (3.11).
//!
//! The last walk predicts what the next one needs: the thread's chunks of frames (3.11+), and
//! single frames elsewhere (all frames up to 3.10; later those of generators and of the C stack).

mod chunks;
mod copies;
mod root;

use super::layout::{Anchor, Layout, Position};
use crate::ids::Addr;
use crate::process::memory::{Memory, Part, ReadError};
use crate::process::pod;
use crate::sample::StackStatus;
use copies::Copies;
use root::Root;

/// A deeper stack loses frames at its root. CPython's own default limit is 1000.
pub const MAX_DEPTH: usize = 2048;
/// Reads without a visit after which a single frame is no longer copied.
const MAX_IDLE_READS: u8 = 32;
/// `_PY_GIL_DROP_REQUEST_BIT` of `PyThreadState.eval_breaker` (pycore_ceval.h).
const GIL_DROP_REQUEST: u64 = 1;
/// An upper bound on the bytes read of a frame, in any version.
const MAX_FRAME_SIZE: usize = 160;
/// See [`HeapFrame::called`].
const CALLED_VOTES: u8 = 64;
/// Pairs of copies made for one stack before the frames agreed so far are returned. Most stacks
/// take one. In a program that does nothing but resume generators up to half of the walks lose
/// their way (3.7 - 3.10).
const MAX_ROUNDS: usize = 32;
/// After so many pairs that all end at the same frame, which is not the root, the thread does not
/// run: it has no CPU and stopped where a generator has just been unlinked from its caller (seen on
/// 3.12.1), or it has another root now.
const STUCK_ROUNDS: usize = 8;
/// No more pairs are made once they have taken so many bytes.
const MAX_COPIED: usize = 8 << 20;
/// One frame as a walk found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFrame {
    /// The address of the frame.
    pub at: Addr,
    /// Its code object.
    pub code: Addr,
    /// `f_lasti`, or the address of the current instruction; see [`Position`].
    pub position: i64,
}

/// Frames, leaf first, from two walks that agree.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RawStack {
    /// Leaf first.
    pub frames: Vec<RawFrame>,
    /// How much of the stack was read consistently.
    pub status: StackStatus,
}

impl Clone for RawStack {
    fn clone(&self) -> RawStack {
        RawStack { frames: self.frames.clone(), status: self.status }
    }
    /// Reuses the allocation.
    fn clone_from(&mut self, from: &RawStack) {
        self.frames.clone_from(&from.frames);
        self.status = from.status;
    }
}

#[derive(Clone, Copy, Debug)]
struct HeapFrame {
    at: Addr,
    idle: u8,
    /// How often this frame must end a walk before it may be a root: set when the frame was seen
    /// with a caller.
    called: u8,
}

#[derive(Debug, PartialEq, Eq)]
enum WalkEnd {
    Root,
    Truncated,
    /// The walk led to a frame that was not copied.
    Missing(Addr),
    /// The walk led to a `_PyCFrame` that was not copied.
    MissingSlot(Addr),
    /// The walk led to bytes that cannot be a frame.
    Garbage,
}

/// Reads the stacks of one thread, and remembers where its frames are.
#[derive(Debug, Default)]
pub struct FrameReader {
    chunks: Vec<(Addr, usize)>,
    heap_frames: Vec<HeapFrame>,
    copies: Copies,
    walks: [Walk; 2],
    tstate: Addr,
    root: Root,
    gil_requested: Option<bool>,
    drop_request: Option<bool>,
    /// The frames of the last read that two walks (or one, of a sleeping thread) completed.
    last: Walk,
    /// The last stack returned.
    result: RawStack,
}

/// One walk, leaf first.
#[derive(Clone, Debug, Default)]
struct Walk {
    frames: Vec<RawFrame>,
    /// Whether the walk began in frames that had been left: the thread's current frame is not
    /// known.
    cleared: bool,
    /// The copied range that the last frame lay in.
    last_range: usize,
}

impl FrameReader {
    /// 3.15: whether the thread had requested the GIL and not got it, when its stack was last read.
    pub fn gil_requested(&self) -> Option<bool> {
        self.gil_requested
    }

    /// 3.13+: whether the thread had a pending drop request, when its stack was last read.
    pub fn drop_request(&self) -> Option<bool> {
        self.drop_request
    }

    /// The stack of the thread whose state is at `tstate`. `Err` only when the process as a whole
    /// cannot be read. One copy is enough for a thread that is `asleep` in the kernel.
    pub fn read(&mut self, mem: &dyn Memory, layout: &Layout, tstate: Addr, asleep: bool) -> Result<&RawStack, ReadError> {
        let read = self.read_rounds(mem, layout, tstate, asleep);
        let bytes = self.copies.first();
        self.gil_requested = layout.thread.gil_requested.zip(bytes).and_then(|(field, bytes)| field.read_from(bytes)).map(|flag| flag != 0);
        self.drop_request = layout
            .thread
            .eval_breaker
            .zip(bytes)
            .and_then(|(field, bytes)| field.read_from(bytes))
            .map(|word| word & GIL_DROP_REQUEST != 0);
        self.copies.shrink();
        read.map(|()| &self.result)
    }

    fn read_rounds(&mut self, mem: &dyn Memory, layout: &Layout, tstate: Addr, mut asleep: bool) -> Result<(), ReadError> {
        if self.tstate != tstate {
            (self.tstate, self.root) = (tstate, Root::default());
            self.last.frames.clear();
        }
        // Two prefetched copies are at least as good as one new copy.
        asleep &= !(self.root.is_known() && self.copies.are_prefetched(tstate));
        let mut complete: Option<Walk> = None;
        let (mut copied, mut stuck) = (0, 0);
        for _ in 0..MAX_ROUNDS {
            if copied > MAX_COPIED {
                break;
            }
            self.copy(mem, layout, tstate, if asleep { 1 } else { 2 })?;
            copied += self.copies.bytes();
            let a = self.walk(layout, 0);
            let b = if asleep { WalkEnd::Garbage } else { self.walk(layout, 1) };
            let ends = [a, b];
            let done = [self.reached_root(&ends[0], 0), self.reached_root(&ends[1], 1)];
            // One walk of a sleeping thread is consistent. A walk that ends at another frame than
            // before suggests that the thread has been woken meanwhile.
            if asleep && matches!(ends[0], WalkEnd::Root | WalkEnd::Truncated) {
                if done[0] || !self.root.is_known() {
                    self.finish(0, &ends[0]);
                    return Ok(());
                }
                asleep = false;
            } else if done == [true, true] {
                self.finish(1, if ends[0] == WalkEnd::Truncated { &ends[0] } else { &ends[1] });
                return Ok(());
            }
            stuck = if ends == [WalkEnd::Root, WalkEnd::Root] && self.walks[0].frames == self.walks[1].frames { stuck + 1 } else { 0 };
            if stuck == STUCK_ROUNDS {
                self.result.frames.clone_from(&self.walks[0].frames);
                self.result.status = StackStatus::Truncated;
                return Ok(());
            }
            if let Some(walk) = done.iter().position(|&d| d) {
                if let Some(earlier) = &complete {
                    self.result.merge_torn(earlier, &self.walks[walk]);
                    return Ok(());
                }
                complete = Some(self.walks[walk].clone());
            }
            for end in ends {
                match end {
                    WalkEnd::Missing(at) => self.add_missing(mem, layout, tstate, at)?,
                    WalkEnd::MissingSlot(at) => self.add_heap_frame(at),
                    WalkEnd::Root | WalkEnd::Truncated | WalkEnd::Garbage => {}
                }
            }
        }
        self.result.merge_torn(&self.last, &complete.unwrap_or_default());
        Ok(())
    }

    /// Returns the frames on which both walks agree, and keeps them for the next read.
    fn finish(&mut self, second: usize, end: &WalkEnd) {
        self.forget_idle();
        self.result.merge(&self.walks[0], &self.walks[second], *end == WalkEnd::Truncated);
        self.last.frames.clone_from(&self.result.frames);
    }

    /// Whether a walk ended at the thread's root and not at a suspended generator. A root never has
    /// a caller, so frames that were seen with a caller do not count.
    fn reached_root(&mut self, end: &WalkEnd, walk: usize) -> bool {
        match end {
            WalkEnd::Truncated => return true,
            WalkEnd::Root => {}
            WalkEnd::Missing(_) | WalkEnd::MissingSlot(_) | WalkEnd::Garbage => return false,
        }
        let walk = &self.walks[walk];
        let Some(root) = walk.frames.last().map(|f| (f.at, f.code)) else { return !walk.cleared };
        if let Some(heap_frame) = walk.last_range.checked_sub(1).and_then(|i| self.heap_frames.get_mut(i)).filter(|s| s.called > 0) {
            heap_frame.called -= 1;
            return false;
        }
        self.root.vote(root)
    }

    /// The ranges that a read of a running thread would copy first, to be read in a batch of the
    /// caller. [`FrameReader::accept_prefetch`] takes the result; the caller may also drop it.
    pub fn prefetch_plan(&mut self, layout: &Layout, tstate: Addr) -> &[Part] {
        self.build_plan(layout, tstate, 2);
        self.copies.planned()
    }

    /// Takes the bytes of the plan. The next read uses them if it is of the same thread and the
    /// thread is not asleep.
    pub fn accept_prefetch(&mut self, parts: &[Part], bytes: &[u8]) {
        self.copies.accept_prefetch(parts, bytes);
    }

    fn build_plan(&mut self, layout: &Layout, tstate: Addr, copies: usize) {
        let single = layout.frame.size as usize;
        let wanted = std::iter::once((tstate, layout.thread.size as usize));
        let wanted = wanted.chain(self.heap_frames.iter().map(|s| (s.at, single))).chain(self.chunks.iter().copied());
        self.copies.plan(wanted, copies);
    }

    fn copy(&mut self, mem: &dyn Memory, layout: &Layout, tstate: Addr, copies: usize) -> Result<(), ReadError> {
        if self.copies.take_prefetched(tstate) && copies == 2 {
            return Ok(());
        }
        self.build_plan(layout, tstate, copies);
        self.copies.make(mem)
    }

    fn walk(&mut self, layout: &Layout, copy: usize) -> WalkEnd {
        let mut walk = std::mem::take(&mut self.walks[copy]);
        walk.frames.clear();
        walk.cleared = false;
        walk.last_range = 0;
        let end = match self.innermost(layout, copy) {
            Ok(at) => self.walk_into(layout, copy, at, &mut walk),
            Err(end) => end,
        };
        self.walks[copy] = walk;
        end
    }

    /// The innermost frame; null when the thread runs no Python.
    fn innermost(&mut self, layout: &Layout, copy: usize) -> Result<Addr, WalkEnd> {
        let tstate = self.copies.ranges.first().filter(|r| r.ok[copy]).map(|r| r.at).ok_or(WalkEnd::Garbage)?;
        let mut pointer = |range, at| self.copies.visit(copy, range, at, 8).and_then(|b| pod::at::<Addr>(b, 0)).ok_or(WalkEnd::Garbage);
        match layout.thread.anchor {
            Anchor::Direct(field) => pointer(0, tstate.offset(field.offset() as u64)),
            Anchor::CFrame(field, inner) => {
                let cframe = pointer(0, tstate.offset(field.offset() as u64))?;
                if cframe.is_null() {
                    return Ok(cframe);
                }
                let slot = cframe.offset(inner.offset() as u64);
                let range = self.copies.find(copy, slot, 8, 1).ok_or(WalkEnd::MissingSlot(slot))?;
                self.copies.visit(copy, range, slot, 8).and_then(|b| pod::at::<Addr>(b, 0)).ok_or(WalkEnd::Garbage)
            }
        }
    }

    fn walk_into(&mut self, layout: &Layout, copy: usize, innermost: Addr, walk: &mut Walk) -> WalkEnd {
        let (mut at, mut hint, len) = (innermost, 1, layout.frame.size as usize);
        for _ in 0..MAX_DEPTH {
            if at.is_null() {
                return WalkEnd::Root;
            }
            let Some(range) = self.copies.find(copy, at, len, hint) else { return WalkEnd::Missing(at) };
            hint = range;
            let Some((kind, back)) = self.copies.visit(copy, range, at, len).and_then(|bytes| parse_frame(layout, at, bytes)) else {
                return WalkEnd::Garbage;
            };
            match kind {
                FrameKind::Python(frame) => walk.frames.push(frame),
                FrameKind::Entry => {}
                // The frames above were called from a frame that no longer exists.
                FrameKind::Cleared => {
                    walk.frames.clear();
                    walk.cleared = true;
                }
            }
            walk.last_range = range;
            if let Some(heap_frame) = range.checked_sub(1).and_then(|i| self.heap_frames.get_mut(i)).filter(|_| !back.is_null()) {
                heap_frame.called = CALLED_VOTES;
            }
            at = back;
        }
        WalkEnd::Truncated
    }

    /// Adds `at` to the next copy: its chunk when it lies in one, else the frame alone. Follows the
    /// links from there, so that one more round is enough for any number of new frames.
    fn add_missing(&mut self, mem: &dyn Memory, layout: &Layout, tstate: Addr, at: Addr) -> Result<(), ReadError> {
        chunks::find(mem, layout, tstate, &mut self.chunks)?;
        let len = layout.frame.size as usize;
        let mut bytes = vec![0; len];
        let mut at = at;
        for _ in 0..MAX_DEPTH {
            if at.is_null() || self.heap_frames.len() >= MAX_DEPTH {
                return Ok(());
            }
            self.add_heap_frame(at);
            match mem.read(at, &mut bytes) {
                Ok(()) => {}
                Err(ReadError::Unmapped { .. }) => return Ok(()),
                Err(e) => return Err(e),
            }
            match parse_frame(layout, at, &bytes) {
                Some((_, back)) => at = back,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    fn add_heap_frame(&mut self, at: Addr) {
        // A frame at the very end of a chunk's copied part is copied alone until the used part of
        // the chunk grows.
        let covered = self.chunks.iter().any(|(start, size)| at.within(*start, size.saturating_sub(MAX_FRAME_SIZE) as u64));
        if !covered && self.heap_frames.len() < MAX_DEPTH && !self.heap_frames.iter().any(|s| s.at == at) {
            self.heap_frames.push(HeapFrame { at, idle: 0, called: 0 });
        }
    }

    /// Drops single frames that no walk has visited for a while.
    fn forget_idle(&mut self) {
        for (heap_frame, range) in self.heap_frames.iter_mut().zip(&self.copies.ranges[1..]) {
            heap_frame.idle = if range.visited { 0 } else { heap_frame.idle.saturating_add(1) };
        }
        self.heap_frames.retain(|s| s.idle <= MAX_IDLE_READS);
    }
}

/// The kind of data at the address of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FrameKind {
    Python(RawFrame),
    /// An entry frame, which C code makes where it enters the interpreter; not Python's.
    Entry,
    /// A frame that was left: 3.14+ clear its code and keep its link to the caller.
    Cleared,
}

/// A frame and its caller; `None` for memory that cannot be a frame.
fn parse_frame(layout: &Layout, at: Addr, bytes: &[u8]) -> Option<(FrameKind, Addr)> {
    let frame = &layout.frame;
    let back = frame.back.read_from(bytes).filter(|&back| back != at)?;
    let owner = match frame.owner {
        Some(owner) => Some((owner.field.read_from(bytes)?, owner.first_not_python)),
        None => None,
    };
    if owner.is_some_and(|(owner, limit)| owner >= limit) {
        return Some((FrameKind::Entry, back));
    }
    let code = Addr(frame.code.read_from(bytes)?.0 & frame.code_tag_mask);
    if code.is_null() {
        return Some((FrameKind::Cleared, back));
    }
    let position = match frame.position {
        Position::LastByte(field) | Position::LastUnit(field) => i64::from(field.read_from(bytes)?),
        Position::Pointer(field) => field.read_from(bytes)?.0 as i64,
    };
    Some((FrameKind::Python(RawFrame { at, code, position }), back))
}

impl RawStack {
    /// As [`RawStack::merge`], for walks of different moments.
    fn merge_torn(&mut self, a: &Walk, b: &Walk) {
        self.merge(a, b, false);
        self.status = StackStatus::Torn;
    }

    /// Sets the frames that two walks have in common, counted from the root.
    fn merge(&mut self, a: &Walk, b: &Walk, truncated: bool) {
        let mut same = 0;
        for (x, y) in a.frames.iter().rev().zip(b.frames.iter().rev()) {
            if x.at != y.at || x.code != y.code {
                break;
            }
            same += 1;
            // A frame whose position changed has run, so the frames it had called are gone. A frame
            // at the same address may be another one.
            if x.position != y.position {
                break;
            }
        }
        let complete = same == a.frames.len() && same == b.frames.len() && !a.cleared && !b.cleared;
        self.status = match (complete, truncated) {
            (false, _) => StackStatus::Torn,
            (true, true) => StackStatus::Truncated,
            (true, false) => StackStatus::Complete,
        };
        self.frames.clear();
        self.frames.extend_from_slice(&a.frames[a.frames.len() - same..]);
    }
}

#[cfg(test)]
mod tests;
