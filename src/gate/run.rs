//! One measured run, as the gate uses it and a baseline stores it: each figure as a series over 16
//! buckets of the window, not as a mean.
//!
//! Times are whole microseconds, so that a baseline is a short text. The content of a baseline is
//! not trusted: [`Run::is_sound`] must hold before any use of it.

use super::metric::StateMetric;
use super::outcome::Unusable;
use crate::analysis::own_code::is_own;
use crate::analysis::report::{Children, Code, Confidence, Estimate, Report};
use crate::output::numbers;
use crate::profile::buckets::{Buckets, GilSeries, Series, ThreadSeries, BUCKETS};
use crate::profile::{Histogram, Measured, Profile, ThreadProfile};
use crate::sample::{Stack, State, StateTimes};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most rows of each kind in a baseline.
const MAX_ROWS: usize = 100_000;
/// Share of the CPU time in Python processes that were not measured, from which a run decides
/// nothing.
const MOSTLY: f64 = 0.5;
/// Share of the threads' time in unknown states from which the lengths of waits are not known: the
/// hundredth that a p99 leaves out may be there. On Python 3.7 and later it is about zero.
const MAX_UNKNOWN: f64 = 0.01;
/// With less active thread time than this in all, beside the interpreter's own, nothing ran.
const MIN_ACTIVE_MS: f64 = 25.0;
/// The same as a share of the window: a short test may have worked for less.
const MIN_ACTIVE: f64 = 0.02;
/// The file of the frames that import a module.
const IMPORTING: &str = "<frozen importlib._bootstrap>";
/// The largest figure in a baseline.
const LARGEST: f64 = 1e15;

/// A measured run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Length of its window in seconds.
    pub seconds: f64,
    /// Samples taken.
    #[serde(alias = "looks")]
    pub samples: u64,
    /// Samples missed.
    pub missed: u64,
    /// The verdict of its report.
    pub verdict: Option<Code>,
    /// The confidence of that verdict.
    pub confidence: Option<Confidence>,
    /// Why its figures decide nothing: nothing ran, too few samples, the GIL is off, too few cores,
    /// the work was in other processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unusable: Option<Unusable>,
    /// The error of a sampled length in milliseconds: the sampling interval.
    pub resolution_ms: f64,
    /// Why the lengths of its waits are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_waits: Option<String>,
    /// Time in which threads may have waited without being seen to.
    #[serde(default)]
    pub unknown: UnknownTime,
    /// The states of all threads, each thread weighted by its [`ThreadSeries::gil_weight`].
    pub process: Shares,
    /// The share of all holding in which the holder had no CPU.
    #[serde(default)]
    pub starved_holding: f64,
    /// The GIL with the most waiting.
    pub gil: Option<GilRun>,
    /// Predictions, with their intervals.
    pub predicted: BTreeMap<String, Estimate>,
    /// Every thread.
    pub threads: Vec<ThreadRun>,
    /// Every function that held or wanted the GIL, or ran without it.
    pub functions: Vec<FunctionRun>,
    /// Length of a bucket.
    #[serde(alias = "stretch_us")]
    pub bucket_us: f64,
}

/// The time of Python threads in which their state is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnknownTime {
    /// How much larger the mean share of waiting is if all of it was waiting.
    pub waiting: f64,
    /// Threads in this time, on average.
    pub threads: f64,
}

/// States by name, for each bucket; states that never occur are absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// All time, in microseconds.
    #[serde(alias = "wholes")]
    pub totals: Vec<f64>,
    /// Time in each state.
    pub states: BTreeMap<String, Vec<f64>>,
}

/// The figures of a GIL.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct GilRun {
    pub observed: Vec<f64>,
    pub busy: Vec<f64>,
    pub contended: Vec<f64>,
    pub waiting: Vec<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switches: Option<Vec<f64>>,
    pub holds: Vec<Histogram>,
    pub waits: Vec<Histogram>,
    #[serde(default)]
    pub measured: Measured,
}

