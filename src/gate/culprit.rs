//! The function to look at when a check is broken: the one that made others wait most, or that does so more than in the baseline.

use super::figure::series;
use super::metric::{is_function, matches, Deed, Metric};
use super::outcome::{Culprit, StackFrame};
use super::run::Run;
use crate::analysis::report::{FunctionRow, Report};
use crate::output::numbers;
use crate::profile::Profile;
use crate::sample::{Function, Split, Stack, State};
use std::collections::HashMap;

/// Frames of a stack that are shown.
const MOST_FRAMES: usize = 64;
/// A change of less thread time per second is none to speak of.
const MATTERS: f64 = 0.02;

/// A measured run with all that was seen of it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its figures.
    pub profile: &'a Profile,
    /// What is said of it.
    pub report: &'a Report,
}

/// The function to look at for a metric. With a baseline it is the one that grew most since.
pub fn of(metric: &Metric, seen: Seen<'_>, runs: &[Run], base: Option<&[Run]>) -> Option<Culprit> {
    let grown = base.and_then(|base| grown(seen.report, deed(metric), runs, base));
    let row = match metric {
        Metric::Function(glob, deed) => {
            let size = |row: &&FunctionRow| value(row, *deed);
            seen.report.functions.iter().filter(|row| is_function(glob, &row.file, &row.name)).max_by(|a, b| size(a).total_cmp(&size(b)))
        }
        Metric::Thread(glob, super::metric::ThreadState::Waiting) => {
            grown.map(|(row, _)| row).or_else(|| behind(glob, seen).or_else(|| most(seen.report, Deed::InflictedWait)))
        }
        Metric::Thread(glob, state) => busiest_in(glob, *state, seen),
        _ => grown.map(|(row, _)| row).or_else(|| most(seen.report, deed(metric))),
    }?;
    let since = grown.filter(|(grown, _)| std::ptr::eq(*grown, row)).map(|(_, by)| by);
    let (thread, stack) = commonest(row, seen.profile);
    Some(Culprit {
        name: row.name.clone(),
        file: row.file.clone(),
        first_line: row.line,
        line: row.hot_line,
        thread,
        what: what(row, deed(metric), since),
        stack: stack.map(frames).unwrap_or_default(),
    })
}

/// What a function does that makes a metric bad.
fn deed(metric: &Metric) -> Deed {
    use super::metric::ThreadState;
    match metric {
        Metric::Hold(_) | Metric::GilBusy | Metric::Share(ThreadState::Holding) => Deed::Holding,
        Metric::Share(ThreadState::Native) => Deed::Native,
        Metric::Function(_, deed) => *deed,
        _ => Deed::InflictedWait,
    }
}

fn value(row: &FunctionRow, deed: Deed) -> f64 {
    match deed {
        Deed::Holding => row.holding,
        Deed::Waiting => row.waiting,
        Deed::InflictedWait => row.inflicted_wait,
        Deed::Native => row.native,
    }
}

/// The one that does most of it; where nobody does any, the one that holds most.
fn most(report: &Report, deed: Deed) -> Option<&FunctionRow> {
    let by =
        |deed| report.functions.iter().filter(move |row| value(row, deed) > 0.0).max_by(|a, b| value(a, deed).total_cmp(&value(b, deed)));
    by(deed).or_else(|| by(Deed::Holding))
}

/// Thread-seconds per second of each function, over all runs.
fn rates(runs: &[Run], deed: Deed) -> HashMap<(&str, &str), f64> {
    let mut out: HashMap<(&str, &str), f64> = HashMap::new();
    let seconds: f64 = runs.iter().map(|run| run.seconds).sum::<f64>().max(1e-9);
    for function in runs.iter().flat_map(|run| &run.functions) {
        let micros: f64 = series(function, deed).iter().sum();
        *out.entry((&function.file, &function.name)).or_default() += micros / 1e6 / seconds;
    }
    out
}

