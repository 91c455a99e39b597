//! One thread's time in columns of equal length: in each, the shares of its states and its most
//! frequent span type.
//!
//! A column has at most [`MAX_STATES`] states, in units of 1/[`UNITS`] of its length. The rounding
//! error is carried into the next column, so that a track's sums are right however coarse its
//! columns are. Equal neighbours are packed once, with their number.

use super::pack::Packed;
use crate::sample::State;

/// The units of a column's length: the largest number that one character holds.
pub const UNITS: f64 = 31.0;
/// States of one column; the time of rarer states stays in the carry.
const MAX_STATES: usize = 4;
/// Span types that compete to be the most frequent one of a column.
const MAX_SPAN_TYPES: usize = 64;

/// A column, rounded.
#[derive(Clone, Debug, PartialEq)]
struct Column {
    parts: Vec<(usize, u64)>,
    span_type: u64,
}

/// A track that is being divided into columns.
#[derive(Clone, Debug, Default)]
pub struct Downsampler {
    column: u64,
    /// Units of each state in the present column.
    sums: [f64; State::COUNT],
    carry: [f64; State::COUNT],
    span_types: Vec<(u64, f64)>,
    last: Option<(Column, u64)>,
    out: Packed,
}

impl Downsampler {
    /// Adds time in a column, in units. The columns are in order.
    pub fn add(&mut self, column: u64, state: State, span_type: u64, units: f64) {
        self.advance_to(column);
        self.sums[state as usize] += units;
        if let Some((_, sum)) = self.span_types.iter_mut().find(|(k, _)| *k == span_type) {
            *sum += units;
        } else if self.span_types.len() < MAX_SPAN_TYPES {
            self.span_types.push((span_type, units));
        }
    }

    /// Ends all columns before this one.
    fn advance_to(&mut self, column: u64) {
        if column <= self.column {
            return;
        }
        self.close();
        let gap = column - self.column - 1;
        if gap > 0 {
            self.put(Column { parts: Vec::new(), span_type: 0 }, gap);
        }
        self.column = column;
    }

    /// Rounds the present column and begins the next.
    fn close(&mut self) {
        let mut wanted: Vec<(usize, f64)> = (0..State::COUNT).map(|n| (n, self.sums[n] + self.carry[n])).collect();
        wanted.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut room = UNITS;
        let mut parts = Vec::new();
        for &(state, units) in &wanted {
            let rounded = if parts.len() < MAX_STATES { units.round().clamp(0.0, room) } else { 0.0 };
            self.carry[state] = units - rounded;
            room -= rounded;
            if rounded > 0.0 {
                parts.push((state, rounded as u64));
            }
        }
        parts.sort_unstable();
        let span_type = self.span_types.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(span_type, _)| *span_type);
        self.sums = [0.0; State::COUNT];
        self.span_types.clear();
        let span_type = if parts.is_empty() { 0 } else { span_type };
        self.put(Column { parts, span_type }, 1);
    }

    fn put(&mut self, cell: Column, times: u64) {
        match &mut self.last {
            Some((last, count)) if *last == cell => *count += times,
            last => {
                if let Some((before, count)) = last.replace((cell, times)) {
                    push_run(&mut self.out, &before, count);
                }
            }
        }
    }

    /// The track as packed runs: the number of columns, the number of states, each state with its
    /// units, and the span type.
    pub fn finish(mut self) -> String {
        self.close();
        if let Some((cell, count)) = self.last.take() {
            push_run(&mut self.out, &cell, count);
        }
        self.out.into_text()
    }
}

fn push_run(out: &mut Packed, cell: &Column, count: u64) {
    out.push(count);
    out.push(cell.parts.len() as u64);
    for &(state, units) in &cell.parts {
        out.push(state as u64);
        out.push(units);
    }
    out.push(cell.span_type);
}

#[cfg(test)]
mod tests {
    use super::super::pack::unpack;
    use super::*;

    /// Units per state, and the number of columns.
    fn sums(text: &str) -> ([u64; State::COUNT], u64) {
        let (mut sums, mut columns) = ([0; State::COUNT], 0);
        let numbers = unpack(text);
        let mut at = numbers.iter().copied();
        while let Some(count) = at.next() {
            columns += count;
            for _ in 0..at.next().unwrap() {
                let state = at.next().unwrap() as usize;
                sums[state] += at.next().unwrap() * count;
            }
            at.next().unwrap();
        }
        (sums, columns)
    }

    #[test]
    fn rounding_errors_do_not_add_up() {
        let mut downsampler = Downsampler::default();
        for column in 0..1000 {
            for (n, &state) in State::ALL.iter().enumerate() {
                let share = if n == 0 { 1.0 - 9.0 * 0.013 } else { 0.013 };
                downsampler.add(column, state, n as u64 + 1, share * UNITS);
            }
        }
        let (sums, columns) = sums(&downsampler.finish());
        assert_eq!(columns, 1000);
        for (n, units) in sums.into_iter().enumerate() {
            let wanted = if n == 0 { 883.0 } else { 13.0 };
            assert!((units as f64 / UNITS - wanted).abs() < 1.0, "{n}: {units}");
        }
    }

    #[test]
    fn a_long_run_is_packed_once() {
        let mut downsampler = Downsampler::default();
        for column in (0..100).chain(5_000..100_000) {
            downsampler.add(column, State::Io, 7, UNITS);
        }
        let text = downsampler.finish();
        assert_eq!(sums(&text).1, 100_000);
        assert!(text.len() < 40, "{text}");
    }
}
