//! Code objects: the line of a frame, and a cache that survives the target's reuse of addresses.
//!
//! The cache finds a code object by its address, and an address alone proves nothing: a code object
//! may have been freed and another put in its place. So the walker reads each code object's
//! [`fingerprint_span`] in the same batch as the stack and passes the bytes in. An entry is decoded
//! again unless its type, pointers (file, name, qualified name, line table, bytecode up to 3.10)
//! and first line are the same. One case remains: a new code object at the same address whose
//! strings and line table also landed at the same addresses, starting at the same line (a notebook
//! cell run again can do that). For that case an entry's contents are read again after about
//! `RECHECK_SAMPLES` samples, so such a line or name can be wrong for that long, never for good.
//!
//! Opcodes are not kept here: from 3.11 on bytecode specialises itself in place. Free-threaded
//! builds from 3.14 on give each thread its own copy of the bytecode; an instruction pointer into a
//! copy has no line here.

use super::layout::field::Field;
use super::layout::{ByteRange, Bytecode, Layout};
use super::lines::LineIndex;
use super::objects::{field_i32, field_ptr, read_bytes, read_str, type_name, ObjectError};
use crate::ids::Addr;
use crate::process::memory::Memory;
use crate::sample::Function;
use std::collections::HashMap;
use std::sync::Arc;

/// The longest name and file name kept, in characters.
const MAX_NAME: usize = 512;
/// The longest line table decoded, in bytes; instructions beyond it have no line.
const MAX_LINES: usize = 1 << 20;
/// The largest number of cached code objects.
const MAX_ENTRIES: usize = 1 << 14;
/// The largest memory for decoded tables, in bytes.
const MAX_WEIGHT: usize = 24 << 20;
/// Once a sample has decoded so many bytes, its other code objects are left to the next sample. A
/// hostile target could give each of its frames a line table of [`MAX_LINES`]; real code objects
/// have some hundred bytes.
const SAMPLE_BYTES: usize = 2 << 20;
/// What a code object costs of these bytes, besides its contents.
const OBJECT_COST: usize = 256;
/// An entry's contents are read again after this many samples at least, and twice as many at most.
const RECHECK_SAMPLES: u64 = 1000;

/// The offsets of a frame that has not run yet: `f_lasti` is -1, in bytes or in units of two
/// (3.10), and `prev_instr` is one unit before the first instruction (3.11 and 3.12).
const NOT_STARTED: std::ops::Range<i64> = -2..0;

/// What gilprof needs of a code object.
#[derive(Debug)]
pub struct CodeInfo {
    /// Its name and place, which identify it in stacks.
    pub function: Arc<Function>,
    /// `co_firstlineno`, as the target has it.
    pub first_line: i32,
    /// The target's address of the first instruction.
    pub bytecode_start: Addr,
    lines: LineIndex,
}

impl CodeInfo {
    /// The line of the instruction `byte_offset` bytes into the bytecode; the first line for the
    /// one before it (a frame that has not run yet). `None` where the table gives none.
    pub fn line_at_offset(&self, byte_offset: i64) -> Option<u32> {
        match u32::try_from(byte_offset) {
            Ok(offset) => self.lines.line_at(offset),
            Err(_) if NOT_STARTED.contains(&byte_offset) => u32::try_from(self.first_line).ok(),
            Err(_) => None,
        }
    }

    /// The offset of an address in the bytecode, in bytes; negative before its start.
    pub fn offset_of(&self, instruction: Addr) -> i64 {
        instruction.0.wrapping_sub(self.bytecode_start.0) as i64
    }

    /// Whether a leaf frame at the instruction `byte_offset` bytes in is inside a C call, by the
    /// opcode that is there now. `None` where it cannot be read. The offset may lead out of the
    /// bytecode: into a thread's own copy of it.
    pub fn is_call_at<M: Memory + ?Sized>(&self, mem: &M, layout: &Layout, byte_offset: i64) -> Option<bool> {
        if NOT_STARTED.contains(&byte_offset) {
            return Some(false);
        }
        let mut opcode = [0];
        mem.read(self.bytecode_start.offset(byte_offset as u64), &mut opcode).ok()?;
        Some(layout.is_call(opcode[0]))
    }

