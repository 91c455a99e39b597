//! The view of threads: the states of each as shares of its time, and a bar.

use super::{Figure, Heading, ListRow, RowId, SortKey, ALARM};
use crate::analysis::report::Thread;
use crate::output::repeated_names::RepeatedNames;
use crate::output::{numbers, sanitize, thread_bar};
use crate::top::filter::Filter;
use crate::top::picture::Picture;
use rustc_hash::FxHashSet;

/// The columns.
pub const HEADINGS: &[Heading] = &[
    Heading { key: SortKey::Holding, name: "holding", short: "hold" },
    Heading { key: SortKey::Waiting, name: "waiting", short: "wait" },
    Heading { key: SortKey::Native, name: "native", short: "nat" },
    Heading { key: SortKey::Starved, name: "starved", short: "strv" },
    Heading { key: SortKey::Lock, name: "lock", short: "lock" },
    Heading { key: SortKey::Io, name: "io", short: "io" },
    Heading { key: SortKey::Cpu, name: "cpu", short: "cpu" },
];
/// Stands behind the main thread's name.
const MAIN: &str = " (main)";
/// Stands behind the name of a thread that runs no Python.
const NO_PYTHON: &str = " *";

/// The rows that the filter accepts, in the report's order, and how many it hides.
pub fn rows(picture: &Picture, filter: &Filter) -> (Vec<ListRow>, usize) {
    let threads = &picture.report.threads;
    let repeated = RepeatedNames::new(threads.iter().map(|t| t.name.as_str()));
    let accepted = accepted(picture, filter);
    let shown = threads.iter().filter(|t| accepted.as_ref().is_none_or(|tids| tids.contains(&t.tid)));
    let rows: Vec<ListRow> = shown.map(|t| row(picture, t, &repeated)).collect();
    let hidden = threads.len() - rows.len();
    (rows, hidden)
}

/// The threads whose name, or a function or file of whose stacks, matches; `None`: all of them.
fn accepted(picture: &Picture, filter: &Filter) -> Option<FxHashSet<i32>> {
    if !filter.is_set() {
        return None;
    }
    let profile = &picture.profile;
    let names = profile.threads.iter().filter(|t| filter.accepts([t.info.name.as_str()])).map(|t| t.info.tid.0);
    let mut tids: FxHashSet<i32> = names.collect();
    for (thread, stack, _) in profile.stacks() {
        let tid = thread.info.tid.0;
        let texts = || stack.frames.iter().flat_map(|frame| [frame.function.name.as_str(), frame.function.file.as_str()]);
        if !tids.contains(&tid) && filter.accepts(texts()) {
            tids.insert(tid);
        }
    }
    Some(tids)
}

fn row(picture: &Picture, thread: &Thread, repeated: &RepeatedNames<'_>) -> ListRow {
    let shares = thread_bar::covering_shares(&thread.states);
    let whole = numbers::apportion(&shares, 100);
    let cell = |n: usize| whole.as_ref().map_or_else(|| numbers::NONE.into(), |whole| numbers::cell(whole[n], shares[n]));
    let states = (0..6).map(|n| Figure { text: cell(n), value: shares[n] });
    let cpu = Figure { text: numbers::bare_percent(thread.cpu), value: thread.cpu };
    let name = sanitize::clean(&thread.name);
    let mut suffix = if repeated.contains(&thread.name) { format!(" [{}]", thread.tid) } else { String::new() };
    let is_main = picture.profile.threads.iter().any(|t| t.info.main && t.info.tid.0 == thread.tid);
    if is_main && thread.name != "MainThread" {
        suffix += MAIN;
    }
    if !thread.python {
        suffix += NO_PYTHON;
    }
    ListRow {
        id: RowId::Thread(thread.tid),
        name: if name.trim().is_empty() { "?".into() } else { name },
        suffix,
        place: String::new(),
        figures: states.chain([cpu]).collect(),
        bar: Some(thread_bar::parts(&shares, &thread.holding)),
        alarm: thread.holding.blocked > ALARM,
    }
}
