//! What the programs must know of a process: plain offsets, as they take them.

use crate::ids::{Addr, GilId, Pid};

/// The largest number of GILs of one process that are read.
pub const MAX_GILS: usize = 4;
/// Heads of lists of waiters in one GIL.
pub const MAX_LISTS: usize = 3;
/// The largest number of frames that are read of one stack.
pub const MAX_FRAMES: u32 = 128;
/// A field that this version of CPython does not have.
const NONE: u64 = u64::MAX;
/// More than any value of a char.
const NO_ENTRY_FRAMES: i64 = 128;
/// The words of `struct target`.
pub(super) const WORDS: usize = 35;

/// What is read of a watched process. Offsets are in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetConfig {
    /// Its GILs; those beyond [`MAX_GILS`] are ignored.
    pub gils: Vec<(GilId, Addr)>,
    /// `_gil_runtime_state`.
    pub gil: GilOffsets,
    /// `PyThreadState`.
    pub thread: ThreadOffsets,
    /// `PyFrameObject` or `_PyInterpreterFrame`.
    pub frame: FrameOffsets,
    /// The stack of a sleep is not read again within this time if the thread slept in the same
    /// call before, in nanoseconds.
    pub stack_interval_ns: u64,
}

/// Fields of `_gil_runtime_state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GilOffsets {
    /// `locked` (int).
    pub locked: u32,
    /// `last_holder`.
    pub last_holder: u32,
    /// `switch_number`.
    pub switch_number: u32,
    /// The first futex on which a thread waits for the GIL.
    pub waits_begin: u32,
    /// The end of the last one.
    pub waits_end: u32,
    /// The first of those on which a thread waits that was forced to release the GIL.
    pub switch_begin: u32,
    /// Heads of musl's lists of waiters; 0: none.
    pub list_heads: [u32; MAX_LISTS],
}

/// The field of `PyThreadState` that tells whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadIdentity {
    /// `thread_id`: what `pthread_self()` returns.
    Pthread {
        /// The field.
        field: u32,
        /// `pthread_self()` less the thread pointer: 0 on x86-64, negative on aarch64.
        from_thread_pointer: i64,
    },
    /// `native_thread_id` (3.11+): the kernel's id in the thread's own PID namespace.
    KernelId {
        /// The field.
        field: u32,
    },
}

impl Default for ThreadIdentity {
    fn default() -> ThreadIdentity {
        ThreadIdentity::Pthread { field: 0, from_thread_pointer: 0 }
    }
}

/// Fields of `PyThreadState`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadOffsets {
    /// Tells whose it is.
    pub identity: ThreadIdentity,
    /// `frame`, `cframe` (3.11, 3.12) or `current_frame`.
    pub anchor: u32,
    /// `_PyCFrame.current_frame` (3.11, 3.12).
    pub cframe_frame: Option<u32>,
}

/// Fields of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameOffsets {
    /// `f_back` or `previous`.
    pub back: u32,
    /// `f_code` or `f_executable`.
    pub code: u32,
    /// The mask that makes an address of `code`.
    pub code_mask: u64,
    /// `f_lasti`, `prev_instr` or `instr_ptr`.
    pub position: u32,
    /// `position` is an int, and not a pointer.
    pub position_is_int: bool,
    /// `owner` (char), and the first of its values that marks an entry frame.
    pub owner: Option<(u32, i8)>,
}

/// The first of these ranges of `(offset, len)`, and the length of all together.
fn span(fields: &[(u32, u32)], limit: u32) -> (u32, u32) {
    let begin = fields.iter().map(|(at, _)| *at).min().unwrap_or(0);
    let end = fields.iter().map(|(at, len)| at.saturating_add(*len)).max().unwrap_or(0);
    (begin, end.saturating_sub(begin).min(limit))
}

/// The longest range of a GIL and of a frame that the programs read.
const GIL_SPAN: u32 = 63;
const FRAME_SPAN: u32 = 127;

