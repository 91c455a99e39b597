//! The views that are lists: rows with an identity, a name and figures, made from a picture.
//!
//! Rows are compared by their identity from one picture to the next, so that the cursor stays on a
//! row that moves. A row's texts are clean; its figures are those of the report.

pub mod blame;
pub mod functions;
pub mod processes;
pub mod threads;

use crate::sample::State;
use clap::ValueEnum;
use std::cmp::Ordering;

/// A column that lists are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SortKey {
    /// The name.
    Name,
    /// Time holding the GIL.
    Holding,
    /// Time waiting for it.
    Waiting,
    /// Time on a CPU without it.
    Native,
    /// Time without a CPU.
    Starved,
    /// Time asleep on a lock.
    Lock,
    /// Time asleep in anything else.
    Io,
    /// CPU time.
    Cpu,
    /// Time holding the GIL inside C calls.
    InC,
    /// Time holding the GIL asleep.
    Asleep,
    /// The waiting of others while a function holds the GIL.
    OthersWait,
}

/// The head of a column.
#[derive(Clone, Copy, Debug)]
pub struct Heading {
    /// What sorts by it.
    pub key: SortKey,
    /// Its text, where there is room.
    pub name: &'static str,
    /// Its text in 80 columns.
    pub short: &'static str,
}

/// What a row is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RowId {
    /// A thread, by the kernel's id.
    Thread(i32),
    /// A function, or a pair of functions, by names, files and lines.
    Code(String),
    /// A process.
    Process(i32),
}

/// One figure of a row.
#[derive(Clone, Debug)]
pub struct Figure {
    /// As it is shown.
    pub text: String,
    /// As it is sorted.
    pub value: f64,
}

/// One row.
#[derive(Clone, Debug)]
pub struct ListRow {
    /// What it is about.
    pub id: RowId,
    /// The first column.
    pub name: String,
    /// What is behind the name and never cut.
    pub suffix: String,
    /// Where that is: a file and a line, a user and a container.
    pub place: String,
    /// Figures, one for each heading.
    pub figures: Vec<Figure>,
    /// The thread's time, for a bar.
    pub bar: Option<[(State, f64); State::COUNT]>,
    /// It sleeps and still holds the GIL.
    pub alarm: bool,
}

/// A list.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The heads of the name and of the place.
    pub name: &'static str,
    /// Empty: the rows have no place.
    pub place: &'static str,
    /// The heads of the figures.
    pub headings: &'static [Heading],
    /// The rows, sorted.
    pub rows: Vec<ListRow>,
    /// Rows that the filter hides.
    pub hidden: usize,
}

/// A function or thread that keeps the GIL asleep for more of the time than this is an alarm.
pub(super) const ALARM: f64 = 0.01;

/// Sorts rows: the largest first, names from a to z. Rows that are equal keep the report's order.
pub fn sort(rows: &mut [ListRow], headings: &[Heading], key: SortKey, inverted: bool) {
    let column = headings.iter().position(|heading| heading.key == key);
    let value = |row: &ListRow| column.and_then(|n| row.figures.get(n)).map_or(0.0, |figure| figure.value);
    let order = |a: &ListRow, b: &ListRow| match key {
        SortKey::Name => natural(&a.name, &b.name).then_with(|| natural(&a.suffix, &b.suffix)),
        _ => value(b).total_cmp(&value(a)),
    };
    rows.sort_by(|a, b| if inverted { order(b, a) } else { order(a, b) });
}

/// Compares names with numbers as numbers: `worker-2` is before `worker-10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (x, y) = (number(a), number(b));
        let order = match (x, y) {
            (Some((n, after_a)), Some((m, after_b))) => {
                (a, b) = (after_a, after_b);
                n.cmp(&m)
            }
            _ => {
                let (mut from_a, mut from_b) = (a.chars(), b.chars());
                let (c, d) = (from_a.next(), from_b.next());
                if c.is_none() && d.is_none() {
                    return Ordering::Equal;
                }
                (a, b) = (from_a.as_str(), from_b.as_str());
                c.cmp(&d)
            }
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// The number at the beginning, and what follows it.
fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_are_compared_as_numbers() {
        let mut names = ["w-10", "w-2", "W", "w-2a", ""];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["", "W", "w-2", "w-2a", "w-10"]);
    }
}
