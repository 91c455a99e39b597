//! The size of the header of Python objects up to 3.12, where nothing publishes it.
//!
//! A build with `Py_TRACE_REFS` (`configure --with-trace-refs`; up to 3.7 every debug build) links
//! all objects in a list: two pointers come before the reference count, and every member of every
//! object is 16 bytes further. From 3.13 on such a build has the usual header.

use super::containers::Digits;
use super::field::Field;
use super::{Bytecode, Layout, Position};
use crate::ids::Addr;
use crate::process::memory::{Memory, ReadError};

/// The two pointers, in bytes.
const TRACE_REFS: u32 = 16;

impl Layout {
    /// The layout for the object header that the target has. `type_type` is the address of
    /// `PyType_Type`, an object that is its own type: whatever the header's size is, following
    /// `ob_type` from there ends at once. The tables' layout where that cannot be read.
    pub fn with_object_header(self, mem: &dyn Memory, type_type: Addr) -> Layout {
        self.with_header_that(|offset| is_own_type(mem, type_type, offset))
    }

    /// As [`Layout::with_object_header`], from an object that is no type: the type of its type is
    /// `PyType_Type`.
    pub fn with_object_header_of(self, mem: &dyn Memory, object: Addr) -> Layout {
        self.with_header_that(|offset| is_own_type(mem, mem.read_ptr(object.offset(offset))?, offset))
    }

    /// `fits`: whether objects have their type at an offset.
    fn with_header_that(self, fits: impl Fn(u64) -> Result<bool, ReadError>) -> Layout {
        let usual = self.object.type_.offset() as u64;
        let traced = usual + u64::from(TRACE_REFS);
        if !fits(usual).unwrap_or(false) && fits(traced).unwrap_or(false) {
            self.with_longer_header(TRACE_REFS)
        } else {
            self
        }
    }

    fn with_longer_header(mut self, more: u32) -> Layout {
        // Up to 3.10 frames are objects. Later ones, which have an owner, are not.
        if self.frame.owner.is_none() {
            let frame = &mut self.frame;
            (frame.back, frame.code) = (frame.back.moved(more), frame.code.moved(more));
            frame.position = match frame.position {
                Position::LastByte(field) => Position::LastByte(field.moved(more)),
                Position::LastUnit(field) => Position::LastUnit(field.moved(more)),
                Position::Pointer(field) => Position::Pointer(field.moved(more)),
            };
            frame.size += more;
        }
        let code = &mut self.code;
        (code.filename, code.name, code.lines) = (code.filename.moved(more), code.name.moved(more), code.lines.moved(more));
        (code.qualname, code.first_line) = (code.qualname.map(|field| field.moved(more)), code.first_line.moved(more));
        code.bytecode = match code.bytecode {
            Bytecode::Object(field) => Bytecode::Object(field.moved(more)),
            Bytecode::Inline(offset) => Bytecode::Inline(offset + more),
        };
        let object = &mut self.object;
        (object.type_, object.bytes_size, object.bytes_data) =
            (object.type_.moved(more), object.bytes_size.moved(more), object.bytes_data + more);
        (object.unicode_length, object.unicode_state) = (object.unicode_length.moved(more), object.unicode_state.moved(more));
        object.unicode_ascii_data += more;
        object.unicode_compact_data += more;
        let dict = &mut self.containers.dict;
        (dict.keys, dict.values) = (dict.keys.moved(more), dict.values.moved(more));
        let type_ = &mut self.containers.type_;
        (type_.name, type_.basicsize, type_.flags) = (type_.name.moved(more), type_.basicsize.moved(more), type_.flags.moved(more));
        (type_.dictoffset, type_.cached_keys) = (type_.dictoffset.moved(more), type_.cached_keys.moved(more));
        type_.size += more;
        let int = &mut self.containers.int;
        int.digits = match int.digits {
            Digits::Signed(field) => Digits::Signed(field.moved(more)),
            Digits::Tag(field) => Digits::Tag(field.moved(more)),
        };
        int.data += more;
        self.containers.module_dict = self.containers.module_dict.moved(more);
        self
    }
}

/// Whether `type_type` is its own type, if objects have their type at this offset. A program that
/// links with libpython may have a copy of `PyType_Type`, which is then the type of both.
fn is_own_type(mem: &dyn Memory, type_type: Addr, offset: u64) -> Result<bool, ReadError> {
    let type_ = mem.read_ptr(type_type.offset(offset))?;
    Ok(!type_.is_null() && mem.read_ptr(type_.offset(offset))? == type_)
}

