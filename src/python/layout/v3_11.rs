//! CPython 3.11, as probed from 3.11.7's headers (x86-64, glibc).
//!
//! Frames move into per-thread chunks, with the thread's `cframe` between. A live 3.11.7 and a
//! distribution's stripped 3.11 have the same layout, and so have other tools' tables of 3.11.0.

use super::containers::{Containers, Dict, DictEntry, DictKeys, Digits, Indices, Int, Managed, Type, Values};
use super::field::Field;
use super::{
    Anchor, ByteRange, Bytecode, CodeLayout, DataStack, FrameLayout, GilLayout, InterpreterLayout, Layout, LineFormat, Minor, ObjectLayout,
    Owner, Position, RuntimeLayout, ThreadLayout,
};

/// Everything: 3.11 publishes nothing.
pub const LAYOUT: Layout = Layout {
    minor: Minor(3, 11),
    runtime: RuntimeLayout { interpreters_head: Field::at(40), interpreters_main: Field::at(48), gil: Some(360), gc_collecting: None },
    interpreter: InterpreterLayout {
        next: Field::at(0),
        threads_head: Field::at(16),
        gil: None,
        modules: Some(Field::at(888)),
        gc_collecting: Some(Field::at(848)),
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
        anchor: Anchor::CFrame(Field::at(56), Field::at(8)),
        thread_id: Field::at(152),
        native_thread_id: Some(Field::at(160)),
        datastack: Some(DataStack {
            chunk: Field::at(296),
            top: Field::at(304),
            previous: Field::at(0),
            chunk_size: Field::at(8),
            data: 24,
        }),
        gil_requested: None,
        eval_breaker: None,
        size: 312,
    },
    frame: FrameLayout {
        back: Field::at(48),
        code: Field::at(32),
        position: Position::Pointer(Field::at(56)),
        owner: Some(Owner { field: Field::at(69), first_not_python: 127 }),
        code_tag_mask: u64::MAX,
        size: 70,
    },
    code: CodeLayout {
        filename: Field::at(112),
        name: Field::at(120),
        first_line: Field::at(72),
        qualname: Some(Field::at(128)),
        lines: Field::at(136),
        bytecode: Bytecode::Inline(184),
        line_format: LineFormat::Locations,
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
            header: 32,
            entries: Field::at(24),
            indices: Indices::Log2Bytes(Field::at(9)),
            kind: Some(Field::at(10)),
            general: DictEntry { size: 24, key: Field::at(8), value: Field::at(16) },
            unicode: DictEntry { size: 16, key: Field::at(0), value: Field::at(8) },
        },
        managed: Some(Managed { type_flag: 1 << 4, dict: -24, values: Values::Pointer(-32) }),
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
    call_opcodes: [0x0000_0000_01c0_0000, 0x8202_0000_0003_f30f, 0x0000_0840_0000_e000, 0x0000_0000_0000_0000],
};
