//! The threads table: the share of its time that each thread spent in each state.
//!
//! A row's integers are apportioned by largest remainder and add to 100. A state whose share is not
//! zero but rounds to it prints `<1` and counts as 0. Time that the shares do not cover is
//! `unknown` and never spread over the others. Many threads of one pool with nearly equal shares
//! make one row, `crawl_* x16`.

use super::Page;
use crate::analysis::name_pattern::name_pattern;
use crate::analysis::report::{Holding, Report, States, Thread};
use crate::output::repeated_names::RepeatedNames;
use crate::output::{columns, numbers, palette, sanitize, thread_bar};
use crate::sample::State;
use rustc_hash::FxHashMap;

/// Rows before the rest is shown as one.
const MAX_ROWS: usize = 20;
/// So many threads with names that differ only in their numbers have a row each, and more threads
/// have at most so many rows.
const FEW: usize = 4;
/// Shares of threads in one row differ by at most this much from those of the row's first thread.
const NEARLY: f64 = 0.1;
/// Share of a thread's time in which it holds the GIL without a core, from which a line says so.
const WITHOUT_CORE: f64 = 0.05;
const SHORTEST_BAR: usize = 6;
const LONGEST_BAR: usize = 22;
/// Names never get less than this.
const NARROWEST_NAME: usize = 10;
/// The head of each state's column, and its short form for narrow pages.
const HEADS: [[&str; 2]; 7] =
    [["holding", "hold"], ["waiting", "wait"], ["native", "nat"], ["starved", "starv"], ["lock", "lock"], ["io", "io"], ["unknown", "unk"]];
const CPU_COLUMNS: usize = 5;

/// One line of the table.
struct Row {
    name: String,
    /// What is behind the name and never cut: ` [7]`, the id of a thread where several have its
    /// name, or ` x16`, the number of threads in the row.
    suffix: String,
    python: bool,
    cpu: f64,
    /// In the order of `HEADS`.
    shares: [f64; 7],
    holding: Holding,
    cells: [String; 7],
}

impl Row {
    /// The name in exactly so many columns.
    fn label(&self, columns: usize) -> String {
        columns::left(&(columns::fit(&self.name, columns.saturating_sub(self.suffix.len())) + &self.suffix), columns)
    }

    fn width(&self) -> usize {
        columns::width(&self.name) + self.suffix.len()
    }

    fn has_id(&self) -> bool {
        self.suffix.ends_with(']')
    }
}

