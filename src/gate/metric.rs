//! The metrics that a gate can check, with name, unit and definition. [`TABLE`] is what error
//! messages show.
//!
//! - `waiting`, `holding`, `native`, `starved`, `lock`, `io`, `unknown`: share of wall time in that
//!   state. It is the mean over all threads, each weighted by the time in which it held or wanted
//!   the GIL. A thread that never does has no weight: two threads that compute and a main thread
//!   that joins them wait 50 %.
//! - `gil.busy`, `gil.contended`: share of wall time in which a thread held the GIL, or in which at
//!   least one thread waited for it. `gil.waiters_mean`: waiting threads, on average.
//! - `gil.switches_per_s`: GIL switches by CPython's own count.
//! - `hold_ms.X`, `wait_ms.X` with `mean`, `p50`, `p99`, `max`: length of one uninterrupted hold or
//!   wait.
//! - `speedup.processes`, `speedup.free_threading`, `speedup.release_in_native`: the predicted
//!   gain, as in the report.
//! - `gil.saturates_at`: the number of such threads that keeps the GIL busy all the time.
//! - `thread("GLOB").STATE`: share of a thread's own wall time; if several threads match, the
//!   worst.
//! - `function("FILE:NAME").X` with `holding`, `waiting`, `inflicted_wait`, `native`:
//!   thread-seconds per second as the innermost function; if several functions match, the worst.
//!   FILE is a path or the end of a path; it may be absent together with its colon.
//! - `verdict`: the verdict of the report, as in `verdict not in [lock-bound, …]` or
//!   `verdict == keep-threads`.
//!
//! In a program with several GILs the one with the most waiting counts. In a glob `*` matches any
//! text and `?` one character.

use super::outcome::Unit;
use std::fmt;

/// The longest glob, in bytes.
const LONGEST_GLOB: usize = 200;
/// Earlier names of `gil.saturates_at`, and its name in the report.
const OLD_GIL_SATURATES_AT: [&str; 2] = ["gil_saturates_at", "threads_worth_having"];

/// A state in which a thread spends its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum StateMetric {
    Waiting,
    Holding,
    Native,
    Starved,
    Lock,
    Io,
    Unknown,
}

/// A statistic of lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Statistic {
    Mean,
    P50,
    P99,
    Max,
}

/// A figure of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum FunctionMetric {
    Holding,
    Waiting,
    InflictedWait,
    Native,
}

/// A predicted gain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Gain {
    Processes,
    FreeThreading,
    ReleaseInNative,
}

/// A metric that can be checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Metric {
    /// Mean share over the threads that take part.
    Share(StateMetric),
    GilBusy,
    GilContended,
    GilWaiters,
    GilSwitches,
    Hold(Statistic),
    Wait(Statistic),
    Speedup(Gain),
    GilSaturatesAt,
    /// Share of the worst thread whose name matches.
    Thread(String, StateMetric),
    /// Of the worst function that matches.
    Function(String, FunctionMetric),
    Verdict,
}

/// A row of [`TABLE`].
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "internals"), allow(dead_code, reason = "the test of docs/gate.md reads all of it"))]
pub struct MetricInfo {
    /// Its name in expressions; choices in braces.
    pub name: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// Its definition.
    pub what: &'static str,
}

const fn row(name: &'static str, unit: Unit, what: &'static str) -> MetricInfo {
    MetricInfo { name, unit, what }
}

/// Every metric.
pub const TABLE: &[MetricInfo] = &[
    row("waiting", Unit::Share, "share of wall time in which a thread waits for the GIL; mean over threads by how much they use it"),
    row("holding", Unit::Share, "the same for holding it"),
    row("native", Unit::Share, "the same for running on a CPU without it"),
    row("starved", Unit::Share, "the same for being runnable without a CPU"),
    row("lock", Unit::Share, "the same for sleeping on another lock"),
    row("io", Unit::Share, "the same for sleeping in any other system call"),
    row("unknown", Unit::Share, "the same for time without evidence of the state"),
    row("gil.busy", Unit::Share, "share of wall time in which a thread held the GIL"),
    row("gil.contended", Unit::Share, "share of wall time in which at least one thread waited for it"),
    row("gil.waiters_mean", Unit::Threads, "waiting threads, on average"),
    row("gil.switches_per_s", Unit::PerSecond, "GIL switches by CPython's own count"),
    row("hold_ms.{mean,p50,p99,max}", Unit::Ms, "length of one uninterrupted hold"),
    row("wait_ms.{mean,p50,p99,max}", Unit::Ms, "length of one uninterrupted wait"),
    row("speedup.{processes,free_threading,release_in_native}", Unit::Factor, "predicted gain, as in the report"),
    row("gil.saturates_at", Unit::Threads, "the number of such threads that keeps the GIL busy all the time"),
    row(
        "thread(\"GLOB\").{waiting,holding,native,starved,lock,io,unknown}",
        Unit::Share,
        "share of the wall time of the worst matching thread",
    ),
    row(
        "function(\"FILE:NAME\").{holding,waiting,inflicted_wait,native}",
        Unit::Threads,
        "thread-seconds per second as the innermost function, of the worst matching function",
    ),
    row("verdict", Unit::Verdict, "the report's verdict: verdict not in [lock-bound, …]"),
];

