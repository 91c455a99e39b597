//! The threads table: what share of its time each thread spent in each state.
//!
//! Rule of the figures: a row's integers are dealt out by largest remainder and add to 100. A state that is there but got nothing prints
//! `<1` and counts as 0. Time that the shares do not cover is `unk`, never spread over the others.

use super::Page;
use crate::analysis::report::{Holding, Report, States, Thread};
use crate::output::{columns, numbers, palette, sanitize};
use crate::sample::State;

/// Rows before the rest is shown as one.
const MAX_ROWS: usize = 20;
/// How far the shares may miss 1 before the difference is shown as unknown.
const SLACK: f64 = 0.005;
const SHORTEST_BAR: usize = 6;
const LONGEST_BAR: usize = 22;
const HEADS: [(&str, usize); 7] = [("hold", 5), ("wait", 5), ("nat", 5), ("starv", 6), ("lock", 5), ("io", 5), ("unk", 5)];
const CPU_COLUMNS: usize = 6;

/// One line of the table.
struct Row {
    name: String,
    python: bool,
    cpu: f64,
    /// In the order of `HEADS`.
    shares: [f64; 7],
    holding: Holding,
    cells: [String; 7],
}

pub(super) fn write(page: &mut Page, report: &Report) {
    if report.threads.is_empty() {
        page.heading("  threads");
        page.prose("  ", "none were seen");
        return;
    }
    let rows = rows(&report.threads);
    // The column is there only when something is unknown, and then the rows need it to add up.
    let unknown = rows.iter().any(|row| !matches!(row.cells[6].as_str(), "0" | numbers::NONE));
    let heads = if unknown { &HEADS[..] } else { &HEADS[..6] };
    let figures: usize = heads.iter().map(|h| h.1).sum::<usize>() + CPU_COLUMNS;
    let (name_columns, bar_columns) = layout(page, &rows, figures);

    let mut head = format!("  {} ", columns::left("thread", name_columns));
    head.extend(heads.iter().map(|&(word, columns)| columns::right(word, columns)));
    page.heading(&(head + &columns::right("cpu", CPU_COLUMNS)));
    for row in &rows {
        let mark = if row.python { " " } else { "*" };
        let mut line = format!("  {}{mark}", columns::left(&row.name, name_columns));
        line.extend(row.cells.iter().zip(heads).map(|(cell, &(_, columns))| columns::right(cell, columns)));
        line += &columns::right(&numbers::bare_percent(row.cpu), CPU_COLUMNS);
        if bar_columns > 0 {
            line = format!("{line}  {}", bar(row, bar_columns, page.style.colour));
        }
        page.line(&line);
    }
    legend(page, &rows, bar_columns);
}

/// Columns for names and for bars; no bars where there is no room or no wish for them.
fn layout(page: &Page, rows: &[Row], figures: usize) -> (usize, usize) {
    let room = page.style.width - 3 - figures;
    let longest = rows.iter().map(|row| columns::width(&row.name)).max().unwrap_or(0);
    let generous = 16 + page.style.width.saturating_sub(80) / 2;
    let name = longest.clamp(10, generous).min(room);
    let left = (room - name).saturating_sub(2).min(LONGEST_BAR);
    (name, if page.style.bars && left >= SHORTEST_BAR { left } else { 0 })
}

/// The threads that have most to do with the GIL first, then those that use most CPU; beyond the most rows, their mean.
fn rows(threads: &[Thread]) -> Vec<Row> {
    let mut order: Vec<&Thread> = threads.iter().collect();
    let longest = threads.iter().map(|t| t.seconds).fold(f64::MIN_POSITIVE, f64::max);
    let contending = |t: &Thread| steps((t.states.holding + t.states.waiting) * t.seconds / longest);
    order.sort_by(|a, b| contending(b).cmp(&contending(a)).then(steps(b.cpu).cmp(&steps(a.cpu))));
    // One thread left over takes no more room than a line about it.
    let shown = if order.len() <= MAX_ROWS + 1 { order.len() } else { MAX_ROWS };
    let mut rows: Vec<Row> = order[..shown].iter().map(|t| row(sanitize::clean(&t.name), t.python, t.cpu, &t.states, t.holding)).collect();
    if shown < order.len() {
        rows.push(mean(&order[shown..]));
    }
    rows
}

