//! A thread's Python stack with names and lines: frames from [`FrameReader`], symbols from
//! [`Symbols`].

use super::code::{fingerprint_span, CodeCache, CodeInfo};
use super::frames::{FrameReader, RawFrame, RawStack};
use super::layout::{Layout, Position};
use crate::ids::Addr;
use crate::process::memory::{split_parts, Memory, Part, ReadError};
use crate::sample::{Frame, Function, Stack, StackStatus};
use std::collections::HashMap;
use std::sync::Arc;

/// The code objects of frames are reused while the frames are unchanged, and fetched again after
/// this many reads. A code object on a live frame cannot be freed, but between two reads a frame
/// may have exited and another may have taken its place.
const RECHECK: u32 = 64;
/// The largest number of cached stacks, and of the frames of all of them together. The cache is
/// cleared when it is full.
const MAX_STACKS: usize = 1 << 14;
const MAX_FRAMES: usize = 1 << 18;

/// The name of the frame that stands for those in the middle of a deep stack.
const GAP: &str = "[frames left out]";

/// What the threads of a target share: code objects, and the stacks made of them.
#[derive(Debug)]
pub struct Symbols {
    /// The code objects.
    pub codes: CodeCache,
    stacks: HashMap<u64, Arc<Stack>>,
    frames: usize,
    /// Stands for a frame whose code object could not be read: the frame stays in the stack, so
    /// that its neighbours keep their places.
    unreadable: Arc<Function>,
    /// Stands for the frames in the middle of a deep stack.
    gap: Arc<Function>,
    /// The most frames that the next stack may have; `None` where only the frames' own bound
    /// holds.
    pub depth_limit: Option<usize>,
    /// Memory for the copies of one deep stack.
    spare: Vec<u8>,
}

impl Default for Symbols {
    fn default() -> Symbols {
        let remark = |name: &str| Arc::new(Function { name: name.into(), file: String::new(), first_line: 0 });
        Symbols {
            codes: CodeCache::new(),
            stacks: HashMap::new(),
            frames: 0,
            unreadable: remark(Function::UNREADABLE),
            gap: remark(GAP),
            depth_limit: None,
            spare: Vec::new(),
        }
    }
}

impl Symbols {
    /// The stack of these frames, root first, with a frame for the gap after `gap` of them: the
    /// same `Arc` as long as it is cached.
    fn stack(&mut self, resolved: &[ResolvedFrame], status: StackStatus, gap: Option<usize>) -> Arc<Stack> {
        // FNV-1a over words. Two stacks with the same hash replace each other in the cache, which
        // costs only time.
        let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
        let hash = resolved.iter().fold(mix(status as u64, gap.map_or(0, |n| n as u64 + 1)), |hash, k| {
            mix(mix(hash, Arc::as_ptr(self.function(k)) as u64), k.line.into())
        });
        if let Some(stack) = self.stacks.get(&hash).filter(|stack| self.matches(stack, resolved, status, gap)) {
            return stack.clone();
        }
        let mut frames = Vec::with_capacity(resolved.len() + usize::from(gap.is_some()));
        frames.extend(resolved.iter().map(|k| Frame { function: self.function(k).clone(), line: k.line }));
        if let Some(gap) = gap {
            frames.insert(gap, Frame { function: self.gap.clone(), line: 0 });
        }
        let stack = Arc::new(Stack { frames, status });
        if self.stacks.len() >= MAX_STACKS || self.frames + resolved.len() > MAX_FRAMES {
            self.stacks.clear();
            self.frames = 0;
        }
        self.frames += resolved.len();
        self.stacks.insert(hash, stack.clone());
        stack
    }

    fn matches(&self, stack: &Stack, resolved: &[ResolvedFrame], status: StackStatus, gap: Option<usize>) -> bool {
        let same = |(frame, resolved): (&Frame, &ResolvedFrame)| {
            frame.line == resolved.line && Arc::ptr_eq(&frame.function, self.function(resolved))
        };
        let (below, above) = stack.frames.split_at_checked(gap.unwrap_or(0)).unwrap_or_default();
        let above = match (gap, above.split_first()) {
            (None, _) => above,
            (Some(_), Some((first, above))) if Arc::ptr_eq(&first.function, &self.gap) => above,
            (Some(_), _) => return false,
        };
        stack.status == status && below.len() + above.len() == resolved.len() && below.iter().chain(above).zip(resolved).all(same)
    }

