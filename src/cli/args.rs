//! The arguments of the command line, parsed and checked. Help is short, with an example per
//! command.

use super::gate_args::GateArgs;
use super::subprocess_args::SubprocessArgs;
use super::top_args::TopArgs;
use super::values::{self, parse_duration, parse_pid, parse_rate, DurationArg, EngineArg};
use crate::analysis::what_if::Question;
use crate::capture::session::Engine;
use crate::error::{Error, Result};
use crate::ids::Pid;
use crate::output::collapsed::FlameMode;
use crate::output::Format;
use crate::python::runtimes::RuntimeChoice;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// gilprof's command line.
#[derive(Debug, Parser)]
#[command(
    name = "gilprof",
    version,
    about = "Measures contention on Python's GIL in a running program, and predicts whether processes would be faster",
    after_help = "Examples:\n  gilprof attach --pid 4242\n  gilprof run -o flame.svg -- python3 app.py\n  gilprof dump --pid 4242\n\n\
                  See gilprof COMMAND --help for each command's options",
    arg_required_else_help = true,
    // One short help for -h and --help: clap's long form spreads a page over three.
    disable_help_flag = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Print help
    #[arg(short, long, global = true, action = ArgAction::HelpShort, display_order = 99)]
    help: Option<bool>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure a running program, without stopping it
    #[command(override_usage = "gilprof attach [OPTIONS] --pid <PID>")]
    #[command(after_help = "Example:\n  gilprof attach --pid 4242 --duration 10s -o flame.svg -o report.json")]
    Attach {
        /// The program.
        #[command(flatten)]
        process: ProcessArgs,
        /// How long: 10s, 2m, 1h, or a number of seconds; 0 is until Ctrl-C
        #[arg(short, long, default_value = "10s", value_parser = parse_duration, allow_hyphen_values = true)]
        duration: DurationArg,
        /// How to measure.
        #[command(flatten)]
        measure: MeasureArgs,
        /// What to print and to write.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Start a program and measure it; the report goes to stderr, the program's exit code is passed
    /// on
    #[command(override_usage = "gilprof run [OPTIONS] [--] CMD [ARGS]...")]
    #[command(after_help = "Example:\n  gilprof run -o flame.svg -- python3 app.py --threads 4")]
    Run {
        /// How long: 10s, 2m, 1h, or a number of seconds; 0 is until the program's end
        #[arg(short, long, default_value = "0", value_parser = parse_duration, allow_hyphen_values = true)]
        duration: DurationArg,
        /// How to measure.
        #[command(flatten)]
        measure: MeasureArgs,
        /// What to print and to write.
        #[command(flatten)]
        output: OutputArgs,
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Measure into a file without a report: a running program, or one that gilprof starts
    #[command(override_usage = "gilprof record [OPTIONS] -o FILE (--pid PID | [--] CMD [ARGS]...)")]
    #[command(after_help = "Examples:\n  gilprof record --pid 4242 -o run.gilprof\n  gilprof record -o run.gilprof -- python3 app.py\n  \
                            gilprof report run.gilprof -o flame.svg")]
    Record {
        /// The program.
        #[command(flatten)]
        target: RecordTarget,
        /// How long: 10s, 2m, 1h, or a number of seconds; 0 is until Ctrl-C or the program's end
        #[arg(short, long, default_value = "0", value_parser = parse_duration, allow_hyphen_values = true)]
        duration: DurationArg,
        /// How to measure.
        #[command(flatten)]
        measure: MeasureArgs,
        /// The file to write: .gilprof recording, from which gilprof report makes all others, or
        /// any other ending of attach --output
        #[arg(short, long, value_name = "FILE", required = true)]
        output: Vec<PathBuf>,
    },
    /// Print the report of a recording, and convert it; several recordings are shown side by side
    #[command(
        after_help = "Examples:\n  gilprof report run.gilprof\n  gilprof report worker-1.gilprof worker-2.gilprof --flame blame -o blame.svg"
    )]
    Report {
        /// Recordings, written by -o run.gilprof
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Only this process of them; may be given several times
        #[arg(long, value_name = "PID")]
        pid: Vec<i32>,
        /// What to print and to write.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Compare two recordings: figures and functions that differ by more than chance
    #[command(after_help = "Example:\n  gilprof diff before.gilprof after.gilprof -o diff.svg")]
    Diff {
        /// The recording to compare with
        base: PathBuf,
        /// The recording to compare
        new: PathBuf,
        /// What to print and to write.
        #[command(flatten)]
        args: DiffArgs,
    },
    /// Watch a running program, or all Python programs of this host, or play a recording
    Top(Box<TopArgs>),
    /// Fail a build when the GIL is the bottleneck: check limits, or changes since a baseline
    Gate(Box<GateArgs>),
    /// Show the state and the Python stack of every thread now
    #[command(override_usage = "gilprof dump [OPTIONS] --pid <PID>")]
    #[command(after_help = "Example:\n  gilprof dump --pid 4242")]
    Dump {
        /// The program.
        #[command(flatten)]
        process: ProcessArgs,
        /// What to print
        #[arg(short, long, value_enum, default_value_t = FormatArg::Text)]
        format: FormatArg,
        /// Stop the thread that holds the GIL while its stack is read
        #[arg(long)]
        freeze_holder: bool,
        /// Of several Python runtimes in the process, the one to show: its number or file
        #[arg(long, value_name = "N|FILE", value_parser = RuntimeChoice::parse)]
        runtime: Option<RuntimeChoice>,
        /// Also write the memory that one sample reads, for a bug report; it may contain secrets of
        /// the program
        #[arg(long, value_name = "FILE", hide = true)]
        record_memory: Option<PathBuf>,
    },
}