/// The one that does more of it than before, and by how much.
fn grown<'a>(report: &'a Report, deed: Deed, runs: &[Run], base: &[Run]) -> Option<(&'a FunctionRow, f64)> {
    let (now, before) = (rates(runs, deed), rates(base, deed));
    let by = |row: &FunctionRow| {
        let key = (row.file.as_str(), row.name.as_str());
        now.get(&key).copied().unwrap_or(0.0) - before.get(&key).copied().unwrap_or(0.0)
    };
    let all = report.functions.iter().map(|row| (row, by(row)));
    all.filter(|(_, by)| *by > MATTERS).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// The function behind which such threads waited most.
fn behind<'a>(glob: &str, seen: Seen<'a>) -> Option<&'a FunctionRow> {
    let mut sums: HashMap<&Function, f64> = HashMap::new();
    for (thread, _, holder, nanos) in seen.profile.waited_on() {
        if let Some(leaf) = holder.and_then(Stack::leaf).filter(|_| matches(glob, &thread.info.name)) {
            *sums.entry(&leaf.function).or_default() += nanos;
        }
    }
    row_of(sums, seen.report)
}

/// The function in which such threads are most in that state.
fn busiest_in<'a>(glob: &str, state: super::metric::ThreadState, seen: Seen<'a>) -> Option<&'a FunctionRow> {
    let mut sums: HashMap<&Function, f64> = HashMap::new();
    for (thread, stack, split) in seen.profile.stacks() {
        if let Some(leaf) = stack.leaf().filter(|_| matches(glob, &thread.info.name)) {
            *sums.entry(&leaf.function).or_default() += super::run::part(split, state);
        }
    }
    row_of(sums, seen.report)
}

fn row_of<'a>(sums: HashMap<&Function, f64>, report: &'a Report) -> Option<&'a FunctionRow> {
    let (most, _) = sums.into_iter().max_by(|a, b| a.1.total_cmp(&b.1).then_with(|| b.0.name.cmp(&a.0.name)))?;
    report.functions.iter().find(|row| row.name == most.name && row.file == most.file && row.line == most.first_line)
}

/// The thread that runs a function most, and the stack on which it is reached most: while it holds, or else at all.
fn commonest<'a>(row: &FunctionRow, profile: &'a Profile) -> (Option<String>, Option<&'a Stack>) {
    let is = |stack: &Stack| stack.leaf().is_some_and(|leaf| leaf.function.name == row.name && leaf.function.file == row.file);
    let size = |split: &Split| (split.holding(), split.get(State::Native) + split.get(State::Waiting), split.total());
    let mut threads: HashMap<&str, f64> = HashMap::new();
    let mut best: Option<((f64, f64, f64), &Stack)> = None;
    for (thread, stack, split) in profile.stacks().filter(|(_, stack, _)| is(stack)) {
        let weight = size(split);
        *threads.entry(&thread.info.name).or_default() += weight.0 + weight.1 * 1e-3;
        if best.is_none_or(|(most, _)| weight > most) {
            best = Some((weight, stack));
        }
    }
    let thread = threads.into_iter().max_by(|a, b| a.1.total_cmp(&b.1).then_with(|| b.0.cmp(a.0)));
    (thread.map(|(name, _)| name.to_string()), best.map(|(_, stack)| stack))
}

fn frames(stack: &Stack) -> Vec<StackFrame> {
    let skipped = stack.frames.len().saturating_sub(MOST_FRAMES);
    let frame = |f: &crate::sample::Frame| StackFrame { name: f.function.name.clone(), file: f.function.file.clone(), line: f.line };
    stack.frames.iter().skip(skipped).map(frame).collect()
}

fn what(row: &FunctionRow, deed: Deed, since: Option<f64>) -> String {
    let mut said = match deed {
        Deed::Native => format!("runs without the GIL in {}", numbers::threads(row.native)),
        _ => {
            format!("holds the GIL {} of the time; {} wait behind it", numbers::percent(row.holding), numbers::threads(row.inflicted_wait))
        }
    };
    if let Some(by) = since {
        said += &format!(" ({by:+.2} since the baseline)");
    }
    said
}
