//! Code objects: whose line a frame is at, and a cache of them that survives the target's reuse of addresses.
//!
//! A cached code object is found by its address, and an address alone proves nothing: a code object may have been freed and another put in its
//! place. So the walker reads each code object's [`fingerprint_span`] in the same batch as the stack and hands it in; an entry whose type, pointers
//! (file, name, qualified name, line table, bytecode up to 3.10) and first line are not the same is decoded anew. What remains: a new code object at the same address
//! whose strings and line table also landed at the same addresses, starting at the same line (a cell run again in a notebook can do that). For
//! that, an entry's contents are read again after about [`RECHECK_LOOKS`] looks, so such a line or name can be wrong for that long, never for good.
//!
//! The opcode at a leaf is never kept: from 3.11 on bytecode specialises itself in place, and for older ones a read of one byte is cheaper than being
//! wrong. Free-threaded builds from 3.14 on give each thread its own copy of the bytecode; an instruction pointer into a copy has no line here.

use super::layout::field::Field;
use super::layout::{Bytecode, Layout, Span};
use super::lines::LineIndex;
use super::objects::{field_i32, field_ptr, read_bytes, read_str, type_name, ObjectError};
use crate::ids::Addr;
use crate::process::memory::Memory;
use crate::sample::Function;
use std::collections::HashMap;
use std::sync::Arc;

/// Longest name and file name kept, in characters.
const MAX_NAME: usize = 512;
/// Longest line table decoded, in bytes; instructions behind it have no line.
const MAX_LINES: usize = 1 << 20;
/// Most code objects kept.
const MAX_ENTRIES: usize = 1 << 14;
/// Most memory that the decoded tables may take, in bytes.
const MAX_WEIGHT: usize = 64 << 20;
/// After how many looks, at most twice, an entry's contents are read again.
const RECHECK_LOOKS: u64 = 1000;

/// What gilprof needs of a code object.
#[derive(Debug)]
pub struct CodeInfo {
    /// Its name and place, by which stacks are told apart.
    pub function: Arc<Function>,
    /// `co_firstlineno`, as the target has it.
    pub first_line: i32,
    /// The target's address of the first instruction.
    pub bytecode_start: Addr,
    lines: LineIndex,
}

impl CodeInfo {
    /// The line `byte_offset` bytes into the bytecode; the first line before it (`f_lasti` is -1 until a frame has run). `None` where the table gives none.
    pub fn line_at_offset(&self, byte_offset: i64) -> Option<u32> {
        match u32::try_from(byte_offset) {
            Ok(offset) => self.lines.line_at(offset),
            Err(_) if byte_offset < 0 => u32::try_from(self.first_line).ok(),
            Err(_) => None,
        }
    }

    /// The line of the instruction at this address in the target (3.11+), which may lie one code unit before the first.
    pub fn line_at_instruction(&self, instruction: Addr) -> Option<u32> {
        self.line_at_offset(self.offset_of(instruction))
    }

    /// How many bytes into the bytecode an address is; negative before it.
    pub fn offset_of(&self, instruction: Addr) -> i64 {
        instruction.0.wrapping_sub(self.bytecode_start.0) as i64
    }

    /// Where the opcode of the instruction `byte_offset` bytes in is; `None` before the first and beyond any bytecode.
    pub fn opcode_address(&self, byte_offset: i64) -> Option<Addr> {
        u32::try_from(byte_offset).ok().map(|offset| self.bytecode_start.offset(u64::from(offset)))
    }

    /// Whether the instruction `byte_offset` bytes in is, right now, one at which a leaf frame is inside a C call. `None` where it cannot be read.
    pub fn is_call_at<M: Memory + ?Sized>(&self, mem: &M, layout: &Layout, byte_offset: i64) -> Option<bool> {
        let mut opcode = [0];
        mem.read(self.opcode_address(byte_offset)?, &mut opcode).ok()?;
        Some(layout.is_call(opcode[0]))
    }

    fn same_contents(&self, other: &CodeInfo) -> bool {
        self.function == other.function && self.lines == other.lines && self.bytecode_start == other.bytecode_start
    }

    fn weight(&self) -> usize {
        size_of::<CodeInfo>() + self.lines.weight() + self.function.name.len() + self.function.file.len()
    }
}