/// The figures of a thread.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ThreadRun {
    /// Its name.
    pub name: String,
    /// Its time.
    pub shares: Shares,
}

/// The figures of a function, in microseconds for each bucket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FunctionRun {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: String,
    /// Its first line.
    pub line: u32,
    /// Time as the innermost function of the holder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holding: Vec<f64>,
    /// Time as the innermost function of a waiting thread.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<f64>,
    /// Time that other threads waited while it held the GIL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inflicted_wait: Vec<f64>,
    /// Time on a CPU without the GIL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub native: Vec<f64>,
}

impl Run {
    /// The run of a measured window.
    pub fn from_report(profile: &Profile, report: &Report, buckets: &Buckets) -> Run {
        let (window, verdict) = (&report.window, &report.verdict);
        let mut threads: Vec<ThreadRun> = buckets.threads.values().map(thread).filter(|t| !t.shares.totals.is_empty()).collect();
        threads.sort_by(|a, b| a.name.cmp(&b.name).then(b.shares.sum("waiting").total_cmp(&a.shares.sum("waiting"))));
        let mut functions: Vec<FunctionRun> = buckets
            .functions
            .iter()
            .map(|((name, file), series)| FunctionRun {
                name: name.clone(),
                file: file.clone(),
                line: series.line,
                holding: micros(&series.holding),
                waiting: micros(&series.waiting),
                inflicted_wait: micros(&series.inflicted),
                native: micros(&series.native),
            })
            .collect();
        functions.sort_by(|a, b| (&a.file, &a.name).cmp(&(&b.file, &b.name)));
        let times = || buckets.threads.values().flat_map(|thread| &thread.times);
        let holding: f64 = times().map(StateTimes::holding).sum();
        let rate = profile.window.rate_hz;
        let unknown = unknown_time(buckets);
        // A lost event makes measured lengths wrong.
        let complete = window.exact && lost_events(profile) == Some(0);
        Run {
            seconds: window.seconds,
            samples: window.samples,
            missed: window.missed,
            verdict: Some(verdict.code),
            confidence: Some(verdict.confidence),
            unusable: unusable(profile, report, buckets),
            resolution_ms: if rate > 0.0 { 1e3 / rate } else { 0.0 },
            hidden_waits: hidden_waits(profile, &unknown),
            unknown,
            process: shares(buckets.threads.values().map(|thread| (thread, thread.gil_weight()))),
            starved_holding: times().map(|times| times.get(State::HoldingStarved)).sum::<f64>() / holding.max(1.0),
            gil: buckets
                .gils
                .values()
                .max_by(|a, b| sum(&a.waiting).total_cmp(&sum(&b.waiting)).then(sum(&a.busy).total_cmp(&sum(&b.busy))))
                .map(|gil| gil_run(gil, complete)),
            predicted: predicted(report),
            threads,
            functions,
            bucket_us: buckets.length() / 1e3,
        }
    }

    /// Whether it is a possible run: every series has the right length, and every number is in
    /// range.
    pub fn is_sound(&self) -> bool {
        let series = |s: &Vec<f64>| (s.is_empty() || s.len() == BUCKETS) && s.iter().all(|x| (0.0..=LARGEST).contains(x));
        let shares = |s: &Shares| series(&s.totals) && s.states.len() <= State::COUNT && s.states.values().all(series);
        let lengths = |h: &Vec<Histogram>| (h.is_empty() || h.len() == BUCKETS) && h.iter().all(Histogram::is_sound);
        let gil = |g: &GilRun| {
            let all = [&g.observed, &g.busy, &g.contended, &g.waiting];
            all.into_iter().all(series) && g.switches.as_ref().is_none_or(series) && lengths(&g.holds) && lengths(&g.waits)
        };
        let function = |f: &FunctionRun| [&f.holding, &f.waiting, &f.inflicted_wait, &f.native].into_iter().all(series);
        let estimate = |e: &Estimate| e.low <= e.estimate && e.estimate <= e.high && e.low >= 0.0 && e.high <= LARGEST;
        [self.seconds, self.resolution_ms, self.bucket_us, self.starved_holding, self.unknown.waiting, self.unknown.threads]
            .iter()
            .all(|x| (0.0..=LARGEST).contains(x))
            && self.threads.len() <= MAX_ROWS
            && self.functions.len() <= MAX_ROWS
            && self.predicted.len() <= MAX_ROWS
            && shares(&self.process)
            && self.gil.as_ref().is_none_or(gil)
            && self.predicted.values().all(estimate)
            && self.threads.iter().all(|t| shares(&t.shares))
            && self.functions.iter().all(function)
    }

