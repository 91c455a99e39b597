//! `co_lnotab`, up to 3.9: pairs of an unsigned address delta and a signed line delta
//! (`Objects/lnotab_notes.txt`).
//!
//! A pair's line delta counts from its address on. Deltas that do not fit a byte are spread over
//! several pairs, so ranges may be empty and the pairs at one address add up. The table does not
//! give the end of the last range.

use super::{line, LineRange};

/// The ranges of one table.
pub(super) struct LnotabIter<'a> {
    pairs: std::slice::ChunksExact<'a, u8>,
    start: u32,
    sum: i64,
    done: bool,
}

impl<'a> LnotabIter<'a> {
    pub(super) fn new(table: &'a [u8], first_line: i32) -> LnotabIter<'a> {
        // An odd last byte is no pair; CPython's own loop ignores it too.
        LnotabIter { pairs: table.chunks_exact(2), start: 0, sum: i64::from(first_line), done: false }
    }
}

impl Iterator for LnotabIter<'_> {
    type Item = LineRange;

    fn next(&mut self) -> Option<LineRange> {
        if self.done {
            return None;
        }
        for pair in self.pairs.by_ref() {
            let (start, here) = (self.start, line(self.sum));
            self.sum += i64::from(pair[1] as i8);
            if pair[0] > 0 {
                self.start = start.checked_add(u32::from(pair[0]))?;
                return Some(LineRange { start, end: self.start, line: here });
            }
        }
        self.done = true;
        (self.start < u32::MAX).then_some(LineRange { start: self.start, end: u32::MAX, line: line(self.sum) })
    }
}