/// Which bytes of a code object tell it from another at the same address. The walker reads them along with the stack.
pub fn fingerprint_span(layout: &Layout) -> Span {
    let code = &layout.code;
    let pointers = [Some(layout.object.type_), Some(code.filename), Some(code.name), code.qualname, Some(code.lines)];
    let first_line = code.first_line.offset();
    let offsets = pointers.iter().flatten().map(|field| field.offset());
    let start = offsets.clone().fold(first_line, usize::min);
    let end = offsets.fold(first_line + 4, |end, offset| end.max(offset + 8));
    Span { offset: start as u32, len: (end - start) as u32 }
}

/// The fields inside [`fingerprint_span`] that a code object never changes.
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
    /// From the bytes of [`fingerprint_span`]; `None` if they are too few.
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
                // Between the first line and the file name in 3.7 - 3.10, so inside the span.
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

    /// Reads what the fingerprint points to.
    fn decode<M: Memory + ?Sized>(&self, mem: &M, layout: &Layout, at: Addr) -> Result<CodeInfo, ObjectError> {
        let table = read_bytes(mem, layout, self.lines, MAX_LINES)?;
        let function = Function {
            name: read_str(mem, layout, self.name, MAX_NAME)?,
            file: read_str(mem, layout, self.filename, MAX_NAME)?,
            first_line: u32::try_from(self.first_line).unwrap_or(0),
        };
        let bytecode_start = match (layout.code.bytecode, self.bytecode) {
            (Bytecode::Inline(offset), _) => at.offset(u64::from(offset)),
            (Bytecode::Object(_), object) => object.unwrap_or_default().offset(u64::from(layout.object.bytes_data)),
        };
        // If the object was replaced meanwhile, its parts may be another's.
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
struct Entry {
    info: Arc<CodeInfo>,
    fingerprint: Fingerprint,
    used: u64,
    recheck: u64,
}

/// Code objects by address. One per target.
#[derive(Debug, Default)]
pub struct CodeCache {
    entries: HashMap<Addr, Entry>,
    weight: usize,
    look: u64,
    /// The address of `PyCode_Type`, once met: static, so every interpreter of a process shares it.
    code_type: Option<Addr>,
}

impl CodeCache {
    /// An empty cache.
    pub fn new() -> CodeCache {
        CodeCache::default()
    }

    /// To be called at each look: the cache's clock.
    pub fn begin_look(&mut self) {
        self.look += 1;
    }

    /// The code object at `at`. `fingerprint` are the bytes of its [`fingerprint_span`] as read along with the stack; without them they are read now.
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
        let look = self.look;
        let known = self.entries.get_mut(&at).filter(|entry| entry.fingerprint == fingerprint);
        if let Some(entry) = known {
            entry.used = look;
            if look < entry.recheck {
                return Ok(entry.info.clone());
            }
        }
        self.expect_code(mem, layout, at, fingerprint.type_)?;
        let fresh = fingerprint.decode(mem, layout, at)?;
        Ok(self.put(at, fingerprint, fresh))
    }

    /// How many code objects are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn expect_code<M: Memory + ?Sized>(&mut self, mem: &M, layout: &Layout, at: Addr, type_: Addr) -> Result<(), ObjectError> {
        if self.code_type == Some(type_) {
            return Ok(());
        }
        // A frame's executable need not be code: entry frames of 3.13+ hold None.
        if type_name(mem, layout, type_)? != "code" {
            return Err(ObjectError::Garbage { expected: "a code object", at });
        }
        self.code_type = Some(type_);
        Ok(())
    }

    fn put(&mut self, at: Addr, fingerprint: Fingerprint, fresh: CodeInfo) -> Arc<CodeInfo> {
        let old = self.entries.remove(&at);
        self.weight -= old.as_ref().map_or(0, |entry| entry.info.weight());
        // The same `Arc` again where nothing changed, so that stacks made from it stay equal by address.
        let info = match old {
            Some(entry) if entry.info.same_contents(&fresh) => entry.info,
            _ => Arc::new(fresh),
        };
        if self.entries.len() >= MAX_ENTRIES || self.weight + info.weight() > MAX_WEIGHT {
            self.evict();
        }
        self.weight += info.weight();
        // Spread by address, or all that was decoded at the first look would be due again at once.
        let recheck = self.look + RECHECK_LOOKS + (at.0 >> 4) % RECHECK_LOOKS;
        self.entries.insert(at, Entry { info: info.clone(), fingerprint, used: self.look, recheck });
        info
    }

    /// Drops about the half that was used longest ago; all of it where that cannot be told.
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
mod tests {
    use super::*;
    use crate::process::memory::ReadError;
    use crate::process::replay::ReplayMemory;
    use crate::python::layout::{for_version, Minor, Table};
    use std::cell::RefCell;

