//! The report as data, schema `gilprof.report/1`: the contract with every reader of gilprof's
//! output.
//!
//! Fields are only ever added, and their names are part of the contract. Shares are of the wall
//! time of the thread inside the window; `functions` count thread-seconds per second.
#![allow(missing_docs)]

pub use super::code::Code;
pub use crate::sample::ProcessKind;
use crate::sample::Resolver;
use serde::{Deserialize, Serialize};

/// The schema's name, in every report.
pub const SCHEMA: &str = "gilprof.report/1";

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// The version of gilprof that made the report.
    pub gilprof: &'static str,
    /// The measured process.
    pub target: Target,
    /// How the window was measured.
    pub window: Window,
    /// The GIL with the most contention; the only one in most programs.
    pub gil: Gil,
    /// Every GIL of the process, if it has several (subinterpreters with their own GIL). Never
    /// summed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gils: Vec<Gil>,
    /// Every OS thread that was sampled.
    pub threads: Vec<Thread>,
    /// Leaf functions, most harmful first.
    pub functions: Vec<FunctionRow>,
    /// Waits by waiting and holding function, longest first.
    pub blame: Vec<Blame>,
    /// The CPU time of the processes below the measured one, if they used any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub children: Option<Children>,
    /// The one primary diagnosis.
    pub verdict: Verdict,
    /// Other diagnoses worth knowing.
    pub findings: Vec<Finding>,
    /// Answers to `--what-if`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub what_if: Vec<WhatIf>,
    /// What limits the figures.
    pub warnings: Vec<String>,
}

/// What a process is in its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessRole {
    /// Has Python children that were measured too.
    Master,
    /// Any other process.
    Worker,
    /// One of multiprocessing's own processes: a resource tracker, a forkserver.
    Helper,
}

/// The measured process.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    pub pid: i32,
    /// The process that started it, or that adopted it since, where the kernel said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<i32>,
    /// Only where several processes are in one report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<ProcessRole>,
    pub python: String,
    pub executable: String,
    pub command: Vec<String>,
    pub free_threaded: bool,
    pub gil_enabled: bool,
    pub interpreters: u32,
    /// Cores that the target may use.
    pub cpus: f64,
    /// `None` if its address is not known for this build.
    pub switch_interval_us: Option<u64>,
}

/// How the window was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Window {
    /// On CLOCK_MONOTONIC, so that recordings of the same time can be aligned.
    pub begin_ns: u64,
    pub seconds: f64,
    pub rate_hz: f64,
    pub samples: u64,
    pub missed: u64,
    pub torn: u64,
    pub failed: u64,
    /// Seconds in which the program as a whole was stopped or frozen, if there were any. They are
    /// `unknown` in every thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_seconds: Option<f64>,
    /// Share of one core.
    pub profiler_cpu: f64,
    /// How many of the CPUs that the target may use were used by nothing, on average; `None` if
    /// the recording does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_cpus: Option<f64>,
    /// Whether waits were measured by kernel events.
    pub exact: bool,
    pub engine: Engine,
    /// Why the program was sampled, where the kernel engine was wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_reason: Option<String>,
    /// `None` for recordings that do not say.
    pub resolver: Option<Resolver>,
    /// Kernel events read; only of the kernel engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
    /// Kernel events lost; only of the kernel engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_events: Option<u64>,
}

/// Where the states come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Samples.
    Samples,
    /// Kernel events, and a clock in the kernel.
    Kernel,
}

/// One GIL's figures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Gil {
    /// Share of wall time in which some thread held the GIL.
    pub busy: f64,
    /// Share of wall time in which at least one thread waited for the GIL.
    pub contended: f64,
    /// Mean number of waiting threads.
    pub waiters_mean: f64,
    /// GIL switches, exact; `None` where `switch_number` could not be read.
    pub switches_per_s: Option<f64>,
    /// Uninterrupted holds.
    pub hold_ms: Option<Quantiles>,
    /// Uninterrupted waits.
    pub wait_ms: Option<Quantiles>,
}

/// Lengths in milliseconds. `None` in place of this if there were none.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Quantiles {
    pub mean: f64,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
    /// Whether the lengths are runs of samples in one state instead of measured lengths.
    pub estimated: bool,
    /// Of an estimate: about the shortest length that samples show, and the error of each length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution_ms: Option<f64>,
    /// Whether each length is only an upper bound: most runs are no longer than samples can show,
    /// or CPython's count of GIL switches, which ends runs, could not be read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub at_most: bool,
}

/// One OS thread.
#[derive(Clone, Debug, Serialize)]
pub struct Thread {
    pub tid: i32,
    pub name: String,
    /// Whether it has a `PyThreadState`.
    pub python: bool,
    /// Index into `gils` of the GIL that the thread takes, if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gil: Option<usize>,
    /// Seconds of the window in which the thread was sampled.
    pub seconds: f64,
    /// Share of wall time on a CPU, from the kernel.
    pub cpu: f64,
    /// Shares; they add to 1.
    pub states: States,
    /// The split of `states.holding`.
    pub holding: Holding,
    pub hold_ms: Option<Quantiles>,
    pub wait_ms: Option<Quantiles>,
    /// Estimated from runs of samples. A lower bound, as samples miss holds shorter than the
    /// sampling interval. Never less than the measured waits.
    pub acquisitions_per_s: f64,
    /// Number of waits for the GIL; only where kernel events measured them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<u64>,
}