    fn function<'a>(&'a self, resolved: &'a ResolvedFrame) -> &'a Arc<Function> {
        resolved.info.as_ref().map_or(&self.unreadable, |info| &info.function)
    }
}

/// The stack of one thread, as last read.
#[derive(Debug)]
pub struct ThreadStack {
    reader: FrameReader,
    raw: RawStack,
    /// Root first.
    resolved: Vec<ResolvedFrame>,
    /// Whether the instruction at this position of this code object is a call. An instruction that
    /// specialises itself stays in its family. Cleared after [`RECHECK`] reads, each of which adds
    /// one at most.
    calls: HashMap<(Addr, i64), bool>,
    reads: u32,
    stack: Arc<Stack>,
    in_c_call: bool,
    /// Buffer for a batch of code objects' fingerprints.
    bytes: Vec<u8>,
    parts: Vec<Part>,
}

/// A frame with its code object and line.
#[derive(Debug)]
struct ResolvedFrame {
    frame: RawFrame,
    info: Option<Arc<CodeInfo>>,
    line: u32,
}

impl ThreadStack {
    /// No read yet: the empty stack.
    pub fn new(empty: &Arc<Stack>) -> ThreadStack {
        ThreadStack {
            reader: FrameReader::default(),
            raw: RawStack::default(),
            resolved: Vec::new(),
            calls: HashMap::new(),
            reads: 0,
            stack: empty.clone(),
            in_c_call: false,
            bytes: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// The stack as last read.
    pub fn stack(&self) -> &Arc<Stack> {
        &self.stack
    }

    /// Whether the leaf was at a call of a C function when the stack was last read.
    pub fn in_c_call(&self) -> bool {
        self.in_c_call
    }

    /// Whether the stack was deep when it was last read, so that reading it takes long.
    pub fn is_deep(&self) -> bool {
        self.reader.is_deep()
    }

    /// Whether frames in the middle of the stack were left out.
    pub fn has_gap(&self) -> bool {
        self.raw.below_gap.is_some()
    }

    /// 3.15: whether the thread had requested the GIL and not got it, when its stack was last read.
    pub fn gil_requested(&self) -> Option<bool> {
        self.reader.gil_requested()
    }

    /// 3.13+: whether the thread had a pending drop request, when its stack was last read.
    pub fn drop_request(&self) -> Option<bool> {
        self.reader.drop_request()
    }

    /// See [`FrameReader::prefetch_plan`].
    pub fn prefetch_plan(&mut self, layout: &Layout, tstate: Addr) -> &[Part] {
        self.reader.prefetch_plan(layout, tstate)
    }

    /// See [`FrameReader::accept_prefetch`].
    pub fn accept_prefetch(&mut self, parts: &[Part], bytes: &[u8]) {
        self.reader.accept_prefetch(parts, bytes);
    }

    /// Reads the stack. `Err` only when the process as a whole cannot be read. `asleep`: the thread
    /// sleeps in the kernel.
    pub fn read(&mut self, mem: &dyn Memory, layout: &Layout, symbols: &mut Symbols, tstate: Addr, asleep: bool) -> Result<(), ReadError> {
        self.reader.limit_depth(symbols.depth_limit);
        let raw = self.reader.read_with(mem, layout, tstate, asleep, &mut symbols.spare)?;
        let changed = *raw != self.raw;
        if changed {
            self.raw.clone_from(raw);
        }
        self.name(mem, layout, symbols, changed)
    }

    /// Takes frames that were read otherwise, in the thread's own context.
    pub fn accept(&mut self, mem: &dyn Memory, layout: &Layout, symbols: &mut Symbols, raw: &RawStack) -> Result<(), ReadError> {
        let changed = *raw != self.raw;
        if changed {
            self.raw.clone_from(raw);
        }
        self.name(mem, layout, symbols, changed)
    }

    /// Names the frames, if they have `changed` or are to be checked again.
    fn name(&mut self, mem: &dyn Memory, layout: &Layout, symbols: &mut Symbols, changed: bool) -> Result<(), ReadError> {
        let first = self.reads == 0;
        self.reads = (self.reads + 1) % RECHECK;
        if !changed && !first {
            return Ok(());
        }
        if first {
            self.resolved.clear();
            self.calls.clear();
        }
        let postponed = symbols.codes.postponed();
        let outcome = self.resolve(mem, layout, &mut symbols.codes);
        self.in_c_call = self.raw.status != StackStatus::Torn && self.leaf_is_call(mem, layout);
        if outcome.is_err() || symbols.codes.postponed() != postponed {
            // `raw` and `resolved` disagree now, or code objects are missing, so the next read must
            // resolve every frame.
            self.reads = 0;
        }
        outcome?;
        self.stack = symbols.stack(&self.resolved, self.raw.status, self.raw.below_gap);
        Ok(())
    }

    /// Updates `resolved` to the frames: unchanged frames keep their code objects, and the others'
    /// are read in one batch.
    fn resolve(&mut self, mem: &dyn Memory, layout: &Layout, codes: &mut CodeCache) -> Result<(), ReadError> {
        let root_first = || self.raw.frames.iter().rev();
        let unchanged =
            |(frame, resolved): &(&RawFrame, &ResolvedFrame)| frame.at == resolved.frame.at && frame.code == resolved.frame.code;
        let same = root_first().zip(&self.resolved).take_while(unchanged).count();
        self.resolved.truncate(same);
        for (resolved, frame) in
            self.resolved.iter_mut().zip(root_first()).filter(|(resolved, frame)| resolved.frame.position != frame.position)
        {
            *resolved = ResolvedFrame::new(layout, *frame, resolved.info.take());
        }
        if same == self.raw.frames.len() {
            return Ok(());
        }
        let span = fingerprint_span(layout);
        let len = span.len as usize;
        self.bytes.resize((self.raw.frames.len() - same) * len, 0);
        self.parts.clear();
        self.parts.extend(root_first().skip(same).map(|frame| Part::new(frame.code.offset(u64::from(span.offset)), len)));
        mem.read_batch(&mut self.parts, &mut self.bytes)?;
        for (frame, (part, bytes)) in root_first().skip(same).zip(split_parts(&self.parts, &self.bytes)) {
            let info = if part.ok { codes.get(mem, layout, frame.code, Some(bytes)).ok() } else { None };
            self.resolved.push(ResolvedFrame::new(layout, *frame, info));
        }
        Ok(())
    }

    fn leaf_is_call(&mut self, mem: &dyn Memory, layout: &Layout) -> bool {
        let Some(ResolvedFrame { frame, info: Some(info), .. }) = self.resolved.last() else { return false };
        let key = (frame.code, frame.position);
        if let Some(&cached) = self.calls.get(&key) {
            return cached;
        }
        let Some(answer) = info.is_call_at(mem, layout, offset(layout, frame, info)) else { return false };
        self.calls.insert(key, answer);
        answer
    }
}

impl ResolvedFrame {
    fn new(layout: &Layout, frame: RawFrame, info: Option<Arc<CodeInfo>>) -> ResolvedFrame {
        let line = info.as_ref().and_then(|info| info.line_at_offset(offset(layout, &frame, info))).unwrap_or(0);
        ResolvedFrame { frame, info, line }
    }
}

/// The offset of a frame in its bytecode, in bytes.
fn offset(layout: &Layout, frame: &RawFrame, info: &CodeInfo) -> i64 {
    match layout.frame.position {
        Position::LastByte(_) => frame.position,
        Position::LastUnit(_) => frame.position.saturating_mul(2),
        Position::Pointer(_) => info.offset_of(Addr(frame.position as u64)),
    }
}

#[cfg(test)]
mod tests;
