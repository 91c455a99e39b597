//! What a judged gate looks like: the contract of `gilprof.gate/1` (`--format json`) and of every writer in `output`.
//!
//! Texts in it are as they were written or measured: names of functions, files and threads come from the target, so that each writer
//! escapes them as its format needs. Figures are in the unit that [`Unit`] names; the `_text` fields are the same, for people.

use crate::analysis::report::{Code, Target};
use serde::{Deserialize, Serialize};

/// The schema's name.
pub const SCHEMA: &str = "gilprof.gate/1";

/// A gate that was judged, or that could not be.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// The version of gilprof that made it.
    pub gilprof: &'static str,
    /// The worst of the checks: `fail`, else `inconclusive`, else `warn`, else `pass`.
    pub verdict: Verdict,
    /// What gilprof ends with.
    pub exit_code: u8,
    /// One sentence.
    pub headline: String,
    /// Why nothing was judged: the command failed, a process could not be read, the baseline is of another Python. There are no checks then, or
    /// only such as could be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What people call the program: its script or module.
    pub program: String,
    /// The measured process, of the last run.
    pub target: Option<Target>,
    /// What was measured.
    pub runs: Vec<RunBrief>,
    /// The baseline that was compared with.
    pub baseline: Option<BaselineBrief>,
    /// Every check, in the order in which they were written: limits, then regressions.
    pub checks: Vec<Check>,
    /// What limits the figures, and what else the reader should know.
    pub notes: Vec<String>,
}

/// One measured run, briefly.
#[derive(Clone, Debug, Serialize)]
pub struct RunBrief {
    /// Length of its window.
    pub seconds: f64,
    /// Looks made.
    pub samples: u64,
    /// Looks that were missed.
    pub missed: u64,
    /// What its report's verdict is.
    pub verdict: Code,
}

/// A baseline, briefly.
#[derive(Clone, Debug, Serialize)]
pub struct BaselineBrief {
    /// Its file, as it was given.
    pub path: String,
    /// How many runs it holds.
    pub runs: usize,
    /// The Python it was measured on.
    pub python: String,
}

/// What came of a check, or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The whole interval is within the limit.
    Pass,
    /// A limit marked `@warn` is broken, or cannot be told: said, but the build goes on.
    Warn,
    /// It cannot be told: the interval straddles the limit, or there is no such figure.
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

    /// The word for it, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Warn => "warn",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Fail => "fail",
        }
    }
}

/// What kind of check it is.
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
    /// It does.
    #[default]
    Fail,
    /// It is only said (`@warn`).
    Warn,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// A part of 1; shown in per cent.
    Share,
    /// Threads on average, or thread-seconds per second.
    Threads,
    /// Milliseconds.
    Ms,
    /// A factor; 1 is no gain.
    Factor,
    /// A number per second.
    PerSecond,
    /// No figure: a verdict's code.
    Verdict,
}

/// A figure with its interval at 99 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// What was measured.
    pub value: f64,
    /// The least that it may be.
    pub low: f64,
    /// The most.
    pub high: f64,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// The figure that is checked, in its canonical spelling: `waiting`, `thread("worker-*").waiting`. The same from build to build.
    pub metric: String,
    /// Limit or regression.
    pub kind: Kind,
    /// The whole expression in its canonical spelling: `waiting <= 20%`, `waiting: +5pp, min 2pp`.
    pub expression: String,
    /// Whether it fails the build when it is broken.
    pub level: Level,
    /// What came of it.
    pub verdict: Verdict,
    /// What its figures count.
    pub unit: Unit,
    /// The limit; of a regression the worst value that the baseline allows. `None` where there is no figure.
    pub limit: Option<f64>,
    /// The limit for people: `<= 20 %`, `not in [lock-bound]`, `<= 55.2 %`.
    pub limit_text: String,
    /// What was measured. `None`: it cannot be told, and `why` says why; or it is no figure.
    pub measured: Option<Interval>,
    /// The same for people: `52.1 % (50.3 - 53.9)`, a verdict's code, or `-`.
    pub measured_text: String,
    /// Of a regression: what the baseline says.
    pub baseline: Option<Interval>,
    /// The same for people; `-` where there is none.
    pub baseline_text: String,
    /// Of a regression: by how much it differs from the baseline.
    pub change: Option<Interval>,
    /// One sentence: why it is judged so, and what helps.
    pub why: String,
    /// The function to look at; only of checks that are not passed, and not of each of those.
    pub culprit: Option<Culprit>,
}

/// The function to look at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Culprit {
    /// Its name.
    pub name: String,
    /// Its file, as the target has it; may be empty, or `<string>`.
    pub file: String,
    /// Its first line; 0 where that is not known.
    pub first_line: u32,
    /// The line in it on which it was seen most; 0 where that is not known.
    pub line: u32,
    /// The thread that ran it most.
    pub thread: Option<String>,
    /// What it did, with numbers: `holds the GIL 97 % of the time; 1.9 threads wait behind it`.
    pub what: String,
    /// Its commonest stack, root first, itself last. May be empty.
    pub stack: Vec<StackFrame>,
}

/// One frame of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StackFrame {
    /// The function's name.
    pub name: String,
    /// Its file.
    pub file: String,
    /// The line it was on; 0 where that is not known.
    pub line: u32,
}

impl Culprit {
    /// The line to point at: the one seen most, else the function's first; 1 where neither is known.
    pub fn line_to_show(&self) -> u32 {
        [self.line, self.first_line, 1].into_iter().find(|line| *line > 0).unwrap_or(1)
    }
}