/// A share in steps coarse enough that threads which do the same keep the report's order; not a number sorts last.
fn steps(share: f64) -> i64 {
    (share * 20.0).round() as i64
}

fn row(name: String, python: bool, cpu: f64, states: &States, holding: Holding) -> Row {
    let mut shares = [states.holding, states.waiting, states.native, states.starved, states.lock, states.io, states.unknown];
    let uncovered = 1.0 - shares.iter().sum::<f64>();
    if uncovered > SLACK {
        shares[6] += uncovered;
    }
    let name = if name.trim().is_empty() { "?".into() } else { name };
    let cells = match numbers::apportion(&shares, 100) {
        Some(whole) => std::array::from_fn(|i| numbers::cell(whole[i], shares[i])),
        None => std::array::from_fn(|_| numbers::NONE.into()),
    };
    Row { name, python, cpu, shares, holding, cells }
}

/// The rest as one row: means, each thread weighed by how long it was seen.
fn mean(rest: &[&Thread]) -> Row {
    let total: f64 = rest.iter().map(|t| t.seconds).sum();
    let of = |figure: fn(&Thread) -> f64| rest.iter().map(|t| figure(t) * t.seconds).sum::<f64>() / total;
    let states = States {
        holding: of(|t| t.states.holding),
        waiting: of(|t| t.states.waiting),
        native: of(|t| t.states.native),
        starved: of(|t| t.states.starved),
        lock: of(|t| t.states.lock),
        io: of(|t| t.states.io),
        unknown: of(|t| t.states.unknown),
    };
    let holding = Holding {
        python: of(|t| t.holding.python),
        native: of(|t| t.holding.native),
        blocked: of(|t| t.holding.blocked),
        starved: of(|t| t.holding.starved),
    };
    let name = format!("{} more, mean", numbers::thousands(rest.len() as u64));
    row(name, rest.iter().any(|t| t.python), of(|t| t.cpu), &states, holding)
}

/// A row's shares in full detail. Where the split of holding does not cover it, the rest is shown as plain holding.
fn detail(row: &Row) -> [(State, f64); State::COUNT] {
    let h = &row.holding;
    let python = (row.shares[0] - h.native - h.blocked - h.starved).max(0.0);
    [
        (State::HoldingPython, python),
        (State::HoldingNative, h.native),
        (State::HoldingBlocked, h.blocked),
        (State::HoldingStarved, h.starved),
        (State::Waiting, row.shares[1]),
        (State::Native, row.shares[2]),
        (State::Starved, row.shares[3]),
        (State::Lock, row.shares[4]),
        (State::Io, row.shares[5]),
        (State::Unknown, row.shares[6]),
    ]
}

fn bar(row: &Row, columns: usize, colour: bool) -> String {
    let detail = detail(row);
    let shares = detail.map(|(_, share)| share);
    let Some(lengths) = numbers::apportion(&shares, columns as u32) else { return String::new() };
    let runs = detail.iter().zip(lengths).map(|(&(state, _), n)| {
        let run = palette::style(state).glyph.to_string().repeat(n as usize);
        // Blanks stay bare, so that a line's end can be trimmed.
        if state == State::Io {
            run
        } else {
            palette::paint(&run, state, colour)
        }
    });
    runs.collect()
}

/// Says what the bars' characters and the mark mean, those that occur only.
fn legend(page: &mut Page, rows: &[Row], bar_columns: usize) {
    let occurs = |state: State| {
        let step = 0.5 / bar_columns.max(1) as f64;
        rows.iter().flat_map(detail).any(|(s, share)| s == state && share >= step)
    };
    let visible = State::ALL.into_iter().filter(|&s| bar_columns > 0 && palette::style(s).glyph != ' ' && occurs(s));
    let states: Vec<State> = visible.collect();
    let mut pieces: Vec<String> = states.iter().map(|&s| format!("{} {}", palette::style(s).glyph, palette::style(s).legend)).collect();
    if rows.iter().any(|row| !row.python) {
        pieces.push("* no Python thread".into());
    }
    if pieces.is_empty() {
        return;
    }
    let colour = page.style.colour;
    page.flow_painted("  ", "  ", &pieces, |n, piece| match states.get(n) {
        Some(&state) => palette::paint(piece, state, colour),
        None => piece.to_string(),
    });
}
