//! The estimate of a metric, with its interval at 99 %, from one run or several.
//!
//! Within a run the interval comes from the scatter over the buckets of the window
//! ([`ratio_estimator`]). With three runs or more it is the interval of their mean, and never
//! narrower than the buckets alone give: three runs may be equal by chance. Two runs give the
//! interval that covers both. Predictions have the interval of the report.
//!
//! When the machine was short of CPU, the interval of waiting covers what waiting may be without
//! the shortage. A thread without a CPU cannot request the GIL, which raises the upper end. A
//! holder without a CPU makes other threads wait longer, which lowers the lower end; this effect is
//! smaller the more of the time the GIL is held. Other metrics have no estimate then.
//!
//! A thread whose state is unknown may wait, so that time raises the upper end of waiting. Neither
//! effect is scatter: more runs do not make it smaller.

use super::metric::{is_function, matches, FunctionMetric, Gain, Metric, StateMetric, Statistic};
use super::outcome::{Interval, Unit};
use super::run::{FunctionRun, GilRun, Run, Shares, ThreadRun};
use crate::analysis::ratio_estimator;
use crate::analysis::report::{Code, Estimate};
use crate::profile::{Histogram, QUANTILE_ERROR};
use std::fmt;

/// Upper end of a share when no thread was seen to hold or want the GIL.
const MAX_UNSEEN: f64 = 0.005;
/// With fewer lengths than this the longest one is the upper end of the p99, and with fewer than
/// `MIN_COUNT` of every statistic.
const MIN_COUNT_FOR_P99: u64 = 100;
const MIN_COUNT: u64 = 20;
/// If threads lack a CPU for a larger share of their time, waiting has no estimate.
const MAX_STARVED: f64 = 0.5;
/// Upper bound on the share of holding without a CPU, so that the correction stays finite.
const MAX_STARVED_HOLDING: f64 = 0.99;
/// A thread needs this many of the 16 buckets for a share of its own.
const MIN_BUCKETS: usize = 4;

/// An estimate, and the thread or function that it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricEstimate {
    /// The estimate with its interval.
    pub interval: Interval,
    /// The thread or function: its file (empty for a thread) and its name.
    pub subject: Option<(String, String)>,
}

/// Which of several matching threads or functions counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worst {
    /// The one with the largest figure.
    Most,
    /// The one with the smallest figure.
    Least,
}

/// Why a metric has no estimate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoEstimate {
    /// No function that matches the glob was the leaf of any stack.
    NoFunction(String),
    /// Any other reason, as a sentence.
    Other(String),
}

impl From<String> for NoEstimate {
    fn from(why: String) -> NoEstimate {
        NoEstimate::Other(why)
    }
}

impl From<&str> for NoEstimate {
    fn from(why: &str) -> NoEstimate {
        NoEstimate::Other(why.into())
    }
}

impl fmt::Display for NoEstimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoEstimate::NoFunction(glob) => write!(f, "no function that matches {glob:?} was seen as the innermost function of a thread"),
            NoEstimate::Other(why) => f.write_str(why),
        }
    }
}

/// The estimate from all runs.
pub fn estimate(metric: &Metric, runs: &[Run], worst: Worst) -> Result<MetricEstimate, NoEstimate> {
    let mut why = None;
    let known: Vec<RunEstimate> =
        runs.iter().filter_map(|run| RunEstimate::new(metric, run, worst).map_err(|e| why = Some(e)).ok()).collect();
    match (why, &known[..]) {
        (Some(why), []) => Err(why),
        (None, []) => Err("nothing was measured".into()),
        // Half of the runs are not enough.
        (Some(why), some) if some.len() * 2 <= runs.len() => {
            Err(format!("only {} of {} runs can be used: {why}", some.len(), runs.len()).into())
        }
        (_, [one]) => Ok(within_possible(metric, MetricEstimate { interval: one.widened, subject: one.measured.subject.clone() })),
        (_, several) => Ok(within_possible(metric, combined(several, worst))),
    }
}

/// Cuts an estimate at the ends of what the figure can be: no figure is negative, and a share is 1
/// at most. It is cut only here, after runs are combined and intervals widened.
fn within_possible(metric: &Metric, e: MetricEstimate) -> MetricEstimate {
    let most = if metric.unit() == Unit::Share { 1.0 } else { f64::INFINITY };
    let cut = |figure: f64| figure.clamp(0.0, most);
    let Interval { value, low, high } = e.interval;
    MetricEstimate { interval: Interval { value: cut(value), low: cut(low), high: cut(high) }, ..e }
}