/// Where the columns are.
struct Layout {
    /// Head and width of each state's column.
    heads: Vec<(&'static str, usize)>,
    /// Whether the heads are cut.
    short: bool,
    name: usize,
    /// 0 where there is no room for bars, or no wish.
    bar: usize,
}

pub(super) fn write(page: &mut Page, report: &Report) {
    if report.threads.is_empty() {
        page.heading("  threads");
        page.prose("  ", "no thread was seen");
        return;
    }
    let rows = rows(&report.threads);
    let layout = layout(page, &rows);
    let mut head = format!("  {} ", columns::left("thread", layout.name));
    head.extend(layout.heads.iter().map(|&(word, columns)| columns::right(word, columns)));
    page.heading(&(head + &columns::right("cpu", CPU_COLUMNS)));
    for row in &rows {
        let mark = if row.python { " " } else { "*" };
        let mut line = format!("  {}{mark}", row.label(layout.name));
        line.extend(row.cells.iter().zip(&layout.heads).map(|(cell, &(_, columns))| columns::right(cell, columns)));
        line += &columns::right(&numbers::bare_percent(row.cpu), CPU_COLUMNS);
        if layout.bar > 0 {
            line = format!("{line}  {}", bar(row, layout.bar, page.style.colour));
        }
        page.line(&line);
    }
    legend(page, &rows, &layout);
}

/// Bars go first, then heads are cut, and names last.
fn layout(page: &Page, rows: &[Row]) -> Layout {
    // The column is there only when something is unknown, and then the rows need it to add up.
    let unknown = rows.iter().any(|row| !matches!(row.cells[6].as_str(), "0" | numbers::NONE));
    let states = if unknown { HEADS.len() } else { HEADS.len() - 1 };
    let heads = |short: bool| -> Vec<(&'static str, usize)> {
        // A cell is up to `100`, and a space keeps it from the one before.
        HEADS[..states].iter().map(|words| words[usize::from(short)]).map(|word| (word, word.len().max(3) + 1)).collect()
    };
    let room = |heads: &[(&str, usize)]| page.style.width - 3 - CPU_COLUMNS - heads.iter().map(|head| head.1).sum::<usize>();
    let full = heads(false);
    let longest = rows.iter().map(Row::width).max().unwrap_or(0).max(NARROWEST_NAME);
    let short = room(&full) < longest;
    let heads = if short { heads(true) } else { full };
    let room = room(&heads);
    let name = longest.min(room);
    let left = (room - name).saturating_sub(2).min(LONGEST_BAR);
    Layout { heads, short, name, bar: if page.style.bars && left >= SHORTEST_BAR { left } else { 0 } }
}

/// The threads that hold and wait most come first, then those that use most CPU. Threads beyond the
/// last row are shown as their mean.
fn rows(threads: &[Thread]) -> Vec<Row> {
    let mut order = folded(threads);
    let longest = threads.iter().map(|t| t.seconds).fold(f64::MIN_POSITIVE, f64::max);
    // Threads that are alike have the place of one of them.
    let contending = |fold: &[&Thread]| steps(mean_of(fold, |t| (t.states.holding + t.states.waiting) * t.seconds / longest));
    let cpu = |fold: &[&Thread]| steps(mean_of(fold, |t| t.cpu));
    order.sort_by_cached_key(|fold| std::cmp::Reverse((contending(fold), cpu(fold))));
    let repeated = RepeatedNames::new(threads.iter().map(|t| t.name.as_str()));
    // One row left over takes no more room than a line about it.
    let shown = if order.len() <= MAX_ROWS + 1 { order.len() } else { MAX_ROWS };
    let mut rows: Vec<Row> = order[..shown].iter().map(|fold| fold_row(fold, &repeated)).collect();
    let rest = order[shown..].concat();
    if !rest.is_empty() {
        rows.push(mean(format!("{} more, mean", numbers::thousands(rest.len() as u64)), &rest));
    }
    rows
}

fn fold_row(fold: &[&Thread], repeated: &RepeatedNames<'_>) -> Row {
    match fold {
        [t] => {
            let suffix = if repeated.contains(&t.name) { format!(" [{}]", t.tid) } else { String::new() };
            Row { suffix, ..row(sanitize::clean(&t.name), t.python, t.cpu, &t.states, t.holding) }
        }
        alike => {
            let name = alike.first().map(|t| sanitize::clean(&name_pattern(&t.name))).unwrap_or_default();
            Row { suffix: format!(" x{}", alike.len()), ..mean(name, alike) }
        }
    }
}

/// The threads by row, in the order of the first of each name.
fn folded(threads: &[Thread]) -> Vec<Vec<&Thread>> {
    let mut of_name: Vec<Vec<&Thread>> = Vec::new();
    let mut known: FxHashMap<(String, bool), usize> = FxHashMap::default();
    for thread in threads {
        let n = *known.entry((name_pattern(&thread.name), thread.python)).or_insert(of_name.len());
        match of_name.get_mut(n) {
            Some(fold) => fold.push(thread),
            None => of_name.push(vec![thread]),
        }
    }
    of_name.into_iter().flat_map(rows_of_name).collect()
}

/// A few threads have a row each. Of more threads, those that are alike share a row; if that makes
/// more than a few rows, all share one.
fn rows_of_name(threads: Vec<&Thread>) -> Vec<Vec<&Thread>> {
    if threads.len() <= FEW {
        return threads.into_iter().map(|thread| vec![thread]).collect();
    }
    let mut folds: Vec<Vec<&Thread>> = Vec::new();
    for thread in &threads {
        match folds.iter().position(|fold| are_alike(fold[0], thread)) {
            Some(alike) => folds[alike].push(thread),
            None => folds.push(vec![thread]),
        }
        if folds.len() > FEW {
            return vec![threads];
        }
    }
    folds
}

/// Whether each share of one thread is nearly that of the other. A share that is not a number is
/// like any other.
fn are_alike(a: &Thread, b: &Thread) -> bool {
    let (a, b) = (thread_bar::shares(&a.states), thread_bar::shares(&b.states));
    !a.iter().zip(b).any(|(a, b)| (a - b).abs() > NEARLY)
}

/// A share in steps coarse enough that threads which do the same keep the report's order. NaN
/// counts as 0.
fn steps(share: f64) -> i64 {
    (share * 20.0).round() as i64
}

fn row(name: String, python: bool, cpu: f64, states: &States, holding: Holding) -> Row {
    let shares = thread_bar::covering_shares(states);
    let name = if name.trim().is_empty() { "?".into() } else { name };
    let cells = match numbers::apportion(&shares, 100) {
        Some(whole) => std::array::from_fn(|i| numbers::cell(whole[i], shares[i])),
        None => std::array::from_fn(|_| numbers::NONE.into()),
    };
    Row { name, suffix: String::new(), python, cpu, shares, holding, cells }
}

/// The mean of a figure over threads, each weighted by the time for which it was seen.
fn mean_of(threads: &[&Thread], figure: impl Fn(&Thread) -> f64) -> f64 {
    match threads {
        [one] => figure(one),
        all => all.iter().map(|t| figure(t) * t.seconds).sum::<f64>() / all.iter().map(|t| t.seconds).sum::<f64>(),
    }
}

/// Several threads as one row: means, each thread weighted by the time for which it was seen.
fn mean(name: String, rest: &[&Thread]) -> Row {
    let of = |figure: fn(&Thread) -> f64| mean_of(rest, figure);
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
    row(name, rest.iter().any(|t| t.python), of(|t| t.cpu), &states, holding)
}

fn detail(row: &Row) -> [(State, f64); State::COUNT] {
    thread_bar::parts(&row.shares, &row.holding)
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

/// Explains the bars' characters, the mark, the thread ids and the cut heads that the table has.
fn legend(page: &mut Page, rows: &[Row], layout: &Layout) {
    let occurs = |state: State| {
        let step = 0.5 / layout.bar.max(1) as f64;
        rows.iter().flat_map(detail).any(|(s, share)| s == state && share >= step)
    };
    let visible = State::ALL.into_iter().filter(|&s| layout.bar > 0 && palette::style(s).glyph != ' ' && occurs(s));
    let states: Vec<State> = visible.collect();
    let mut pieces: Vec<String> = states.iter().map(|&s| format!("{} {}", palette::style(s).glyph, palette::style(s).legend)).collect();
    if rows.iter().any(|row| !row.python) {
        pieces.push("* no Python thread".into());
    }
    if rows.iter().any(Row::has_id) {
        pieces.push("[n] thread id".into());
    }
    if rows.iter().any(|row| row.suffix.starts_with(" x")) {
        pieces.push("xN mean of N threads".into());
    }
    let without_core = rows.iter().map(|row| row.holding.starved).fold(0.0, f64::max);
    if without_core >= WITHOUT_CORE {
        pieces.push(format!("holding includes up to {} without a core", numbers::percent(without_core)));
    }
    if layout.short {
        let cut = HEADS[..layout.heads.len()].iter().filter(|[word, short]| word != short);
        pieces.extend(cut.map(|[word, short]| format!("{short} = {word}")));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::{measured, HOSTILE};
    use crate::output::text::{render, Style};

    #[test]
    fn threads_with_the_same_name_show_their_ids() {
        let mut report = measured().report;
        report.threads[1].name = "a-worker-with-a-rather-long-name".into();
        report.threads[2].name = report.threads[1].name.clone();
        let text = render(&report, Style::PLAIN);
        for tid in [report.threads[1].tid, report.threads[2].tid] {
            assert!(text.lines().any(|line| line.starts_with("  a-worke") && line.contains(&format!("-name [{tid}]"))), "{text}");
        }
        assert!(text.contains("[n] thread id") && !text.contains(&format!("MainThread [{}]", report.threads[0].tid)), "{text}");
    }

    #[test]
    fn holding_without_a_core_is_noted() {
        let mut report = measured().report;
        assert!(!render(&report, Style::PLAIN).contains("without a core"));
        report.threads[1].states = States { holding: 0.9, io: 0.1, ..States::default() };
        report.threads[1].holding = Holding { python: 0.08, starved: 0.82, ..Holding::default() };
        assert!(render(&report, Style::PLAIN).contains("holding includes up to 82 % without a core"), "{}", render(&report, Style::PLAIN));
    }

    #[test]
    fn threads_that_are_alike_are_one_row() {
        let mut report = measured().report;
        let worker = report.threads[1].clone();
        let like = |n: i32, waiting: f64| {
            let mut thread = worker.clone();
            (thread.name, thread.tid) = (format!("crawl-{n}_7"), 5000 + n);
            thread.states = States { waiting, io: 1.0 - waiting, ..States::default() };
            thread
        };
        let few: Vec<Thread> = (0..4).map(|n| like(n, 0.3)).collect();
        let many: Vec<Thread> = (4..20).map(|n| like(n, 0.3 + 0.05 * f64::from(n % 2))).collect();
        let other = like(99, 0.9);
        report.threads.extend(few);
        assert!(!render(&report, Style::PLAIN).contains("crawl-*_*"));
        report.threads.extend(many);
        report.threads.push(other);
        let text = render(&report, Style::PLAIN);
        let row: Vec<&str> = text.lines().find(|line| line.contains("crawl-*_* x20")).unwrap().split_whitespace().collect();
        assert_eq!(row[2..4], ["0", "32"], "{text}");
        assert!(text.contains("\n  crawl-99_7") && !text.contains("crawl-1_7"), "{text}");
        assert!(text.contains("xN mean of N threads"), "{text}");
        // Threads that are not alike at all do not fill the page either.
        report.threads.extend((0..8).map(|n| like(200 + n, 0.12 * f64::from(n))));
        let text = render(&report, Style::PLAIN);
        assert!(text.contains("  crawl-*_* x29 ") && text.matches("crawl-").count() == 1, "{text}");
    }

    #[test]
    fn names_are_cut_last() {
        let mut report = measured().report;
        report.threads.retain(|t| t.name != HOSTILE);
        let mut text = |name: &str, width: usize| {
            report.threads[0].name = name.into();
            render(&report, Style { colour: false, bars: true, width })
        };
        let (short, long) = ("ThreadPoolExecutor-0_6", "Thread-1 (serve_forever_and_ever)");
        assert!(text(short, 80).lines().any(|line| line.contains(short) && line.contains('#')), "bars have room");
        let cut = text(long, 80);
        assert!(cut.contains(long) && cut.contains("nat = native"), "{cut}");
        assert!(!text(&"n".repeat(70), 80).contains(&"n".repeat(70)));
    }

    #[test]
    fn a_narrow_page_explains_the_heads_that_it_cuts() {
        let mut report = measured().report;
        report.threads.retain(|t| t.name != HOSTILE);
        let states = &mut report.threads[1].states;
        (states.unknown, states.waiting) = (states.waiting, 0.0);
        assert!(render(&report, Style::PLAIN).contains("holding waiting native starved lock  io unknown  cpu"));
        let narrow = render(&report, Style { width: Style::NARROWEST, ..Style::PLAIN });
        assert!(narrow.contains("hold wait nat starv lock  io unk  cpu"), "{narrow}");
        assert!(narrow.contains("nat = native") && narrow.contains("unk = unknown") && !narrow.contains("io = io"), "{narrow}");
    }
}
