//! The words of `gilprof gate`, parsed and checked.

use super::values::{parse_duration, parse_pid, parse_rate, DurationArg};
use crate::gate::expr::{Limit, Regression};
use crate::ids::Pid;
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;

/// More runs than these are a slip of the pen.
const MAX_RUNS: u32 = 1000;

/// What `gate` checks.
#[derive(Args, Debug)]
#[command(override_usage = "gilprof gate [OPTIONS] (-- CMD [ARGS]... | --pid PID --duration D | RECORDING...)\n       gilprof gate --init")]
#[command(after_help = HELP)]
pub struct GateArgs {
    /// A limit that must hold; more than one may be given
    #[arg(short, long, value_name = "EXPR", value_parser = Limit::parse)]
    pub max: Vec<Limit>,
    /// The file of limits [default: gilprof.toml, where there is one]; --init writes one to begin with
    #[arg(short, long, value_name = "FILE")]
    pub limits: Option<PathBuf>,
    /// Compare with this baseline
    #[arg(short, long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// How much worse than the baseline it may be [default: waiting: +5pp, min 2pp]
    #[arg(long, value_name = "EXPR", value_parser = Regression::parse, allow_hyphen_values = true)]
    pub max_regression: Vec<Regression>,
    /// Write what is measured to the baseline
    #[arg(long)]
    pub update_baseline: bool,
    /// Measure so often; from 3 runs on the spread between them counts [default: 1]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RUNS)))]
    pub runs: Option<u32>,
    /// Runs before those, which do not count [default: 0]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_RUNS)))]
    pub warmup: Option<u32>,
    /// What to print, or to write to a path; more than one may be given [default: human]
    #[arg(short, long, value_name = "FORMAT[=PATH]", value_parser = Output::parse)]
    pub format: Vec<Output>,
    /// A running program's process id
    #[arg(short, long, value_parser = parse_pid, allow_hyphen_values = true)]
    pub pid: Option<Pid>,
    /// How long each run is: 500ms, 10s, 2m [default: with a command to its end]
    #[arg(short, long, value_parser = parse_duration, allow_hyphen_values = true)]
    pub duration: Option<DurationArg>,
    /// Looks per second [default: 1000]
    #[arg(short, long, value_parser = parse_rate, allow_hyphen_values = true)]
    pub rate: Option<f64>,
    /// Measure waits by kernel events instead of looks, where the kernel lets us
    #[arg(long)]
    pub exact: bool,
    /// Write a gilprof.toml with comments to begin with
    #[arg(long)]
    pub init: bool,
    /// Recordings, each of one run
    #[arg(value_name = "RECORDING")]
    pub recordings: Vec<PathBuf>,
    /// The program to start, and its arguments
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

const HELP: &str = r#"Examples:
  gilprof gate --max 'waiting <= 20%' -- python3 bench.py
  gilprof gate --init                            # gilprof.toml, with comments
  gilprof gate --baseline gil.json --update-baseline --runs 5 -- python3 bench.py
  gilprof gate --baseline gil.json --runs 3 --format junit=gil.xml -- python3 bench.py

Limits:  METRIC <= NUMBER[UNIT] [@warn], also < >= >;  verdict not in [CODE, ...]
  waiting holding native starved lock io        share of the threads' time: 20%
  gil.busy gil.contended                        share of the time: 90%
  gil.waiters_mean gil.saturates_at             threads: 1.5
  hold_ms.p99 wait_ms.p99 (mean p50 max)        lengths: 25ms
  speedup.processes (free_threading release_in_native)   factors: 1.3x
  gil.switches_per_s                            2000/s
  thread("worker-*").waiting (and other states) the worst matching thread: 30%
  function("app.py:parse").inflicted_wait       the worst matching function, in
    (holding waiting native)                    threads: 0.5
Regressions:  METRIC: +CHANGE[, min CHANGE]     waiting: +5pp, min 2pp

A check is broken when the whole interval (99 %) lies beyond its limit; when the
interval straddles it, that is inconclusive, and how much longer to run is said.

Formats:  human json junit sarif github markdown flamegraph
  markdown without a path goes to $GITHUB_STEP_SUMMARY, where that is set
Exit codes:  0 passed   1 a limit is broken, or it got worse   2 usage, files
  3 inconclusive, or another baseline's Python or cores   4 not measured;
  when the command itself fails, its own code"#;

/// What a judged gate is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateFormat {
    /// For people.
    Human,
    /// `gilprof.gate/1`.
    Json,
    /// JUnit's XML.
    Junit,
    /// SARIF 2.1.0.
    Sarif,
    /// Annotations of GitHub's.
    Github,
    /// A table for a summary or a comment.
    Markdown,
    /// The time with the GIL as a picture.
    Flamegraph,
}

const FORMATS: [(&str, GateFormat); 7] = [
    ("human", GateFormat::Human),
    ("json", GateFormat::Json),
    ("junit", GateFormat::Junit),
    ("sarif", GateFormat::Sarif),
    ("github", GateFormat::Github),
    ("markdown", GateFormat::Markdown),
    ("flamegraph", GateFormat::Flamegraph),
];

/// `--format`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// As what.
    pub format: GateFormat,
    /// Where to; `None` is where the page goes.
    pub path: Option<PathBuf>,
}

impl Output {
    /// Markdown that has no path: for a job's summary, where there is one.
    pub fn is_printed_markdown(&self) -> bool {
        self.format == GateFormat::Markdown && self.path.is_none()
    }

    fn parse(text: &str) -> Result<Output, String> {
        let (name, path) = text.split_once('=').map_or((text, None), |(name, path)| (name, Some(path)));
        let format = FORMATS.iter().find(|(known, _)| *known == name).map(|(_, format)| *format);
        let all = || FORMATS.map(|(name, _)| name).join(", ");
        let format = format.ok_or_else(|| format!("a format is one of {}, and =PATH where it is to go", all()))?;
        if path == Some("") {
            return Err(format!("after {name}= comes a path"));
        }
        Ok(Output { format, path: path.map(PathBuf::from) })
    }
}
