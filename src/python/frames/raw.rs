//! Frames as walks find them, and the frames on which two walks agree.

use super::super::layout::{Layout, Position};
use crate::ids::Addr;
use crate::sample::StackStatus;

/// One frame as a walk found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFrame {
    /// The address of the frame.
    pub at: Addr,
    /// Its code object.
    pub code: Addr,
    /// `f_lasti`, or the address of the current instruction; see [`Position`].
    pub position: i64,
}

/// Frames, leaf first, from two walks that agree.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RawStack {
    /// Leaf first.
    pub frames: Vec<RawFrame>,
    /// How much of the stack was read consistently.
    pub status: StackStatus,
    /// For a stack whose middle was not read: how many of `frames` are on the root's side of the
    /// gap.
    pub below_gap: Option<usize>,
}

impl Clone for RawStack {
    fn clone(&self) -> RawStack {
        RawStack { frames: self.frames.clone(), status: self.status, below_gap: self.below_gap }
    }
    /// Reuses the allocation.
    fn clone_from(&mut self, from: &RawStack) {
        self.frames.clone_from(&from.frames);
        (self.status, self.below_gap) = (from.status, from.below_gap);
    }
}

/// One walk, leaf first.
#[derive(Clone, Debug, Default)]
pub(super) struct Walk {
    pub frames: Vec<RawFrame>,
    /// Whether the walk began in frames that had been left: the thread's current frame is not
    /// known.
    pub cleared: bool,
    /// The last frame visited, Python's or not.
    pub last: Addr,
    /// As [`RawStack::below_gap`].
    pub below_gap: Option<usize>,
}

impl Walk {
    pub(super) fn clear(&mut self) {
        self.frames.clear();
        (self.cleared, self.last, self.below_gap) = (false, Addr(0), None);
    }
}

/// The kind of data at the address of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    Python(RawFrame),
    /// An entry frame, which C code makes where it enters the interpreter; not Python's.
    Entry,
    /// A frame that was left: 3.14+ clear its code and keep its link to the caller.
    Cleared,
}

/// A frame and its caller; `None` for memory that cannot be a frame.
pub(super) fn parse_frame(layout: &Layout, at: Addr, bytes: &[u8]) -> Option<(FrameKind, Addr)> {
    let frame = &layout.frame;
    let back = frame.back.read_from(bytes).filter(|&back| back != at)?;
    let owner = match frame.owner {
        Some(owner) => Some((owner.field.read_from(bytes)?, owner.first_not_python)),
        None => None,
    };
    if owner.is_some_and(|(owner, limit)| owner >= limit) {
        return Some((FrameKind::Entry, back));
    }
    let code = Addr(frame.code.read_from(bytes)?.0 & frame.code_tag_mask);
    if code.is_null() {
        return Some((FrameKind::Cleared, back));
    }
    let position = match frame.position {
        Position::LastByte(field) | Position::LastUnit(field) => i64::from(field.read_from(bytes)?),
        Position::Pointer(field) => field.read_from(bytes)?.0 as i64,
    };
    Some((FrameKind::Python(RawFrame { at, code, position }), back))
}

impl RawStack {
    /// As [`RawStack::merge`], for walks of different moments.
    pub(super) fn merge_torn(&mut self, a: &Walk, b: &Walk) {
        self.merge(a, b, false);
        self.status = StackStatus::Torn;
    }

    /// Sets the frames that two walks have in common, counted from the root.
    pub(super) fn merge(&mut self, a: &Walk, b: &Walk, truncated: bool) {
        let mut same = 0;
        for (x, y) in a.frames.iter().rev().zip(b.frames.iter().rev()) {
            // Frames beyond a gap that only one walk has are not at the same depth.
            let gap_differs = a.below_gap != b.below_gap && [a.below_gap, b.below_gap].contains(&Some(same));
            if gap_differs || x.at != y.at || x.code != y.code {
                break;
            }
            same += 1;
            // A frame whose position changed has run, so the frames it had called are gone. A frame
            // at the same address may be another one.
            if x.position != y.position {
                break;
            }
        }
        let complete = same == a.frames.len() && same == b.frames.len() && !a.cleared && !b.cleared;
        self.status = match (complete, truncated) {
            (false, _) => StackStatus::Torn,
            (true, true) => StackStatus::Truncated,
            (true, false) => StackStatus::Complete,
        };
        self.below_gap = a.below_gap.filter(|&below| below < same && a.below_gap == b.below_gap);
        self.frames.clear();
        self.frames.extend_from_slice(&a.frames[a.frames.len() - same..]);
    }
}
