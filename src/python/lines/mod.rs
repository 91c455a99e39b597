//! Line tables: the source line of an instruction. There is one decoder per format; this file only
//! selects it.
//!
//! Every decoder is an iterator of [`LineRange`]s over untrusted bytes. It consumes at least one
//! byte of the table per step, so it ends; sums that a valid table cannot reach end it early.
//! Offsets are bytes from the start of the bytecode in all formats, never code units.

mod linetable310;
mod lnotab;
mod locations;

use super::layout::LineFormat;

/// A range of bytecode that belongs to one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineRange {
    /// Its first byte in the bytecode.
    pub start: u32,
    /// The first byte after it; `u32::MAX` where the format does not give the end.
    pub end: u32,
    /// The line; `None` for instructions that the compiler gave none.
    pub line: Option<u32>,
}

/// The line of the instruction `byte_offset` bytes into the bytecode. `None` where the table gives
/// none, or does not reach that far.
#[cfg(any(test, feature = "internals"))]
pub fn line_at(format: LineFormat, table: &[u8], first_line: i32, byte_offset: u32) -> Option<u32> {
    line_ranges(format, table, first_line).find(|range| byte_offset < range.end).and_then(|range| range.line)
}

/// All of a table's ranges, in order of address, none empty.
fn line_ranges(format: LineFormat, table: &[u8], first_line: i32) -> Box<dyn Iterator<Item = LineRange> + '_> {
    match format {
        LineFormat::Lnotab => Box::new(lnotab::LnotabIter::new(table, first_line)),
        LineFormat::Linetable310 => Box::new(linetable310::Linetable310Iter::new(table, first_line)),
        LineFormat::Locations => Box::new(locations::LocationsIter::new(table, first_line)),
    }
}

/// The line of a sum of deltas; `None` for sums that no source file has.
fn line(sum: i64) -> Option<u32> {
    u32::try_from(sum).ok().filter(|&n| n <= i32::MAX as u32)
}

/// A decoded table for repeated use: a stack of thirty frames at a thousand samples per second
/// takes 30 000 lookups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineIndex {
    /// Where the line changes, in order of address; the first change is at 0 unless the table is
    /// empty.
    changes: Box<[(u32, Option<u32>)]>,
}

impl LineIndex {
    /// Decodes a whole table.
    pub fn new(format: LineFormat, table: &[u8], first_line: i32) -> LineIndex {
        let mut changes: Vec<(u32, Option<u32>)> = Vec::new();
        let mut end = 0;
        for range in line_ranges(format, table, first_line) {
            end = range.end;
            if changes.last().map(|&(_, line)| line) != Some(range.line) {
                changes.push((range.start, range.line));
            }
        }
        changes.push((end, None));
        LineIndex { changes: changes.into() }
    }

    /// As [`line_at`].
    pub fn line_at(&self, byte_offset: u32) -> Option<u32> {
        let after = self.changes.partition_point(|&(start, _)| start <= byte_offset);
        self.changes[..after].last().and_then(|&(_, line)| line)
    }

    /// Its size in bytes.
    pub fn weight(&self) -> usize {
        size_of_val(&*self.changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
    }

    /// Compares a decoder with the interpreter's own answers for one code object: see
    /// `tests/dumps/lines/make.py`.
    fn check(version: &str, format: LineFormat, truth: &str) -> usize {
        let words: Vec<&str> = truth.split(' ').collect();
        let (name, first_line, len) = (words[0], words[1].parse().unwrap(), words[2].parse::<u32>().unwrap());
        let table = unhex(words[3]);
        let starts: Vec<(u32, Option<u32>)> =
            words[4..].iter().map(|w| w.split_once(':').map(|(at, line)| (at.parse().unwrap(), line.parse().ok())).unwrap()).collect();
        let index = LineIndex::new(format, &table, first_line);
        for byte in (0..len).step_by(2) {
            let expected = starts.iter().rev().find(|(at, _)| *at <= byte).and_then(|&(_, line)| line);
            assert_eq!(line_at(format, &table, first_line, byte), expected, "{version} {name} {byte}");
            assert_eq!(index.line_at(byte), expected, "{version} {name} {byte}, by the index");
        }
        starts.len()
    }

    fn check_version(version: &str, format: LineFormat) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/dumps/lines/{version}.txt"));
        let text = std::fs::read_to_string(path).unwrap();
        let changes: usize = text.lines().map(|truth| check(version, format, truth)).sum();
        assert!(changes > 150, "{version}: only {changes} changes of line checked");
    }

    #[test]
    fn lnotab_agrees_with_the_interpreters() {
        for version in ["3.7", "3.8", "3.9"] {
            check_version(version, LineFormat::Lnotab);
        }
    }

    #[test]
    fn linetable310_agrees_with_the_interpreter() {
        check_version("3.10", LineFormat::Linetable310);
    }

    #[test]
    fn locations_agree_with_the_interpreters() {
        for version in ["3.11", "3.12", "3.13", "3.14", "3.15"] {
            check_version(version, LineFormat::Locations);
        }
    }

    #[test]
    fn empty_tables() {
        assert_eq!(line_at(LineFormat::Lnotab, &[], 7, 0), Some(7));
        assert_eq!(line_at(LineFormat::Linetable310, &[], 7, 0), None);
        assert_eq!(line_at(LineFormat::Locations, &[], 7, 0), None);
        assert_eq!(LineIndex::default().line_at(0), None);
    }

    const FORMATS: [LineFormat; 3] = [LineFormat::Lnotab, LineFormat::Linetable310, LineFormat::Locations];

    proptest! {
        /// For any bytes, the iteration ends, the ranges are in order and not empty, and both
        /// lookups agree.
        #[test]
        fn hostile_tables(table: Vec<u8>, first_line: i32, offsets: [u32; 4], near in 0u32..2000) {
            for format in FORMATS {
                let mut last_end = 0;
                for range in line_ranges(format, &table, first_line) {
                    prop_assert!(range.start == last_end && range.end > range.start);
                    last_end = range.end;
                }
                let index = LineIndex::new(format, &table, first_line);
                for at in offsets.into_iter().chain([near, 0, u32::MAX]) {
                    let expected = line_at(format, &table, first_line, at);
                    prop_assert_eq!(index.line_at(at), expected);
                    prop_assert!(expected.is_none_or(|line| line <= i32::MAX as u32));
                }
            }
        }

        /// Deltas of one sign only, whose sums exceed 32 bits.
        #[test]
        fn runaway_sums(byte in any::<u8>(), other in any::<u8>(), first_line in prop::sample::select(vec![i32::MIN, -1, 0, i32::MAX])) {
            let table: Vec<u8> = [byte, other].repeat(5000);
            for format in FORMATS {
                let _ = line_at(format, &table, first_line, u32::MAX - 1);
            }
        }
    }
}
