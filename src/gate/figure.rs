//! A metric's figure, with its interval at 99 %, from one run or from several.
//!
//! Within a run the interval comes from the scatter over the window's stretches ([`spread`]). With three runs or more it is that of their mean
//! by how they differ, and never narrower than the stretches alone would have it: three runs may be alike by chance. Two runs are
//! taken together: from the lower end of one to the upper end of the other. Predictions have the interval of the report.
//!
//! Where the machine was short of CPU, what is said of waiting is what it can have been without that, time without a CPU being taken as if it
//! had not been: a thread that has none cannot ask for the GIL, which raises the upper end; and one that holds without a CPU makes others
//! wait for longer, which lowers the lower end, the less the more of the time the GIL is held. All else cannot be told then.

use super::metric::{is_function, matches, Deed, Gain, Metric, Statistic, ThreadState};
use super::outcome::Interval;
use super::run::{FunctionRun, GilRun, Run, Shares, ThreadRun};
use crate::analysis::report::{Code, Estimate};
use crate::analysis::ratio_estimator;
use crate::profile::{Histogram, QUANTILE_ERROR};
use std::fmt;

/// Where no thread was seen at the GIL, none spends more of its time there than this.
const NO_PART: f64 = 0.005;
/// A p99 of fewer lengths than this says nothing beyond the longest; a median of fewer than the other.
const ENOUGH_FOR_P99: u64 = 100;
const ENOUGH: u64 = 20;
/// Threads that lack a CPU for more of their time than this say nothing of what they would do with one.
const MOST_STARVED: f64 = 0.5;
/// A holder always did something.
const MOST_TAKEN_OUT: f64 = 0.99;
/// A thread has a share of its own when it was there in so many of the 16 stretches.
const LIVED: usize = 4;

/// A figure, and what of the target it is a figure of.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What was measured.
    pub interval: Interval,
    /// The thread or the function that it is of; file and name.
    pub of: Option<(String, String)>,
}

/// Which of several matching threads or functions counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worst {
    /// The one with most.
    Most,
    /// The one with least.
    Least,
}

/// Why there is no figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoFigure {
    /// No function that matches the glob was the innermost one of any thread.
    NoFunction(String),
    /// Any other reason, as a sentence.
    Other(String),
}

impl From<String> for NoFigure {
    fn from(why: String) -> NoFigure {
        NoFigure::Other(why)
    }
}

impl From<&str> for NoFigure {
    fn from(why: &str) -> NoFigure {
        NoFigure::Other(why.into())
    }
}

impl fmt::Display for NoFigure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoFigure::NoFunction(glob) => write!(f, "no function like {glob:?} was seen as the innermost one of any thread"),
            NoFigure::Other(why) => f.write_str(why),
        }
    }
}

/// The figure by all runs.
pub fn figure(metric: &Metric, runs: &[Run], worst: Worst) -> Result<Figure, NoFigure> {
    let mut why = None;
    let told: Vec<Figure> = runs
        .iter()
        .filter_map(|run| {
            let figure = || Ok(of_run(metric, run, worst)?.unstarved(metric, run)?);
            usable(metric, run).map_err(NoFigure::from).and_then(|()| figure()).map_err(|e| why = Some(e)).ok()
        })
        .collect();
    match (why, &told[..]) {
        (Some(why), []) => Err(why),
        (None, []) => Err("nothing was measured".into()),
        // Half of the runs do not speak for all.
        (Some(why), some) if some.len() * 2 <= runs.len() => {
            Err(format!("only {} of {} runs can be judged: {why}", some.len(), runs.len()).into())
        }
        (_, [one]) => Ok(one.clone()),
        (_, several) => Ok(together(several, worst)),
    }
}

fn together(figures: &[Figure], worst: Worst) -> Figure {
    let n = figures.len() as f64;
    let values = || figures.iter().map(|f| f.interval.value);
    let value = values().sum::<f64>() / n;
    let (below, above): (Vec<f64>, Vec<f64>) =
        figures.iter().map(|f| (f.interval.value - f.interval.low, f.interval.high - f.interval.value)).unzip();
    let interval = if figures.len() < 3 {
        let low = figures.iter().map(|f| f.interval.low).fold(f64::INFINITY, f64::min);
        let high = figures.iter().map(|f| f.interval.high).fold(f64::NEG_INFINITY, f64::max);
        Interval { value, low, high }
    } else {
        let variance = values().map(|v| (v - value).powi(2)).sum::<f64>() / (n * (n - 1.0));
        let between = ratio_estimator::student_t(figures.len() - 1) * variance.sqrt();
        let within = |halves: &[f64]| halves.iter().map(|half| half * half).sum::<f64>().sqrt() / n;
        Interval { value, low: value - between.max(within(&below)), high: value + between.max(within(&above)) }
    };
    let order = |a: &&Figure, b: &&Figure| a.interval.value.total_cmp(&b.interval.value);
    let named = match worst {
        Worst::Most => figures.iter().max_by(order),
        Worst::Least => figures.iter().min_by(order),
    };
    Figure { interval, of: named.and_then(|f| f.of.clone()) }
}

