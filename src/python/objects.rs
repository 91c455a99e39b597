//! Strings, bytes, ints and type names from the target's memory.
//!
//! An object is checked against its type's flags before it is decoded, because the target runs
//! while it is read: an address that held a string when the pointer was read may hold any object by
//! now. An object of another kind is an error, never an empty value.

use super::layout::containers::Digits;
use super::layout::field::Field;
use super::layout::Layout;
use crate::ids::Addr;
use crate::process::memory::{Memory, ReadError};

/// Why an object could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// Its memory could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The object is not of the expected kind.
    #[error("not {expected} at {at}")]
    Garbage {
        /// The expected kind, with its article: `a str`.
        expected: &'static str,
        /// The address.
        at: Addr,
    },
    /// It changed while it was read.
    #[error("the object at {at} changed while it was read")]
    Moved {
        /// The address.
        at: Addr,
    },
    /// It was not read, because the sample has read as much as it may.
    #[error("the object at {at} is left to the next sample")]
    Postponed {
        /// The address.
        at: Addr,
    },
}

/// The expected kind of an object: the bit that its type has in `tp_flags`
/// (`Py_TPFLAGS_*_SUBCLASS`, the same from 3.7 to 3.15, as the stable ABI promises).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TypeFlag {
    Int = 24,
    Bytes = 27,
    Str = 28,
    Dict = 29,
}

/// Ends a string that was longer than the cap.
const ELLIPSIS: char = '…';
/// The longest string or table that is plausible; a greater length is garbage.
const MAX_LEN: i64 = 1 << 32;
/// The most digits of an int of 64 bits, and the size of one in bytes: three hold 90 bits.
const MAX_DIGITS: usize = 3;
const DIGIT: usize = 4;
/// The longest type name, in bytes.
const MAX_TYPE_NAME: usize = 128;
/// No read may cross into a page that it does not need: the next page may not be mapped.
const PAGE: u64 = 4096;

/// A `str`, up to `cap` characters of it; a longer one ends in an ellipsis. Lone surrogates become
/// U+FFFD.
pub fn read_str<M: Memory + ?Sized>(mem: &M, layout: &Layout, at: Addr, cap: usize) -> Result<String, ObjectError> {
    let garbage = ObjectError::Garbage { expected: "a str", at };
    let object = &layout.object;
    let mut head = vec![0; object.unicode_ascii_data as usize];
    mem.read(at, &mut head)?;
    expect_type(mem, layout, at, field_ptr(&head, object.type_).ok_or(garbage)?, TypeFlag::Str)?;
    let len = field_i64(&head, object.unicode_length).filter(|&n| (0..=MAX_LEN).contains(&n)).ok_or(garbage)? as usize;
    let state = field_u32(&head, object.unicode_state).ok_or(garbage)?;
    let width = match state >> object.unicode_kind_shift & 7 {
        width @ (1 | 2 | 4) => width as usize,
        _ => return Err(garbage),
    };
    let (compact, ascii) = (state >> object.unicode_compact_bit & 1 == 1, state >> object.unicode_ascii_bit & 1 == 1);
    let data = match (compact, ascii) {
        (true, true) => at.offset(u64::from(object.unicode_ascii_data)),
        (true, false) => at.offset(u64::from(object.unicode_compact_data)),
        // An instance of a subclass keeps its characters elsewhere; the pointer follows
        // PyCompactUnicodeObject.
        (false, _) => mem.read_ptr(at.offset(u64::from(object.unicode_compact_data)))?,
    };
    let mut bytes = vec![0; len.min(cap) * width];
    mem.read(data, &mut bytes)?;
    let mut text = decode(&bytes, width, ascii).ok_or(garbage)?;
    if len > cap {
        text.push(ELLIPSIS);
    }
    Ok(text)
}

/// Decodes characters of `width` bytes each. `None` for contents that no `str` has: ASCII above
/// 0x7f, code points beyond Unicode.
fn decode(bytes: &[u8], width: usize, ascii: bool) -> Option<String> {
    if ascii && (width != 1 || !bytes.is_ascii()) {
        return None;
    }
    bytes
        .chunks_exact(width)
        .map(|unit| unit.iter().rev().fold(0u32, |code, &byte| code << 8 | u32::from(byte)))
        .map(|code| match code {
            0xd800..=0xdfff => Some(char::REPLACEMENT_CHARACTER),
            _ => char::from_u32(code),
        })
        .collect()
}

