//! The outcome of a gate as data: the schema `gilprof.gate/1` (`--format json`), and the input of
//! every writer in `output`.
//!
//! Texts are not escaped. Names of functions, files and threads come from the target, so each
//! writer must escape them as its format needs. Figures have the unit that [`Unit`] names; the
//! `_text` fields have the same figures formatted.

use crate::analysis::report::{Caller, Code, Target};
use serde::{Deserialize, Serialize};

/// The schema's name.
pub const SCHEMA: &str = "gilprof.gate/1";

/// The outcome of a gate, whether or not its checks could be decided.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// The version of gilprof that made it.
    pub gilprof: &'static str,
    /// The worst of the checks: `fail`, else `inconclusive`, else `warn`, else `pass`.
    pub verdict: Verdict,
    /// The exit code of gilprof.
    pub exit_code: u8,
    /// The result in one sentence.
    pub headline: String,
    /// Why nothing was checked: the command failed, a process could not be read, and so on. There
    /// are no checks then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How the measured command ended, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_failure: Option<CommandFailure>,
    /// The name of the program: its script or module.
    pub program: String,
    /// The measured process, of the last run.
    pub target: Option<Target>,
    /// The measured runs.
    pub runs: Vec<RunBrief>,
    /// The baseline of the comparison.
    pub baseline: Option<BaselineBrief>,
    /// Every check, in the order of its input: limits, then regressions.
    pub checks: Vec<Check>,
    /// Conditions that limit the figures, and other notes.
    pub notes: Vec<String>,
}

/// The end of a command that failed: one of the two is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CommandFailure {
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
}

/// The summary of a measured run.
#[derive(Clone, Debug, Serialize)]
pub struct RunBrief {
    /// Length of its window in seconds.
    pub seconds: f64,
    /// Samples taken.
    pub samples: u64,
    /// Samples missed.
    pub missed: u64,
    /// The verdict of its report.
    pub verdict: Code,
    /// Why it decides nothing, or only part of the checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unusable: Option<Unusable>,
}

/// Why a run decides nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unusable {
    /// The verdict or finding that rules it out. It may differ from the verdict of the report: a
    /// process that idles while its child processes work is not idle.
    pub code: Code,
    /// The reason, as a sentence.
    pub why: String,
}

/// The summary of a baseline.
#[derive(Clone, Debug, Serialize)]
pub struct BaselineBrief {
    /// The path of its file, as given.
    pub path: String,
    /// How many runs it holds.
    pub runs: usize,
    /// The Python it was measured on.
    pub python: String,
}

/// The verdict on a check, or on all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The whole interval is within the limit.
    Pass,
    /// A check marked `@warn` is broken or inconclusive; the build goes on.
    Warn,
    /// The limit is inside the interval, or there is no such figure.
    Inconclusive,
    /// The whole interval is beyond the limit.
    Fail,
}

impl Verdict {
    /// One character for tables.
    pub fn symbol(self) -> char {
        match self {
            Verdict::Pass => '✓',
            Verdict::Warn => '!',
            Verdict::Inconclusive => '~',
            Verdict::Fail => '✗',
        }
    }

    /// Its name, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Warn => "warn",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Fail => "fail",
        }
    }
}

/// The kind of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `--max`: a figure and its limit.
    Limit,
    /// `--max-regression`: a figure and how much worse than the baseline it may be.
    Regression,
}

/// Whether a broken check fails the build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A broken check fails the build.
    #[default]
    Fail,
    /// A broken check is only a warning (`@warn`).
    Warn,
}

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// A part of 1; shown in percent.
    Share,
    /// Threads on average, or thread-seconds per second.
    Threads,
    /// Milliseconds.
    Ms,
    /// A factor; 1 is no gain.
    Factor,
    /// A number per second.
    PerSecond,
    /// Not a figure but the code of a verdict.
    Verdict,
}

impl Outcome {
    /// The result in one or two words: the verdict, if there is one.
    pub fn title(&self) -> &'static str {
        match self.error {
            Some(_) => "not checked",
            None => self.verdict.as_str(),
        }
    }

    /// The name of a check: its metric. Two checks of one metric are distinguished by their
    /// expressions.
    pub fn name<'a>(&self, check: &'a Check) -> &'a str {
        short_name(&self.checks, check)
    }
}

/// The metric of a check, or its expression if `checks` have that metric twice.
pub fn short_name<'a>(checks: &[Check], check: &'a Check) -> &'a str {
    match checks.iter().filter(|other| other.metric == check.metric).count() {
        0 | 1 => &check.metric,
        _ => &check.expression,
    }
}

/// A figure with its interval at 99 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The estimate.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// The metric in its canonical spelling: `waiting`, `thread("worker-*").waiting`. It is stable
    /// from build to build.
    pub metric: String,
    /// Limit or regression.
    pub kind: Kind,
    /// The whole expression in its canonical spelling: `waiting <= 20%`, `waiting: +5pp, min 2pp`.
    pub expression: String,
    /// Whether the check fails the build when it is broken.
    pub level: Level,
    /// The verdict on it.
    pub verdict: Verdict,
    /// The unit of its figures.
    pub unit: Unit,
    /// The limit; for a regression the worst value that the baseline allows. `None` without a
    /// figure.
    pub limit: Option<f64>,
    /// The limit, formatted: `<= 20 %`, `not in [lock-bound]`, `<= 55.2 %`.
    pub limit_text: String,
    /// The estimate. `None` if there is none (`why` says why), or if the metric is `verdict`.
    pub measured: Option<Interval>,
    /// The same, formatted: `52.1 % (50.3 - 53.9)`, the code of a verdict, or `-`.
    pub measured_text: String,
    /// The estimate from the baseline, for a regression.
    pub baseline: Option<Interval>,
    /// The same, formatted; `-` if there is none.
    pub baseline_text: String,
    /// The difference from the baseline, for a regression.
    pub change: Option<Interval>,
    /// One sentence: the reason for the verdict, and what helps.
    pub why: String,
    /// The process of the last run that it was checked in, if there were several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<i32>,
    /// The function that is responsible. Only checks that do not pass have one, and not all of
    /// them.
    pub culprit: Option<Culprit>,
}

/// The function that is responsible for a broken check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Culprit {
    /// Its name.
    pub name: String,
    /// Its file, as in the target; may be empty, or `<string>`.
    pub file: String,
    /// Its first line; 0 if unknown.
    pub first_line: u32,
    /// Its most frequent line; 0 if unknown.
    pub line: u32,
    /// If it is not the user's own: the nearest caller that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub called_from: Option<Caller>,
    /// The thread that ran it most.
    pub thread: Option<String>,
    /// What it does, with figures: `holds the GIL 97 % of the time; 1.9 threads wait behind it`.
    pub what: String,
    /// Its most frequent stack, root first, the function last. May be empty.
    pub stack: Vec<StackFrame>,
}

/// One frame of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StackFrame {
    /// The function's name.
    pub name: String,
    /// Its file.
    pub file: String,
    /// The line that was running; 0 if unknown.
    pub line: u32,
}

impl Culprit {
    /// The line to show: the most frequent one, otherwise the function's first; 1 if both are
    /// unknown.
    pub fn line_to_show(&self) -> u32 {
        [self.line, self.first_line, 1].into_iter().find(|line| *line > 0).unwrap_or(1)
    }
}
