//! The arguments of `gilprof top`. It has no `--freeze-holder`: nothing that it does touches the
//! program.

use super::values::{parse_pid, parse_rate, EngineArg};
use crate::ids::Pid;
use crate::python::runtimes::RuntimeChoice;
use crate::top::filter::Filter;
use crate::top::history::Span;
use crate::top::lists::SortKey;
use crate::top::model::View;
use clap::Args;
use std::path::PathBuf;

/// The arguments of `top`.
#[derive(Args, Debug)]
#[command(override_usage = "gilprof top [OPTIONS] [PID|NAME]\n       gilprof top [OPTIONS] --replay FILE")]
#[command(after_help = "Examples:\n  gilprof top\n  gilprof top 4242\n  gilprof top app.py --view functions --once")]
pub struct TopArgs {
    /// A process id, or a part of a command line; without it, all Python programs of the host
    #[arg(value_name = "PID|NAME")]
    pub target: Option<String>,
    /// The program's process id; of a recording with several processes, the one to play
    #[arg(short, long, value_parser = parse_pid, allow_hyphen_values = true, conflicts_with = "target")]
    pub pid: Option<Pid>,
    /// Play a recording instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "rate", "engine", "runtime"])]
    pub replay: Option<PathBuf>,
    /// What to show first: threads, functions, blame, icicle
    #[arg(long, value_enum, default_value_t = View::Threads, hide_possible_values = true)]
    pub view: View,
    /// The time that the figures cover: 1s, 10s, start
    #[arg(short, long, value_enum, default_value_t = Span::TenSeconds, hide_possible_values = true)]
    pub window: Span,
    /// The column to sort by
    #[arg(short, long, value_enum, hide_possible_values = true, value_name = "COLUMN")]
    pub sort: Option<SortKey>,
    /// A regular expression: only threads, functions and files that match
    #[arg(long, value_name = "REGEX", value_parser = Filter::parse)]
    pub filter: Option<Filter>,
    /// Use only ASCII characters
    #[arg(long)]
    pub ascii: bool,
    /// Measure one window, print one screen as plain text, and end
    #[arg(long, conflicts_with = "json")]
    pub once: bool,
    /// Measure one window, print its report as JSON, and end
    #[arg(long)]
    pub json: bool,
    /// Samples per second
    #[arg(short, long, default_value = "1000", value_parser = parse_rate, allow_hyphen_values = true)]
    pub rate: f64,
    /// What measures: samples, kernel (experimental, as root), auto
    #[arg(long, value_enum, default_value_t = EngineArg::Samples, hide_possible_values = true, hide_default_value = true)]
    pub engine: EngineArg,
    /// Of several Python runtimes in the process, the one to measure
    #[arg(long, value_name = "N|FILE", value_parser = RuntimeChoice::parse)]
    pub runtime: Option<RuntimeChoice>,
}