/// The contents of a `bytes`, up to `cap` of them.
pub fn read_bytes<M: Memory + ?Sized>(mem: &M, layout: &Layout, at: Addr, cap: usize) -> Result<Vec<u8>, ObjectError> {
    let garbage = ObjectError::Garbage { expected: "a bytes", at };
    let mut head = vec![0; layout.object.bytes_data as usize];
    mem.read(at, &mut head)?;
    expect_type(mem, layout, at, field_ptr(&head, layout.object.type_).ok_or(garbage)?, TypeFlag::Bytes)?;
    let len = field_i64(&head, layout.object.bytes_size).filter(|&n| (0..=MAX_LEN).contains(&n)).ok_or(garbage)? as usize;
    let mut bytes = vec![0; len.min(cap)];
    mem.read(at.offset(u64::from(layout.object.bytes_data)), &mut bytes)?;
    Ok(bytes)
}

/// A non-negative `int` below 2^64.
pub fn read_u64_int<M: Memory + ?Sized>(mem: &M, layout: &Layout, at: Addr) -> Result<u64, ObjectError> {
    let garbage = ObjectError::Garbage { expected: "a non-negative int of 64 bits", at };
    let mut bytes = vec![0; layout.containers.int.data as usize];
    mem.read(at, &mut bytes)?;
    expect_type(mem, layout, at, field_ptr(&bytes, layout.object.type_).ok_or(garbage)?, TypeFlag::Int)?;
    let digits = int_digits(layout, &bytes).ok_or(garbage)?;
    bytes.resize(bytes.len() + digits * DIGIT, 0);
    mem.read(at, &mut bytes)?;
    parse_u64_int(layout, &bytes).ok_or(garbage)
}

/// The size in bytes of an int with as many digits as [`parse_u64_int`] accepts.
pub(super) fn max_int_size(layout: &Layout) -> usize {
    layout.containers.int.data as usize + MAX_DIGITS * DIGIT
}

/// The value of a non-negative `int` below 2^64, in the bytes of an object that is an `int`.
pub(super) fn parse_u64_int(layout: &Layout, object: &[u8]) -> Option<u64> {
    let digits = object.get(layout.containers.int.data as usize..)?.get(..int_digits(layout, object)? * DIGIT)?;
    let value = digits.chunks_exact(DIGIT).rev().try_fold(0u128, |value, digit| {
        let digit = u32::from_le_bytes([digit[0], digit[1], digit[2], digit[3]]);
        (digit < 1 << 30).then(|| value << 30 | u128::from(digit))
    })?;
    u64::try_from(value).ok()
}

/// The number of digits; `None` for a negative int and one of more than [`MAX_DIGITS`].
fn int_digits(layout: &Layout, object: &[u8]) -> Option<usize> {
    let digits = match layout.containers.int.digits {
        // A negative size is a huge number here.
        Digits::Signed(size) => field_i64(object, size)? as u64,
        Digits::Tag(tag) => match field_u64(object, tag)? {
            tag if tag & 3 == 1 => 0,
            tag if tag & 3 == 0 => tag >> 3,
            _ => return None,
        },
    };
    usize::try_from(digits).ok().filter(|&digits| digits <= MAX_DIGITS)
}

/// The name of an object's type as `tp_name` has it, which includes the module for types made in C.
#[cfg(any(test, feature = "internals"))]
pub fn read_type_name<M: Memory + ?Sized>(mem: &M, layout: &Layout, object: Addr) -> Result<String, ObjectError> {
    type_name(mem, layout, mem.read_ptr(object.offset(layout.object.type_.offset() as u64))?)
}

/// The name of a type.
pub(super) fn type_name<M: Memory + ?Sized>(mem: &M, layout: &Layout, type_: Addr) -> Result<String, ObjectError> {
    let start = mem.read_ptr(type_.offset(layout.containers.type_.name.offset() as u64))?;
    let mut name = Vec::new();
    while name.len() < MAX_TYPE_NAME {
        let at = start.offset(name.len() as u64);
        let step = (PAGE - at.0 % PAGE).min((MAX_TYPE_NAME - name.len()) as u64);
        let mut part = vec![0; step as usize];
        mem.read(at, &mut part)?;
        let end = part.iter().position(|&byte| byte == 0);
        name.extend_from_slice(&part[..end.unwrap_or(part.len())]);
        if end.is_some() {
            return String::from_utf8(name).map_err(|_| ObjectError::Garbage { expected: "the name of a type", at: start });
        }
    }
    Err(ObjectError::Garbage { expected: "the name of a type", at: start })
}

/// An error unless the object at `at`, whose type is at `type_`, is of this kind.
pub(super) fn expect_type<M: Memory + ?Sized>(mem: &M, layout: &Layout, at: Addr, type_: Addr, kind: TypeFlag) -> Result<(), ObjectError> {
    let expected = match kind {
        TypeFlag::Int => "an int",
        TypeFlag::Bytes => "a bytes",
        TypeFlag::Str => "a str",
        TypeFlag::Dict => "a dict",
    };
    if type_.is_null() {
        return Err(ObjectError::Garbage { expected, at });
    }
    match mem.read_u64(type_.offset(layout.containers.type_.flags.offset() as u64)) {
        Ok(flags) if flags >> (kind as u32) & 1 == 1 => Ok(()),
        Ok(_) | Err(ReadError::Unmapped { .. }) => Err(ObjectError::Garbage { expected, at }),
        Err(error) => Err(error.into()),
    }
}