/// Whether a run says anything of a metric.
fn usable(metric: &Metric, run: &Run) -> Result<(), String> {
    let Some(unusable) = &run.unusable else { return Ok(()) };
    let off_the_gil = |state: &str| ["native", "starved", "lock", "io"].contains(&state);
    let state = match metric {
        Metric::Share(state) | Metric::Thread(_, state) => state.name(),
        _ => "",
    };
    match unusable.code {
        Code::GilDisabled if off_the_gil(state) => Ok(()),
        Code::CpuStarved if state == "starved" || is_waiting(metric) => Ok(()),
        _ => Err(unusable.why.clone()),
    }
}

/// Whether a metric says how much is waited for the GIL.
fn is_waiting(metric: &Metric) -> bool {
    let waiting = ThreadState::Waiting;
    matches!(metric, Metric::GilContended | Metric::GilWaiters)
        || matches!(metric, Metric::Share(state) | Metric::Thread(_, state) if *state == waiting)
}

impl Figure {
    /// As wide as the lack of CPUs makes it.
    fn unstarved(mut self, metric: &Metric, run: &Run) -> Result<Figure, String> {
        let Some(unusable) = run.unusable.as_ref().filter(|u| u.code == Code::CpuStarved && is_waiting(metric)) else { return Ok(self) };
        let all: f64 = run.process.wholes.iter().sum();
        let starved = if all > 0.0 { run.process.sum("starved") / all } else { 1.0 };
        if starved > MOST_STARVED {
            return Err(unusable.why.clone());
        }
        let i = &mut self.interval;
        let most = if *metric == Metric::GilWaiters { f64::INFINITY } else { 1.0 };
        let sum = |series: Option<&Vec<f64>>| series.map_or(0.0, |parts| parts.iter().sum::<f64>());
        let busy = sum(run.gil.as_ref().map(|gil| &gil.busy)) / sum(run.gil.as_ref().map(|gil| &gil.observed)).max(1.0);
        // Waiting is taken to meet such holders as often as others.
        let (starving, busy) = (run.starved_holding.clamp(0.0, MOST_TAKEN_OUT), busy.clamp(0.0, 1.0));
        (i.low, i.high) = (i.low * (1.0 - starving) / (1.0 - starving * busy), (i.high / (1.0 - starved)).min(most));
        Ok(self)
    }
}

fn of_run(metric: &Metric, run: &Run, worst: Worst) -> Result<Figure, NoFigure> {
    let gil = || run.gil.as_ref().ok_or_else(|| "no GIL was seen".to_string());
    let share = |parts: &[f64], gil: &GilRun| ratio(parts, &gil.observed).ok_or_else(|| "the GIL was not read".to_string());
    let interval = match metric {
        Metric::Share(state) => process_share(&run.process, state.name()),
        Metric::GilBusy => at_most_one(share(&gil()?.busy, gil()?)?),
        Metric::GilContended => at_most_one(share(&gil()?.contended, gil()?)?),
        Metric::GilWaiters => share(&gil()?.waiting, gil()?)?,
        Metric::GilSwitches => {
            let gil = gil()?;
            let switches = gil.switches.as_ref().ok_or("this Python's count of switches cannot be read")?;
            scaled(share(switches, gil)?, 1e6)
        }
        Metric::Hold(statistic) => lengths(&gil()?.holds, *statistic, run.resolution_ms),
        Metric::Wait(statistic) => lengths(&gil()?.waits, *statistic, run.resolution_ms),
        Metric::Speedup(gain) => predicted(run, gain_name(*gain))?,
        Metric::ThreadsWorthHaving => predicted(run, "threads_worth_having")?,
        Metric::Thread(glob, state) => return thread(run, glob, state.name(), worst),
        Metric::Function(glob, deed) => return function(run, glob, *deed, worst),
        Metric::Verdict => return Err("a verdict is no figure".into()),
    };
    Ok(Figure { interval, of: None })
}

fn gain_name(gain: Gain) -> &'static str {
    match gain {
        Gain::Processes => "processes",
        Gain::FreeThreading => "free_threading",
        Gain::ReleaseInNative => "release_in_native",
    }
}

fn from(e: Estimate) -> Interval {
    Interval { value: e.estimate, low: e.low.max(0.0), high: e.high }
}

fn ratio(parts: &[f64], wholes: &[f64]) -> Option<Interval> {
    let none = vec![0.0; wholes.len()];
    ratio_estimator::interval(if parts.is_empty() { &none } else { parts }, wholes).map(from)
}

fn scaled(i: Interval, by: f64) -> Interval {
    Interval { value: i.value * by, low: i.low * by, high: i.high * by }
}

fn at_most_one(i: Interval) -> Interval {
    Interval { value: i.value, low: i.low, high: i.high.min(1.0).max(i.value) }
}

