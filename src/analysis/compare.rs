//! Comparison of two windows: which figures differ, and which differences may be chance.
//!
//! Each figure is measured in 16 buckets of each window. The scatter between buckets gives the
//! difference an interval at 99 % (Welch's, with the t quantile of the fewer degrees of freedom,
//! which is the conservative choice). A difference is real if the interval excludes zero *and* the
//! difference is large enough to matter: runs of one program differ by more than the scatter within
//! each as soon as a disk or another program is a little slower.

use super::name_pattern::name_pattern;
use super::ratio_estimator;
use super::report::{Code, Report};
use crate::profile::buckets::{Buckets, Series, ThreadSeries, BUCKETS};
use crate::sample::{State, StateTimes};
use serde::Serialize;
use std::collections::BTreeMap;

/// The schema's name.
pub const SCHEMA: &str = "gilprof.diff/1";
/// Smallest difference of a share that matters.
const SHARE_FLOOR: f64 = 0.03;
/// Smallest difference of thread time per second that matters, absolute and relative.
const RATE_FLOOR: f64 = 0.05;
const RELATIVE_FLOOR: f64 = 0.10;
/// Share of its time with or waiting for the GIL below which a thread has no row.
const MIN_GIL_WEIGHT: f64 = 0.005;
/// The figure that depends on the machine: another program started or ended.
const STARVED: &str = "threads starved";
/// Most functions in a comparison.
const MAX_FUNCTIONS: usize = 20;

/// One of the compared windows.
#[derive(Clone, Copy, Debug)]
pub struct ComparedWindow<'a> {
    /// Its report.
    pub report: &'a Report,
    /// Its figures by bucket.
    pub buckets: &'a Buckets,
}

/// The comparison. Figures are shares or thread-seconds per second, as in the report.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// Whether the program differs by more than chance and by enough to matter. A machine with more
    /// or less load gives a warning.
    pub real: bool,
    /// One sentence.
    pub headline: String,
    /// The first window.
    pub base: WindowSummary,
    /// The second.
    pub new: WindowSummary,
    /// The whole process.
    pub figures: Vec<Figure>,
    /// Threads by name, without the numbers in names; per thread.
    pub threads: Vec<ThreadChange>,
    /// Functions whose figures differ, the largest difference first.
    pub functions: Vec<FunctionChange>,
    /// Reasons for which the windows are less comparable.
    pub warnings: Vec<String>,
}

/// Summary of a window.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)]
pub struct WindowSummary {
    pub pid: i32,
    pub python: String,
    pub command: Vec<String>,
    pub seconds: f64,
    pub samples: u64,
    pub verdict: Code,
}

/// A figure before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Change {
    /// In the first window.
    pub base: f64,
    /// In the second.
    pub new: f64,
    /// The difference.
    pub change: f64,
    /// Its interval at 99 %.
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// Whether the difference is more than chance and large enough to matter.
    pub real: bool,
}

/// A named figure of the process.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Its name.
    pub name: &'static str,
    /// Whether it is a share, shown in per cent, or else a number of threads.
    pub share: bool,
    /// Its change.
    #[serde(flatten)]
    pub change: Change,
}

/// Threads of one name.
#[derive(Clone, Debug, Serialize)]
pub struct ThreadChange {
    /// The name; `*` stands for a number.
    pub name: String,
    /// Number of threads in each window.
    pub threads: [usize; 2],
    /// Share of their time.
    pub waiting: Change,
    /// Share of their time.
    pub holding: Change,
}

/// A function, by name and file.
#[derive(Clone, Debug, Serialize)]
pub struct FunctionChange {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: String,
    /// Its first line in the second window, or in the first where the second has none.
    pub line: u32,
    /// Thread-seconds per second.
    pub holding: Change,
    /// Thread-seconds per second.
    pub waiting: Change,
    /// Waiting of other threads while the function held the GIL.
    pub inflicted_wait: Change,
}