/// Shares of a thread's wall time.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct States {
    pub holding: f64,
    pub waiting: f64,
    pub native: f64,
    pub starved: f64,
    pub lock: f64,
    pub io: f64,
    pub unknown: f64,
}

/// The split of holding, as shares of the thread's wall time.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Holding {
    pub python: f64,
    pub native: f64,
    pub blocked: f64,
    pub starved: f64,
}

/// A leaf function. All figures are thread-seconds per second of window.
#[derive(Clone, Debug, Serialize)]
pub struct FunctionRow {
    pub name: String,
    pub file: String,
    /// The function's first line.
    pub line: u32,
    pub holding: f64,
    /// The part of `holding` spent inside C calls.
    pub holding_native: f64,
    /// The part of `holding` asleep in the kernel.
    pub holding_blocked: f64,
    pub waiting: f64,
    /// The waiting of all others while this function held.
    pub inflicted_wait: f64,
    pub native: f64,
    pub lock: f64,
    pub io: f64,
    /// The line with most samples while the function held; without holding, with most samples.
    pub hot_line: u32,
    /// Of a function that is not the user's own, and of a comprehension: the nearest caller that is
    /// a function of the user's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub called_from: Option<Caller>,
}

impl FunctionRow {
    /// The function without its figures.
    pub fn place(&self) -> Place {
        Place { name: self.name.clone(), file: self.file.clone(), line: self.line, called_from: self.called_from.clone() }
    }
}

/// A function by name, file and first line.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Place {
    pub name: String,
    pub file: String,
    pub line: u32,
    /// Of a function that is not the user's own: the nearest caller that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub called_from: Option<Caller>,
}

/// A function of the user's own code that calls library code.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Caller {
    pub name: String,
    pub file: String,
    /// The function's first line.
    pub line: u32,
    /// The line of the call; 0 if unknown.
    pub call_line: u32,
}

/// Waiting of one function while another held the GIL.
#[derive(Clone, Debug, Serialize)]
pub struct Blame {
    pub waiter: Place,
    /// `None`: that sample saw no holder, as the GIL was passing between threads.
    pub holder: Option<Place>,
    pub seconds: f64,
}

/// The CPU time of the processes below the measured one, in cores over the window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Children {
    /// The command that measures the process and all of these.
    #[serde(skip)]
    pub attach_command: String,
    /// Of the measured process itself.
    pub own_cores: f64,
    /// Of Python processes.
    pub python_cores: f64,
    /// Of processes that are not Python.
    pub other_cores: f64,
    /// Of processes that ended before it was known what they were.
    pub unknown_cores: f64,
    /// How many Python processes used CPU time.
    pub python_processes: u32,
    /// How many processes that are not Python used CPU time.
    pub other_processes: u32,
    /// Those with the most CPU time, most first.
    pub processes: Vec<ChildProcess>,
}

/// A process below the measured one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChildProcess {
    pub pid: i32,
    /// Its command, shortened.
    pub command: String,
    pub kind: ProcessKind,
    pub cores: f64,
    /// Whether it ended in the window.
    pub ended: bool,
}

/// The confidence in a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    Low,
    Medium,
    High,
}

/// The primary diagnosis.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    pub code: Code,
    /// One sentence.
    pub headline: String,
    pub confidence: Confidence,
    pub speedup: Speedup,
    /// The number of such threads at which the GIL saturates: (hold + off-GIL time per cycle) /
    /// hold. `None` if no thread holds it.
    pub gil_saturates_at: Option<f64>,
    /// The same with its interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gil_saturates_at_interval: Option<Estimate>,
    /// Measured facts, with numbers.
    pub because: Vec<String>,
    /// Advice that names the function.
    pub next_steps: Vec<String>,
    /// Lines of code that show the first step, where that helps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sketch: Vec<String>,
    /// Lines of code for each step that they help with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sketches: Vec<Sketch>,
}

impl Verdict {
    /// The lines of code that show a step, which is an index into `next_steps`.
    pub fn sketch_of(&self, step: usize) -> &[String] {
        self.sketches.iter().find(|sketch| sketch.step == step).map_or(&[], |sketch| sketch.lines.as_slice())
    }
}

/// Lines of code that show a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sketch {
    /// Index into `next_steps`.
    pub step: usize,
    pub lines: Vec<String>,
}

/// The predicted gain for the same work. `None`: not predicted, and the verdict says why.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Speedup {
    pub processes: Option<Estimate>,
    pub free_threading: Option<Estimate>,
    pub release_in_native: Option<Estimate>,
    /// The gain of processes by group of threads, where groups differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by_group: Vec<GroupGain>,
}

/// The gain of threads whose names differ by numbers only.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupGain {
    /// The name, with a star for each number.
    pub group: String,
    pub threads: usize,
    /// Share of the work of all threads.
    pub work: f64,
    pub processes: Estimate,
}

/// A factor with its interval; 1.0 is no gain.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub estimate: f64,
    pub low: f64,
    pub high: f64,
}

/// An answer to `--what-if`.
#[derive(Clone, Debug, Serialize)]
pub struct WhatIf {
    /// The question as the user wrote it.
    pub question: String,
    /// The work done in that case, divided by the work done today. `None`: not predicted, and the
    /// note says why.
    pub gain: Option<Estimate>,
    pub note: String,
}

/// A secondary diagnosis.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub code: Code,
    pub severity: Severity,
    pub evidence: String,
    pub advice: String,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Low,
    Medium,
    High,
}