/// The GILs of a `struct target`, in order.
#[cfg(any(test, feature = "internals"))]
pub(super) fn gil_ids(words: &[u64; WORDS]) -> impl Iterator<Item = GilId> + '_ {
    let (gils, ids) = words[..2 * MAX_GILS].split_at(MAX_GILS);
    gils.iter().zip(ids).take_while(|(at, _)| **at != 0).map(|(_, id)| GilId(*id as u32))
}

impl TargetConfig {
    /// `struct target` of `programs.bpf.c`, of this process.
    pub(super) fn words(&self, pid: Pid) -> [u64; WORDS] {
        let (gil, thread, frame) = (&self.gil, &self.thread, &self.frame);
        let mut words = [0; WORDS];
        for (index, (id, at)) in self.gils.iter().take(MAX_GILS).enumerate() {
            (words[index], words[MAX_GILS + index]) = (at.0, id.0.into());
        }
        let (gil_from, gil_len) = span(&[(gil.locked, 4), (gil.last_holder, 8), (gil.switch_number, 8)], GIL_SPAN);
        let position_len = if frame.position_is_int { 4 } else { 8 };
        let owner = frame.owner.map_or((frame.back, 1), |(at, _)| (at, 1));
        let (frame_from, frame_len) = span(&[(frame.back, 8), (frame.code, 8), (frame.position, position_len), owner], FRAME_SPAN);
        let (identity, by_kernel_id, pthread_delta) = match thread.identity {
            ThreadIdentity::Pthread { field, from_thread_pointer } => (field, 0, from_thread_pointer.cast_unsigned()),
            ThreadIdentity::KernelId { field } => (field, 1, 0),
        };
        let in_gil = |field: u32| u64::from(field.wrapping_sub(gil_from));
        let in_frame = |field: u32| u64::from(field.wrapping_sub(frame_from));
        let rest = [
            u64::from(gil_from),
            u64::from(gil_len),
            in_gil(gil.locked),
            in_gil(gil.last_holder),
            in_gil(gil.switch_number),
            gil.waits_begin.into(),
            gil.waits_end.into(),
            gil.list_heads[0].into(),
            gil.list_heads[1].into(),
            gil.list_heads[2].into(),
            identity.into(),
            by_kernel_id,
            pthread_delta,
            thread.anchor.into(),
            thread.cframe_frame.map_or(NONE, u64::from),
            frame_from.into(),
            frame_len.into(),
            in_frame(frame.back),
            in_frame(frame.code),
            frame.code_mask,
            in_frame(frame.position),
            frame.position_is_int.into(),
            in_frame(owner.0),
            frame.owner.map_or(NO_ENTRY_FRAMES, |(_, first)| i64::from(first)).cast_unsigned(),
            self.stack_interval_ns,
            gil.switch_begin.into(),
            pid.0.cast_unsigned().into(),
        ];
        words[2 * MAX_GILS..].copy_from_slice(&rest);
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_cover_their_fields_and_no_more() {
        assert_eq!(span(&[(24, 8), (32, 8), (104, 4)], FRAME_SPAN), (24, 84));
        assert_eq!(span(&[(8, 8), (4000, 8)], FRAME_SPAN), (8, 127));
        let mut config = TargetConfig { gils: vec![(GilId(7), Addr(0x1000)), (GilId(9), Addr(0x2000))], ..TargetConfig::default() };
        config.gil = GilOffsets { locked: 16, last_holder: 8, switch_number: 24, ..GilOffsets::default() };
        let words = config.words(Pid(3));
        assert_eq!(words[..8], [0x1000, 0x2000, 0, 0, 7, 9, 0, 0]);
        assert!(gil_ids(&words).eq([GilId(7), GilId(9)]));
        assert_eq!(words[8..13], [8, 24, 8, 0, 16], "the span, and the fields in it");
        assert_eq!((words[22], words[34]), (NONE, 3), "no cframe");
    }
}
