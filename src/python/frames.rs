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
//!
//! A stack deeper than the limit has a gap in its middle: walks end at a frame called the cut, and
//! go on with the frames at the root, which are known from an earlier walk along all links. The cut
//! stays where it is while the stack grows and shrinks above it.

mod chunks;
mod copies;
mod heap_frames;
mod links;
mod raw;
mod root;

use super::layout::{Anchor, Layout};
use crate::ids::Addr;
use crate::process::memory::{Memory, Part, ReadError};
use crate::process::pod;
use crate::sample::StackStatus;
use copies::{Copies, Span};
use heap_frames::HeapFrames;
use links::{Link, LinkReader, MAX_BOTTOM};
use raw::{parse_frame, FrameKind, Walk};
pub use raw::{RawFrame, RawStack};
use root::Root;

/// A deeper stack loses frames in its middle. CPython's own default limit is 1000.
pub const MAX_DEPTH: usize = 2048;
/// The smallest limit of frames for one stack. A quarter of it is more than [`MAX_BOTTOM`], so that
/// something is left out of a stack with a gap.
const MIN_DEPTH: usize = 8 * MAX_BOTTOM;
/// A deeper stack takes so long to read that other reads come first.
const DEEP: usize = 64;
/// Reads of a deep stack between two searches for its root.
const ROOT_PAUSE: u8 = 32;
/// `_PY_GIL_DROP_REQUEST_BIT` of `PyThreadState.eval_breaker` (pycore_ceval.h).
const GIL_DROP_REQUEST: u64 = 1;
/// Pairs of copies made for one stack before the frames agreed so far are returned. Most stacks
/// take one. In a program that does nothing but resume generators up to half of the walks lose
/// their way (3.7 - 3.10).
const MAX_ROUNDS: usize = 32;
/// After so many pairs that all end at the same frame, which is not the root, the thread does not
/// run: it has no CPU and stopped where a generator has just been unlinked from its caller (seen on
/// 3.12.1), or it has another root now.
const STUCK_ROUNDS: usize = 8;
/// No more pairs are made once they have taken so many bytes.
const MAX_COPIED: usize = 16 << 20;

#[derive(Debug, PartialEq, Eq)]
enum WalkEnd {
    Root,
    Truncated,
    /// The walk met more frames than are read.
    Deep,
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
    heap_frames: HeapFrames,
    copies: Copies,
    walks: [Walk; 2],
    tstate: Addr,
    root: Root,
    gil_requested: Option<bool>,
    drop_request: Option<bool>,
    /// The most frames of one stack; `None`: [`MAX_DEPTH`].
    depth_limit: Option<usize>,
    /// The frame at which walks leave a stack that is too deep; null while it is not.
    cut: Addr,
    /// The frames that such a stack has at its root, the root last; empty while they are not known.
    bottom: Vec<Link>,
    /// Some of them are no longer what they were.
    bottom_changed: bool,
    root_pause: u8,
    /// The frames of the last read that two walks (or one, of a sleeping thread) completed.
    last: Walk,
    /// The last stack returned.
    result: RawStack,
}

/// Where a walk found its last frame, for the next search.
#[derive(Default)]
struct Hints {
    range: usize,
    heap_frame: usize,
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

    /// Whether the stack was deep when it was last read whole, so that reading it takes long.
    pub fn is_deep(&self) -> bool {
        self.last.frames.len() > DEEP
    }

    /// Sets the most frames of one stack, if fewer than [`MAX_DEPTH`].
    pub fn limit_depth(&mut self, frames: Option<usize>) {
        self.depth_limit = frames;
    }

    fn limit(&self) -> usize {
        self.depth_limit.unwrap_or(MAX_DEPTH).clamp(MIN_DEPTH, MAX_DEPTH)
    }

    /// The stack of the thread whose state is at `tstate`. `Err` only when the process as a whole
    /// cannot be read. One copy is enough for a thread that is `asleep` in the kernel.
    #[cfg(any(test, feature = "internals"))]
    pub fn read(&mut self, mem: &dyn Memory, layout: &Layout, tstate: Addr, asleep: bool) -> Result<&RawStack, ReadError> {
        self.read_with(mem, layout, tstate, asleep, &mut Vec::new())
    }

    /// As [`FrameReader::read`]. `spare` is memory for the copies of a deep stack, shared by all
    /// threads.
    pub fn read_with(
        &mut self,
        mem: &dyn Memory,
        layout: &Layout,
        tstate: Addr,
        asleep: bool,
        spare: &mut Vec<u8>,
    ) -> Result<&RawStack, ReadError> {
        let deep = self.is_deep();
        if deep {
            self.copies.swap_arena(spare);
        }
        let read = self.read_rounds(mem, layout, tstate, asleep);
        let bytes = self.copies.first();
        self.gil_requested = layout.thread.gil_requested.zip(bytes).and_then(|(field, bytes)| field.read_from(bytes)).map(|flag| flag != 0);
        self.drop_request = layout
            .thread
            .eval_breaker
            .zip(bytes)
            .and_then(|(field, bytes)| field.read_from(bytes))
            .map(|word| word & GIL_DROP_REQUEST != 0);
        if deep {
            self.copies.swap_arena(spare);
        }
        self.copies.shrink();
        read.map(|()| &self.result)
    }

