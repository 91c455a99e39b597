//! The threads table: the share of its time that each thread spent in each state.
//!
//! A row's integers are apportioned by largest remainder and add to 100. A state whose share is not
//! zero but rounds to it prints `<1` and counts as 0. Time that the shares do not cover is
//! `unknown` and never spread over the others.

use super::Page;
use crate::analysis::report::{Holding, Report, States, Thread};
use crate::output::repeated_names::RepeatedNames;
use crate::output::{columns, numbers, palette, sanitize};
use crate::sample::State;
use rustc_hash::FxHashMap;

/// Rows before the rest is shown as one.
const MAX_ROWS: usize = 20;
/// More sleeping threads than this with names that differ only in their numbers make one row.
const MAX_ALIKE: usize = 4;
/// A thread that spent this share of its time asleep, for I/O or a lock, did nothing else.
const ASLEEP: f64 = 0.995;
/// Share of a thread's time in which it holds the GIL without a core, from which a line says so.
const WITHOUT_CORE: f64 = 0.05;
/// The shares may miss 1 by this much before the difference is shown as unknown.
const SLACK: f64 = 0.005;
const SHORTEST_BAR: usize = 6;
const LONGEST_BAR: usize = 22;
/// Narrower names than this are of no use: the heads are cut instead.
const NARROWEST_NAME: usize = 12;
/// Columns that names may take on a page of 80; half of what a page is wider comes on top.
const USUAL_NAME: usize = 24;
/// The head of each state's column, and its short form for narrow pages.
const HEADS: [[&str; 2]; 7] =
    [["holding", "hold"], ["waiting", "wait"], ["native", "nat"], ["starved", "starv"], ["lock", "lock"], ["io", "io"], ["unknown", "unk"]];
const CPU_COLUMNS: usize = 5;

/// One line of the table.
struct Row {
    name: String,
    /// Shown where several threads have the name.
    tid: Option<i32>,
    python: bool,
    cpu: f64,
    /// In the order of `HEADS`.
    shares: [f64; 7],
    holding: Holding,
    cells: [String; 7],
}

impl Row {
    /// The name in exactly so many columns. The thread id is never cut.
    fn label(&self, columns: usize) -> String {
        match self.suffix() {
            suffix if suffix.is_empty() => columns::left(&self.name, columns),
            suffix => columns::left(&(columns::fit(&self.name, columns.saturating_sub(suffix.len())) + &suffix), columns),
        }
    }

    fn width(&self) -> usize {
        columns::width(&self.name) + self.suffix().len()
    }

    fn suffix(&self) -> String {
        self.tid.map_or_else(String::new, |tid| format!(" [{tid}]"))
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

/// Room goes to the heads first, then to names, then to bars.
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
    let short = room(&full) < NARROWEST_NAME;
    let heads = if short { heads(true) } else { full };
    let room = room(&heads);
    let longest = rows.iter().map(Row::width).max().unwrap_or(0);
    let name = longest.clamp(10, USUAL_NAME + page.style.width.saturating_sub(80) / 2).min(room);
    let left = (room - name).saturating_sub(2).min(LONGEST_BAR);
    Layout { heads, short, name, bar: if page.style.bars && left >= SHORTEST_BAR { left } else { 0 } }
}

/// The threads that hold and wait most come first, then those that use most CPU. Threads beyond the
/// last row are shown as their mean. Herds come last.
fn rows(threads: &[Thread]) -> Vec<Row> {
    let (mut order, herds) = without_herds(threads);
    let longest = threads.iter().map(|t| t.seconds).fold(f64::MIN_POSITIVE, f64::max);
    let contending = |t: &Thread| steps((t.states.holding + t.states.waiting) * t.seconds / longest);
    order.sort_by(|a, b| contending(b).cmp(&contending(a)).then(steps(b.cpu).cmp(&steps(a.cpu))));
    let repeated = RepeatedNames::new(threads.iter().map(|t| t.name.as_str()));
    // One thread left over takes no more room than a line about it.
    let shown = if order.len() <= MAX_ROWS + 1 { order.len() } else { MAX_ROWS };
    let mut rows: Vec<Row> = order[..shown]
        .iter()
        .map(|t| Row {
            tid: repeated.contains(&t.name).then_some(t.tid),
            ..row(sanitize::clean(&t.name), t.python, t.cpu, &t.states, t.holding)
        })
        .collect();
    if shown < order.len() {
        let rest = &order[shown..];
        rows.push(mean(format!("{} more, mean", numbers::thousands(rest.len() as u64)), rest));
    }
    rows.extend(herds.iter().map(|(name, herd)| mean(format!("{} asleep: {name}", numbers::thousands(herd.len() as u64)), herd)));
    rows
}

/// Threads that are alike, with their name.
type Herd<'a> = (String, Vec<&'a Thread>);

