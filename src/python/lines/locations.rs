//! The location table, 3.11 and later: `co_linetable` with columns (`Objects/locations.md`).
//!
//! An entry starts with a byte whose top bit is set: four bits of kind, and three of length in code
//! units, minus one. The bytes after it have the top bit clear, so the next entry is found even
//! after an unknown kind. Only lines are decoded; columns are skipped.

use super::{line, LineRange};

/// Kinds 10 to 12: the line delta is in the kind.
const ONE_LINE: std::ops::RangeInclusive<u8> = 10..=12;
/// A line delta, no columns.
const NO_COLUMNS: u8 = 13;
/// A line delta, an end line and two columns.
const LONG: u8 = 14;
/// No line at all.
const NO_LINE: u8 = 15;
/// Bytes per code unit.
const UNIT: u32 = 2;

/// The ranges of one table.
pub(super) struct LocationsIter<'a> {
    rest: &'a [u8],
    start: u32,
    sum: i64,
}

impl<'a> LocationsIter<'a> {
    pub(super) fn new(table: &'a [u8], first_line: i32) -> LocationsIter<'a> {
        LocationsIter { rest: table, start: 0, sum: i64::from(first_line) }
    }
}

impl Iterator for LocationsIter<'_> {
    type Item = LineRange;

    fn next(&mut self) -> Option<LineRange> {
        let (&head, after_head) = self.rest.split_first()?;
        let body = &after_head[..after_head.iter().position(|byte| byte & 0x80 != 0).unwrap_or(after_head.len())];
        self.rest = &after_head[body.len()..];
        let kind = head >> 3 & 15;
        self.sum += match kind {
            NO_COLUMNS | LONG => signed_varint(body),
            _ if ONE_LINE.contains(&kind) => i64::from(kind - ONE_LINE.start()),
            _ => 0,
        };
        let start = self.start;
        self.start = start.checked_add((u32::from(head & 7) + 1) * UNIT)?;
        Some(LineRange { start, end: self.start, line: if kind == NO_LINE { None } else { line(self.sum) } })
    }
}

/// A number of six bits per byte, least significant first, with bit 6 set on all but the last byte;
/// the lowest bit of the number is its sign. Stops at 32 bits, which no line delta exceeds, and
/// takes a missing byte as zero.
fn signed_varint(bytes: &[u8]) -> i64 {
    let mut value = 0i64;
    for (i, byte) in bytes.iter().take(6).enumerate() {
        value |= i64::from(byte & 63) << (6 * i);
        if byte & 64 == 0 {
            break;
        }
    }
    let size = value >> 1;
    if value & 1 == 1 {
        -size
    } else {
        size
    }
}
