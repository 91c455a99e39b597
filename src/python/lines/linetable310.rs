//! 3.10's `co_linetable`: pairs of an unsigned length in bytes and a signed line delta (PEP 626,
//! `Objects/lnotab_notes.txt` of 3.10).
//!
//! Unlike in lnotab, a pair's line delta counts before its range, and -128 marks a range without a
//! line.

use super::{line, LineRange};

/// Marks a range that has no line and leaves the sum unchanged.
const NO_LINE: i8 = -128;

/// The ranges of one table.
pub(super) struct Linetable310Iter<'a> {
    pairs: std::slice::ChunksExact<'a, u8>,
    start: u32,
    sum: i64,
}

impl<'a> Linetable310Iter<'a> {
    pub(super) fn new(table: &'a [u8], first_line: i32) -> Linetable310Iter<'a> {
        Linetable310Iter { pairs: table.chunks_exact(2), start: 0, sum: i64::from(first_line) }
    }
}

impl Iterator for Linetable310Iter<'_> {
    type Item = LineRange;

    fn next(&mut self) -> Option<LineRange> {
        for pair in self.pairs.by_ref() {
            let delta = pair[1] as i8;
            let here = if delta == NO_LINE {
                None
            } else {
                self.sum += i64::from(delta);
                line(self.sum)
            };
            // Empty ranges carry the rest of a delta that did not fit a byte.
            if pair[0] > 0 {
                let start = self.start;
                self.start = start.checked_add(u32::from(pair[0]))?;
                return Some(LineRange { start, end: self.start, line: here });
            }
        }
        None
    }
}
