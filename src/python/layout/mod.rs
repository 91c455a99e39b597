//! Where CPython keeps the data that gilprof reads: one table per minor version.
//!
//! Up to 3.12 a table is complete. From 3.13 on the target publishes most of the layout
//! (`_Py_DebugOffsets`). The tables then hold only the rest, and the published values are validated
//! as untrusted input before use. The only code in the tree that matches on the version is
//! [`for_release`] with [`for_version`].

pub mod containers;
pub mod debug_offsets;
pub mod field;
mod object_header;
pub mod unpublished;
mod v3_07;
mod v3_08;
mod v3_09;
mod v3_10;
mod v3_11;
mod v3_12;
mod v3_13;
mod v3_14;
mod v3_15;
pub mod validate;

use crate::ids::Addr;
use crate::process::c_library::Abi;
use containers::Containers;
use field::Field;
use unpublished::Unpublished;

/// A CPython feature release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Minor(pub u8, pub u8);

/// A range of bytes inside a struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// Bytes from the start of the struct.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

/// Everything that the reader of one version needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The version it is for.
    pub minor: Minor,
    /// `_PyRuntimeState`.
    pub runtime: RuntimeLayout,
    /// `PyInterpreterState`.
    pub interpreter: InterpreterLayout,
    /// `_gil_runtime_state`.
    pub gil: GilLayout,
    /// `PyThreadState`.
    pub thread: ThreadLayout,
    /// `PyFrameObject` up to 3.10, `_PyInterpreterFrame` from 3.11.
    pub frame: FrameLayout,
    /// `PyCodeObject`.
    pub code: CodeLayout,
    /// `str` and `bytes`, which hold names and line tables.
    pub object: ObjectLayout,
    /// `dict`, types, instances, `int`, which lead to thread names.
    pub containers: Containers,
    /// Opcodes at which a leaf frame is inside a C call (the CALL family with its specialised and
    /// instrumented forms), as a bit set over 0..256.
    pub call_opcodes: [u64; 4],
}

/// `_PyRuntimeState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeLayout {
    /// `interpreters.head`.
    pub interpreters_head: Field<Addr>,
    /// `interpreters.main`.
    pub interpreters_main: Field<Addr>,
    /// `ceval.gil`, embedded, up to 3.11.
    pub gil: Option<u32>,
    /// `gc.collecting` (int), one for all interpreters, up to 3.8.
    pub gc_collecting: Option<Field<i32>>,
}

/// `PyInterpreterState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterpreterLayout {
    /// `next`.
    pub next: Field<Addr>,
    /// `tstate_head` / `threads.head`.
    pub threads_head: Field<Addr>,
    /// `ceval.gil`, a pointer, 3.12+.
    pub gil: Option<Field<Addr>>,
    /// The dict of `sys.modules` (`modules` / `imports.modules`), for thread names.
    pub modules: Option<Field<Addr>>,
    /// `gc.collecting` (int), 3.9+.
    pub gc_collecting: Option<Field<i32>>,
}

/// `_gil_runtime_state`. A thread that wants the GIL sleeps in one of the four spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GilLayout {
    /// Size of the whole.
    pub size: u32,
    /// Free-threaded builds: `enabled` (int).
    pub enabled: Option<Field<i32>>,
    /// `interval`, microseconds.
    pub interval: Field<u64>,
    /// `last_holder`.
    pub last_holder: Field<Addr>,
    /// `locked`: -1 not created, 0, 1.
    pub locked: Field<i32>,
    /// `switch_number`.
    pub switch_number: Field<u64>,
    /// `cond`: waits for the GIL.
    pub cond: ByteRange,
    /// `mutex`: guards `cond`.
    pub mutex: ByteRange,
    /// `switch_cond`: a thread in a forced switch waits here until another thread has taken the
    /// GIL.
    pub switch_cond: ByteRange,
    /// `switch_mutex`: guards `switch_cond`.
    pub switch_mutex: ByteRange,
}