/// The estimate of one run.
struct RunEstimate {
    /// From the scatter over the buckets.
    measured: MetricEstimate,
    /// That interval, widened by what may not have been seen.
    widened: Interval,
}

impl RunEstimate {
    fn new(metric: &Metric, run: &Run, worst: Worst) -> Result<RunEstimate, NoEstimate> {
        if let Some(why) = unusable(metric, run) {
            return Err(why.into());
        }
        let measured = estimate_of_run(metric, run, worst)?;
        let widened = widened_for_unknown(widened_for_starvation(measured.interval, metric, run)?, metric, run);
        Ok(RunEstimate { measured, widened })
    }
}

fn combined(estimates: &[RunEstimate], worst: Worst) -> MetricEstimate {
    let n = estimates.len() as f64;
    let mean = |figure: fn(&RunEstimate) -> f64| estimates.iter().map(figure).sum::<f64>() / n;
    let value = mean(|e| e.measured.interval.value);
    let interval = if estimates.len() < 3 {
        let low = estimates.iter().map(|e| e.widened.low).fold(f64::INFINITY, f64::min);
        let high = estimates.iter().map(|e| e.widened.high).fold(f64::NEG_INFINITY, f64::max);
        Interval { value, low, high }
    } else {
        let intervals = || estimates.iter().map(|e| e.measured.interval);
        let variance = intervals().map(|i| (i.value - value).powi(2)).sum::<f64>() / (n * (n - 1.0));
        let between = ratio_estimator::student_t(estimates.len() - 1) * variance.sqrt();
        let within = |half: fn(Interval) -> f64| intervals().map(|i| half(i).powi(2)).sum::<f64>().sqrt() / n;
        let (below, above) = (between.max(within(|i| i.value - i.low)), between.max(within(|i| i.high - i.value)));
        let (unseen_below, unseen_above) =
            (mean(|e| e.measured.interval.low - e.widened.low), mean(|e| e.widened.high - e.measured.interval.high));
        Interval { value, low: value - below - unseen_below, high: value + above + unseen_above }
    };
    let order = |a: &&RunEstimate, b: &&RunEstimate| a.measured.interval.value.total_cmp(&b.measured.interval.value);
    let named = match worst {
        Worst::Most => estimates.iter().max_by(order),
        Worst::Least => estimates.iter().min_by(order),
    };
    MetricEstimate { interval, subject: named.and_then(|e| e.measured.subject.clone()) }
}

/// Why a run as a whole has no estimate of a metric.
pub fn unusable<'a>(metric: &Metric, run: &'a Run) -> Option<&'a str> {
    let unusable = run.unusable.as_ref()?;
    let off_the_gil = |state: &str| ["native", "starved", "lock", "io"].contains(&state);
    let state = match metric {
        Metric::Share(state) | Metric::Thread(_, state) => state.name(),
        _ => "",
    };
    match unusable.code {
        Code::GilDisabled if off_the_gil(state) => None,
        Code::CpuStarved if state == "starved" || is_waiting(metric) => None,
        _ => Some(&unusable.why),
    }
}

/// Whether a metric measures waiting for the GIL.
fn is_waiting(metric: &Metric) -> bool {
    let waiting = StateMetric::Waiting;
    matches!(metric, Metric::GilContended | Metric::GilWaiters)
        || matches!(metric, Metric::Share(state) | Metric::Thread(_, state) if *state == waiting)
}

/// Widens the interval by what the shortage of CPU may have changed.
fn widened_for_starvation(i: Interval, metric: &Metric, run: &Run) -> Result<Interval, String> {
    let Some(unusable) = run.unusable.as_ref().filter(|u| u.code == Code::CpuStarved && is_waiting(metric)) else { return Ok(i) };
    let all: f64 = run.process.totals.iter().sum();
    let starved = if all > 0.0 { run.process.sum("starved") / all } else { 1.0 };
    if starved > MAX_STARVED {
        return Err(unusable.why.clone());
    }
    let sum = |series: Option<&Vec<f64>>| series.map_or(0.0, |parts| parts.iter().sum::<f64>());
    let busy = sum(run.gil.as_ref().map(|gil| &gil.busy)) / sum(run.gil.as_ref().map(|gil| &gil.observed)).max(1.0);
    // Assumes that waiting threads meet holders without a CPU as often as others.
    let (starving, busy) = (run.starved_holding.clamp(0.0, MAX_STARVED_HOLDING), busy.clamp(0.0, 1.0));
    let (low, high) = (i.low * (1.0 - starving) / (1.0 - starving * busy), i.high / (1.0 - starved));
    Ok(Interval { low, high, ..i })
}