/// The threads that have a row of their own, and the herds of the others, the largest first.
fn without_herds(threads: &[Thread]) -> (Vec<&Thread>, Vec<Herd<'_>>) {
    let asleep = |t: &&Thread| t.states.io + t.states.lock >= ASLEEP;
    let mut alike: FxHashMap<(String, bool), Vec<&Thread>> = FxHashMap::default();
    for thread in threads.iter().filter(asleep) {
        alike.entry((without_numbers(&thread.name), thread.python)).or_default().push(thread);
    }
    let is_herd = |t: &Thread| alike.get(&(without_numbers(&t.name), t.python)).is_some_and(|herd| herd.len() > MAX_ALIKE);
    let others = threads.iter().filter(|t| !(asleep(t) && is_herd(t))).collect();
    let mut herds: Vec<Herd> =
        alike.iter().filter(|(_, herd)| herd.len() > MAX_ALIKE).map(|((name, _), herd)| (sanitize::clean(name), herd.clone())).collect();
    herds.sort_by(|(name, herd), (other_name, other)| other.len().cmp(&herd.len()).then_with(|| name.cmp(other_name)));
    (others, herds)
}

/// A name with a star for each of its numbers.
fn without_numbers(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '0'..='9' if out.ends_with('*') => {}
            '0'..='9' => out.push('*'),
            c => out.push(c),
        }
    }
    out
}

/// A share in steps coarse enough that threads which do the same keep the report's order. NaN
/// counts as 0.
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
    Row { name, tid: None, python, cpu, shares, holding, cells }
}

/// Several threads as one row: means, each thread weighted by the time for which it was seen.
fn mean(name: String, rest: &[&Thread]) -> Row {
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
    row(name, rest.iter().any(|t| t.python), of(|t| t.cpu), &states, holding)
}

/// A row's shares with holding split. Where the split does not cover holding, the rest is shown as
/// Python code.
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
    if rows.iter().any(|row| row.tid.is_some()) {
        pieces.push("[n] thread id".into());
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
    use crate::output::testing::measured;
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
    fn a_herd_of_sleepers_is_one_row() {
        let mut report = measured().report;
        let sleeper = |n: i32| {
            let mut thread = report.threads[1].clone();
            (thread.name, thread.tid, thread.states) = (format!("pool-{n}_7"), 5000 + n, States::default());
            thread.states.lock = 1.0;
            thread
        };
        let few: Vec<Thread> = (0..4).map(sleeper).collect();
        let herd: Vec<Thread> = (0..600).map(sleeper).collect();
        report.threads.extend(few);
        assert!(!render(&report, Style::PLAIN).contains("asleep: "));
        report.threads.extend(herd);
        let text = render(&report, Style::PLAIN);
        assert!(text.lines().any(|line| line.starts_with("  604 asleep: pool-*_*")), "{text}");
        assert!(!text.contains("pool-1_7") && !text.contains("more, mean"), "{text}");
    }

    #[test]
    fn a_narrow_page_explains_the_heads_that_it_cuts() {
        let mut report = measured().report;
        let states = &mut report.threads[1].states;
        (states.unknown, states.waiting) = (states.waiting, 0.0);
        assert!(render(&report, Style::PLAIN).contains("holding waiting native starved lock  io unknown  cpu"));
        let narrow = render(&report, Style { width: Style::NARROWEST, ..Style::PLAIN });
        assert!(narrow.contains("hold wait nat starv lock  io unk  cpu"), "{narrow}");
        assert!(narrow.contains("nat = native") && narrow.contains("unk = unknown") && !narrow.contains("io = io"), "{narrow}");
    }
}
