//! CPython 3.12, as probed from 3.12.1's headers (x86-64, glibc).
//!
//! The GIL moves behind a pointer of the interpreter; frames that the C stack owns appear. A live
//! 3.12.1 has the same layout, and so have other tools' tables of 3.12.0.

use super::containers::{Containers, Dict, DictEntry, DictKeys, Digits, Indices, Int, Managed, Type, Values};
use super::field::Field;
use super::{
    Anchor, ByteRange, Bytecode, CodeLayout, DataStack, FrameLayout, GilLayout, InterpreterLayout, Layout, LineFormat, Minor, ObjectLayout,
    Owner, Position, RuntimeLayout, ThreadLayout,
};

/// Everything: 3.12 publishes nothing.
pub const LAYOUT: Layout = Layout {
    minor: Minor(3, 12),
    runtime: RuntimeLayout { interpreters_head: Field::at(40), interpreters_main: Field::at(48), gil: None, gc_collecting: None },
    interpreter: InterpreterLayout {
        next: Field::at(0),
        threads_head: Field::at(72),
        gil: Some(Field::at(384)),
        modules: Some(Field::at(944)),
        gc_collecting: Some(Field::at(312)),
    },
    gil: GilLayout {
        enabled: None,
        last_holder: Field::at(8),
        locked: Field::at(16),
        interval: Field::at(0),
        switch_number: Field::at(24),
        cond: ByteRange { offset: 32, len: 48 },
        mutex: ByteRange { offset: 80, len: 40 },
        switch_cond: ByteRange { offset: 120, len: 48 },
        switch_mutex: ByteRange { offset: 168, len: 40 },
        size: 208,
    },
    thread: ThreadLayout {
        next: Field::at(8),
        interp: Field::at(16),
        anchor: Anchor::CFrame(Field::at(56), Field::at(0)),
        thread_id: Field::at(136),
        native_thread_id: Some(Field::at(144)),
        datastack: Some(DataStack {
            chunk: Field::at(232),
            top: Field::at(240),
            previous: Field::at(0),
            chunk_size: Field::at(8),
            data: 24,
        }),
        gil_requested: None,
        eval_breaker: None,
        size: 248,
    },
    frame: FrameLayout {
        back: Field::at(8),
        code: Field::at(0),
        position: Position::Pointer(Field::at(56)),
        owner: Some(Owner { field: Field::at(70), first_not_python: 3 }),
        code_tag_mask: u64::MAX,
        size: 71,
    },
    code: CodeLayout {
        filename: Field::at(112),
        name: Field::at(120),
        first_line: Field::at(68),
        qualname: Some(Field::at(128)),
        lines: Field::at(136),
        bytecode: Bytecode::Inline(192),
        line_format: LineFormat::Locations,
    },
    object: ObjectLayout {
        type_: Field::at(8),
        bytes_size: Field::at(16),
        bytes_data: 32,
        unicode_length: Field::at(16),
        unicode_state: Field::at(32),
        unicode_ascii_data: 40,
        unicode_kind_shift: 2,
        unicode_compact_bit: 5,
        unicode_ascii_bit: 6,
        unicode_compact_data: 56,
    },
    containers: Containers {
        dict: Dict { keys: Field::at(32), values: Field::at(40) },
        keys: DictKeys {
            header: 32,
            entries: Field::at(24),
            indices: Indices::Log2Bytes(Field::at(9)),
            kind: Some(Field::at(10)),
            general: DictEntry { size: 24, key: Field::at(8), value: Field::at(16) },
            unicode: DictEntry { size: 16, key: Field::at(0), value: Field::at(8) },
        },
        managed: Some(Managed { type_flag: 1 << 4, dict: -24, values: Values::TaggedDict }),
        values_header: 0,
        type_: Type {
            name: Field::at(24),
            basicsize: Field::at(32),
            flags: Field::at(168),
            dictoffset: Field::at(288),
            cached_keys: Field::at(880),
            heap_flag: 1 << 9,
            size: 296,
        },
        int: Int { digits: Digits::Tag(Field::at(16)), data: 24 },
        module_dict: Field::at(16),
    },
    call_opcodes: [0x0101_ffc4_3180_0000, 0x0000_0000_0000_0000, 0x0000_0800_0000_4000, 0x0012_0000_0000_0000],
};