    /// Whether most of the work was in other processes.
    pub fn is_elsewhere(&self) -> bool {
        self.unusable.as_ref().is_some_and(|unusable| unusable.code == Code::WorkInChildren)
    }

    /// Whether nothing ran.
    pub fn is_idle(&self) -> bool {
        self.unusable.as_ref().is_some_and(|unusable| unusable.code == Code::Idle)
    }

    /// Keeps the threads and functions with the most time, for a baseline.
    pub fn thinned(mut self, most: usize) -> Run {
        self.threads.sort_by(|a, b| b.active().total_cmp(&a.active()));
        self.threads.truncate(most);
        self.functions.sort_by(|a, b| b.weight().total_cmp(&a.weight()));
        self.functions.truncate(most);
        self
    }
}

impl ThreadRun {
    /// The time in which it held or wanted the GIL, or ran without it, in microseconds.
    pub fn active(&self) -> f64 {
        ["holding", "waiting", "native"].iter().map(|state| self.shares.sum(state)).sum()
    }
}

impl Shares {
    /// The time in a state over all buckets.
    pub fn sum(&self, state: &str) -> f64 {
        self.states.get(state).map_or(0.0, |parts| parts.iter().sum())
    }
}

impl FunctionRun {
    fn weight(&self) -> f64 {
        [&self.holding, &self.waiting, &self.inflicted_wait, &self.native].into_iter().flatten().sum()
    }
}

/// Why the figures decide nothing. On a busy machine even a program that does nothing is short of
/// CPU while it starts.
fn unusable(profile: &Profile, report: &Report, buckets: &Buckets) -> Option<Unusable> {
    let unusable = match refused(report) {
        Some(unusable) if unusable.code != Code::CpuStarved => Some(unusable),
        starved => nothing_ran(profile, buckets).or(starved),
    };
    unusable.map(|unusable| with_held_time(unusable, buckets))
}

/// Why the report predicts nothing, for the verdicts whose figures are not reliable either.
fn refused(report: &Report) -> Option<Unusable> {
    let verdict = &report.verdict;
    let refuses = matches!(verdict.code, Code::Inconclusive | Code::Idle | Code::CpuStarved) && verdict.speedup.processes.is_none();
    let children = report.children.as_ref().filter(|c| c.python_works() && c.python_share() > MOSTLY);
    let (code, why) = match verdict.code {
        _ if children.is_some() => (Code::WorkInChildren, children.map(elsewhere).unwrap_or_default()),
        _ if !report.target.gil_enabled => (Code::GilDisabled, "the GIL is switched off in this free-threaded Python".to_string()),
        code if refuses => (code, [std::slice::from_ref(&verdict.headline), &verdict.because[..]].concat().join(" ")),
        _ => return None,
    };
    Some(Unusable { code, why })
}

/// The time in which a thread holds the GIL on a CPU. On a busy machine an interpreter is without a
/// CPU for long while it starts.
fn holding_on_cpu(times: &StateTimes) -> f64 {
    times.holding() - times.get(State::HoldingStarved)
}

