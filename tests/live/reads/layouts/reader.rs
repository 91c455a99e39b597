//! A small reader that follows a live Python's tables, written without gilprof's own. Every walk is
//! bounded; anything odd panics.

use crate::support::layout_probe::LayoutProbe;
use gilprof::ids::Addr;
use gilprof::process::memory::Memory;
use gilprof::python::layout::containers::{DictEntry, Digits, Indices, Values};
use gilprof::python::layout::field::Field;
use gilprof::python::layout::{Anchor, Bytecode, Position};

/// One frame, as far as the tests need it.
#[derive(Debug)]
pub struct Frame {
    pub name: String,
    pub file: String,
    pub line: u32,
    pub opcode: u8,
}

impl LayoutProbe {
    pub fn ptr(&self, at: Addr, field: Field<Addr>) -> Addr {
        self.read_ptr(at.offset(field.offset() as u64)).unwrap()
    }

    pub fn ptr_u64<T>(&self, at: Addr, field: Field<T>) -> u64 {
        self.read_u64(at.offset(field.offset() as u64)).unwrap()
    }

    fn byte(&self, at: Addr) -> u8 {
        let mut byte = [0];
        self.read(at, &mut byte).unwrap();
        byte[0]
    }

    pub fn gil(&self) -> Addr {
        match (self.layout.runtime.gil, self.layout.interpreter.gil) {
            (Some(inside), _) => self.runtime.offset(inside.into()),
            (None, Some(pointer)) => self.ptr(self.interpreter, pointer),
            (None, None) => panic!("no way to the GIL"),
        }
    }

