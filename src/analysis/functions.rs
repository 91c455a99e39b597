//! Leaf functions: the time of threads in each by state, and how much waiting each caused, in
//! thread-seconds per second of window.

use super::callers;
use super::report::{Caller, FunctionRow};
use crate::profile::{FunctionId, Profile};
use crate::sample::{State, StateTimes};
use std::collections::HashMap;

/// How many rows a report has at most.
const MAX_ROWS: usize = 500;

/// The sums of one function.
#[derive(Default)]
struct Sums {
    times: StateTimes,
    inflicted: f64,
    /// Per line: time holding, time in all.
    lines: HashMap<u32, (f64, f64)>,
}

/// One row per function, most harmful first.
pub(super) fn rows(profile: &Profile) -> Vec<FunctionRow> {
    let mut sums: HashMap<FunctionId, Sums> = HashMap::new();
    for row in &profile.stack_times {
        let sum = sums.entry(profile.leaf(row.stack)).or_default();
        sum.times.merge(&row.times);
        let line = sum.lines.entry(profile.stack(row.stack).leaf().map_or(0, |leaf| leaf.line)).or_default();
        line.0 += row.times.holding();
        line.1 += row.times.total();
    }
    for blame in &profile.blame {
        if let Some(holder) = blame.holder {
            sums.entry(holder).or_default().inflicted += blame.nanos;
        }
    }
    let mut sums: Vec<(FunctionId, Sums)> = sums.into_iter().collect();
    sums.sort_by_key(|(id, _)| *id);
    let mut callers = callers::of(profile);
    let mut rows: Vec<FunctionRow> = sums.iter().map(|(id, sum)| row(profile, *id, sum, callers.remove(id))).collect();
    let harm = |r: &FunctionRow| [r.inflicted_wait, r.holding, r.native, r.waiting, r.lock, r.io];
    rows.sort_by(|a, b| harm(b).partial_cmp(&harm(a)).unwrap_or(std::cmp::Ordering::Equal));
    rows
}

/// The rows that a report shows.
pub(super) fn largest(mut rows: Vec<FunctionRow>) -> Vec<FunctionRow> {
    rows.truncate(MAX_ROWS);
    rows
}

fn row(profile: &Profile, id: FunctionId, sum: &Sums, called_from: Option<Caller>) -> FunctionRow {
    let (function, seconds) = (profile.function(id), profile.seconds());
    let rate = |nanos: f64| if seconds > 0.0 { nanos / 1e9 / seconds } else { 0.0 };
    let of = |state| rate(sum.times.get(state));
    FunctionRow {
        name: function.name.clone(),
        file: function.file.clone(),
        line: function.first_line,
        holding: rate(sum.times.holding()),
        holding_native: of(State::HoldingNative),
        holding_blocked: of(State::HoldingBlocked),
        waiting: of(State::Waiting),
        inflicted_wait: rate(sum.inflicted),
        native: of(State::Native),
        lock: of(State::Lock),
        io: of(State::Io),
        hot_line: hot_line(sum),
        called_from,
    }
}

/// The line with the most holding; for a function that never held, the line with the most time.
fn hot_line(sum: &Sums) -> u32 {
    let more = |a: &(f64, f64), b: &(f64, f64)| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1));
    let hottest = sum.lines.iter().max_by(|a, b| more(a.1, b.1).then(b.0.cmp(a.0)));
    hottest.map_or(0, |(line, _)| *line)
}
