//! Code objects built by hand: decoding, and every way in which a cached one can be wrong.

use super::*;
use crate::error::ReadError;
use crate::process::replay::ReplayMemory;
use crate::python::layout::{for_version, LayoutTable, LineFormat, Minor};
use std::cell::RefCell;

const STR: Addr = Addr(0x1000);
const BYTES: Addr = Addr(0x2000);
const CODE: Addr = Addr(0x3000);
const NAME: Addr = Addr(0x5000);
const FILE: Addr = Addr(0x6000);
pub const LINES: Addr = Addr(0x7000);
const BYTECODE: Addr = Addr(0x8000);
pub const AT: Addr = Addr(0x10000);

pub fn layout(minor: u8) -> &'static Layout {
    match for_version(Minor(3, minor)) {
        Some(LayoutTable::Complete(layout)) => layout,
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

pub fn put_bytes(mem: &mut ReplayMemory, layout: &Layout, at: Addr, data: &[u8]) {
    let o = &layout.object;
    let mut bytes = object(o.bytes_data, &[(o.type_.offset(), BYTES.0), (o.bytes_size.offset(), data.len() as u64)]);
    bytes.extend_from_slice(data);
    mem.map(at, bytes);
}

pub fn put_code(mem: &mut ReplayMemory, layout: &Layout, at: Addr, first_line: i32) {
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
    let mut bytes = object(512, &words);
    bytes[code.first_line.offset()..][..4].copy_from_slice(&first_line.to_le_bytes());
    bytes.extend_from_slice(&[0; 64]);
    mem.map(at, bytes);
}

/// A code object `work` in `app.py` at [`AT`], from line 7 on: three lines of one instruction each.
pub fn world(layout: &Layout) -> ReplayMemory {
    let mut mem = ReplayMemory::new();
    let t = &layout.containers.type_;
    for (at, flag) in [(STR, 28), (BYTES, 27), (CODE, 0)] {
        mem.map(at, object(t.size, &[(t.flags.offset(), 1 << flag), (t.name.offset(), at.0 + 0x800)]));
    }
    mem.map(CODE.offset(0x800), [b"code\0".as_slice(), &[0; 256]].concat());
    put_str(&mut mem, layout, NAME, "work");
    put_str(&mut mem, layout, FILE, "app.py");
    let table: &[u8] = match layout.code.line_format {
        LineFormat::Lnotab => &[2, 1, 2, 1],
        LineFormat::Linetable310 => &[2, 0, 2, 1, 2, 1],
        LineFormat::Locations => &[0xe8, 0, 0xe8, 2, 0xe8, 2],
    };
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
fn a_code_object_is_decoded_once() {
    for minor in 7..=12 {
        let layout = layout(minor);
        let mem = world(layout);
        let mut cache = CodeCache::new();
        let info = cache.get(&mem, layout, AT, None).unwrap();
        assert_eq!(*info.function, Function { name: "work".into(), file: "app.py".into(), first_line: 7 }, "3.{minor}");
        let lines = [-1, 0, 2, 4, -3, i64::MIN, 1 << 32].map(|at| info.line_at_offset(at));
        assert_eq!(lines, [Some(7), Some(7), Some(8), Some(9), None, None, None], "3.{minor}");
        let bytes = fingerprint(&mem, layout);
        let again = cache.get(&ReplayMemory::new(), layout, AT, Some(&bytes)).unwrap();
        assert!(Arc::ptr_eq(&info, &again));
    }
}

#[test]
fn another_code_object_at_the_same_address_is_decoded() {
    let layout = layout(11);
    let mut mem = world(layout);
    let mut cache = CodeCache::new();
    cache.get(&mem, layout, AT, None).unwrap();
    put_code(&mut mem, layout, AT, 70);
    let info = cache.get(&mem, layout, AT, Some(&fingerprint(&mem, layout))).unwrap();
    assert_eq!((info.function.first_line, cache.len()), (70, 1));
}

#[test]
fn an_unchanged_fingerprint_is_rechecked() {
    let layout = layout(11);
    let mut mem = world(layout);
    let mut cache = CodeCache::new();
    let first = cache.get(&mem, layout, AT, None).unwrap();
    let advance = |cache: &mut CodeCache| (0..2 * RECHECK_SAMPLES).for_each(|_| cache.begin_sample());
    advance(&mut cache);
    let same = cache.get(&mem, layout, AT, None).unwrap();
    assert!(Arc::ptr_eq(&first, &same), "unchanged contents keep their address");
    put_str(&mut mem, layout, NAME, "play");
    assert_eq!(cache.get(&mem, layout, AT, None).unwrap().function.name, "work");
    advance(&mut cache);
    assert_eq!(cache.get(&mem, layout, AT, None).unwrap().function.name, "play");
}

#[test]
fn other_objects_are_errors() {
    let layout = layout(8);
    let mem = world(layout);
    let mut cache = CodeCache::new();
    for known in [false, true] {
        assert!(cache.get(&mem, layout, NAME, None).is_err(), "a str, code known: {known}");
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

/// Memory in which a new code object replaces the old one once its name is read.
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
fn an_object_replaced_during_the_read_is_an_error() {
    let layout = layout(11);
    let mem = Racing(RefCell::new(world(layout)), layout);
    let mut cache = CodeCache::new();
    assert_eq!(cache.get(&mem, layout, AT, None).unwrap_err(), ObjectError::Moved { at: AT });
    assert_eq!(cache.get(&mem, layout, AT, None).unwrap().first_line, 70);
}

#[test]
fn the_cache_is_bounded() {
    let layout = layout(11);
    let mut mem = world(layout);
    let mut cache = CodeCache::new();
    for i in 0..MAX_ENTRIES as u64 + 100 {
        let at = AT.offset(i * 0x1000);
        put_code(&mut mem, layout, at, 7);
        cache.begin_sample();
        cache.get(&mem, layout, at, None).unwrap();
    }
    assert!(cache.len() <= MAX_ENTRIES && cache.len() > MAX_ENTRIES / 3, "{}", cache.len());
    assert_eq!(cache.weight, cache.entries.values().map(|entry| entry.info.weight()).sum::<usize>());
}

#[test]
fn a_sample_decodes_a_bounded_number_of_bytes() {
    let layout = layout(8);
    let mut mem = world(layout);
    put_bytes(&mut mem, layout, LINES, &vec![0; MAX_LINES + 1]);
    let objects: Vec<Addr> = (0..5).map(|n| AT.offset(n * 0x1000)).collect();
    objects.iter().for_each(|&at| put_code(&mut mem, layout, at, 7));
    let mut cache = CodeCache::new();
    let known = |cache: &mut CodeCache| {
        cache.begin_sample();
        objects.iter().filter(|&&at| cache.get(&mem, layout, at, None).is_ok()).count()
    };
    assert_eq!([known(&mut cache), known(&mut cache), known(&mut cache)], [2, 4, 5]);
    assert_eq!(cache.postponed(), 3 + 1);
    // Objects that are due to be read again stay known meanwhile.
    (0..2 * RECHECK_SAMPLES).for_each(|_| cache.begin_sample());
    assert_eq!((known(&mut cache), cache.postponed()), (5, 4));
    // A table counts also where the name after it cannot be read.
    put_code(&mut mem, layout, AT, 7);
    mem.poke_u64(AT.offset(layout.code.name.offset() as u64), 0xdead_0000);
    let mut cache = CodeCache::new();
    let errors = [0; 3].map(|_| cache.get(&mem, layout, AT, None).unwrap_err());
    assert!(matches!(errors, [ObjectError::Read(_), ObjectError::Read(_), ObjectError::Postponed { .. }]), "{errors:?}");
}

#[test]
fn opcodes_are_not_cached() {
    let layout = layout(8);
    let mut mem = world(layout);
    let info = CodeCache::new().get(&mem, layout, AT, None).unwrap();
    let calls = |mem: &ReplayMemory| [-2, 0, 2, 4, i64::MIN].map(|at| info.is_call_at(mem, layout, at));
    // Before the first instruction, CALL_FUNCTION, RETURN_VALUE, and nothing.
    assert_eq!(calls(&mem), [Some(false), Some(true), Some(false), None, None]);
    put_bytes(&mut mem, layout, BYTECODE, &[0x53, 0, 0x83, 0]);
    assert_eq!(calls(&mem), [Some(false), Some(false), Some(true), None, None]);
}
