//! The functions: who makes others wait, and what else functions spend threads on.

use super::Page;
use crate::analysis::report::{Blame, FunctionRow, Place, Report};
use crate::output::{columns, numbers, palette, sanitize};

/// Rows of each of the two tables.
const MAX_CULPRITS: usize = 5;
const MAX_FUNCTIONS: usize = 10;
/// Waiters named behind one culprit.
const MAX_WAITERS: usize = 2;
/// A function that keeps less than this many threads waiting is no culprit.
const MIN_INFLICTED: f64 = 0.005;
const PLACE_COLUMNS: usize = 18;

pub(super) fn write(page: &mut Page, report: &Report) {
    culprits(page, report);
    functions(page, &report.functions);
}

/// Who was holding while others waited, and who they were.
fn culprits(page: &mut Page, report: &Report) {
    let mut rows: Vec<&FunctionRow> = report.functions.iter().filter(|f| f.inflicted_wait >= MIN_INFLICTED).collect();
    rows.sort_by(|a, b| b.inflicted_wait.total_cmp(&a.inflicted_wait));
    let no_holder: f64 = report.blame.iter().filter(|b| b.holder.is_none() && b.seconds > 0.0).map(|b| b.seconds).sum();
    if rows.is_empty() {
        return;
    }
    let names = page.style.width - 2 - 1 - PLACE_COLUMNS - 8 - 8 - 15;
    let head = columns::left("who makes others wait", names + 1 + PLACE_COLUMNS);
    page.heading(&format!("  {head}{}{}{}", columns::right("holds", 8), columns::right("in C", 8), columns::right("others wait", 15)));
    for row in rows.iter().take(MAX_CULPRITS) {
        page.line(&format!(
            "  {}{}{}{}",
            label(&row.name, &row.file, row.line, names),
            columns::right(&numbers::percent(row.holding), 8),
            columns::right(&numbers::percent(row.holding_native), 8),
            columns::right(&numbers::threads(row.inflicted_wait), 15)
        ));
        details(page, row, &report.blame);
    }
    if no_holder > 0.0 {
        page.prose("  ", &format!("hand-off (waiting while nobody was seen to hold): {} of thread time", numbers::seconds(no_holder)));
    }
}

/// The line that holds most, and who waits behind it.
fn details(page: &mut Page, row: &FunctionRow, blame: &[Blame]) {
    let mut pieces = Vec::new();
    if row.hot_line != 0 && row.hot_line != row.line {
        pieces.push(format!("mostly at line {}", row.hot_line));
    }
    if row.holding_blocked >= MIN_INFLICTED {
        pieces.push(format!("asleep with the GIL {}", numbers::percent(row.holding_blocked)));
    }
    let held = |p: &Place| p.name == row.name && p.file == row.file && p.line == row.line;
    let waiters = blame.iter().filter(|b| b.holder.as_ref().is_some_and(held) && b.seconds > 0.0);
    for b in waiters.take(MAX_WAITERS) {
        let place = place(&b.waiter.file, b.waiter.line);
        pieces.push(format!("{} ({place}) waits {}", sanitize::clean(&b.waiter.name), numbers::seconds(b.seconds)));
    }
    if !pieces.is_empty() {
        let colour = page.style.colour;
        page.flow_painted("    ", ", ", &pieces, |_, piece| palette::dim(piece, colour));
    }
}

/// What the report's first functions spend threads on.
fn functions(page: &mut Page, functions: &[FunctionRow]) {
    if functions.is_empty() {
        return;
    }
    const COLUMNS: usize = 7;
    let heads = ["holds", "waits", "native", "lock", "io"];
    let names = page.style.width - 2 - 1 - PLACE_COLUMNS - heads.len() * COLUMNS;
    let mut head = format!("  {}", columns::left("functions, threads on average", names + 1 + PLACE_COLUMNS));
    head.extend(heads.map(|h| columns::right(h, COLUMNS)));
    page.heading(&head);
    for f in functions.iter().take(MAX_FUNCTIONS) {
        let figures = [f.holding, f.waiting, f.native, f.lock, f.io].map(|v| columns::right(&numbers::mean_threads(v), COLUMNS));
        page.line(&format!("  {}{}", label(&f.name, &f.file, f.line, names), figures.concat()));
    }
    if functions.len() > MAX_FUNCTIONS {
        page.prose("  ", &format!("and {} more functions", numbers::thousands((functions.len() - MAX_FUNCTIONS) as u64)));
    }
}

/// A function's name and place in two columns.
fn label(name: &str, file: &str, line: u32, columns: usize) -> String {
    format!("{} {}", columns::left(&sanitize::clean(name), columns), columns::left(&place(file, line), PLACE_COLUMNS))
}

/// `app.py:12`, or the file alone where the line is not known.
fn place(file: &str, line: u32) -> String {
    let file = sanitize::clean(sanitize::basename(file));
    match line {
        0 => file,
        line => format!("{file}:{line}"),
    }
}