    fn same_contents(&self, other: &CodeInfo) -> bool {
        self.function == other.function && self.lines == other.lines && self.bytecode_start == other.bytecode_start
    }

    fn weight(&self) -> usize {
        size_of::<CodeInfo>() + self.lines.weight() + self.function.name.len() + self.function.file.len()
    }
}

/// The bytes that distinguish a code object from another at the same address. The walker reads them
/// along with the stack.
pub fn fingerprint_span(layout: &Layout) -> ByteRange {
    let code = &layout.code;
    let pointers = [Some(layout.object.type_), Some(code.filename), Some(code.name), code.qualname, Some(code.lines)];
    let first_line = code.first_line.offset();
    let offsets = pointers.iter().flatten().map(|field| field.offset());
    let start = offsets.clone().fold(first_line, usize::min);
    let end = offsets.fold(first_line + 4, |end, offset| end.max(offset + 8));
    ByteRange { offset: start as u32, len: (end - start) as u32 }
}

/// The fields inside [`fingerprint_span`] that never change during a code object's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    type_: Addr,
    filename: Addr,
    name: Addr,
    lines: Addr,
    bytecode: Option<Addr>,
    first_line: i32,
}

impl Fingerprint {
    /// Parses the bytes of [`fingerprint_span`]; `None` if they are too few.
    fn from_span(layout: &Layout, bytes: &[u8]) -> Option<Fingerprint> {
        let start = fingerprint_span(layout).offset;
        let inside = |offset: usize| (offset as u32).checked_sub(start);
        let pointer = |field: Field<Addr>| field_ptr(bytes, Field::at(inside(field.offset())?));
        let code = &layout.code;
        Some(Fingerprint {
            type_: pointer(layout.object.type_)?,
            filename: pointer(code.filename)?,
            name: pointer(code.qualname.unwrap_or(code.name))?,
            lines: pointer(code.lines)?,
            bytecode: match code.bytecode {
                // In 3.7 - 3.10 this field is between the first line and the file name, so inside
                // the span.
                Bytecode::Object(field) => Some(pointer(field)?),
                Bytecode::Inline(_) => None,
            },
            first_line: field_i32(bytes, Field::at(inside(code.first_line.offset())?))?,
        })
    }

    fn read<M: Memory + ?Sized>(mem: &M, layout: &Layout, at: Addr) -> Result<Fingerprint, ObjectError> {
        let span = fingerprint_span(layout);
        let mut bytes = vec![0; span.len as usize];
        mem.read(at.offset(u64::from(span.offset)), &mut bytes)?;
        Fingerprint::from_span(layout, &bytes).ok_or(ObjectError::Garbage { expected: "a code object", at })
    }

    /// Reads the objects that the fingerprint points to.
    fn decode<M: Memory + ?Sized>(&self, mem: &M, layout: &Layout, at: Addr, cost: &mut usize) -> Result<CodeInfo, ObjectError> {
        *cost += OBJECT_COST;
        let table = read_bytes(mem, layout, self.lines, MAX_LINES)?;
        *cost += table.len();
        let function = Function {
            name: read_str(mem, layout, self.name, MAX_NAME)?,
            file: read_str(mem, layout, self.filename, MAX_NAME)?,
            first_line: u32::try_from(self.first_line).unwrap_or(0),
        };
        *cost += function.name.len() + function.file.len();
        let bytecode_start = match (layout.code.bytecode, self.bytecode) {
            (Bytecode::Inline(offset), _) => at.offset(u64::from(offset)),
            (Bytecode::Object(_), object) => object.unwrap_or_default().offset(u64::from(layout.object.bytes_data)),
        };
        // If the object was replaced meanwhile, its parts may belong to another.
        if Fingerprint::read(mem, layout, at)? != *self {
            return Err(ObjectError::Moved { at });
        }
        Ok(CodeInfo {
            function: Arc::new(function),
            first_line: self.first_line,
            bytecode_start,
            lines: LineIndex::new(layout.code.line_format, &table, self.first_line),
        })
    }
}

#[derive(Debug)]
struct CachedCode {
    info: Arc<CodeInfo>,
    fingerprint: Fingerprint,
    used: u64,
    recheck: u64,
}