/// A pointer from the bytes of a struct; `None` where the bytes are too few.
pub(super) fn field_ptr(bytes: &[u8], field: Field<Addr>) -> Option<Addr> {
    array(bytes, field.offset()).map(|b| Addr(u64::from_le_bytes(b)))
}

/// As [`field_ptr`].
pub(super) fn field_i64(bytes: &[u8], field: Field<i64>) -> Option<i64> {
    array(bytes, field.offset()).map(i64::from_le_bytes)
}

/// As [`field_ptr`].
pub(super) fn field_u64(bytes: &[u8], field: Field<u64>) -> Option<u64> {
    array(bytes, field.offset()).map(u64::from_le_bytes)
}

/// As [`field_ptr`].
pub(super) fn field_u32(bytes: &[u8], field: Field<u32>) -> Option<u32> {
    array(bytes, field.offset()).map(u32::from_le_bytes)
}

/// As [`field_ptr`].
pub(super) fn field_i32(bytes: &[u8], field: Field<i32>) -> Option<i32> {
    array(bytes, field.offset()).map(i32::from_le_bytes)
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::replay::ReplayMemory;
    use crate::python::layout::{for_version, LayoutTable, Minor};
    use crate::python::thread_names;
    use proptest::prelude::*;

    const TYPE: u64 = 0x10000;
    const AT: u64 = 0x20000;

    fn layouts() -> impl Iterator<Item = &'static Layout> {
        (7..=12).filter_map(|minor| match for_version(Minor(3, minor)) {
            Some(LayoutTable::Complete(layout)) => Some(layout),
            _ => None,
        })
    }

    /// An object of any contents whose type claims to be of every kind at once.
    fn hostile(layout: &Layout, contents: &[u8]) -> ReplayMemory {
        let mut mem = ReplayMemory::new();
        let mut type_ = vec![0; layout.containers.type_.size as usize];
        type_[layout.containers.type_.flags.offset()..][..8].fill(0xff);
        mem.map(Addr(TYPE), type_).map(Addr(AT), contents.to_vec());
        mem.poke_u64(Addr(AT + layout.object.type_.offset() as u64), TYPE);
        mem
    }

    #[test]
    fn widths() {
        assert_eq!(decode(b"abc", 1, true).as_deref(), Some("abc"));
        assert_eq!(decode(b"gr\xf6\xdfe", 1, false).as_deref(), Some("größe"));
        assert_eq!(decode(&[0xa9, 0x03, 0x00, 0xd8], 2, false).as_deref(), Some("Ω\u{fffd}"));
        assert_eq!(decode(&[0x0d, 0xf4, 1, 0], 4, false).as_deref(), Some("\u{1f40d}"));
        assert_eq!(decode(&[0, 0, 0x11, 0], 4, false), None, "beyond Unicode");
        assert_eq!(decode(b"\xff", 1, true), None, "not ASCII");
        assert_eq!(decode(&[0, 0], 2, true), None, "wide ASCII");
    }

    #[test]
    fn unreadable_is_an_error() {
        for layout in layouts() {
            let nothing = ReplayMemory::new();
            assert!(matches!(read_str(&nothing, layout, Addr(AT), 9), Err(ObjectError::Read(_))));
            assert!(matches!(read_bytes(&nothing, layout, Addr(AT), 9), Err(ObjectError::Read(_))));
            assert!(matches!(read_u64_int(&nothing, layout, Addr(AT)), Err(ObjectError::Read(_))));
            assert!(matches!(read_type_name(&nothing, layout, Addr(AT)), Err(ObjectError::Read(_))));
        }
    }

    proptest! {
        #[test]
        fn any_contents(contents in prop::collection::vec(prop_oneof![Just(0u8), 0u8..8, any::<u8>()], 0..300), cap in 0usize..50) {
            for layout in layouts() {
                let mem = hostile(layout, &contents);
                if let Ok(text) = read_str(&mem, layout, Addr(AT), cap) {
                    prop_assert!(text.chars().count() <= cap + 1);
                }
                if let Ok(bytes) = read_bytes(&mem, layout, Addr(AT), cap) {
                    prop_assert!(bytes.len() <= cap);
                }
                let _ = read_u64_int(&mem, layout, Addr(AT));
                let _ = read_type_name(&mem, layout, Addr(AT));
                prop_assert!(thread_names::read(&mem, layout, Addr(AT)).is_empty());
            }
        }
    }
}