/// The names of all metrics, for error messages.
pub fn names() -> String {
    TABLE.iter().map(|row| row.name).collect::<Vec<_>>().join(", ")
}

const STATES: [(&str, StateMetric); 7] = [
    ("waiting", StateMetric::Waiting),
    ("holding", StateMetric::Holding),
    ("native", StateMetric::Native),
    ("starved", StateMetric::Starved),
    ("lock", StateMetric::Lock),
    ("io", StateMetric::Io),
    ("unknown", StateMetric::Unknown),
];
const STATISTICS: [(&str, Statistic); 4] =
    [("mean", Statistic::Mean), ("p50", Statistic::P50), ("p99", Statistic::P99), ("max", Statistic::Max)];
const FUNCTION_METRICS: [(&str, FunctionMetric); 4] = [
    ("holding", FunctionMetric::Holding),
    ("waiting", FunctionMetric::Waiting),
    ("inflicted_wait", FunctionMetric::InflictedWait),
    ("native", FunctionMetric::Native),
];
const GAINS: [(&str, Gain); 3] =
    [("processes", Gain::Processes), ("free_threading", Gain::FreeThreading), ("release_in_native", Gain::ReleaseInNative)];

fn find<T: Copy>(table: &[(&'static str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, what)| *what)
}

fn name_of<T: PartialEq>(table: &[(&'static str, T)], what: T) -> &'static str {
    table.iter().find(|(_, known)| *known == what).map_or("", |(name, _)| name)
}

impl StateMetric {
    /// Its name.
    pub fn name(self) -> &'static str {
        name_of(&STATES, self)
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = StateMetric> {
        STATES.iter().map(|(_, state)| *state)
    }
}

impl Metric {
    /// Parses a name without a glob, such as `gil.busy`.
    pub fn plain(name: &str) -> Option<Metric> {
        let parts = name.split_once('.').unwrap_or((name, ""));
        Some(match parts {
            ("gil", "busy") => Metric::GilBusy,
            ("gil", "contended") => Metric::GilContended,
            ("gil", "waiters_mean") => Metric::GilWaiters,
            ("gil", "switches_per_s") => Metric::GilSwitches,
            ("hold_ms", statistic) => Metric::Hold(find(&STATISTICS, statistic)?),
            ("wait_ms", statistic) => Metric::Wait(find(&STATISTICS, statistic)?),
            ("speedup", gain) => Metric::Speedup(find(&GAINS, gain)?),
            _ if name == "gil.saturates_at" || OLD_GIL_SATURATES_AT.contains(&name) => Metric::GilSaturatesAt,
            _ if name == "verdict" => Metric::Verdict,
            _ => Metric::Share(find(&STATES, name)?),
        })
    }

    /// A metric of matching threads or functions: `thread`, `worker-*`, `waiting`. An error lists
    /// what exists.
    pub fn selected(kind: &str, glob: &str, what: &str) -> Result<Metric, String> {
        if glob.is_empty() || glob.len() > LONGEST_GLOB || glob.chars().any(char::is_control) {
            return Err(format!("{kind}(\"…\") takes a name of 1 to {LONGEST_GLOB} bytes, in which * matches any text"));
        }
        let list = |names: Vec<&str>| format!("{kind}(…) has no {what:?}; it has: {}", names.join(", "));
        match kind {
            "thread" => {
                let state = find(&STATES, what).ok_or_else(|| list(STATES.iter().map(|(name, _)| *name).collect()))?;
                Ok(Metric::Thread(glob.into(), state))
            }
            "function" => {
                let metric_of_function =
                    find(&FUNCTION_METRICS, what).ok_or_else(|| list(FUNCTION_METRICS.iter().map(|(name, _)| *name).collect()))?;
                Ok(Metric::Function(glob.into(), metric_of_function))
            }
            _ => Err(format!("there is no metric {kind}(…); there are: {}", names())),
        }
    }

    /// Its unit.
    pub fn unit(&self) -> Unit {
        match self {
            Metric::Share(_) | Metric::GilBusy | Metric::GilContended | Metric::Thread(..) => Unit::Share,
            Metric::GilWaiters | Metric::GilSaturatesAt | Metric::Function(..) => Unit::Threads,
            Metric::GilSwitches => Unit::PerSecond,
            Metric::Hold(_) | Metric::Wait(_) => Unit::Ms,
            Metric::Speedup(_) => Unit::Factor,
            Metric::Verdict => Unit::Verdict,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Metric::Share(state) => f.write_str(state.name()),
            Metric::GilBusy => f.write_str("gil.busy"),
            Metric::GilContended => f.write_str("gil.contended"),
            Metric::GilWaiters => f.write_str("gil.waiters_mean"),
            Metric::GilSwitches => f.write_str("gil.switches_per_s"),
            Metric::Hold(statistic) => write!(f, "hold_ms.{}", name_of(&STATISTICS, *statistic)),
            Metric::Wait(statistic) => write!(f, "wait_ms.{}", name_of(&STATISTICS, *statistic)),
            Metric::Speedup(gain) => write!(f, "speedup.{}", name_of(&GAINS, *gain)),
            Metric::GilSaturatesAt => f.write_str("gil.saturates_at"),
            Metric::Thread(glob, state) => write!(f, "thread(\"{glob}\").{}", state.name()),
            Metric::Function(glob, metric_of_function) => {
                write!(f, "function(\"{glob}\").{}", name_of(&FUNCTION_METRICS, *metric_of_function))
            }
            Metric::Verdict => f.write_str("verdict"),
        }
    }
}

/// Whether a glob matches a name. Takes time in proportion to the product of both lengths, however
/// many stars there are.
pub fn matches(glob: &str, name: &str) -> bool {
    let (glob, name): (Vec<char>, Vec<char>) = (glob.chars().collect(), name.chars().collect());
    let (mut g, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match glob.get(g) {
            Some('*') => {
                retry = Some((g, n));
                g += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (g, n) = (g + 1, n + 1),
            // Backtrack: the last star matches one more character.
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    (g, n) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|c| *c == '*')
}

/// Whether `FILE:NAME` matches a function. FILE matches the path or its last components; without a
/// colon every file matches.
pub fn is_function(glob: &str, file: &str, name: &str) -> bool {
    match glob.rsplit_once(':') {
        None => matches(glob, name),
        Some((path, function)) => {
            let ends = || std::iter::once(file).chain(file.match_indices('/').map(|(at, _)| &file[at + 1..]));
            matches(function, name) && ends().any(|end| matches(path, end))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_name_of_the_table_parses_and_is_written_again() {
        for row in TABLE {
            let (before, choices) = row.name.split_once('{').unwrap_or((row.name, "}"));
            for choice in choices.trim_end_matches('}').split(',') {
                let name = format!("{before}{choice}");
                let metric = match name.split_once("(\"") {
                    Some((kind, rest)) => {
                        let (glob, what) = rest.split_once("\").").unwrap();
                        Metric::selected(kind, glob, what).unwrap()
                    }
                    None => Metric::plain(&name).unwrap_or_else(|| panic!("{name}")),
                };
                assert_eq!((metric.to_string(), metric.unit()), (name, row.unit));
            }
        }
        for none in ["", "gil", "gil.", "busy", "wait_ms", "wait_ms.p98", "waiting.p50", "speedup", "verdict.x", "GIL.busy"] {
            assert_eq!(Metric::plain(none), None, "{none}");
        }
    }

    #[test]
    fn globs_match_names() {
        for (glob, name) in [("worker-*", "worker-0"), ("*", ""), ("w?rk*-*1", "work-a-11"), ("**x*", "ax"), ("Main", "Main")] {
            assert!(matches(glob, name), "{glob} {name}");
        }
        for (glob, name) in [("worker-*", "worker"), ("", "x"), ("?", ""), ("a*b", "ac"), ("Main", "MainThread")] {
            assert!(!matches(glob, name), "{glob} {name}");
        }
        assert!(!matches(&"*a".repeat(90), &"b".repeat(100_000)), "without exponential backtracking");
    }

    #[test]
    fn functions_match_by_the_end_of_their_path() {
        let is = |glob| is_function(glob, "/srv/app/app.py", "Parser.parse");
        for glob in ["app.py:Parser.parse", "app/app.py:*.parse", "/srv/app/app.py:Parser.*", "Parser.parse", "*.py:*", "*parse"] {
            assert!(is(glob), "{glob}");
        }
        for glob in ["p.py:Parser.parse", "app.py:parse", "srv:*", "other.py:Parser.parse", "parse"] {
            assert!(!is(glob), "{glob}");
        }
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_with_any_part_replaced_by_a_star(name in "[a-z-]{0,20}", at in 0..20usize, cut in 0..20usize) {
            prop_assert!(matches(&name, &name));
            let (from, to) = (at.min(name.len()), (at + cut).min(name.len()));
            let starred = format!("{}*{}", &name[..from], &name[to..]);
            prop_assert!(matches(&starred, &name));
        }
    }
}
