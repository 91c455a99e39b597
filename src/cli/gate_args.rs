//! The arguments of `gilprof gate`, parsed and checked.

use super::subprocess_args::SubprocessArgs;
use super::values::{is_command, parse_duration, parse_pid, parse_rate, DurationArg, EngineArg};
use crate::gate::expr::{Limit, Regression};
use crate::ids::Pid;
use crate::profile::file::chunk::MAGIC;
use clap::Args;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// More runs than this are an error in the arguments.
const MAX_RUNS: u32 = 1000;

/// The arguments of `gate`.
#[derive(Args, Debug)]
#[command(override_usage = "gilprof gate [OPTIONS] (-- CMD [ARGS]... | --pid PID | RECORDING...)\n       gilprof gate --init")]
#[command(after_help = HELP)]
pub struct GateArgs {
    /// A limit that must hold; may be given several times
    #[arg(short, long, value_name = "EXPR", value_parser = Limit::parse)]
    pub max: Vec<Limit>,
    /// The file of limits [default: gilprof.toml, if it exists]; --init writes one
    #[arg(short, long, value_name = "FILE")]
    pub limits: Option<PathBuf>,
    /// Compare with this baseline
    #[arg(short, long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// How much worse than the baseline a figure may be [default: waiting: +5pp, min 2pp]
    #[arg(long, value_name = "EXPR", value_parser = Regression::parse, allow_hyphen_values = true)]
    pub max_regression: Vec<Regression>,
    /// Write the measurement to the baseline
    #[arg(long)]
    pub update_baseline: bool,
    /// Number of measured runs; from 3 on, the interval includes the spread between runs [default:
    /// 1]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RUNS)))]
    pub runs: Option<u32>,
    /// Number of runs before those, whose figures are not used [default: 0]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_RUNS)))]
    pub warmup: Option<u32>,
    /// What to print, or to write to a path; may be given several times [default: human]
    #[arg(short, long, value_name = "FORMAT[=PATH]", value_parser = Output::parse)]
    pub format: Vec<Output>,
    /// A running program's process id
    #[arg(short, long, value_parser = parse_pid, allow_hyphen_values = true)]
    pub pid: Option<Pid>,
    /// Length of each run: 10s, 2m, or a number of seconds [default: until the command ends; 10s
    /// with --pid]
    #[arg(short, long, value_parser = parse_duration, allow_hyphen_values = true)]
    pub duration: Option<DurationArg>,
    /// Samples per second [default: 1000]
    #[arg(short, long, value_parser = parse_rate, allow_hyphen_values = true)]
    pub rate: Option<f64>,
    /// The same as --engine kernel
    #[arg(long)]
    pub exact: bool,
    /// What measures: samples, kernel (experimental, as root), auto, both
    #[arg(long, value_enum, default_value_t = EngineArg::Samples, hide_possible_values = true, hide_default_value = true, conflicts_with = "exact")]
    pub engine: EngineArg,
    /// Whether to measure the processes below it.
    #[command(flatten)]
    pub subprocesses: SubprocessArgs,
    /// If the command fails by itself, end with its exit code instead of 5
    #[arg(long)]
    pub pass_exit_code: bool,
    /// Write a gilprof.toml with comments and end
    #[arg(long)]
    pub init: bool,
    /// Recordings, one of each run
    #[arg(value_name = "RECORDING")]
    pub recordings: Vec<PathBuf>,
    /// The program to start, and its arguments
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// The command of a call without `--`, such as `gilprof gate python3 bench.py -n 3`. clap takes its
/// arguments for recordings, and its options for gilprof's own. `args` are those of the process.
pub fn command_without_dashes(args: &[OsString]) -> Option<String> {
    let mut rest = args.get(1..).filter(|rest| rest.first().is_some_and(|name| name == "gate"))?.get(1..)?;
    if rest.iter().any(|arg| ["--", "-h", "--help", "--init"].iter().any(|known| arg == known)) {
        return None;
    }
    let known = GateArgs::augment_args(clap::Command::new("gate"));
    while let Some(first) = rest.first().map(|arg| arg.to_string_lossy()).filter(|arg| arg.starts_with('-')) {
        let taken = if has_value_after(&first, &known) { 2 } else { 1 };
        rest = rest.get(taken..).unwrap_or_default();
    }
    let launcher = launcher_of(Path::new(rest.first()?))?;
    Some(launcher.to_string() + &rest.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" "))
}

/// Whether the value of an option is the next argument: `--max 'waiting <= 20%'`, `-n 3`.
fn has_value_after(option: &str, known: &clap::Command) -> bool {
    let takes_value = |arg: &&clap::Arg| arg.get_action().takes_values();
    match option.strip_prefix("--") {
        Some(long) => known.get_arguments().filter(takes_value).any(|arg| arg.get_long() == Some(long)),
        None => {
            let mut letters = option.chars().skip(1);
            let short = letters.next();
            letters.next().is_none() && known.get_arguments().filter(takes_value).any(|arg| arg.get_short() == short)
        }
    }
}

/// What must stand before a path so that a shell runs it; `None` if it is no program but perhaps a
/// recording.
fn launcher_of(path: &Path) -> Option<&'static str> {
    if path.extension().is_some_and(|ending| ending == "gilprof") || is_recording(path) {
        return None;
    }
    // On some file systems every file is executable.
    let is_executable = || std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    let is_on_path = || !path.exists() && path.components().count() == 1 && is_command(&path.to_string_lossy());
    if is_executable() || is_on_path() {
        return Some("");
    }
    path.extension().is_some_and(|ending| ending == "py").then_some("python3 ")
}

fn is_recording(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    std::fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok()) && start == *MAGIC
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

pp is percentage points: from 20 % to 25 % is +5pp.
A check is broken if the whole interval (99 %) is beyond its limit. If the interval
contains the limit, the check is inconclusive; the output says how much longer to run.

Formats:  human json junit sarif github markdown flamegraph
  markdown without a path goes to $GITHUB_STEP_SUMMARY, if that is set
Exit codes:  0 passed   1 a limit is broken, or a figure got worse   2 usage, files
  3 inconclusive, nothing ran, cut short, or the baseline cannot be compared
  4 not measured   5 the command failed by itself (with --pass-exit-code, its own code)
  130 interrupted before the first sample, or twice, or so that the command failed"#;

/// The formats of a gate's outcome.
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
    /// GitHub's annotations.
    Github,
    /// A table for a job summary or a comment.
    Markdown,
    /// A flamegraph of the time holding the GIL.
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
    /// The format.
    pub format: GateFormat,
    /// The path; `None` to print.
    pub path: Option<PathBuf>,
}

impl Output {
    /// Markdown without a path: for the job summary, if there is one.
    pub fn is_printed_markdown(&self) -> bool {
        self.format == GateFormat::Markdown && self.path.is_none()
    }

    fn parse(text: &str) -> Result<Output, String> {
        let (name, path) = text.split_once('=').map_or((text, None), |(name, path)| (name, Some(path)));
        let format = FORMATS.iter().find(|(known, _)| *known == name).map(|(_, format)| *format);
        let all = || FORMATS.map(|(name, _)| name).join(", ");
        let format = format.ok_or_else(|| format!("a format is one of {}, and =PATH to write a file", all()))?;
        if path == Some("") {
            return Err(format!("a path is missing after {name}="));
        }
        Ok(Output { format, path: path.map(PathBuf::from) })
    }
}
