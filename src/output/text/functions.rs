//! The tables of functions: those that make others wait, and the time that functions take.
//!
//! Both tables have one unit: threads on average, which is thread-seconds per second of window. A
//! place in a table is the function's `def` line. Below a library's function stands the user's
//! function that calls it.

use super::Page;
use crate::analysis::file_names::FileNames;
use crate::analysis::report::{Blame, FunctionRow, Place, Report};
use crate::output::{columns, file_names, numbers, palette, sanitize};

/// Rows of the table of functions that make others wait.
const MAX_CULPRITS: usize = 5;
/// Rows of the table of all functions.
const MAX_FUNCTIONS: usize = 10;
/// Waiters named below one culprit.
const MAX_WAITERS: usize = 2;
/// A function that keeps less than this many threads waiting is no culprit.
const MIN_INFLICTED: f64 = 0.005;
/// A place never gets less than this; then the name is cut.
const NARROWEST_PLACE: usize = 14;

pub(super) fn write(page: &mut Page, report: &Report) {
    let names = file_names::of_report(report);
    let detailed = culprits(page, report, &names);
    functions(page, &report.functions, &detailed, &names);
}

/// The functions that held the GIL while others waited, and the functions that waited. Returns the
/// functions of the table.
fn culprits<'r>(page: &mut Page, report: &'r Report, names: &FileNames) -> Vec<&'r FunctionRow> {
    let mut rows: Vec<&FunctionRow> = report.functions.iter().filter(|f| f.inflicted_wait >= MIN_INFLICTED).collect();
    rows.sort_by(|a, b| b.inflicted_wait.total_cmp(&a.inflicted_wait));
    rows.truncate(MAX_CULPRITS);
    if rows.is_empty() {
        return rows;
    }
    let table = Table::new(page, &[("holding", 9), ("in C", 7), ("others wait", 13)], &rows, names);
    table.head(page, ["who makes others wait, threads on average", "who makes others wait (threads)"]);
    for row in &rows {
        table.row(page, row, names, &[row.holding, row.holding_native, row.inflicted_wait]);
        details(page, row, &report.blame, names);
    }
    without_holder(page, report);
    rows
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

/// The user's function that calls it, the line that holds most, and the functions that wait
/// meanwhile.
fn details(page: &mut Page, row: &FunctionRow, blame: &[Blame], names: &FileNames) {
    let mut pieces: Vec<String> = called_from(row, names).into_iter().collect();
    if row.hot_line != 0 && row.hot_line != row.line {
        pieces.push(format!("mostly at line {}", row.hot_line));
    }
    if row.holding_blocked >= MIN_INFLICTED {
        pieces.push(format!("{} holding while asleep", numbers::mean_threads(row.holding_blocked)));
    }
    let is_holder = |p: &Place| p.name == row.name && p.file == row.file && p.line == row.line;
    let waiters = blame.iter().filter(|b| b.holder.as_ref().is_some_and(is_holder) && b.seconds > 0.0);
    for b in waiters.take(MAX_WAITERS) {
        let place = match file_names::place(names, &b.waiter.file, b.waiter.line) {
            place if place.is_empty() => String::new(),
            place => format!(" ({place})"),
        };
        pieces.push(format!("{}{place} waits {}", sanitize::clean(&b.waiter.name), numbers::seconds(b.seconds)));
    }
    dim(page, &pieces);
}

/// Notes below a row.
fn dim(page: &mut Page, pieces: &[String]) {
    if !pieces.is_empty() {
        let colour = page.style.colour;
        page.flow_painted("    ", ", ", pieces, |_, piece| palette::dim(piece, colour));
    }
}

/// The user's function that calls a library's function.
fn called_from(row: &FunctionRow, names: &FileNames) -> Option<String> {
    file_names::caller(names, row.called_from.as_ref()).map(|caller| format!("called from {caller}"))
}

/// The time that functions take, by state, those with most activity first. The caller of a function
/// that was `detailed` above is not repeated.
fn functions(page: &mut Page, functions: &[FunctionRow], detailed: &[&FunctionRow], names: &FileNames) {
    if functions.is_empty() {
        return;
    }
    let mut rows: Vec<&FunctionRow> = functions.iter().collect();
    let active = |f: &FunctionRow| f.holding + f.waiting + f.native + f.lock;
    rows.sort_by(|a, b| active(b).total_cmp(&active(a)));
    rows.truncate(MAX_FUNCTIONS);
    let table = Table::new(page, &[("holding", 9), ("waiting", 8), ("native", 7), ("lock", 6), ("io", 6)], &rows, names);
    table.head(page, ["functions, threads on average", "functions (threads)"]);
    for f in &rows {
        table.row(page, f, names, &[f.holding, f.waiting, f.native, f.lock, f.io]);
        if !detailed.iter().any(|known| std::ptr::eq(*known, *f)) {
            dim(page, &called_from(f, names).into_iter().collect::<Vec<_>>());
        }
    }
    if functions.len() > MAX_FUNCTIONS {
        page.prose("  ", &format!("and {} more functions", numbers::thousands((functions.len() - MAX_FUNCTIONS) as u64)));
    }
}