/// Compares two windows.
pub fn compare(base: ComparedWindow<'_>, new: ComparedWindow<'_>) -> Comparison {
    let figures = figures(base.buckets, new.buckets);
    let threads = threads(base.buckets, new.buckets);
    let functions = functions(base.buckets, new.buckets);
    let (machine, program): (Vec<&Figure>, Vec<&Figure>) = figures.iter().filter(|f| f.change.real).partition(|f| f.name == STARVED);
    let real = !program.is_empty() || !functions.is_empty();
    let headline = headline(&program, &functions);
    let mut warnings = warnings(base.report, new.report);
    warnings.extend(
        machine.into_iter().map(|f| format!("{}: this depends on the load of the machine, not on the program", describe_change(f))),
    );
    Comparison {
        schema: SCHEMA,
        real,
        headline,
        base: window_summary(base.report),
        new: window_summary(new.report),
        figures,
        threads,
        functions,
        warnings,
    }
}

fn window_summary(report: &Report) -> WindowSummary {
    let (target, window) = (&report.target, &report.window);
    let (python, command) = (target.python.clone(), target.command.clone());
    WindowSummary { pid: target.pid, python, command, seconds: window.seconds, samples: window.samples, verdict: report.verdict.code }
}

/// A value per bucket, and the whole of which it is a part.
#[derive(Clone, Copy, Debug)]
struct Ratio {
    parts: Series,
    wholes: Series,
}

impl Ratio {
    /// Per second of wall time.
    fn rate(parts: Series, length: f64) -> Ratio {
        Ratio { parts, wholes: [length; BUCKETS] }
    }

    /// Its value, and the variance of the value.
    fn value(&self) -> (f64, f64) {
        ratio_estimator::ratio(&self.parts, &self.wholes)
    }
}

fn change(base: &Ratio, new: &Ratio, floor: impl Fn(f64, f64) -> f64) -> Change {
    let ((before, scatter), (after, other)) = (base.value(), new.value());
    let (change, half) = (after - before, ratio_estimator::student_t(BUCKETS - 1) * (scatter + other).sqrt());
    let (low, high) = (change - half, change + half);
    let real = (low > 0.0 || high < 0.0) && change.abs() >= floor(before, after);
    Change { base: before, new: after, change, low, high, real }
}

fn share_floor(_: f64, _: f64) -> f64 {
    SHARE_FLOOR
}

fn rate_floor(before: f64, after: f64) -> f64 {
    RATE_FLOOR.max(RELATIVE_FLOOR * before.max(after))
}

/// Weighted sums over threads, by bucket.
fn sum<'a>(threads: impl Iterator<Item = (&'a ThreadSeries, f64)>, part: impl Fn(&StateTimes) -> f64) -> Series {
    let mut out = [0.0; BUCKETS];
    for (thread, weight) in threads {
        out.iter_mut().zip(&thread.times).for_each(|(sum, times)| *sum += weight * part(times));
    }
    out
}

fn figures(base: &Buckets, new: &Buckets) -> Vec<Figure> {
    let busy = |s: &Buckets| Ratio { parts: s.busy, wholes: s.observed };
    let waiting = |s: &Buckets| {
        let weighted = || s.threads.values().map(|t| (t, t.gil_weight()));
        Ratio { parts: sum(weighted(), |times| times.get(State::Waiting)), wholes: sum(weighted(), StateTimes::total) }
    };
    let state = |s: &Buckets, part: fn(&StateTimes) -> f64| Ratio::rate(sum(s.threads.values().map(|t| (t, 1.0)), part), s.length());
    let share =
        |name, ratio: &dyn Fn(&Buckets) -> Ratio| Figure { name, share: true, change: change(&ratio(base), &ratio(new), share_floor) };
    let rate = |name, part: fn(&StateTimes) -> f64| Figure {
        name,
        share: false,
        change: change(&state(base, part), &state(new, part), rate_floor),
    };
    vec![
        share("GIL busy", &busy),
        share("waiting", &waiting),
        rate("threads waiting", |times| times.get(State::Waiting)),
        rate("threads native", |times| times.get(State::Native)),
        rate(STARVED, |times| times.get(State::Starved) + times.get(State::HoldingStarved)),
        rate("asleep with the GIL", |times| times.get(State::HoldingBlocked)),
    ]
}