    const STR: Addr = Addr(0x1000);
    const BYTES: Addr = Addr(0x2000);
    const CODE: Addr = Addr(0x3000);
    const NAME: Addr = Addr(0x5000);
    const FILE: Addr = Addr(0x6000);
    const LINES: Addr = Addr(0x7000);
    const BYTECODE: Addr = Addr(0x8000);
    const AT: Addr = Addr(0x10000);

    fn layout(minor: u8) -> &'static Layout {
        match for_version(Minor(3, minor)) {
            Some(Table::Whole(layout)) => layout,
            _ => panic!("3.{minor} publishes its layout"),
        }
    }

    /// A struct of `size` bytes with words at some offsets.
    fn object(size: u32, words: &[(usize, u64)]) -> Vec<u8> {
        let mut bytes = vec![0; size as usize];
        for &(offset, word) in words {
            bytes[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn put_str(mem: &mut ReplayMemory, layout: &Layout, at: Addr, text: &str) {
        let o = &layout.object;
        let state = 1u64 << o.unicode_kind_shift | 1 << o.unicode_compact_bit | 1 << o.unicode_ascii_bit;
        let words = [(o.type_.offset(), STR.0), (o.unicode_length.offset(), text.len() as u64), (o.unicode_state.offset(), state)];
        let mut bytes = object(o.unicode_ascii_data, &words);
        bytes.extend_from_slice(text.as_bytes());
        mem.map(at, bytes);
    }

    fn put_bytes(mem: &mut ReplayMemory, layout: &Layout, at: Addr, data: &[u8]) {
        let o = &layout.object;
        let mut bytes = object(o.bytes_data, &[(o.type_.offset(), BYTES.0), (o.bytes_size.offset(), data.len() as u64)]);
        bytes.extend_from_slice(data);
        mem.map(at, bytes);
    }

    fn put_code(mem: &mut ReplayMemory, layout: &Layout, at: Addr, first_line: i32) {
        let code = &layout.code;
        let mut words = vec![
            (layout.object.type_.offset(), CODE.0),
            (code.filename.offset(), FILE.0),
            (code.qualname.unwrap_or(code.name).offset(), NAME.0),
            (code.lines.offset(), LINES.0),
        ];
        if let Bytecode::Object(field) = code.bytecode {
            words.push((field.offset(), BYTECODE.0));
        }
        let mut bytes = object(code.size, &words);
        bytes[code.first_line.offset()..][..4].copy_from_slice(&first_line.to_le_bytes());
        bytes.extend_from_slice(&[0; 64]);
        mem.map(at, bytes);
    }

    /// `work` in `app.py` at [`AT`], from line 7 on; three lines of one instruction each.
    fn world(layout: &Layout) -> ReplayMemory {
        let mut mem = ReplayMemory::new();
        let t = &layout.containers.type_;
        for (at, flag) in [(STR, 28), (BYTES, 27), (CODE, 0)] {
            mem.map(at, object(t.size, &[(t.flags.offset(), 1 << flag), (t.name.offset(), at.0 + 0x800)]));
        }
        mem.map(CODE.offset(0x800), [b"code\0".as_slice(), &[0; 256]].concat());
        put_str(&mut mem, layout, NAME, "work");
        put_str(&mut mem, layout, FILE, "app.py");
        let table: &[u8] = if layout.minor >= Minor(3, 11) { &[0xe8, 0, 0xe8, 2, 0xe8, 2] } else { &[2, 1, 2, 1] };
        put_bytes(&mut mem, layout, LINES, table);
        put_bytes(&mut mem, layout, BYTECODE, &[0x83, 0, 0x53, 0]);
        put_code(&mut mem, layout, AT, 7);
        mem
    }

    fn fingerprint(mem: &ReplayMemory, layout: &Layout) -> Vec<u8> {
        let span = fingerprint_span(layout);
        let mut bytes = vec![0; span.len as usize];
        mem.read(AT.offset(u64::from(span.offset)), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn decodes_and_then_reads_no_more() {
        for minor in 7..=12 {
            let layout = layout(minor);
            let mem = world(layout);
            let mut cache = CodeCache::new();
            let info = cache.get(&mem, layout, AT, None).unwrap();
            assert_eq!(*info.function, Function { name: "work".into(), file: "app.py".into(), first_line: 7 }, "3.{minor}");
            assert_eq!([-1, 0].map(|at| info.line_at_offset(at)), [Some(7); 2]);
            if minor != 10 {
                assert_eq!([2, 4].map(|at| info.line_at_offset(at)), [Some(8), Some(9)], "3.{minor}");
            }
            let bytes = fingerprint(&mem, layout);
            let again = cache.get(&ReplayMemory::new(), layout, AT, Some(&bytes)).unwrap();
            assert!(Arc::ptr_eq(&info, &again));
        }
    }

    #[test]
    fn another_code_object_at_the_same_address() {
        let layout = layout(11);
        let mut mem = world(layout);
        let mut cache = CodeCache::new();
        cache.get(&mem, layout, AT, None).unwrap();
        put_code(&mut mem, layout, AT, 70);
        let info = cache.get(&mem, layout, AT, Some(&fingerprint(&mem, layout))).unwrap();
        assert_eq!((info.function.first_line, cache.len()), (70, 1));
    }

    #[test]
    fn the_same_fingerprint_is_not_believed_for_ever() {
        let layout = layout(11);
        let mut mem = world(layout);
        let mut cache = CodeCache::new();
        let first = cache.get(&mem, layout, AT, None).unwrap();
        let looks = |cache: &mut CodeCache| (0..2 * RECHECK_LOOKS).for_each(|_| cache.begin_look());
        looks(&mut cache);
        let same = cache.get(&mem, layout, AT, None).unwrap();
        assert!(Arc::ptr_eq(&first, &same), "unchanged contents keep their address");
        put_str(&mut mem, layout, NAME, "play");
        assert_eq!(cache.get(&mem, layout, AT, None).unwrap().function.name, "work");
        looks(&mut cache);
        assert_eq!(cache.get(&mem, layout, AT, None).unwrap().function.name, "play");
    }

    #[test]
    fn what_is_no_code_object() {
        let layout = layout(8);
        let mem = world(layout);
        let mut cache = CodeCache::new();
        for known in [false, true] {
            assert!(matches!(cache.get(&mem, layout, NAME, None), Err(_)), "a str, code known: {known}");
            assert!(cache.get(&mem, layout, AT, Some(&[0; 8])).is_err(), "too short");
            let zeros = vec![0; fingerprint_span(layout).len as usize];
            assert!(cache.get(&mem, layout, AT, Some(&zeros)).is_err(), "zeros");
            assert_eq!(
                cache.get(&mem, layout, Addr(0), None).unwrap_err(),
                ObjectError::Read(ReadError::Unmapped {
                    at: Addr(u64::from(fingerprint_span(layout).offset)),
                    len: fingerprint_span(layout).len as usize
                })
            );
            cache.get(&mem, layout, AT, None).unwrap();
        }
    }

    /// Memory in which a new code object takes the old one's place once its name is being read.
    struct Racing(RefCell<ReplayMemory>, &'static Layout);

    impl Memory for Racing {
        fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
            if at == NAME {
                put_code(&mut self.0.borrow_mut(), self.1, AT, 70);
            }
            self.0.borrow().read(at, into)
        }
    }

    #[test]
    fn replaced_while_it_is_read() {
        let layout = layout(11);
        let mem = Racing(RefCell::new(world(layout)), layout);
        let mut cache = CodeCache::new();
        assert_eq!(cache.get(&mem, layout, AT, None).unwrap_err(), ObjectError::Moved { at: AT });
        assert_eq!(cache.get(&mem, layout, AT, None).unwrap().first_line, 70);
    }

    #[test]
    fn bounded() {
        let layout = layout(11);
        let mut mem = world(layout);
        let mut cache = CodeCache::new();
        for i in 0..MAX_ENTRIES as u64 + 100 {
            let at = AT.offset(i * 0x1000);
            put_code(&mut mem, layout, at, 7);
            cache.begin_look();
            cache.get(&mem, layout, at, None).unwrap();
        }
        assert!(cache.len() <= MAX_ENTRIES && cache.len() > MAX_ENTRIES / 3, "{}", cache.len());
        assert_eq!(cache.weight, cache.entries.values().map(|entry| entry.info.weight()).sum::<usize>());
    }

    #[test]
    fn calls_are_read_live() {
        let layout = layout(8);
        let mut mem = world(layout);
        let info = CodeCache::new().get(&mem, layout, AT, None).unwrap();
        let calls = |mem: &ReplayMemory| [-2, 0, 2, 4].map(|at| info.is_call_at(mem, layout, at));
        // CALL_FUNCTION, RETURN_VALUE, and nothing.
        assert_eq!(calls(&mem), [None, Some(true), Some(false), None]);
        put_bytes(&mut mem, layout, BYTECODE, &[0x53, 0, 0x83, 0]);
        assert_eq!(calls(&mem), [None, Some(false), Some(true), None]);
    }
}