impl<T> Field<T> {
    /// The field, this many bytes further.
    fn moved(self, by: u32) -> Field<T> {
        Field::at(self.offset() as u32 + by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::replay::ReplayMemory;
    use crate::python::layout::{for_version, LayoutTable, Minor};
    use crate::python::objects::{read_bytes, read_str, read_type_name, read_u64_int};

    const TYPE: Addr = Addr(0x10_000);
    const STR: Addr = Addr(0x20_000);
    const BYTES: Addr = Addr(0x21_000);
    const INT: Addr = Addr(0x22_000);
    const KIND: Addr = Addr(0x23_000);

    fn layouts() -> impl Iterator<Item = Layout> {
        (7..=12).filter_map(|minor| match for_version(Minor(3, minor)) {
            Some(LayoutTable::Complete(layout)) => Some(layout.clone()),
            _ => None,
        })
    }

    /// `PyType_Type` and objects of a type that claims to be every kind, `header` bytes longer than
    /// usual, in memory made by hand with the plain offsets of the version.
    fn objects(plain: &Layout, header: u64) -> ReplayMemory {
        let mut mem = ReplayMemory::new();
        for at in [TYPE, STR, BYTES, INT, KIND] {
            mem.map(at, vec![0; 0x1000]);
        }
        let at = |object: Addr, field: usize| object.offset(header + field as u64);
        let (object, types) = (&plain.object, &plain.containers.type_);
        mem.poke_u64(at(TYPE, object.type_.offset()), TYPE.0);
        mem.poke_u64(at(KIND, object.type_.offset()), TYPE.0);
        mem.poke_u64(at(KIND, types.flags.offset()), u64::MAX);
        mem.poke_u64(at(KIND, types.name.offset()), KIND.0 + 0x800);
        mem.poke(KIND.offset(0x800), b"anything\0");
        for (object, next, previous) in [(STR, BYTES, INT), (BYTES, INT, STR), (INT, STR, BYTES)] {
            // The list of all objects, which only a longer header has.
            if header > 0 {
                mem.poke_u64(object, next.0);
                mem.poke_u64(object.offset(8), previous.0);
            }
            mem.poke_u64(at(object, plain.object.type_.offset()), KIND.0);
        }
        mem.poke_u64(at(STR, object.unicode_length.offset()), 4);
        let state = 1 << object.unicode_kind_shift | 1 << object.unicode_compact_bit | 1 << object.unicode_ascii_bit;
        mem.poke_u64(at(STR, object.unicode_state.offset()), state);
        mem.poke(at(STR, object.unicode_ascii_data as usize), b"burn");
        mem.poke_u64(at(BYTES, object.bytes_size.offset()), 3);
        mem.poke(at(BYTES, object.bytes_data as usize), b"\x01\x02\x03");
        let (digits, one) = match plain.containers.int.digits {
            Digits::Signed(field) => (field.offset(), 1),
            Digits::Tag(field) => (field.offset(), 1 << 3),
        };
        mem.poke_u64(at(INT, digits), one);
        mem.poke(at(INT, plain.containers.int.data as usize), &42u32.to_le_bytes());
        mem
    }

    fn read(mem: &ReplayMemory, layout: &Layout) -> Option<(String, Vec<u8>, u64, String)> {
        let text = read_str(mem, layout, STR, 100).ok()?;
        let bytes = read_bytes(mem, layout, BYTES, 100).ok()?;
        Some((text, bytes, read_u64_int(mem, layout, INT).ok()?, read_type_name(mem, layout, STR).ok()?))
    }

    #[test]
    fn objects_are_read_behind_the_header_that_the_target_has() {
        for plain in layouts() {
            for header in [0, u64::from(TRACE_REFS)] {
                let mem = objects(&plain, header);
                let found = plain.clone().with_object_header(&mem, TYPE);
                assert_eq!(found, plain.clone().with_object_header_of(&mem, STR), "{:?}", plain.minor);
                assert_eq!(found == plain, header == 0, "{:?}", plain.minor);
                assert_eq!(read(&mem, &found), Some(("burn".into(), vec![1, 2, 3], 42, "anything".into())), "{:?}", plain.minor);
                assert_eq!(read(&mem, &plain).is_some(), header == 0, "{:?}", plain.minor);
                assert_eq!(found.clone().with_object_header(&mem, TYPE), found, "{:?}: twice is once", plain.minor);
            }
        }
    }

    #[test]
    fn frames_move_only_where_they_are_objects() {
        for plain in layouts() {
            let moved = plain.clone().with_longer_header(TRACE_REFS);
            let by = |a: Field<Addr>, b: Field<Addr>| b.offset() - a.offset();
            let frames = if plain.minor <= Minor(3, 10) { 16 } else { 0 };
            assert_eq!(by(plain.frame.back, moved.frame.back), frames, "{:?}", plain.minor);
            assert_eq!((moved.frame.size - plain.frame.size) as usize, frames, "{:?}", plain.minor);
            assert_eq!(by(plain.code.filename, moved.code.filename), 16);
            assert_eq!(
                (plain.thread, plain.gil, plain.interpreter, plain.runtime),
                (moved.thread, moved.gil, moved.interpreter, moved.runtime)
            );
        }
    }

    #[test]
    fn an_unreadable_or_unfinished_type_changes_nothing() {
        for plain in layouts() {
            assert_eq!(plain.clone().with_object_header(&ReplayMemory::new(), TYPE), plain);
            assert_eq!(plain.clone().with_object_header_of(&ReplayMemory::new(), STR), plain);
            // The dynamic linker has not filled in `ob_type` yet.
            let mut mem = ReplayMemory::new();
            mem.map(TYPE, vec![0; 0x1000]);
            assert_eq!(plain.clone().with_object_header(&mem, TYPE), plain);
        }
    }
}