/// Code objects by address. One cache per target.
#[derive(Debug, Default)]
pub struct CodeCache {
    entries: HashMap<Addr, CachedCode>,
    weight: usize,
    sample: u64,
    /// What the current sample has decoded, in bytes.
    cost: usize,
    /// Code objects that were left to the next sample.
    postponed: u64,
    /// The address of `PyCode_Type`, once seen. It is static, so every interpreter of a process
    /// shares it.
    code_type: Option<Addr>,
}

impl CodeCache {
    /// An empty cache.
    pub fn new() -> CodeCache {
        CodeCache::default()
    }

    /// Advances the cache's clock. To be called once per sample.
    pub fn begin_sample(&mut self) {
        self.sample += 1;
        self.cost = 0;
    }

    /// How often a code object was left to the next sample.
    pub fn postponed(&self) -> u64 {
        self.postponed
    }

    /// The code object at `at`. `fingerprint` holds the bytes of its [`fingerprint_span`] as read
    /// along with the stack; without them they are read now.
    pub fn get<M: Memory + ?Sized>(
        &mut self,
        mem: &M,
        layout: &Layout,
        at: Addr,
        fingerprint: Option<&[u8]>,
    ) -> Result<Arc<CodeInfo>, ObjectError> {
        let fingerprint = match fingerprint {
            Some(bytes) => Fingerprint::from_span(layout, bytes).ok_or(ObjectError::Garbage { expected: "a code object", at })?,
            None => Fingerprint::read(mem, layout, at)?,
        };
        let sample = self.sample;
        let cached = self.entries.get_mut(&at).filter(|entry| entry.fingerprint == fingerprint);
        if let Some(entry) = cached {
            entry.used = sample;
            if sample < entry.recheck || self.cost >= SAMPLE_BYTES {
                return Ok(entry.info.clone());
            }
        }
        if self.cost >= SAMPLE_BYTES {
            self.postponed += 1;
            return Err(ObjectError::Postponed { at });
        }
        self.expect_code(mem, layout, at, fingerprint.type_)?;
        let decoded = fingerprint.decode(mem, layout, at, &mut self.cost)?;
        Ok(self.put(at, fingerprint, decoded))
    }

    /// The number of cached code objects.
    #[cfg(any(test, feature = "internals"))]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the cache is empty.
    #[cfg(any(test, feature = "internals"))]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn expect_code<M: Memory + ?Sized>(&mut self, mem: &M, layout: &Layout, at: Addr, type_: Addr) -> Result<(), ObjectError> {
        if self.code_type == Some(type_) {
            return Ok(());
        }
        // A frame's executable need not be a code object: entry frames of 3.13+ hold None.
        if type_name(mem, layout, type_)? != "code" {
            return Err(ObjectError::Garbage { expected: "a code object", at });
        }
        self.code_type = Some(type_);
        Ok(())
    }

    fn put(&mut self, at: Addr, fingerprint: Fingerprint, decoded: CodeInfo) -> Arc<CodeInfo> {
        let old = self.entries.remove(&at);
        self.weight -= old.as_ref().map_or(0, |entry| entry.info.weight());
        // Unchanged contents keep their `Arc`, so that stacks made from it stay equal by address.
        let info = match old {
            Some(entry) if entry.info.same_contents(&decoded) => entry.info,
            _ => Arc::new(decoded),
        };
        if self.entries.len() >= MAX_ENTRIES || self.weight + info.weight() > MAX_WEIGHT {
            self.evict();
        }
        self.weight += info.weight();
        // Spread by address. Otherwise all entries decoded in the first sample would be due again
        // at once.
        let recheck = self.sample + RECHECK_SAMPLES + (at.0 >> 4) % RECHECK_SAMPLES;
        self.entries.insert(at, CachedCode { info: info.clone(), fingerprint, used: self.sample, recheck });
        info
    }

    /// Drops about the half that was used longest ago, or all entries when there are too few to
    /// compare.
    fn evict(&mut self) {
        let mut used: Vec<u64> = self.entries.values().map(|entry| entry.used).collect();
        let middle = used.len() / 2;
        if middle > 0 {
            let limit = *used.select_nth_unstable(middle).1;
            self.entries.retain(|_, entry| entry.used > limit);
        } else {
            self.entries.clear();
        }
        self.weight = self.entries.values().map(|entry| entry.info.weight()).sum();
    }
}

#[cfg(test)]
pub(super) mod tests;