/// Raises the upper end of waiting by the time whose state is unknown.
fn widened_for_unknown(i: Interval, metric: &Metric, run: &Run) -> Interval {
    let share_of_thread = |thread: &ThreadRun| {
        let all: f64 = thread.shares.totals.iter().sum();
        if all > 0.0 {
            thread.shares.sum("unknown") / all
        } else {
            0.0
        }
    };
    let unknown = match metric {
        Metric::Share(StateMetric::Waiting) => run.unknown.waiting,
        Metric::Thread(glob, StateMetric::Waiting) => {
            let matching = run.threads.iter().filter(|thread| matches(glob, &thread.name));
            matching.map(share_of_thread).fold(0.0, f64::max)
        }
        Metric::GilContended | Metric::GilWaiters | Metric::Function(_, FunctionMetric::Waiting | FunctionMetric::InflictedWait) => {
            run.unknown.threads
        }
        _ => return i,
    };
    Interval { high: i.high + unknown, ..i }
}

fn estimate_of_run(metric: &Metric, run: &Run, worst: Worst) -> Result<MetricEstimate, NoEstimate> {
    let gil = || run.gil.as_ref().ok_or_else(|| "no GIL was seen".to_string());
    let share = |parts: &[f64], gil: &GilRun| ratio(parts, &gil.observed).ok_or_else(|| "the GIL was not read".to_string());
    let resolution = |measured: bool| if measured { 0.0 } else { run.resolution_ms };
    let interval = match metric {
        Metric::Share(state) => process_share(&run.process, state.name()),
        Metric::GilBusy => share(&gil()?.busy, gil()?)?,
        Metric::GilContended => share(&gil()?.contended, gil()?)?,
        Metric::GilWaiters => share(&gil()?.waiting, gil()?)?,
        Metric::GilSwitches => {
            let gil = gil()?;
            let switches = gil.switches.as_ref().ok_or("the count of GIL switches of this Python cannot be read")?;
            scaled(share(switches, gil)?, 1e6)
        }
        Metric::Hold(statistic) => lengths(&gil()?.holds, *statistic, resolution(gil()?.measured.holds)),
        Metric::Wait(statistic) => match &run.hidden_waits {
            Some(why) => return Err(why.clone().into()),
            None => lengths(&gil()?.waits, *statistic, resolution(gil()?.measured.waits)),
        },
        Metric::Speedup(gain) => predicted(run, gain_name(*gain))?,
        Metric::GilSaturatesAt => predicted(run, "gil_saturates_at").or_else(|_| predicted(run, "threads_worth_having"))?,
        Metric::Thread(glob, state) => return thread(run, glob, state.name(), worst),
        Metric::Function(glob, metric_of_function) => return function(run, glob, *metric_of_function, worst),
        Metric::Verdict => return Err("a verdict is not a figure".into()),
    };
    Ok(MetricEstimate { interval, subject: None })
}

fn gain_name(gain: Gain) -> &'static str {
    match gain {
        Gain::Processes => "processes",
        Gain::FreeThreading => "free_threading",
        Gain::ReleaseInNative => "release_in_native",
    }
}

fn interval_from(e: Estimate) -> Interval {
    Interval { value: e.estimate, low: e.low, high: e.high }
}

fn ratio(parts: &[f64], totals: &[f64]) -> Option<Interval> {
    let none = vec![0.0; totals.len()];
    ratio_estimator::interval(if parts.is_empty() { &none } else { parts }, totals).map(interval_from)
}

fn scaled(i: Interval, by: f64) -> Interval {
    Interval { value: i.value * by, low: i.low * by, high: i.high * by }
}

/// A state's share over all threads.
fn process_share(process: &Shares, state: &str) -> Interval {
    let of = |parts: Option<&Vec<f64>>| ratio(parts.map_or(&[], |parts| &parts[..]), &process.totals);
    of(process.states.get(state)).unwrap_or(Interval { value: 0.0, low: 0.0, high: MAX_UNSEEN })
}

fn predicted(run: &Run, name: &str) -> Result<Interval, String> {
    run.predicted.get(name).copied().map(interval_from).ok_or_else(|| "the report predicts no such figure for this program".into())
}

