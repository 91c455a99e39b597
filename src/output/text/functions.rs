//! The tables of functions: those that make others wait, and the time that functions take.
//!
//! Both tables have one unit: threads on average, which is thread-seconds per second of window. A
//! place in a table is the function's `def` line.

use super::Page;
use crate::analysis::report::{Blame, FunctionRow, Place, Report};
use crate::output::file_names::FileNames;
use crate::output::{columns, numbers, palette, sanitize};

/// Rows of the table of functions that make others wait.
const MAX_CULPRITS: usize = 5;
/// Rows of the table of all functions.
const MAX_FUNCTIONS: usize = 10;
/// Waiters named below one culprit.
const MAX_WAITERS: usize = 2;
/// A function that keeps less than this many threads waiting is no culprit.
const MIN_INFLICTED: f64 = 0.005;
/// The place column never gets less than this.
const NARROWEST_PLACE: usize = 14;

pub(super) fn write(page: &mut Page, report: &Report) {
    let files = report.functions.iter().map(|f| f.file.as_str());
    let holders = report.blame.iter().filter_map(|b| b.holder.as_ref());
    let places = report.blame.iter().map(|b| &b.waiter).chain(holders);
    let names = FileNames::new(files.chain(places.map(|place| place.file.as_str())));
    culprits(page, report, &names);
    functions(page, &report.functions, &names);
}

/// The functions that held the GIL while others waited, and the functions that waited.
fn culprits(page: &mut Page, report: &Report, names: &FileNames<'_>) {
    let mut rows: Vec<&FunctionRow> = report.functions.iter().filter(|f| f.inflicted_wait >= MIN_INFLICTED).collect();
    rows.sort_by(|a, b| b.inflicted_wait.total_cmp(&a.inflicted_wait));
    rows.truncate(MAX_CULPRITS);
    if rows.is_empty() {
        return;
    }
    let table = Table::new(page, &[("holding", 9), ("in C", 7), ("others wait", 13)], &rows, names);
    table.head(page, ["who makes others wait, threads on average", "who makes others wait (threads)"]);
    for row in rows {
        table.row(page, row, names, &[row.holding, row.holding_native, row.inflicted_wait]);
        details(page, row, &report.blame, names);
    }
    without_holder(page, report);
}

/// The waiting in samples that saw no holder: the GIL was free, between two threads.
fn without_holder(page: &mut Page, report: &Report) {
    let seconds: f64 = report.blame.iter().filter(|b| b.holder.is_none() && b.seconds > 0.0).map(|b| b.seconds).sum();
    if seconds > 0.0 {
        let all: f64 = report.threads.iter().map(|t| t.states.waiting * t.seconds).sum();
        let (part, all, share) = (numbers::seconds(seconds), numbers::seconds(all), numbers::percent(seconds / all));
        page.prose("  ", &format!("GIL switches: samples saw no holder in {part} of {all} of waiting ({share})"));
    }
}

/// The line that holds most, and the functions that wait meanwhile.
fn details(page: &mut Page, row: &FunctionRow, blame: &[Blame], names: &FileNames<'_>) {
    let mut pieces = Vec::new();
    if row.hot_line != 0 && row.hot_line != row.line {
        pieces.push(match row.line {
            0 => format!("hottest line {}", row.hot_line),
            line => format!("hottest line {} (def at {line})", row.hot_line),
        });
    }
    if row.holding_blocked >= MIN_INFLICTED {
        pieces.push(format!("{} holding while asleep", numbers::mean_threads(row.holding_blocked)));
    }
    let is_holder = |p: &Place| p.name == row.name && p.file == row.file && p.line == row.line;
    let waiters = blame.iter().filter(|b| b.holder.as_ref().is_some_and(is_holder) && b.seconds > 0.0);
    for b in waiters.take(MAX_WAITERS) {
        let place = match names.place(&b.waiter.file, b.waiter.line) {
            place if place.is_empty() => String::new(),
            place => format!(" ({place})"),
        };
        pieces.push(format!("{}{place} waits {}", sanitize::clean(&b.waiter.name), numbers::seconds(b.seconds)));
    }
    if !pieces.is_empty() {
        let colour = page.style.colour;
        page.flow_painted("    ", ", ", &pieces, |_, piece| palette::dim(piece, colour));
    }
}

/// The time that the report's first functions take, by state.
fn functions(page: &mut Page, functions: &[FunctionRow], names: &FileNames<'_>) {
    if functions.is_empty() {
        return;
    }
    let rows: Vec<&FunctionRow> = functions.iter().take(MAX_FUNCTIONS).collect();
    let table = Table::new(page, &[("holding", 9), ("waiting", 8), ("native", 7), ("lock", 6), ("io", 6)], &rows, names);
    table.head(page, ["functions, threads on average", "functions (threads)"]);
    for f in &rows {
        table.row(page, f, names, &[f.holding, f.waiting, f.native, f.lock, f.io]);
    }
    if functions.len() > MAX_FUNCTIONS {
        page.prose("  ", &format!("and {} more functions", numbers::thousands((functions.len() - MAX_FUNCTIONS) as u64)));
    }
}

/// A table with a function's name, its place and figures.
struct Table<'a> {
    heads: &'a [(&'a str, usize)],
    name: usize,
    place: usize,
}

impl<'a> Table<'a> {
    /// Places get what the longest needs, up to half of the room; names get the rest.
    fn new(page: &Page, heads: &'a [(&'a str, usize)], rows: &[&FunctionRow], names: &FileNames<'_>) -> Table<'a> {
        let room = page.style.width - 3 - heads.iter().map(|head| head.1).sum::<usize>();
        let longest = |text: &dyn Fn(&FunctionRow) -> String| rows.iter().map(|row| columns::width(&text(row))).max().unwrap_or(0);
        let place = longest(&|row| names.place(&row.file, row.line)).max(NARROWEST_PLACE).min(room / 2);
        // On a wide page the figures stay near the names, but do not come before those of a narrow
        // one.
        let name = longest(&|row| sanitize::clean(&row.name)).clamp(30, room.max(30)).min(room - place);
        Table { heads, name, place }
    }

    /// The first of the titles that fits.
    fn head(&self, page: &mut Page, titles: [&str; 2]) {
        let room = self.name + 1 + self.place;
        let title = titles.into_iter().find(|title| columns::width(title) <= room).unwrap_or(titles[1]);
        let heads = self.heads.iter().map(|&(word, columns)| columns::right(word, columns));
        page.heading(&format!("  {}{}", columns::left(title, room), heads.collect::<String>()));
    }

    fn row(&self, page: &mut Page, row: &FunctionRow, names: &FileNames<'_>, figures: &[f64]) {
        let figures = figures.iter().zip(self.heads).map(|(&figure, head)| columns::right(&numbers::mean_threads(figure), head.1));
        page.line(&format!(
            "  {} {}{}",
            columns::left(&sanitize::clean(&row.name), self.name),
            columns::left(&names.place(&row.file, row.line), self.place),
            figures.collect::<String>()
        ));
    }
}