/// The process that `attach` and `dump` read: `--pid 4242`, or `4242` alone.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct ProcessArgs {
    /// The program's process id; the number alone means the same
    #[arg(short, long, value_parser = parse_pid, allow_hyphen_values = true)]
    pid: Option<Pid>,
    #[arg(value_name = "PID", value_parser = parse_pid, hide = true)]
    bare_pid: Option<Pid>,
}

impl ProcessArgs {
    /// The process id, which clap requires.
    pub fn pid(&self) -> Result<Pid> {
        self.pid.or(self.bare_pid).ok_or_else(|| Error::Usage("a process id is needed: --pid PID".into()))
    }
}

/// What `record` measures.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct RecordTarget {
    /// A running program's process id
    #[arg(short, long, value_parser = parse_pid, allow_hyphen_values = true)]
    pub pid: Option<Pid>,
    /// The program to start and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// What `record` measures, resolved.
#[derive(Debug, PartialEq, Eq)]
pub enum RecordSource<'a> {
    /// A running process.
    Process(Pid),
    /// A command to start.
    Command(&'a [OsString]),
}

impl RecordTarget {
    /// A lone number is a process id, as in `record -o run.gilprof 4242`, unless there is a command
    /// of that name.
    pub fn source(&self) -> RecordSource<'_> {
        let lone = match &self.command[..] {
            [one] => one.to_str().filter(|text| !values::is_command(text)).and_then(|text| parse_pid(text).ok()),
            _ => None,
        };
        self.pid.or(lone).map_or(RecordSource::Command(&self.command), RecordSource::Process)
    }
}

/// How to measure a window.
#[derive(Args, Debug)]
pub struct MeasureArgs {
    /// Samples per second
    #[arg(short, long, default_value = "1000", value_parser = parse_rate, allow_hyphen_values = true)]
    pub rate: f64,
    /// Stop the GIL's holder while its stack is read (0.1 ms a sample)
    #[arg(long)]
    pub freeze_holder: bool,
    /// The same as --engine kernel
    #[arg(long, conflicts_with = "freeze_holder", hide = true)]
    pub exact: bool,
    /// What measures: samples, kernel (experimental, as root), auto, both
    #[arg(long, value_enum, default_value_t = EngineArg::Samples, hide_possible_values = true, hide_default_value = true, conflicts_with_all = ["exact", "freeze_holder"])]
    pub engine: EngineArg,
    /// Of several Python runtimes in the process, the one to measure: its number or file
    #[arg(long, value_name = "N|FILE", value_parser = RuntimeChoice::parse)]
    pub runtime: Option<RuntimeChoice>,
    /// Whether to measure the processes below it.
    #[command(flatten)]
    pub subprocesses: SubprocessArgs,
}

/// What to print and which files to write.
#[derive(Args, Debug)]
pub struct OutputArgs {
    /// What to print
    #[arg(short, long, value_enum, default_value_t = FormatArg::Text)]
    pub format: FormatArg,
    /// Also write a file, by its ending: .gilprof recording, .html page for a browser, .svg
    /// flamegraph, .json report, .folded stacks, .pb.gz pprof, .speedscope.json, .firefox.json
    /// Firefox Profiler, .pftrace Perfetto
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<PathBuf>,
    /// Which time flamegraphs and folded stacks show
    #[arg(long, value_enum, default_value_t = FlameArg::Holding)]
    pub flame: FlameArg,
    /// Keep threads apart in flamegraphs and folded stacks
    #[arg(long)]
    pub by_thread: bool,
    /// Also predict one case: processes=8,cores=16, workers=8,threads=2 or release=json.loads
    #[arg(long, value_name = "CASE", value_parser = Question::parse)]
    pub what_if: Vec<Question>,
}

