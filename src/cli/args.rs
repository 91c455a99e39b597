//! The words of the command line, parsed and checked. Help is short, with an example per command.

use super::gate_args::GateArgs;
use super::values::{parse_duration, parse_pid, parse_rate, DurationArg};
use crate::analysis::what_if::Question;
use crate::ids::Pid;
use crate::output::collapsed::FlameMode;
use crate::output::Format;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// gilprof's command line.
#[derive(Debug, Parser)]
#[command(
    name = "gilprof",
    version,
    about = "Measures contention on Python's GIL in a running program, and says whether processes would be faster",
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
    #[command(after_help = "Example:\n  gilprof attach --pid 4242 --duration 10s -o flame.svg -o report.json")]
    Attach {
        /// The program's process id
        #[arg(short, long, value_parser = parse_pid, allow_hyphen_values = true)]
        pid: Pid,
        /// How long: 500ms, 10s, 2m, 1h; 0 is until Ctrl-C
        #[arg(short, long, default_value = "10s", value_parser = parse_duration, allow_hyphen_values = true)]
        duration: DurationArg,
        /// How it is measured.
        #[command(flatten)]
        measure: MeasureArgs,
        /// What comes of it.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Start a program and measure it; its report goes to stderr, its exit code is passed on
    #[command(override_usage = "gilprof run [OPTIONS] [--] CMD [ARGS]...")]
    #[command(after_help = "Example:\n  gilprof run -o flame.svg -- python3 app.py --threads 4")]
    Run {
        /// How long: 500ms, 10s, 2m, 1h; 0 is to the program's end
        #[arg(short, long, default_value = "0", value_parser = parse_duration, allow_hyphen_values = true)]
        duration: DurationArg,
        /// How it is measured.
        #[command(flatten)]
        measure: MeasureArgs,
        /// What comes of it.
        #[command(flatten)]
        output: OutputArgs,
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Measure into a file, quietly: a running program, or one that is started; gilprof report reads it
    #[command(override_usage = "gilprof record [OPTIONS] -o FILE (--pid PID | [--] CMD [ARGS]...)")]
    #[command(after_help = "Examples:\n  gilprof record --pid 4242 -o run.gilprof\n  gilprof record -o run.gilprof -- python3 app.py\n  \
                            gilprof report run.gilprof -o flame.svg")]
    Record {
        /// The program.
        #[command(flatten)]
        target: RecordTarget,
        /// How long: 500ms, 10s, 2m, 1h; 0 is until Ctrl-C or the program's end
        #[arg(short, long, default_value = "0", value_parser = parse_duration, allow_hyphen_values = true)]
        duration: DurationArg,
        /// How it is measured.
        #[command(flatten)]
        measure: MeasureArgs,
        /// The file: .gilprof, from which gilprof report makes all others
        #[arg(short, long, value_name = "FILE", required = true)]
        output: Vec<PathBuf>,
    },
    /// Print the report of a recording, and make pictures of it; several are shown side by side
    #[command(
        after_help = "Examples:\n  gilprof report run.gilprof\n  gilprof report worker-1.gilprof worker-2.gilprof --flame blame -o blame.svg"
    )]
    Report {
        /// Recordings, made by -o run.gilprof
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// What comes of it.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Compare two recordings: what differs by more than chance, and in which functions
    #[command(after_help = "Example:\n  gilprof diff before.gilprof after.gilprof -o diff.svg")]
    Diff {
        /// The recording to compare with
        base: PathBuf,
        /// The recording to compare
        new: PathBuf,
        /// What comes of it.
        #[command(flatten)]
        args: DiffArgs,
    },
    /// Fail a build when the GIL is the bottleneck: check limits, or what got worse since a baseline
    Gate(Box<GateArgs>),
    /// Show what every thread is doing now, with its Python stack
    #[command(after_help = "Example:\n  gilprof dump --pid 4242")]
    Dump {
        /// The program's process id
        #[arg(short, long, value_parser = parse_pid, allow_hyphen_values = true)]
        pid: Pid,
        /// What to print
        #[arg(short, long, value_enum, default_value_t = FormatArg::Text)]
        format: FormatArg,
        /// Stop the thread that holds the GIL while its stack is read
        #[arg(long)]
        freeze_holder: bool,
        /// Also write what one look reads of the program's memory, for a report of a bug in gilprof; it may hold the program's secrets
        #[arg(long, value_name = "FILE", hide = true)]
        record_memory: Option<PathBuf>,
    },
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

/// How a window is measured.
#[derive(Args, Debug)]
pub struct MeasureArgs {
    /// Looks per second
    #[arg(short, long, default_value = "1000", value_parser = parse_rate, allow_hyphen_values = true)]
    pub rate: f64,
    /// Stop the thread that holds the GIL while its stack is read (about 0.1 ms a look)
    #[arg(long)]
    pub freeze_holder: bool,
    /// Measure waits by kernel events instead of looks (root, or CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN)
    #[arg(long)]
    pub exact: bool,
}

/// What is made of what was measured.
#[derive(Args, Debug)]
pub struct OutputArgs {
    /// What to print
    #[arg(short, long, value_enum, default_value_t = FormatArg::Text)]
    pub format: FormatArg,
    /// Also write a file, by its ending: .gilprof recording, .html page for a browser, .svg flamegraph, .json report, .folded stacks,
    /// .pb.gz pprof, .speedscope.json, .firefox.json Firefox Profiler, .pftrace Perfetto
    #[arg(short, long, value_name = "FILE")]
    pub output: Vec<PathBuf>,
    /// Which time flamegraphs and folded stacks show
    #[arg(long, value_enum, default_value_t = FlameArg::Holding)]
    pub flame: FlameArg,
    /// Keep threads apart in flamegraphs and folded stacks
    #[arg(long)]
    pub by_thread: bool,
    /// Also say what one case would gain: processes=8,cores=16 or threads=4 or release=json.loads
    #[arg(long, value_name = "CASE", value_parser = Question::parse)]
    pub what_if: Vec<Question>,
}

/// What `diff` makes.
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
    /// Nothing but these files.
    pub fn files(output: Vec<PathBuf>) -> OutputArgs {
        OutputArgs { format: FormatArg::Text, output, flame: FlameArg::Holding, by_thread: false, what_if: Vec::new() }
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
    /// Time with the GIL
    Holding,
    /// Time waiting for it
    Waiting,
    /// Time on a CPU without it
    Native,
    /// All time, states as colours
    Wall,
    /// Time waiting, and above each stack the one that held meanwhile
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
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