/// The time in which a thread works, or would if it had the GIL.
fn active(times: &StateTimes) -> f64 {
    holding_on_cpu(times) + times.get(State::Waiting) + times.get(State::Native)
}

/// Why a program has nothing to check although its interpreter ran: it only slept, or only imported
/// modules, for example because its main function is never called.
fn nothing_ran(profile: &Profile, buckets: &Buckets) -> Option<Unusable> {
    let all: f64 = buckets.threads.values().flat_map(|thread| &thread.times).map(active).sum();
    // What a module of the user's does while it is imported is work.
    let is_import = |stack: &Stack| {
        let mut inside = stack.frames.iter().skip_while(|frame| frame.function.file != IMPORTING).peekable();
        inside.peek().is_some() && !inside.any(|frame| is_own(&frame.function.name, &frame.function.file))
    };
    let of_interpreter = |(thread, stack, times): (&ThreadProfile, &Stack, &StateTimes)| {
        if is_import(stack) {
            active(times)
        } else if thread.info.main && *stack == Stack::empty() {
            // While it starts and ends, it holds the GIL without a frame.
            holding_on_cpu(times)
        } else {
            0.0
        }
    };
    let interpreter: f64 = profile.stacks().map(of_interpreter).sum();
    let what = if interpreter * 2.0 > all { "nothing ran but the interpreter's start and imports" } else { "nothing ran" };
    let least = (MIN_ACTIVE_MS * 1e6).min(MIN_ACTIVE * profile.running_seconds() * 1e9);
    (all - interpreter < least).then(|| Unusable { code: Code::Idle, why: format!("Idle: {what}.") })
}

/// With the figure for which an idle program is not checked.
fn with_held_time(unusable: Unusable, buckets: &Buckets) -> Unusable {
    if unusable.code != Code::Idle {
        return unusable;
    }
    let held: f64 = buckets.threads.values().flat_map(|thread| &thread.times).map(StateTimes::holding).sum();
    let why = format!("{} The GIL was held for {} in all; give the program some work to measure.", unusable.why, numbers::ms(held / 1e6));
    Unusable { why, ..unusable }
}

/// Why figures of one process say little about a program with these child processes.
fn elsewhere(children: &Children) -> String {
    format!(
        "most of the CPU time ({:.0} %) was not measured: {}, and only one process is measured; measure them too: gilprof gate --subprocesses",
        children.python_share() * 100.0,
        children.python_summary()
    )
}

/// Kernel events that are missing from measured lengths; `None` if their number is not known.
fn lost_events(profile: &Profile) -> Option<u64> {
    let window = &profile.window;
    window.events.lost_events
}

/// Why the lengths of waits are not known, although the rest is.
fn hidden_waits(profile: &Profile, unknown: &UnknownTime) -> Option<String> {
    let lost = || "were lost, and with them the lengths of waits; use --engine samples, or a lower --rate";
    match lost_events(profile) {
        _ if !profile.target.shows_waits() => Some("waiting for the GIL is not visible before Python 3.7".into()),
        None if profile.window.exact => Some(format!("it is not known how many kernel events {}", lost())),
        Some(n) if profile.window.exact && n > 0 => Some(format!("{} kernel events {}", numbers::thousands(n), lost())),
        _ if unknown.waiting > MAX_UNKNOWN => {
            let share = unknown.waiting * 100.0;
            Some(format!("the state of the threads is unknown for {share:.0} % of their time, in which they may have waited"))
        }
        _ => None,
    }
}