/// A statistic of lengths, in milliseconds. Without any length it is zero; with too few lengths the
/// longest one is the upper end.
fn lengths(buckets: &[Histogram], statistic: Statistic, resolution: f64) -> Interval {
    let measure = |h: &Histogram| match statistic {
        Statistic::Mean => h.mean(),
        Statistic::P50 => h.quantile(0.5),
        Statistic::P99 => h.quantile(0.99),
        Statistic::Max => Some(h.max()).filter(|_| h.count() > 0),
    };
    let Some(found) = ratio_estimator::length_interval(buckets, measure) else {
        return Interval { value: 0.0, low: 0.0, high: resolution };
    };
    let count: u64 = buckets.iter().map(Histogram::count).sum();
    let longest = buckets.iter().map(Histogram::max).fold(0.0, f64::max);
    let (low, high) = match statistic {
        // The maximum of this window is exact; it is no estimate for a longer window.
        Statistic::Max => (found.estimate, found.estimate),
        Statistic::P99 if count < MIN_COUNT_FOR_P99 => (found.low, longest),
        _ if count < MIN_COUNT => (found.low, longest),
        _ => (found.low, found.high),
    };
    let error = if matches!(statistic, Statistic::P50 | Statistic::P99) { QUANTILE_ERROR } else { 1.0 };
    Interval { value: found.estimate / 1e6, low: (low / error / 1e6 - resolution).max(0.0), high: high * error / 1e6 + resolution }
}

/// The worst of several: the one whose near end is farthest out. If it is not beyond the limit, no
/// other is.
fn worst_of(estimates: impl Iterator<Item = MetricEstimate>, worst: Worst) -> Option<MetricEstimate> {
    match worst {
        Worst::Most => estimates.max_by(|a, b| a.interval.low.total_cmp(&b.interval.low)),
        Worst::Least => estimates.min_by(|a, b| a.interval.high.total_cmp(&b.interval.high)),
    }
}

/// The worst estimate, with its interval widened to the far end of every other: a limit applies to
/// all of them.
fn widest(estimates: &[MetricEstimate], worst: Worst) -> Option<MetricEstimate> {
    let mut found = worst_of(estimates.iter().cloned(), worst)?;
    for other in estimates {
        match worst {
            Worst::Most => found.interval.high = found.interval.high.max(other.interval.high),
            Worst::Least => found.interval.low = found.interval.low.min(other.interval.low),
        }
    }
    Some(found)
}

fn thread(run: &Run, glob: &str, state: &str, worst: Worst) -> Result<MetricEstimate, NoEstimate> {
    let of = |parts: &Shares| ratio(parts.states.get(state).map_or(&[], |parts| &parts[..]), &parts.totals);
    let mut matching = run.threads.iter().filter(|t| matches(glob, &t.name)).peekable();
    if matching.peek().is_none() {
        let names: Vec<&str> = run.threads.iter().map(|t| t.name.as_str()).take(6).collect();
        return Err(format!("no thread has a name that matches {glob:?}; there are: {}", names.join(", ")).into());
    }
    // The share of a short-lived thread depends on when it lived.
    let lived_long_enough = |t: &&ThreadRun| t.shares.totals.iter().filter(|whole| **whole > 0.0).count() >= MIN_BUCKETS;
    let estimates: Vec<MetricEstimate> = matching
        .filter(lived_long_enough)
        .filter_map(|t| Some(MetricEstimate { interval: of(&t.shares)?, subject: Some((String::new(), t.name.clone())) }))
        .collect();
    widest(&estimates, worst).ok_or_else(|| format!("the threads that match {glob:?} live too briefly for a share of their own").into())
}

fn function(run: &Run, glob: &str, metric_of_function: FunctionMetric, worst: Worst) -> Result<MetricEstimate, NoEstimate> {
    let of = |f: &FunctionRun| {
        let parts = series(f, metric_of_function);
        ratio(parts, &vec![run.bucket_us; run.process.totals.len().max(16)])
    };
    let matching = run.functions.iter().filter(|f| is_function(glob, &f.file, &f.name));
    let estimates: Vec<MetricEstimate> =
        matching.filter_map(|f| Some(MetricEstimate { interval: of(f)?, subject: Some((f.file.clone(), f.name.clone())) })).collect();
    widest(&estimates, worst).ok_or_else(|| NoEstimate::NoFunction(glob.into()))
}

/// A function's time for each bucket; may be empty.
pub fn series(function: &FunctionRun, metric_of_function: FunctionMetric) -> &[f64] {
    match metric_of_function {
        FunctionMetric::Holding => &function.holding,
        FunctionMetric::Waiting => &function.waiting,
        FunctionMetric::InflictedWait => &function.inflicted_wait,
        FunctionMetric::Native => &function.native,
    }
}