    pub fn tids(&self) -> Vec<u64> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.target.pid())).unwrap();
        tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
    }

    pub fn threads(&self) -> Vec<Addr> {
        let mut threads = vec![self.ptr(self.interpreter, self.layout.interpreter.threads_head)];
        while threads.len() < 8 {
            match self.ptr(threads[threads.len() - 1], self.layout.thread.next) {
                next if next.is_null() => break,
                next => threads.push(next),
            }
        }
        threads
    }

    /// The thread's Python frames, innermost first.
    pub fn stack(&self, thread: Addr) -> Vec<Frame> {
        let table = self.layout.frame;
        let mut frame = match self.layout.thread.anchor {
            Anchor::Direct(field) => self.ptr(thread, field),
            Anchor::CFrame(field, inner) => self.ptr(self.ptr(thread, field), inner),
        };
        let mut stack = Vec::new();
        for _ in 0..32 {
            if frame.is_null() {
                break;
            }
            let python = table.owner.is_none_or(|o| (self.byte(frame.offset(o.field.offset() as u64)) as i8) < o.first_not_python);
            if python {
                stack.push(self.frame(frame));
            }
            frame = self.ptr(frame, table.back);
        }
        stack
    }

    fn frame(&self, frame: Addr) -> Frame {
        let code = Addr(self.ptr(frame, self.layout.frame.code).0 & self.layout.frame.code_tag_mask);
        let table = self.layout.code;
        let lasti = |field: Field<i32>| u64::from(self.read_u32(frame.offset(field.offset() as u64)).unwrap());
        let at = match (self.layout.frame.position, table.bytecode) {
            (Position::LastByte(field), Bytecode::Object(bytes)) => self.ptr(code, bytes).offset(lasti(field) + 32),
            (Position::LastUnit(field), Bytecode::Object(bytes)) => self.ptr(code, bytes).offset(lasti(field) * 2 + 32),
            (Position::Pointer(field), Bytecode::Inline(start)) => {
                let at = self.ptr(frame, field);
                assert!(at.within(code.offset(start.into()), 4096));
                at
            }
            other => panic!("{other:?} do not go together"),
        };
        Frame {
            name: self.text(self.ptr(code, table.name)),
            file: self.text(self.ptr(code, table.filename)),
            line: self.read_u32(code.offset(table.first_line.offset() as u64)).unwrap(),
            opcode: self.byte(at),
        }
    }

    /// A compact `str` of one byte a character (ASCII or Latin-1).
    pub fn text(&self, text: Addr) -> String {
        let table = self.layout.object;
        let flags = self.read_u32(text.offset(table.unicode_state.offset() as u64)).unwrap();
        assert_eq!(flags >> table.unicode_kind_shift & 7, 1);
        assert_eq!(flags >> table.unicode_compact_bit & 1, 1);
        let ascii = flags >> table.unicode_ascii_bit & 1 == 1;
        let data = if ascii { table.unicode_ascii_data } else { table.unicode_compact_data };
        let len = self.ptr_u64(text, table.unicode_length).min(200);
        (0..len).map(|i| char::from(self.byte(text.offset(u64::from(data) + i)))).collect()
    }

    pub fn int(&self, int: Addr) -> u64 {
        let table = self.layout.containers.int;
        let count = match table.digits {
            Digits::Signed(field) => self.ptr_u64(int, field),
            Digits::Tag(field) => self.ptr_u64(int, field) >> 3,
        };
        assert!(count <= 3, "{count} digits");
        (0..count).map(|i| u64::from(self.read_u32(int.offset(u64::from(table.data) + 4 * i)).unwrap()) << (30 * i)).sum()
    }

    /// A dict's keys and values.
    pub fn items(&self, dict: Addr) -> Vec<(Addr, Addr)> {
        let table = self.layout.containers.dict;
        let (keys, values) = (self.ptr(dict, table.keys), self.ptr(dict, table.values));
        assert_eq!(self.ptr(dict, self.layout.object.type_), self.ptr(self.modules(), self.layout.object.type_));
        self.paired(keys, (!values.is_null()).then_some(values))
    }

    fn modules(&self) -> Addr {
        self.ptr(self.interpreter, self.layout.interpreter.modules.unwrap())
    }

    fn paired(&self, keys: Addr, values: Option<Addr>) -> Vec<(Addr, Addr)> {
        let (start, entry, count) = self.entries(keys);
        let header = u64::from(self.layout.containers.values_header);
        let value_of = |i: u64, at: Addr| match values {
            Some(values) => self.read_ptr(values.offset(header + 8 * i)).unwrap(),
            None => self.ptr(at, entry.value),
        };
        let at = |i: u64| start.offset(i * u64::from(entry.size));
        (0..count).map(|i| (self.ptr(at(i), entry.key), value_of(i, at(i)))).filter(|(_, value)| !value.is_null()).collect()
    }

    fn entries(&self, keys: Addr) -> (Addr, DictEntry, u64) {
        let table = self.layout.containers.keys;
        let indices = match table.indices {
            Indices::Log2Bytes(field) => 1 << self.byte(keys.offset(field.offset() as u64)),
            Indices::Slots(field) => match self.ptr_u64(keys, field) {
                slots @ 0..=0xff => slots,
                slots @ 0..=0xffff => slots * 2,
                slots => panic!("{slots} slots"),
            },
        };
        let general = table.kind.is_none_or(|kind| self.byte(keys.offset(kind.offset() as u64)) == 0);
        let count = self.ptr_u64(keys, table.entries);
        assert!(count < 5000, "{count} entries");
        (keys.offset(u64::from(table.header) + indices), if general { table.general } else { table.unicode }, count)
    }

    pub fn dict_get(&self, dict: Addr, key: &str) -> Addr {
        self.items(dict).into_iter().find(|(name, _)| self.text(*name) == key).unwrap().1
    }

    /// An instance's attribute, wherever its type keeps it.
    pub fn attribute(&self, object: Addr, name: &str) -> Addr {
        let named = |items: Vec<(Addr, Addr)>| items.into_iter().find(|(key, _)| self.text(*key) == name).unwrap().1;
        let table = self.layout.containers;
        let type_ = self.ptr(object, self.layout.object.type_);
        let flags = self.ptr_u64(type_, table.type_.flags);
        assert_ne!(flags & table.type_.heap_flag, 0);
        let Some(managed) = table.managed.filter(|managed| flags & managed.type_flag != 0) else {
            let offset = self.ptr_u64(type_, table.type_.dictoffset);
            assert!((16..200).contains(&offset), "tp_dictoffset {offset}");
            return self.dict_get(self.read_ptr(object.offset(offset)).unwrap(), name);
        };
        let keys = self.ptr(type_, table.type_.cached_keys);
        let dict = self.read_ptr(object.offset(managed.dict as u64)).unwrap();
        match managed.values {
            Values::TaggedDict if dict.0 & 1 == 1 => named(self.paired(keys, Some(dict.offset(1)))),
            _ if !dict.is_null() => self.dict_get(dict, name),
            Values::Pointer(at) => named(self.paired(keys, Some(self.read_ptr(object.offset(at as u64)).unwrap()))),
            Values::Inline { type_flag, valid, .. } => {
                assert_ne!(flags & type_flag, 0);
                let values = object.offset(self.ptr_u64(type_, table.type_.basicsize));
                assert_eq!(self.byte(values.offset(valid.offset() as u64)), 1);
                named(self.paired(keys, Some(values)))
            }
            Values::TaggedDict => panic!("neither dict nor values"),
        }
    }
}

/// Returns when every thread of the process is inside read(2): then nothing in the interpreter
/// changes.
pub fn asleep_in_read(pid: i32) {
    let reading = format!("{} 0x", libc::SYS_read);
    for _ in 0..100_000 {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let calls = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("syscall")).unwrap());
        if calls.filter(|call| call.starts_with(&reading)).count() == 2 {
            return;
        }
        std::thread::yield_now();
    }
    panic!("the threads of pid {pid} never came to rest");
}