fn unknown_time(buckets: &Buckets) -> UnknownTime {
    let sum = |thread: &ThreadSeries, part: fn(&StateTimes) -> f64| thread.times.iter().map(part).sum::<f64>();
    let unknown = |thread: &ThreadSeries| if thread.python { sum(thread, |times| times.get(State::Unknown)) } else { 0.0 };
    // The mean of `Run::process`, with this part of the unknown time as waiting.
    let mean_waiting = |part: f64| {
        let (mut weighted, mut weights) = (0.0, 0.0);
        for thread in buckets.threads.values() {
            let waiting = sum(thread, |times| times.get(State::Waiting)) + part * unknown(thread);
            let wanted = waiting + sum(thread, StateTimes::holding);
            weighted += wanted * waiting / sum(thread, StateTimes::total).max(1.0);
            weights += wanted;
        }
        weighted / weights.max(1.0)
    };
    let all: f64 = buckets.threads.values().map(unknown).sum();
    UnknownTime { waiting: (mean_waiting(1.0) - mean_waiting(0.0)).max(0.0), threads: all / (buckets.length() * BUCKETS as f64) }
}

fn predicted(report: &Report) -> BTreeMap<String, Estimate> {
    let (verdict, speedup) = (&report.verdict, &report.verdict.speedup);
    let all = [
        ("processes", speedup.processes),
        ("free_threading", speedup.free_threading),
        ("release_in_native", speedup.release_in_native),
        ("gil_saturates_at", verdict.gil_saturates_at_interval),
    ];
    all.into_iter().filter_map(|(name, estimate)| Some((name.to_string(), estimate.filter(|e| e.high.is_finite())?))).collect()
}

fn sum(series: &Series) -> f64 {
    series.iter().sum()
}

/// Whole microseconds; empty if all are zero.
fn micros(series: &Series) -> Vec<f64> {
    if series.iter().all(|nanos| *nanos <= 0.0) {
        return Vec::new();
    }
    series.iter().map(|nanos| (nanos / 1e3).round()).collect()
}

/// The time of a state.
pub fn part(times: &StateTimes, state: StateMetric) -> f64 {
    match state {
        StateMetric::Holding => times.holding(),
        StateMetric::Waiting => times.get(State::Waiting),
        StateMetric::Native => times.get(State::Native),
        StateMetric::Starved => times.get(State::Starved),
        StateMetric::Lock => times.get(State::Lock),
        StateMetric::Io => times.get(State::Io),
        StateMetric::Unknown => times.get(State::Unknown),
    }
}

/// The states of threads, each multiplied by its weight.
fn shares<'a>(threads: impl Iterator<Item = (&'a ThreadSeries, f64)>) -> Shares {
    let mut totals = [0.0; BUCKETS];
    let mut states: BTreeMap<&str, Series> = BTreeMap::new();
    for (thread, weight) in threads {
        for (n, times) in thread.times.iter().enumerate() {
            totals[n] += weight * times.total();
            for state in StateMetric::all() {
                states.entry(state.name()).or_insert([0.0; BUCKETS])[n] += weight * part(times, state);
            }
        }
    }
    let nonzero = states.into_iter().map(|(name, series)| (name.to_string(), micros(&series))).filter(|(_, series)| !series.is_empty());
    Shares { totals: micros(&totals), states: nonzero.collect() }
}

fn thread(series: &ThreadSeries) -> ThreadRun {
    ThreadRun { name: series.name.clone(), shares: shares(std::iter::once((series, 1.0))) }
}

/// The figures of a GIL. Lengths are the measured ones if events are complete and there are any: a
/// GIL may be unwatched by the kernel engine.
fn gil_run(gil: &GilSeries, events_complete: bool) -> GilRun {
    let is_measured = |lengths: &[Histogram]| events_complete && lengths.iter().any(|h| h.count() > 0);
    let measured = Measured { waits: is_measured(&gil.exact_waits), holds: is_measured(&gil.exact_holds) };
    GilRun {
        observed: micros(&gil.observed),
        busy: micros(&gil.busy),
        contended: micros(&gil.contended),
        waiting: micros(&gil.waiting),
        switches: gil.switches.map(|switches| switches.to_vec()),
        holds: if measured.holds { &gil.exact_holds } else { &gil.holds }.clone(),
        waits: if measured.waits { &gil.exact_waits } else { &gil.waits }.clone(),
        measured,
    }
}
