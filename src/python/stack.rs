//! A thread's Python stack with names and lines: frames from [`FrameReader`], symbols from [`CodeCache`].

use super::code::{fingerprint_span, CodeCache, CodeInfo};
use super::frames::{FrameReader, RawFrame, RawStack};
use super::layout::{Bytecode, Layout, Position};
use crate::ids::Addr;
use crate::process::memory::{Memory, Part, ReadError};
use crate::sample::{Frame, Function, Stack, Trust};
use std::sync::Arc;

/// An unchanged stack is given again without asking for its code objects; after this many times they are asked for all the same.
const RECHECK: u32 = 64;

/// The stack of one thread, as last read.
#[derive(Debug)]
pub struct ThreadStack {
    reader: FrameReader,
    raw: Option<RawStack>,
    repeated: u32,
    stack: Arc<Stack>,
    in_c_call: bool,
    bytes: Vec<u8>,
}

impl ThreadStack {
    /// Nothing read yet: the empty stack.
    pub fn new(empty: &Arc<Stack>) -> ThreadStack {
        ThreadStack { reader: FrameReader::default(), raw: None, repeated: 0, stack: empty.clone(), in_c_call: false, bytes: Vec::new() }
    }

    /// The stack as last read.
    pub fn stack(&self) -> &Arc<Stack> {
        &self.stack
    }

    /// Whether the leaf stood at a call of a C function when it was last read.
    pub fn in_c_call(&self) -> bool {
        self.in_c_call
    }

    /// Reads the stack anew. `Err` only when the process as a whole cannot be read.
    pub fn read(&mut self, mem: &dyn Memory, layout: &Layout, code: &mut CodeCache, tstate: Addr) -> Result<(), ReadError> {
        let raw = self.reader.read(mem, layout, tstate)?;
        if self.repeated < RECHECK && self.raw.as_ref() == Some(&raw) {
            self.repeated += 1;
            return Ok(());
        }
        self.repeated = 0;
        let leaf_opcode = self.read_fingerprints(mem, layout, &raw)?;
        let stack = self.symbolize(mem, layout, code, &raw, leaf_opcode);
        if *self.stack != stack {
            self.stack = Arc::new(stack);
        }
        self.raw = Some(raw);
        Ok(())
    }

    /// Fills `bytes` with each frame's code fingerprint, in order, the unreadable ones zeroed (a null type is no code object). Gives the
    /// opcode at the leaf where bytecode must be read live.
    fn read_fingerprints(&mut self, mem: &dyn Memory, layout: &Layout, raw: &RawStack) -> Result<Option<u8>, ReadError> {
        let span = fingerprint_span(layout);
        let len = span.len as usize;
        self.bytes.clear();
        self.bytes.resize(raw.frames.len() * len, 0);
        let mut opcode = [0; 2];
        let live = matches!(layout.code.bytecode, Bytecode::Inline(_)) && raw.trust == Trust::Whole;
        let leaf = raw.frames.first().filter(|_| live).map(|f| Addr(f.position as u64));
        let mut parts: Vec<Part<'_>> = raw
            .frames
            .iter()
            .zip(self.bytes.chunks_mut(len))
            .map(|(frame, bytes)| Part::new(frame.code.offset(u64::from(span.offset)), bytes))
            .collect();
        parts.extend(leaf.map(|at| Part::new(at, &mut opcode)));
        mem.read_batch(&mut parts)?;
        let read_leaf = leaf.is_some() && parts.last().is_some_and(|p| p.ok);
        for part in parts.iter_mut().filter(|p| !p.ok) {
            part.into.fill(0);
        }
        Ok(read_leaf.then_some(opcode[0]))
    }

    fn symbolize(&mut self, mem: &dyn Memory, layout: &Layout, code: &mut CodeCache, raw: &RawStack, opcode: Option<u8>) -> Stack {
        let len = fingerprint_span(layout).len as usize;
        let mut frames = Vec::with_capacity(raw.frames.len());
        self.in_c_call = false;
        for (i, (frame, bytes)) in raw.frames.iter().zip(self.bytes.chunks(len)).enumerate().rev() {
            let info = code.get(mem, layout, frame.code, Some(bytes)).ok();
            if i == 0 && raw.trust == Trust::Whole {
                let fixed = || info.as_ref()?.is_call_at(mem, layout, offset(layout, frame, info.as_ref()?));
                self.in_c_call = match layout.code.bytecode {
                    Bytecode::Inline(_) => opcode.is_some_and(|op| layout.is_call(op)),
                    Bytecode::Object(_) => fixed().unwrap_or(false),
                };
            }
            frames.push(match info {
                Some(info) => {
                    Frame { line: info.line_at_offset(offset(layout, frame, &info)).unwrap_or(0), function: info.function.clone() }
                }
                None => unreadable(),
            });
        }
        Stack { frames, trust: raw.trust }
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