/// `PyThreadState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadLayout {
    /// The size that holds every field named here, in bytes.
    pub size: u32,
    /// `next`.
    pub next: Field<Addr>,
    /// `interp`.
    pub interp: Field<Addr>,
    /// Where the walk of the stack starts.
    pub anchor: Anchor,
    /// `thread_id`: `pthread_self()`.
    pub thread_id: Field<u64>,
    /// `native_thread_id`, 3.11+.
    pub native_thread_id: Option<Field<u64>>,
    /// `datastack_chunk`, `datastack_top`, `datastack_limit`, 3.11+.
    pub datastack: Option<DataStack>,
    /// `gil_requested` (int), 3.15.
    pub gil_requested: Option<Field<i32>>,
    /// `eval_breaker`, 3.13+: its lowest bit is the drop request (`_PY_GIL_DROP_REQUEST_BIT`).
    pub eval_breaker: Option<Field<u64>>,
}

/// Which field names the innermost frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// `tstate->frame` (3.7 - 3.10) or `tstate->current_frame` (3.13+).
    Direct(Field<Addr>),
    /// `tstate->cframe->current_frame` (3.11, 3.12); the second field is inside `_PyCFrame`.
    CFrame(Field<Addr>, Field<Addr>),
}

/// The per-thread stack of frames, in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataStack {
    /// `datastack_chunk`.
    pub chunk: Field<Addr>,
    /// `datastack_top`.
    pub top: Field<Addr>,
    /// `_PyStackChunk.previous`.
    pub previous: Field<Addr>,
    /// `_PyStackChunk.size`, bytes.
    pub chunk_size: Field<u64>,
    /// `_PyStackChunk.data`: the header's length.
    pub data: u32,
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLayout {
    /// The size that holds every field named here, in bytes.
    pub size: u32,
    /// `f_back` / `previous`.
    pub back: Field<Addr>,
    /// `f_code` / `f_executable`.
    pub code: Field<Addr>,
    /// The mask that makes an address of `code` (the low bits of a tagged reference are flags,
    /// 3.14+; all ones before).
    pub code_tag_mask: u64,
    /// The field that holds the position in the code.
    pub position: Position,
    /// `owner` (char), 3.11+: frames owned by the C stack or the interpreter are not Python frames.
    pub owner: Option<Owner>,
}

/// How a frame encodes its position in the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// `f_lasti` (int) in bytes (3.7 - 3.9).
    LastByte(Field<i32>),
    /// `f_lasti` (int) in code units of two bytes (3.10).
    LastUnit(Field<i32>),
    /// A pointer to the code unit last executed or executing (`prev_instr`, `instr_ptr`), 3.11+.
    Pointer(Field<Addr>),
}

/// `_PyInterpreterFrame.owner`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The field.
    pub field: Field<i8>,
    /// Values at and above this one mark entry frames, not Python ones (`FRAME_OWNED_BY_CSTACK`
    /// 3.12+; 127 where there is none).
    pub first_not_python: i8,
}

/// `PyCodeObject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeLayout {
    /// `co_filename`.
    pub filename: Field<Addr>,
    /// `co_name`.
    pub name: Field<Addr>,
    /// `co_qualname`, 3.11+.
    pub qualname: Option<Field<Addr>>,
    /// `co_lnotab` / `co_linetable` (bytes).
    pub lines: Field<Addr>,
    /// `co_firstlineno` (int).
    pub first_line: Field<i32>,
    /// Where the bytecode is.
    pub bytecode: Bytecode,
    /// The format of the line table.
    pub line_format: LineFormat,
}

/// Where a code object keeps its bytecode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytecode {
    /// `co_code`, a `bytes` (up to 3.10).
    Object(Field<Addr>),
    /// `co_code_adaptive`, inline (3.11+).
    Inline(u32),
}

/// CPython's formats of line tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFormat {
    /// `co_lnotab` (to 3.9).
    Lnotab,
    /// PEP 626's `co_linetable` (3.10).
    Linetable310,
    /// The location table with columns (3.11+).
    Locations,
}

