//! CPython 3.8, as probed from 3.8.18's headers (x86-64, glibc).
//!
//! A live 3.8.18 has the same layout, and so have other tools' tables of 3.8.0.

use super::containers::{Containers, Dict, DictEntry, DictKeys, Digits, Indices, Int, Type};
use super::field::Field;
use super::{
    Anchor, ByteRange, Bytecode, CodeLayout, FrameLayout, GilLayout, InterpreterLayout, Layout, LineFormat, Minor, ObjectLayout, Position,
    RuntimeLayout, ThreadLayout,
};

/// Everything: 3.8 publishes nothing.
pub const LAYOUT: Layout = Layout {
    minor: Minor(3, 8),
    runtime: RuntimeLayout {
        interpreters_head: Field::at(32),
        interpreters_main: Field::at(40),
        gil: Some(1152),
        gc_collecting: Some(Field::at(544)),
    },
    interpreter: InterpreterLayout {
        next: Field::at(0),
        threads_head: Field::at(8),
        gil: None,
        modules: Some(Field::at(56)),
        gc_collecting: None,
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
        anchor: Anchor::Direct(Field::at(24)),
        thread_id: Field::at(176),
        native_thread_id: None,
        datastack: None,
        gil_requested: None,
        eval_breaker: None,
        size: 184,
    },
    frame: FrameLayout {
        back: Field::at(24),
        code: Field::at(32),
        position: Position::LastByte(Field::at(104)),
        owner: None,
        code_tag_mask: u64::MAX,
        size: 108,
    },
    code: CodeLayout {
        filename: Field::at(104),
        name: Field::at(112),
        first_line: Field::at(40),
        qualname: None,
        lines: Field::at(120),
        bytecode: Bytecode::Object(Field::at(48)),
        line_format: LineFormat::Lnotab,
    },
    object: ObjectLayout {
        type_: Field::at(8),
        bytes_size: Field::at(16),
        bytes_data: 32,
        unicode_length: Field::at(16),
        unicode_state: Field::at(32),
        unicode_ascii_data: 48,
        unicode_kind_shift: 2,
        unicode_compact_bit: 5,
        unicode_ascii_bit: 6,
        unicode_compact_data: 72,
    },
    containers: Containers {
        dict: Dict { keys: Field::at(32), values: Field::at(40) },
        keys: DictKeys {
            header: 40,
            entries: Field::at(32),
            indices: Indices::Slots(Field::at(8)),
            kind: None,
            general: DictEntry { size: 24, key: Field::at(8), value: Field::at(16) },
            unicode: DictEntry { size: 24, key: Field::at(8), value: Field::at(16) },
        },
        managed: None,
        values_header: 0,
        type_: Type {
            name: Field::at(24),
            basicsize: Field::at(32),
            flags: Field::at(168),
            dictoffset: Field::at(288),
            cached_keys: Field::at(872),
            heap_flag: 1 << 9,
            size: 296,
        },
        int: Int { digits: Digits::Signed(Field::at(16)), data: 24 },
        module_dict: Field::at(16),
    },
    call_opcodes: [0x0000_0000_0000_0000, 0x0000_0000_0000_0000, 0x0000_0002_0000_6008, 0x0000_0000_0000_0000],
};