/// A table with a function's name, its place and figures.
struct Table<'a> {
    heads: &'a [(&'a str, usize)],
    name: usize,
    /// Columns of name and place together, with the space between.
    room: usize,
}

impl<'a> Table<'a> {
    /// Places begin at one column, except behind a name that is longer.
    fn new(page: &Page, heads: &'a [(&'a str, usize)], rows: &[&FunctionRow], names: &FileNames) -> Table<'a> {
        let most = page.style.width - 2 - heads.iter().map(|head| head.1).sum::<usize>();
        let longest = |text: &dyn Fn(&FunctionRow) -> String| rows.iter().map(|row| columns::width(&text(row))).max().unwrap_or(0);
        let place = longest(&|row| file_names::place(names, &row.file, row.line)).max(NARROWEST_PLACE).min(most / 2);
        // On a wide page the figures stay near the names, but do not come before those of a narrow
        // one.
        let name = longest(&|row| sanitize::clean(&row.name)).max(30).min(most - 1 - place);
        let room = longest(&|row| format!("{} {}", sanitize::clean(&row.name), file_names::place(names, &row.file, row.line)));
        Table { heads, name, room: room.max(name + 1 + place).min(most) }
    }

    /// The first of the titles that fits.
    fn head(&self, page: &mut Page, titles: [&str; 2]) {
        let room = self.room;
        let title = titles.into_iter().find(|title| columns::width(title) <= room).unwrap_or(titles[1]);
        let heads = self.heads.iter().map(|&(word, columns)| columns::right(word, columns));
        page.heading(&format!("  {}{}", columns::left(title, room), heads.collect::<String>()));
    }

    /// A place is cut before a name is. The end of the place, its line, stays.
    fn row(&self, page: &mut Page, row: &FunctionRow, names: &FileNames, figures: &[f64]) {
        let figures = figures.iter().zip(self.heads).map(|(&figure, head)| columns::right(&numbers::mean_threads(figure), head.1));
        let (name, place) = (sanitize::clean(&row.name), file_names::place(names, &row.file, row.line));
        let shortest = columns::width(&place).min(NARROWEST_PLACE);
        let name = columns::left(&name, columns::width(&name).max(self.name).min(self.room - 1 - shortest));
        let place = columns::left(&place, self.room - 1 - columns::width(&name));
        page.line(&format!("  {name} {place}{}", figures.collect::<String>()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::report::Caller;
    use crate::output::testing::measured;
    use crate::output::text::{render, Style};

    #[test]
    fn a_librarys_function_has_its_caller_below_once() {
        let mut report = measured().report;
        let caller = Caller { name: "parse".into(), file: "/srv/app.py".into(), line: 12, call_line: 15 };
        let row = &mut report.functions[0];
        (row.name, row.file, row.line) = ("JSONEncoder.iterencode".into(), "/usr/lib/python3.11/json/encoder.py".into(), 205);
        row.called_from = Some(caller);
        let text = render(&report, Style::PLAIN);
        assert!(text.contains("json/encoder.py:205"), "{text}");
        assert_eq!(text.matches("    called from parse (app.py:12) at line 15").count(), 1, "{text}");
        report.functions[0].inflicted_wait = 0.0;
        assert_eq!(render(&report, Style::PLAIN).matches("    called from parse (app.py:12) at line 15").count(), 1);
    }

    #[test]
    fn a_place_is_cut_before_a_name() {
        let mut report = measured().report;
        let row = &mut report.functions[0];
        (row.name, row.file, row.line) = ("Server.handle_one_request".into(), "/srv/handlers_of_the_requests.py".into(), 1200);
        let text = render(&report, Style::PLAIN);
        assert_eq!(text.matches("Server.handle_one_request ").count(), 2, "{text}");
        assert!(text.contains("…") && text.lines().all(|line| columns::width(line) <= 80), "{text}");
        let wide = render(&report, Style { width: 120, ..Style::PLAIN });
        assert!(wide.contains("handlers_of_the_requests.py:1200"), "{wide}");
    }
}