/// Objects that hold names and tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectLayout {
    /// `PyObject.ob_type`.
    pub type_: Field<Addr>,
    /// `PyBytesObject.ob_size`.
    pub bytes_size: Field<i64>,
    /// `PyBytesObject.ob_sval`.
    pub bytes_data: u32,
    /// `PyASCIIObject.length`.
    pub unicode_length: Field<i64>,
    /// `PyASCIIObject.state`, the 32-bit flags.
    pub unicode_state: Field<u32>,
    /// Shift of `kind` in the flags (its width is 3 bits).
    pub unicode_kind_shift: u32,
    /// Bit of `compact` in the flags.
    pub unicode_compact_bit: u32,
    /// Bit of `ascii` in the flags.
    pub unicode_ascii_bit: u32,
    /// Size of `PyASCIIObject`: where an ASCII string's characters start.
    pub unicode_ascii_data: u32,
    /// Size of `PyCompactUnicodeObject`: where any other compact string's characters start.
    pub unicode_compact_data: u32,
}

/// What is known of a version before the target is read.
#[derive(Clone, Copy, Debug)]
pub enum LayoutTable {
    /// Everything: the target publishes nothing.
    Complete(&'static Layout),
    /// What the target does not publish; [`debug_offsets::layout_from_target`] combines it with
    /// what the target publishes.
    Partial {
        /// For a default build.
        default: &'static Unpublished,
        /// For a free-threaded build.
        free_threaded: &'static Unpublished,
    },
}

/// The table of a release, such as 3.7 and 16: as [`for_version`], except for the few patch
/// releases that moved a field.
pub fn for_release(minor: Minor, patch: u8) -> Option<LayoutTable> {
    match (minor, patch) {
        (Minor(3, 7), 0..=3) => Some(LayoutTable::Complete(&v3_07::EARLY)),
        _ => for_version(minor),
    }
}

/// The table of a version's later releases; `None` when gilprof does not know the version.
pub fn for_version(minor: Minor) -> Option<LayoutTable> {
    let table = match minor {
        Minor(3, 7) => LayoutTable::Complete(&v3_07::LAYOUT),
        Minor(3, 8) => LayoutTable::Complete(&v3_08::LAYOUT),
        Minor(3, 9) => LayoutTable::Complete(&v3_09::LAYOUT),
        Minor(3, 10) => LayoutTable::Complete(&v3_10::LAYOUT),
        Minor(3, 11) => LayoutTable::Complete(&v3_11::LAYOUT),
        Minor(3, 12) => LayoutTable::Complete(&v3_12::LAYOUT),
        Minor(3, 13) => LayoutTable::Partial { default: &v3_13::UNPUBLISHED, free_threaded: &v3_13::UNPUBLISHED_FREE_THREADED },
        Minor(3, 14) => LayoutTable::Partial { default: &v3_14::UNPUBLISHED, free_threaded: &v3_14::UNPUBLISHED_FREE_THREADED },
        Minor(3, 15) => LayoutTable::Partial { default: &v3_15::UNPUBLISHED, free_threaded: &v3_15::UNPUBLISHED_FREE_THREADED },
        _ => return None,
    };
    Some(table)
}

impl Layout {
    /// The layout on this machine and with this C library; the tables are of x86-64. Only the GIL
    /// differs: up to 3.11 it is inside the runtime, behind the other fields that are read there.
    pub fn for_abi(self, abi: Abi) -> Layout {
        Layout { gil: self.gil.for_abi(abi), ..self }
    }

    /// Whether a leaf frame at this opcode is inside a C call.
    pub fn is_call(&self, opcode: u8) -> bool {
        self.call_opcodes[usize::from(opcode >> 6)] >> (opcode & 63) & 1 == 1
    }
}

impl GilLayout {
    fn for_abi(mut self, abi: Abi) -> GilLayout {
        let more = mutex_growth(abi);
        self.mutex.len += more;
        self.switch_cond.offset += more;
        self.switch_mutex.offset += more;
        self.switch_mutex.len += more;
        self.size += 2 * more;
        self
    }

    /// Whether a thread asleep on a futex `offset` bytes into the GIL wants the GIL.
    pub fn is_wait(&self, offset: u64) -> bool {
        [self.cond, self.mutex, self.switch_cond, self.switch_mutex]
            .iter()
            .any(|span| offset.wrapping_sub(u64::from(span.offset)) < u64::from(span.len))
    }
}

/// How much longer `pthread_mutex_t` is than in the tables.
fn mutex_growth(abi: Abi) -> u32 {
    abi.mutex_size().saturating_sub(Abi::default().mutex_size())
}
