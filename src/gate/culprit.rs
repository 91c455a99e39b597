//! The culprit of a broken check: the function that made other threads wait most, or that does so
//! more than in the baseline.

use super::estimate::series;
use super::metric::{is_function, matches, FunctionMetric, Metric};
use super::outcome::{Culprit, StackFrame};
use super::run::Run;
use crate::analysis::report::{FunctionRow, Report};
use crate::output::numbers;
use crate::profile::Profile;
use crate::sample::{Function, Stack, State, StateTimes};
use std::collections::HashMap;

/// The most frames of a stack that are stored.
const MAX_FRAMES: usize = 64;
/// A function that grew by fewer threads than this has not grown.
const MIN_GROWTH: f64 = 0.02;

/// A measured run with its profile and report.
#[derive(Clone, Copy, Debug)]
pub struct MeasuredRun<'a> {
    /// The profile of the run.
    pub profile: &'a Profile,
    /// The report of the run.
    pub report: &'a Report,
}

/// The culprit for a metric. With a baseline it is the function that grew most.
pub fn find(metric: &Metric, measured: MeasuredRun<'_>, runs: &[Run], base: Option<&[Run]>) -> Option<Culprit> {
    let grown = base.and_then(|base| grown(measured.report, function_metric(metric), runs, base));
    let row = match metric {
        Metric::Function(glob, function_metric) => {
            let size = |row: &&FunctionRow| value(row, *function_metric);
            measured
                .report
                .functions
                .iter()
                .filter(|row| is_function(glob, &row.file, &row.name))
                .max_by(|a, b| size(a).total_cmp(&size(b)))
        }
        Metric::Thread(glob, super::metric::StateMetric::Waiting) => grown
            .map(|(row, _)| row)
            .or_else(|| most_waited_on(glob, measured).or_else(|| leading(measured.report, FunctionMetric::InflictedWait))),
        Metric::Thread(glob, state) => busiest_in(glob, *state, measured),
        _ => grown.map(|(row, _)| row).or_else(|| leading(measured.report, function_metric(metric))),
    }?;
    let since = grown.filter(|(grown, _)| std::ptr::eq(*grown, row)).map(|(_, by)| by);
    let (thread, stack) = most_frequent(row, measured.profile);
    Some(Culprit {
        name: row.name.clone(),
        file: row.file.clone(),
        first_line: row.line,
        line: row.hot_line,
        called_from: row.called_from.clone(),
        thread,
        what: what(row, function_metric(metric), since),
        stack: stack.map(frames).unwrap_or_default(),
    })
}

/// Which figure of a function makes a metric worse.
fn function_metric(metric: &Metric) -> FunctionMetric {
    use super::metric::StateMetric;
    match metric {
        Metric::Hold(_) | Metric::GilBusy | Metric::Share(StateMetric::Holding) => FunctionMetric::Holding,
        Metric::Share(StateMetric::Native) => FunctionMetric::Native,
        Metric::Function(_, function_metric) => *function_metric,
        _ => FunctionMetric::InflictedWait,
    }
}

fn value(row: &FunctionRow, function_metric: FunctionMetric) -> f64 {
    match function_metric {
        FunctionMetric::Holding => row.holding,
        FunctionMetric::Waiting => row.waiting,
        FunctionMetric::InflictedWait => row.inflicted_wait,
        FunctionMetric::Native => row.native,
    }
}

/// The function with the largest figure; if every function has zero, the one that holds most.
fn leading(report: &Report, function_metric: FunctionMetric) -> Option<&FunctionRow> {
    let by = |function_metric| {
        report
            .functions
            .iter()
            .filter(move |row| value(row, function_metric) > 0.0)
            .max_by(|a, b| value(a, function_metric).total_cmp(&value(b, function_metric)))
    };
    by(function_metric).or_else(|| by(FunctionMetric::Holding))
}

/// Thread-seconds per second of each function, over all runs.
fn rates(runs: &[Run], function_metric: FunctionMetric) -> HashMap<(&str, &str), f64> {
    let mut out: HashMap<(&str, &str), f64> = HashMap::new();
    let seconds: f64 = runs.iter().map(|run| run.seconds).sum::<f64>().max(1e-9);
    for function in runs.iter().flat_map(|run| &run.functions) {
        let micros: f64 = series(function, function_metric).iter().sum();
        *out.entry((&function.file, &function.name)).or_default() += micros / 1e6 / seconds;
    }
    out
}

