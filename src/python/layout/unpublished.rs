//! What a version from 3.13 on does not publish, and where in `_Py_DebugOffsets` its published
//! values are.
//!
//! The values here were probed from the version's own headers. A published value always takes
//! precedence. Where a published value contradicts the probed one, its unpublished neighbours in
//! the same struct are not used either (see `debug_offsets`).

use super::containers::Containers;
use super::field::Field;
use super::validate::PublishedField;
use super::{DataStack, GilLayout, Minor};

/// One version's unpublished layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpublished {
    /// The version it is for.
    pub minor: Minor,
    /// The offset in bytes of each published value (a u64) in `_Py_DebugOffsets`. A value missing
    /// here is not published by this version.
    pub published: &'static [(PublishedField, u16)],
    /// Bytes from `interpreters.head` to `interpreters.main`.
    pub main_after_head: u32,
    /// All of `_gil_runtime_state`: two fields are published, and must agree.
    pub gil: GilLayout,
    /// The per-thread stack of frames: `chunk` is published, and must agree.
    pub datastack: DataStack,
    /// `PyThreadState.eval_breaker`: next to `interp`, which is published.
    pub eval_breaker: Field<u64>,
    /// As [`super::FrameLayout::code_tag_mask`].
    pub code_tag_mask: u64,
    /// As [`super::Owner::first_not_python`].
    pub first_not_python: i8,
    /// The flags of a `str`.
    pub unicode: UnpublishedUnicode,
    /// Dicts, types, instances, ints; partly published.
    pub containers: Containers,
    /// As [`super::Layout::call_opcodes`].
    pub call_opcodes: [u64; 4],
}

/// What is not published about `str`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpublishedUnicode {
    /// As [`super::ObjectLayout::unicode_kind_shift`].
    pub kind_shift: u32,
    /// As [`super::ObjectLayout::unicode_compact_bit`].
    pub compact_bit: u32,
    /// As [`super::ObjectLayout::unicode_ascii_bit`].
    pub ascii_bit: u32,
    /// Bytes from the end of `PyASCIIObject` to that of `PyCompactUnicodeObject`.
    pub compact_after_ascii: u32,
}