/// Of all threads together.
fn process_share(process: &Shares, state: &str) -> Interval {
    let of = |parts: Option<&Vec<f64>>| ratio(parts.map_or(&[], |parts| &parts[..]), &process.wholes);
    of(process.states.get(state)).map_or(Interval { value: 0.0, low: 0.0, high: NO_PART }, at_most_one)
}

fn predicted(run: &Run, name: &str) -> Result<Interval, String> {
    run.predicted.get(name).copied().map(from).ok_or_else(|| "it is not predicted for this program; see its report".into())
}

/// In milliseconds. No lengths at all are zero long; of too few the longest stands for what more might have shown.
fn lengths(stretches: &[Histogram], statistic: Statistic, resolution: f64) -> Interval {
    let measure = |h: &Histogram| match statistic {
        Statistic::Mean => h.mean(),
        Statistic::P50 => h.quantile(0.5),
        Statistic::P99 => h.quantile(0.99),
        Statistic::Max => Some(h.max()).filter(|_| h.count() > 0),
    };
    let Some(found) = ratio_estimator::length_interval(stretches, measure) else {
        return Interval { value: 0.0, low: 0.0, high: resolution };
    };
    let count: u64 = stretches.iter().map(Histogram::count).sum();
    let longest = stretches.iter().map(Histogram::max).fold(0.0, f64::max);
    let (low, high) = match statistic {
        // What was seen was seen: it says nothing of a longer window.
        Statistic::Max => (found.estimate, found.estimate),
        Statistic::P99 if count < ENOUGH_FOR_P99 => (found.low, longest),
        _ if count < ENOUGH => (found.low, longest),
        _ => (found.low, found.high),
    };
    let bucket = if matches!(statistic, Statistic::P50 | Statistic::P99) { QUANTILE_ERROR } else { 1.0 };
    Interval { value: found.estimate / 1e6, low: (low / bucket / 1e6 - resolution).max(0.0), high: high * bucket / 1e6 + resolution }
}

/// Of several the worst: the one whose interval reaches farthest, so that none is beyond the limit when that is not.
fn worst_of(figures: impl Iterator<Item = Figure>, worst: Worst) -> Option<Figure> {
    match worst {
        Worst::Most => figures.max_by(|a, b| a.interval.low.total_cmp(&b.interval.low)),
        Worst::Least => figures.min_by(|a, b| a.interval.high.total_cmp(&b.interval.high)),
    }
}

/// Widens the worst one's interval to where any other reaches: a limit holds for all of them.
fn for_all(figures: &[Figure], worst: Worst) -> Option<Figure> {
    let mut found = worst_of(figures.iter().cloned(), worst)?;
    for other in figures {
        match worst {
            Worst::Most => found.interval.high = found.interval.high.max(other.interval.high),
            Worst::Least => found.interval.low = found.interval.low.min(other.interval.low),
        }
    }
    Some(found)
}

fn thread(run: &Run, glob: &str, state: &str, worst: Worst) -> Result<Figure, NoFigure> {
    let of = |parts: &Shares| ratio(parts.states.get(state).map_or(&[], |parts| &parts[..]), &parts.wholes).map(at_most_one);
    let mut matching = run.threads.iter().filter(|t| matches(glob, &t.name)).peekable();
    if matching.peek().is_none() {
        let names: Vec<&str> = run.threads.iter().map(|t| t.name.as_str()).take(6).collect();
        return Err(format!("no thread has a name like {glob:?}; there are: {}", names.join(", ")).into());
    }
    // The share of a short life scatters with the moment at which it was lived.
    let lived = |t: &&ThreadRun| t.shares.wholes.iter().filter(|whole| **whole > 0.0).count() >= LIVED;
    let figures: Vec<Figure> = matching
        .filter(lived)
        .filter_map(|t| Some(Figure { interval: of(&t.shares)?, of: Some((String::new(), t.name.clone())) }))
        .collect();
    for_all(&figures, worst).ok_or_else(|| format!("threads with a name like {glob:?} live too briefly to have a share each").into())
}

fn function(run: &Run, glob: &str, deed: Deed, worst: Worst) -> Result<Figure, NoFigure> {
    let of = |f: &FunctionRun| {
        let parts = series(f, deed);
        ratio(parts, &vec![run.stretch_us; run.process.wholes.len().max(16)])
    };
    let matching = run.functions.iter().filter(|f| is_function(glob, &f.file, &f.name));
    let figures: Vec<Figure> =
        matching.filter_map(|f| Some(Figure { interval: of(f)?, of: Some((f.file.clone(), f.name.clone())) })).collect();
    for_all(&figures, worst).ok_or_else(|| NoFigure::NoFunction(glob.into()))
}

/// A function's time, stretch by stretch; may be empty.
pub fn series(function: &FunctionRun, deed: Deed) -> &[f64] {
    match deed {
        Deed::Holding => &function.holding,
        Deed::Waiting => &function.waiting,
        Deed::InflictedWait => &function.inflicted_wait,
        Deed::Native => &function.native,
    }
}