fn threads(base: &Buckets, new: &Buckets) -> Vec<ThreadChange> {
    let mut rows_by_pattern: BTreeMap<String, [Vec<&ThreadSeries>; 2]> = BTreeMap::new();
    for (side, buckets) in [base, new].into_iter().enumerate() {
        for thread in buckets.threads.values().filter(|thread| thread.gil_weight() > MIN_GIL_WEIGHT) {
            rows_by_pattern.entry(name_pattern(&thread.name)).or_default()[side].push(thread);
        }
    }
    let row = |(name, sides): (String, [Vec<&ThreadSeries>; 2])| {
        let ratio = |side: usize, part: fn(&StateTimes) -> f64| {
            let alike = || sides[side].iter().map(|thread| (*thread, 1.0));
            Ratio { parts: sum(alike(), part), wholes: sum(alike(), StateTimes::total) }
        };
        let of = |part| change(&ratio(0, part), &ratio(1, part), share_floor);
        let threads = [sides[0].len(), sides[1].len()];
        ThreadChange { name, threads, waiting: of(|times| times.get(State::Waiting)), holding: of(StateTimes::holding) }
    };
    rows_by_pattern.into_iter().map(row).collect()
}

fn functions(base: &Buckets, new: &Buckets) -> Vec<FunctionChange> {
    let names: std::collections::BTreeSet<_> = base.functions.keys().chain(new.functions.keys()).collect();
    let (none, lengths) = (Default::default(), (base.length(), new.length()));
    let row = |key: &(String, String)| {
        let (before, after) = (base.functions.get(key).unwrap_or(&none), new.functions.get(key).unwrap_or(&none));
        let of = |before: Series, after: Series| change(&Ratio::rate(before, lengths.0), &Ratio::rate(after, lengths.1), rate_floor);
        FunctionChange {
            name: key.0.clone(),
            file: key.1.clone(),
            line: if after.line != 0 { after.line } else { before.line },
            holding: of(before.holding, after.holding),
            waiting: of(before.waiting, after.waiting),
            inflicted_wait: of(before.inflicted, after.inflicted),
        }
    };
    let differs = |f: &FunctionChange| f.holding.real || f.waiting.real || f.inflicted_wait.real;
    let mut rows: Vec<FunctionChange> = names.into_iter().map(row).filter(differs).collect();
    let size = |f: &FunctionChange| f.inflicted_wait.change.abs().max(f.holding.change.abs()).max(f.waiting.change.abs());
    rows.sort_by(|a, b| size(b).total_cmp(&size(a)));
    rows.truncate(MAX_FUNCTIONS);
    rows
}

/// A change as a phrase.
fn describe_change(f: &Figure) -> String {
    let c = &f.change;
    let more = if c.change > 0.0 { "up" } else { "down" };
    match f.share {
        true => format!("{} {more} from {:.0} % to {:.0} %", f.name, c.base * 100.0, c.new * 100.0),
        false => format!("{} {more} from {:.2} to {:.2}", f.name, c.base, c.new),
    }
}

/// The differences of the program.
fn headline(figures: &[&Figure], functions: &[FunctionChange]) -> String {
    let mut changes: Vec<String> = figures.iter().map(|f| describe_change(f)).collect();
    if changes.is_empty() && !functions.is_empty() {
        changes.push(format!("the same in total, but in other functions, above all {}", functions[0].name));
    }
    if changes.is_empty() {
        return "No real difference: all differences may be chance or are too small to matter.".into();
    }
    changes.join("; ") + "."
}

