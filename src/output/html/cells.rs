//! One thread's time in columns of equal length: the shares of its states in each, and what it mostly did there.
//!
//! A column keeps at most [`MOST_STATES`] states, in units of 1/[`UNITS`] of its length. What rounding leaves over is carried into the next
//! column, so that a lane's sums stay right however coarse its cells are. Equal neighbours are told once with their number.

use super::pack::Packed;
use crate::sample::State;

/// The parts that a column's length is told in: what one character holds.
pub const UNITS: f64 = 31.0;
/// States of one column; rarer ones wait in the carry until there is room.
const MOST_STATES: usize = 4;
/// What is remembered of a column to choose what it mostly did.
const MOST_KINDS: usize = 64;

/// A column, rounded.
#[derive(Clone, Debug, PartialEq)]
struct Cell {
    parts: Vec<(usize, u64)>,
    kind: u64,
}

/// A lane being cut into columns.
#[derive(Clone, Debug, Default)]
pub struct Cells {
    column: u64,
    /// Of the column under way, in units.
    sums: [f64; State::COUNT],
    carry: [f64; State::COUNT],
    kinds: Vec<(u64, f64)>,
    last: Option<(Cell, u64)>,
    out: Packed,
}

impl Cells {
    /// Adds time in a column, in units. Columns come in order; `kind` is what the thread did.
    pub fn add(&mut self, column: u64, state: State, kind: u64, units: f64) {
        self.reach(column);
        self.sums[state as usize] += units;
        if let Some((_, sum)) = self.kinds.iter_mut().find(|(k, _)| *k == kind) {
            *sum += units;
        } else if self.kinds.len() < MOST_KINDS {
            self.kinds.push((kind, units));
        }
    }

    /// All columns up to this one are over.
    fn reach(&mut self, column: u64) {
        if column <= self.column {
            return;
        }
        self.close();
        let gap = column - self.column - 1;
        if gap > 0 {
            self.put(Cell { parts: Vec::new(), kind: 0 }, gap);
        }
        self.column = column;
    }

    /// Rounds the column under way.
    fn close(&mut self) {
        let mut wanted: Vec<(usize, f64)> = (0..State::COUNT).map(|n| (n, self.sums[n] + self.carry[n])).collect();
        wanted.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut room = UNITS;
        let mut parts = Vec::new();
        for &(state, units) in &wanted {
            let told = if parts.len() < MOST_STATES { units.round().clamp(0.0, room) } else { 0.0 };
            self.carry[state] = units - told;
            room -= told;
            if told > 0.0 {
                parts.push((state, told as u64));
            }
        }
        parts.sort_unstable();
        let kind = self.kinds.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(kind, _)| *kind);
        self.sums = [0.0; State::COUNT];
        self.kinds.clear();
        let kind = if parts.is_empty() { 0 } else { kind };
        self.put(Cell { parts, kind }, 1);
    }

    fn put(&mut self, cell: Cell, times: u64) {
        match &mut self.last {
            Some((last, count)) if *last == cell => *count += times,
            last => {
                if let Some((before, count)) = last.replace((cell, times)) {
                    tell(&mut self.out, &before, count);
                }
            }
        }
    }

    /// The lane as packed numbers, run by run: how many columns, how many states, each state and its units, the kind.
    pub fn finish(mut self) -> String {
        self.close();
        if let Some((cell, count)) = self.last.take() {
            tell(&mut self.out, &cell, count);
        }
        self.out.into_text()
    }
}

fn tell(out: &mut Packed, cell: &Cell, count: u64) {
    out.push(count);
    out.push(cell.parts.len() as u64);
    for &(state, units) in &cell.parts {
        out.push(state as u64);
        out.push(units);
    }
    out.push(cell.kind);
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
    fn what_rounding_leaves_over_is_not_lost() {
        let mut cells = Cells::default();
        for column in 0..1000 {
            for (n, &state) in State::ALL.iter().enumerate() {
                let share = if n == 0 { 1.0 - 9.0 * 0.013 } else { 0.013 };
                cells.add(column, state, n as u64 + 1, share * UNITS);
            }
        }
        let (sums, columns) = sums(&cells.finish());
        assert_eq!(columns, 1000);
        for (n, units) in sums.into_iter().enumerate() {
            let wanted = if n == 0 { 883.0 } else { 13.0 };
            assert!((units as f64 / UNITS - wanted).abs() < 1.0, "{n}: {units}");
        }
    }

    #[test]
    fn long_rest_is_short_to_tell() {
        let mut cells = Cells::default();
        for column in (0..100).chain(5_000..100_000) {
            cells.add(column, State::Io, 7, UNITS);
        }
        let text = cells.finish();
        assert_eq!(sums(&text).1, 100_000);
        assert!(text.len() < 40, "{text}");
    }
}
