//! A thread's Python stack with names and lines: frames from [`FrameReader`], symbols from [`CodeCache`].

use super::code::{fingerprint_span, CodeCache, CodeInfo};
use super::frames::{FrameReader, RawFrame, RawStack};
use super::layout::{Layout, Position};
use crate::ids::Addr;
use crate::process::memory::{Memory, Part, ReadError};
use crate::sample::{Frame, Function, Stack, Trust};
use std::collections::HashMap;
use std::sync::Arc;

/// What was learnt of a thread's code objects is used again while its frames stand where they stood; after this many reads they are asked
/// for all the same. A code object on a live frame cannot be freed, but between two reads a frame may have gone and another come in its place.
const RECHECK: u32 = 64;
/// Answers kept to whether an instruction is a call.
const MAX_CALLS: usize = 4096;

/// The stack of one thread, as last read.
#[derive(Debug)]
pub struct ThreadStack {
    reader: FrameReader,
    raw: Option<RawStack>,
    /// Root first.
    known: Vec<Known>,
    /// Whether the instruction at this position of this code object is a call: an instruction that specialises itself stays in its family.
    calls: HashMap<(Addr, i64), bool>,
    reads: u32,
    stack: Arc<Stack>,
    in_c_call: bool,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Known {
    at: Addr,
    code: Addr,
    info: Option<Arc<CodeInfo>>,
}

impl ThreadStack {
    /// Nothing read yet: the empty stack.
    pub fn new(empty: &Arc<Stack>) -> ThreadStack {
        ThreadStack {
            reader: FrameReader::default(),
            raw: None,
            known: Vec::new(),
            calls: HashMap::new(),
            reads: 0,
            stack: empty.clone(),
            in_c_call: false,
            bytes: Vec::new(),
        }
    }

    /// The stack as last read.
    pub fn stack(&self) -> &Arc<Stack> {
        &self.stack
    }

    /// Whether the leaf stood at a call of a C function when it was last read.
    pub fn in_c_call(&self) -> bool {
        self.in_c_call
    }

    /// 3.15: whether the thread had asked for the GIL and not got it, when its stack was last read.
    pub fn requested(&self) -> Option<bool> {
        self.reader.requested()
    }

    /// 3.13+: whether the thread had been told to let go of the GIL when its stack was last read.
    pub fn drop_request(&self) -> Option<bool> {
        self.reader.drop_request()
    }

    /// Reads the stack anew. `Err` only when the process as a whole cannot be read. `still`: the thread sleeps in the kernel.
    pub fn read(&mut self, mem: &dyn Memory, layout: &Layout, code: &mut CodeCache, tstate: Addr, still: bool) -> Result<(), ReadError> {
        let raw = self.reader.read(mem, layout, tstate, still)?;
        self.reads += 1;
        if self.reads >= RECHECK || self.calls.len() > MAX_CALLS {
            self.reads = 0;
            self.known.clear();
            self.calls.clear();
            self.raw = None;
        }
        if self.raw.as_ref() == Some(&raw) {
            return Ok(());
        }
        self.learn(mem, layout, code, &raw)?;
        self.in_c_call = raw.trust == Trust::Whole && self.leaf_is_call(mem, layout, &raw);
        let frames = raw.frames.iter().rev().zip(&self.known).map(|(frame, known)| symbol(layout, frame, known.info.as_ref())).collect();
        let stack = Stack { frames, trust: raw.trust };
        if *self.stack != stack {
            self.stack = Arc::new(stack);
        }
        self.raw = Some(raw);
        Ok(())
    }

    /// Brings `known` in step with the frames: those that stand as before keep their code, the others' is read, in one batch.
    fn learn(&mut self, mem: &dyn Memory, layout: &Layout, code: &mut CodeCache, raw: &RawStack) -> Result<(), ReadError> {
        let root_first = || raw.frames.iter().rev();
        let same = root_first().zip(&self.known).take_while(|(frame, known)| frame.at == known.at && frame.code == known.code).count();
        self.known.truncate(same);
        if same == raw.frames.len() {
            return Ok(());
        }
        let span = fingerprint_span(layout);
        let len = span.len as usize;
        self.bytes.clear();
        self.bytes.resize((raw.frames.len() - same) * len, 0);
        let place = |frame: &RawFrame| frame.code.offset(u64::from(span.offset));
        let mut parts: Vec<Part<'_>> =
            root_first().skip(same).zip(self.bytes.chunks_mut(len)).map(|(frame, bytes)| Part::new(place(frame), bytes)).collect();
        mem.read_batch(&mut parts)?;
        let ok: Vec<bool> = parts.iter().map(|p| p.ok).collect();
        for ((frame, bytes), ok) in root_first().skip(same).zip(self.bytes.chunks(len)).zip(ok) {
            let info = if ok { code.get(mem, layout, frame.code, Some(bytes)).ok() } else { None };
            self.known.push(Known { at: frame.at, code: frame.code, info });
        }
        Ok(())
    }

    fn leaf_is_call(&mut self, mem: &dyn Memory, layout: &Layout, raw: &RawStack) -> bool {
        let (Some(frame), Some(known)) = (raw.frames.first(), self.known.last()) else { return false };
        let Some(info) = &known.info else { return false };
        let key = (frame.code, frame.position);
        if let Some(&known) = self.calls.get(&key) {
            return known;
        }
        let answer = info.is_call_at(mem, layout, offset(layout, frame, info)).unwrap_or(false);
        self.calls.insert(key, answer);
        answer
    }
}

fn symbol(layout: &Layout, frame: &RawFrame, info: Option<&Arc<CodeInfo>>) -> Frame {
    match info {
        Some(info) => Frame { line: info.line_at_offset(offset(layout, frame, info)).unwrap_or(0), function: info.function.clone() },
        None => unreadable(),
    }
}

/// How many bytes into the bytecode a frame is.
fn offset(layout: &Layout, frame: &RawFrame, info: &CodeInfo) -> i64 {
    match layout.frame.position {
        Position::LastByte(_) => frame.position,
        Position::LastUnit(_) => frame.position.saturating_mul(2),
        Position::Pointer(_) => info.offset_of(Addr(frame.position as u64)),
    }
}

/// A frame whose code object could not be read: it stays in the stack, so that the frames around it keep their places.
fn unreadable() -> Frame {
    Frame { function: Arc::new(Function { name: "[unreadable]".into(), file: String::new(), first_line: 0 }), line: 0 }
}