/// What `diff` prints and writes.
#[derive(Args, Debug)]
pub struct DiffArgs {
    /// What to print
    #[arg(short, long, value_enum, default_value_t = FormatArg::Text)]
    pub format: FormatArg,
    /// Also write a file, by its ending: .svg differential flamegraph, .json the comparison
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<PathBuf>,
    /// Which time the flamegraph shows
    #[arg(long, value_enum, default_value_t = FlameArg::Holding)]
    pub flame: FlameArg,
    /// Keep threads apart in the flamegraph
    #[arg(long)]
    pub by_thread: bool,
}

impl OutputArgs {
    /// Only these files.
    pub fn files(output: Vec<PathBuf>) -> OutputArgs {
        OutputArgs { format: FormatArg::Text, output, flame: FlameArg::Holding, by_thread: false, what_if: Vec::new() }
    }
}

impl MeasureArgs {
    /// Whether the program is sampled beside the kernel engine, to compare the two.
    pub fn both_engines(&self) -> bool {
        self.engine == EngineArg::Both
    }

    /// Whether the processes below the program are measured too. `by_default`: unless the arguments
    /// say otherwise, which they also do by what measures one process only.
    pub fn follows(&self, by_default: bool) -> Result<bool> {
        let one_process = match self.engine() {
            Engine::Kernel => Some("the kernel engine"),
            _ if self.runtime.is_some() => Some("--runtime"),
            _ => None,
        };
        match (self.subprocesses.subprocesses, one_process) {
            (true, Some(what)) => Err(Error::Usage(format!("{what} is for one process: leave out --subprocesses, or {what}"))),
            (false, Some(_)) => Ok(false),
            (follows, None) => Ok(follows || by_default && !self.subprocesses.no_subprocesses),
        }
    }

    /// What measures.
    pub fn engine(&self) -> Engine {
        match (self.engine, self.exact) {
            (EngineArg::Kernel | EngineArg::Both, _) => Engine::Kernel,
            (EngineArg::Auto, _) => Engine::Auto,
            (EngineArg::Samples, true) => Engine::Kernel,
            (EngineArg::Samples, false) => Engine::Samples,
        }
    }
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// For people
    Text,
    /// For programs
    Json,
}

impl From<FormatArg> for Format {
    fn from(arg: FormatArg) -> Format {
        match arg {
            FormatArg::Text => Format::Text,
            FormatArg::Json => Format::Json,
        }
    }
}

/// `--flame`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FlameArg {
    /// Time holding the GIL
    Holding,
    /// Time waiting for the GIL
    Waiting,
    /// Time on a CPU without the GIL
    Native,
    /// All time, coloured by state
    Wall,
    /// Time waiting, and above each stack the stack that held the GIL
    Blame,
}

impl From<FlameArg> for FlameMode {
    fn from(arg: FlameArg) -> FlameMode {
        match arg {
            FlameArg::Holding => FlameMode::Holding,
            FlameArg::Waiting => FlameMode::Waiting,
            FlameArg::Native => FlameMode::Native,
            FlameArg::Wall => FlameMode::Wall,
            FlameArg::Blame => FlameMode::Blame,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_lone_number_is_a_process_id() {
        for args in [["gilprof", "attach", "4242"], ["gilprof", "dump", "4242"], ["gilprof", "dump", "-p4242"]] {
            match Cli::try_parse_from(args).unwrap().command {
                Command::Attach { process, .. } | Command::Dump { process, .. } => assert_eq!(process.pid().unwrap(), Pid(4242)),
                other => panic!("{other:?}"),
            }
        }
        for args in [&["gilprof", "attach"][..], &["gilprof", "attach", "x"], &["gilprof", "attach", "--pid", "1", "2"]] {
            assert!(Cli::try_parse_from(args).is_err(), "{args:?}");
        }
        let target = |pid, command: &[&str]| RecordTarget { pid, command: command.iter().map(OsString::from).collect() };
        assert_eq!(target(Some(Pid(7)), &[]).source(), RecordSource::Process(Pid(7)));
        assert_eq!(target(None, &["4242"]).source(), RecordSource::Process(Pid(4242)));
        for command in [&["python3"][..], &["4242", "x"], &["0"]] {
            assert!(matches!(target(None, command).source(), RecordSource::Command(_)), "{command:?}");
        }
    }
}