fn warnings(base: &Report, new: &Report) -> Vec<String> {
    let mut out = Vec::new();
    let mut differs = |what: &str, before: String, after: String| {
        if before != after {
            out.push(format!("{what} was {before} and is {after}, so the two windows are not fully comparable"));
        }
    };
    differs("Python", base.target.python.clone(), new.target.python.clone());
    differs("the number of cores", base.target.cpus.to_string(), new.target.cpus.to_string());
    differs("the sampling rate", base.window.rate_hz.to_string(), new.window.rate_hz.to_string());
    differs("whether kernel events measured the waits", base.window.exact.to_string(), new.window.exact.to_string());
    let sides = [("first", base), ("second", new)];
    for (which, report) in sides {
        out.extend(report.warnings.iter().map(|warning| format!("{which} window: {warning}")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ThreadId, Tid};
    use crate::profile::ProfileBuilder;
    use crate::sample::{Sink, ThreadInfo};
    use crate::units::Nanos;

    /// A second in which one thread spends these shares of its time starved and waiting, plus or
    /// minus a thousandth, and holds for the rest. In the first bucket another thread waits for the
    /// share `first`.
    fn second(starved: f64, waiting: f64, first: f64) -> Buckets {
        let mut buckets = Buckets::new(Nanos::from_nanos(0), 1.0);
        let length = buckets.length();
        let times = |n: usize| {
            let more = 0.001 * (n % 2) as f64;
            let mut times = StateTimes::single(State::Starved, (starved + more) * length);
            times.add(State::Waiting, (waiting + more) * length);
            times.add(State::HoldingPython, (1.0 - starved - waiting - 2.0 * more) * length);
            times
        };
        let times = std::array::from_fn(times);
        let info = ThreadInfo { id: ThreadId(1), tid: Tid(1), name: "worker-1".into(), python: true, main: false, gil: None };
        buckets.thread(&info);
        buckets.threads.values_mut().for_each(|thread| thread.times = times);
        // The main thread waits for the GIL, then reads its input.
        let length = buckets.length();
        buckets.thread(&ThreadInfo { id: ThreadId(2), tid: Tid(2), name: "MainThread".into(), main: true, ..info });
        if let Some(main) = buckets.threads.get_mut(&ThreadId(2)) {
            main.times = std::array::from_fn(|_| StateTimes::single(State::Io, length));
            main.times[0] = StateTimes::single(State::Waiting, first * length);
            main.times[0].add(State::Io, (1.0 - first) * length);
        }
        buckets.observed = [length; BUCKETS];
        buckets.busy = [length; BUCKETS];
        buckets
    }

    fn compared(base: &Buckets, new: &Buckets) -> Comparison {
        let report = crate::analysis::report_with(&ProfileBuilder::new().finish(Default::default(), Default::default()), &[]);
        compare(ComparedWindow { report: &report, buckets: base }, ComparedWindow { report: &report, buckets: new })
    }

    #[test]
    fn a_busier_machine_is_a_warning_and_not_a_difference_of_the_program() {
        let comparison = compared(&second(0.0, 0.3, 0.0), &second(0.2, 0.3, 0.0));
        assert!(!comparison.real && comparison.headline.starts_with("No real difference"), "{comparison:#?}");
        assert!(comparison.warnings.iter().any(|w| w.starts_with("threads starved up from 0.00 to 0.20: ")), "{:?}", comparison.warnings);
        let comparison = compared(&second(0.0, 0.3, 0.0), &second(0.0, 0.5, 0.0));
        assert!(comparison.real && comparison.headline.contains("threads waiting up from 0.30 to 0.50"), "{comparison:#?}");
        assert!(comparison.warnings.is_empty(), "{:?}", comparison.warnings);
    }

    #[test]
    fn a_thread_that_wants_the_gil_for_a_moment_has_a_small_part_in_waiting() {
        // For .4 and .6 % of its time.
        let comparison = compared(&second(0.0, 0.3, 0.064), &second(0.0, 0.3, 0.096));
        let waiting = comparison.figures.iter().find(|f| f.name == "waiting").unwrap();
        assert!(!comparison.real && waiting.change.change.abs() < 0.001 && waiting.change.base > 0.29, "{comparison:#?}");
    }
}