    fn read_rounds(&mut self, mem: &dyn Memory, layout: &Layout, tstate: Addr, mut asleep: bool) -> Result<(), ReadError> {
        if self.tstate != tstate {
            (self.tstate, self.root) = (tstate, Root::default());
            self.last.clear();
            self.bottom.clear();
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
            let mut ends = [a, b];
            if let Some(walk) = ends.iter().position(|end| *end == WalkEnd::Deep) {
                if self.place_cut(mem, layout, walk)? {
                    continue;
                }
                ends.iter_mut().filter(|end| **end == WalkEnd::Deep).for_each(|end| *end = WalkEnd::Truncated);
            }
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
                self.result.status = if self.walks[0].cleared { StackStatus::Torn } else { StackStatus::Truncated };
                self.result.below_gap = self.walks[0].below_gap;
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
                    WalkEnd::MissingSlot(at) => self.heap_frames.add(at),
                    WalkEnd::Root | WalkEnd::Truncated | WalkEnd::Deep | WalkEnd::Garbage => {}
                }
            }
        }
        self.result.merge_torn(&self.last, &complete.unwrap_or_default());
        Ok(())
    }

    /// Returns the frames on which both walks agree, and keeps them for the next read.
    fn finish(&mut self, second: usize, end: &WalkEnd) {
        self.heap_frames.forget_idle();
        self.result.merge(&self.walks[0], &self.walks[second], *end == WalkEnd::Truncated);
        self.last.clear();
        self.last.frames.clone_from(&self.result.frames);
        self.last.below_gap = self.result.below_gap;
        // Where few frames are left above the cut, the next walk places another one if it needs to.
        let walk = &self.walks[0];
        if walk.below_gap.is_none_or(|below| walk.frames.len() - below < self.limit() / 4) {
            self.cut = Addr(0);
        }
        self.root_pause = self.root_pause.saturating_sub(1);
        if self.bottom_changed && self.root_pause == 0 {
            self.bottom.clear();
        }
    }

    /// Whether a walk ended at the thread's root and not at a suspended generator. A root never has
    /// a caller, so frames that were seen with a caller do not count.
    fn reached_root(&mut self, end: &WalkEnd, walk: usize) -> bool {
        match end {
            WalkEnd::Truncated => return true,
            WalkEnd::Root => {}
            WalkEnd::Deep | WalkEnd::Missing(_) | WalkEnd::MissingSlot(_) | WalkEnd::Garbage => return false,
        }
        let walk = &self.walks[walk];
        let Some(root) = walk.frames.last().map(|f| (f.at, f.code)) else { return !walk.cleared };
        !self.heap_frames.was_called(walk.last) && self.root.vote(root)
    }

    /// The ranges that a read of a running thread would copy first, to be read in a batch of the
    /// caller; none for a deep stack. [`FrameReader::accept_prefetch`] takes the result; the caller
    /// may also drop it.
    pub fn prefetch_plan(&mut self, layout: &Layout, tstate: Addr) -> &[Part] {
        if self.is_deep() {
            return &[];
        }
        self.build_plan(layout, tstate, 2);
        self.copies.planned()
    }

    /// Takes the bytes of the plan. The next read uses them if it is of the same thread and the
    /// thread is not asleep.
    pub fn accept_prefetch(&mut self, parts: &[Part], bytes: &[u8]) {
        self.copies.accept_prefetch(parts, bytes);
    }

    fn build_plan(&mut self, layout: &Layout, tstate: Addr, copies: usize) {
        let span = |at, len, single| Span { at, len, single };
        let frames = self.heap_frames.addresses().map(|at| span(at, layout.frame.size as usize, true));
        let chunks = chunks::used(&self.chunks, self.cut).iter().map(|&(at, len)| span(at, len, false));
        self.copies.plan(span(tstate, layout.thread.size as usize, false), frames.chain(chunks), copies);
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
        walk.clear();
        let end = match self.innermost(layout, copy) {
            Ok(at) => self.walk_into(layout, copy, at, &mut walk),
            Err(end) => end,
        };
        self.walks[copy] = walk;
        end
    }

    /// The innermost frame; null when the thread runs no Python.
    fn innermost(&mut self, layout: &Layout, copy: usize) -> Result<Addr, WalkEnd> {
        let copies = &self.copies;
        let tstate = copies.ranges.first().filter(|r| r.ok[copy]).map(|r| r.at).ok_or(WalkEnd::Garbage)?;
        let pointer = |range, at| copies.visit(copy, range, at, 8).and_then(|b| pod::at::<Addr>(b, 0)).ok_or(WalkEnd::Garbage);
        match layout.thread.anchor {
            Anchor::Direct(field) => pointer(0, tstate.offset(field.offset() as u64)),
            Anchor::CFrame(field, inner) => {
                let cframe = pointer(0, tstate.offset(field.offset() as u64))?;
                if cframe.is_null() {
                    return Ok(cframe);
                }
                let slot = cframe.offset(inner.offset() as u64);
                let range = copies.find(copy, slot, 8, 1).ok_or(WalkEnd::MissingSlot(slot))?;
                self.heap_frames.visit(slot, 0, false);
                pointer(range, slot)
            }
        }
    }

    fn walk_into(&mut self, layout: &Layout, copy: usize, innermost: Addr, walk: &mut Walk) -> WalkEnd {
        let (mut at, mut hints) = (innermost, Hints { range: 1, heap_frame: 0 });
        let limit = self.limit() - if self.cut.is_null() { 0 } else { MAX_BOTTOM };
        for _ in 0..limit {
            if at.is_null() {
                return WalkEnd::Root;
            }
            let (kind, back) = match self.visit(layout, copy, at, &mut hints) {
                Ok(found) => found,
                Err(end) => return end,
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
            walk.last = at;
            if at == self.cut {
                return self.walk_bottom(layout, copy, walk, &mut hints);
            }
            at = back;
        }
        WalkEnd::Deep
    }

    /// Adds the frames at the root, as far as they are still what they were.
    fn walk_bottom(&mut self, layout: &Layout, copy: usize, walk: &mut Walk, hints: &mut Hints) -> WalkEnd {
        let (top, bottom) = (walk.frames.len(), std::mem::take(&mut self.bottom));
        let mut reached = false;
        for link in &bottom {
            let found = self.visit(layout, copy, link.at, hints).ok().filter(|(kind, back)| link.is_same(kind, *back));
            match found {
                Some((FrameKind::Python(frame), _)) => walk.frames.push(frame),
                Some(_) => {}
                None => {
                    walk.frames.truncate(top);
                    self.bottom_changed = true;
                }
            }
            (walk.last, reached) = (link.at, found.is_some());
        }
        walk.below_gap = Some(walk.frames.len() - top);
        if !reached {
            return WalkEnd::Deep;
        }
        self.bottom = bottom;
        WalkEnd::Root
    }

    /// The frame at `at` in one copy, and its caller.
    fn visit(&mut self, layout: &Layout, copy: usize, at: Addr, hints: &mut Hints) -> Result<(FrameKind, Addr), WalkEnd> {
        let len = layout.frame.size as usize;
        let range = self.copies.find(copy, at, len, hints.range).ok_or(WalkEnd::Missing(at))?;
        hints.range = range;
        let bytes = self.copies.visit(copy, range, at, len);
        let found = bytes.and_then(|bytes| parse_frame(layout, at, bytes)).ok_or(WalkEnd::Garbage)?;
        if self.copies.ranges[range].single {
            hints.heap_frame = self.heap_frames.visit(at, hints.heap_frame, !found.1.is_null());
        }
        Ok(found)
    }

    /// Places the cut in a stack that this walk found too deep. False if its root is not known: its
    /// outer frames are then missing.
    fn place_cut(&mut self, mem: &dyn Memory, layout: &Layout, walk: usize) -> Result<bool, ReadError> {
        self.cut = Addr(0);
        let frames = &self.walks[walk].frames;
        let Some(cut) = frames.get(self.limit() / 4 * 3).or(frames.last()).map(|frame| frame.at) else { return Ok(false) };
        if self.bottom.is_empty() {
            if self.root_pause > 0 {
                return Ok(false);
            }
            self.bottom = links::bottom(mem, layout, cut)?;
            (self.bottom_changed, self.root_pause) = (false, ROOT_PAUSE);
        }
        if self.bottom.is_empty() {
            return Ok(false);
        }
        let frames: Vec<Addr> = self.bottom.iter().map(|link| link.at).collect();
        self.heap_frames.add_all(&frames);
        self.cut = cut;
        Ok(true)
    }

    /// Adds `at` to the next copy: its chunk when it lies in one, else the frame alone. Follows the
    /// links from there to a known frame, so that one more round is enough for any number of new
    /// frames.
    fn add_missing(&mut self, mem: &dyn Memory, layout: &Layout, tstate: Addr, at: Addr) -> Result<(), ReadError> {
        chunks::find(mem, layout, tstate, &mut self.chunks)?;
        let (mut reader, mut new, mut at) = (LinkReader::new(mem, layout), Vec::new(), at);
        // A walk visits no more frames than that, in a chunk or not.
        for _ in 0..self.limit() {
            if !self.is_covered(layout, at) {
                if self.heap_frames.contains(at) {
                    break;
                }
                new.push(at);
            }
            match reader.frame(at)?.filter(|link| !link.back.is_null()) {
                Some(link) => at = link.back,
                None => break,
            }
        }
        self.heap_frames.add_all(&new);
        Ok(())
    }

    /// Whether a frame lies in a chunk that is copied. A frame at the very end of a chunk's copied
    /// part is copied alone until the used part of the chunk grows.
    fn is_covered(&self, layout: &Layout, at: Addr) -> bool {
        let chunks = chunks::used(&self.chunks, self.cut);
        chunks.iter().any(|(start, size)| at.within(*start, (*size as u64).saturating_sub(layout.frame.size.into())))
    }
}

#[cfg(test)]
mod tests;