/// The function whose figure grew most, and by how much.
fn grown<'a>(report: &'a Report, function_metric: FunctionMetric, runs: &[Run], base: &[Run]) -> Option<(&'a FunctionRow, f64)> {
    let (now, before) = (rates(runs, function_metric), rates(base, function_metric));
    let by = |row: &FunctionRow| {
        let key = (row.file.as_str(), row.name.as_str());
        now.get(&key).copied().unwrap_or(0.0) - before.get(&key).copied().unwrap_or(0.0)
    };
    let all = report.functions.iter().map(|row| (row, by(row)));
    all.filter(|(_, by)| *by > MIN_GROWTH).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// The function that matching threads waited for most.
fn most_waited_on<'a>(glob: &str, measured: MeasuredRun<'a>) -> Option<&'a FunctionRow> {
    let mut sums: HashMap<&Function, f64> = HashMap::new();
    for (thread, _, holder, nanos) in measured.profile.waited_on() {
        if let Some(leaf) = holder.and_then(Stack::leaf).filter(|_| matches(glob, &thread.info.name)) {
            *sums.entry(&leaf.function).or_default() += nanos;
        }
    }
    row_of(sums, measured.report)
}

/// The function in which matching threads spend most time in a state.
fn busiest_in<'a>(glob: &str, state: super::metric::StateMetric, measured: MeasuredRun<'a>) -> Option<&'a FunctionRow> {
    let mut sums: HashMap<&Function, f64> = HashMap::new();
    for (thread, stack, times) in measured.profile.stacks() {
        if let Some(leaf) = stack.leaf().filter(|_| matches(glob, &thread.info.name)) {
            *sums.entry(&leaf.function).or_default() += super::run::part(times, state);
        }
    }
    row_of(sums, measured.report)
}

fn row_of<'a>(sums: HashMap<&Function, f64>, report: &'a Report) -> Option<&'a FunctionRow> {
    let (most, _) = sums.into_iter().max_by(|a, b| a.1.total_cmp(&b.1).then_with(|| b.0.name.cmp(&a.0.name)))?;
    report.functions.iter().find(|row| row.name == most.name && row.file == most.file && row.line == most.first_line)
}

/// The thread that runs a function most, and the function's most frequent stack: while it holds the
/// GIL, otherwise in any state. If the row names a caller, a stack through that caller comes first.
fn most_frequent<'a>(row: &FunctionRow, profile: &'a Profile) -> (Option<String>, Option<&'a Stack>) {
    let is = |stack: &Stack| stack.leaf().is_some_and(|leaf| leaf.function.name == row.name && leaf.function.file == row.file);
    let is_caller = |f: &Function| row.called_from.as_ref().is_some_and(|c| c.line == f.first_line && c.name == f.name && c.file == f.file);
    let through = |stack: &Stack| stack.frames.iter().any(|frame| is_caller(&frame.function));
    let size = |times: &StateTimes| [times.holding(), times.get(State::Native) + times.get(State::Waiting), times.total()];
    let mut threads: HashMap<&str, f64> = HashMap::new();
    let mut best: Option<((bool, [f64; 3]), &Stack)> = None;
    for (thread, stack, times) in profile.stacks().filter(|(_, stack, _)| is(stack)) {
        let time = size(times);
        *threads.entry(&thread.info.name).or_default() += time[0] + time[1] * 1e-3;
        let weight = (through(stack), time);
        if best.is_none_or(|(most, _)| weight > most) {
            best = Some((weight, stack));
        }
    }
    let thread = threads.into_iter().max_by(|a, b| a.1.total_cmp(&b.1).then_with(|| b.0.cmp(a.0)));
    (thread.map(|(name, _)| name.to_string()), best.map(|(_, stack)| stack))
}

fn frames(stack: &Stack) -> Vec<StackFrame> {
    let skipped = stack.frames.len().saturating_sub(MAX_FRAMES);
    let frame = |f: &crate::sample::Frame| StackFrame { name: f.function.name.clone(), file: f.function.file.clone(), line: f.line };
    stack.frames.iter().skip(skipped).map(frame).collect()
}

fn what(row: &FunctionRow, function_metric: FunctionMetric, since: Option<f64>) -> String {
    let mut text = match function_metric {
        FunctionMetric::Native => format!("runs without the GIL in {}", numbers::threads(row.native)),
        _ => {
            format!("holds the GIL {} of the time; {} wait behind it", numbers::percent(row.holding), numbers::threads(row.inflicted_wait))
        }
    };
    if let Some(by) = since {
        text += &format!(" ({by:+.2} since the baseline)");
    }
    text
}
