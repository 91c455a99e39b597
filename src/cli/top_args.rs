//! The arguments of `gilprof top`.

use super::args::MeasureArgs;
use super::values::parse_pid;
use crate::ids::Pid;
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
    /// The program: its process id, or a part of its command line. Without it, all Python programs
    #[arg(value_name = "PID|NAME")]
    pub target: Option<String>,
    /// The program's process id
    #[arg(short, long, value_parser = parse_pid, allow_hyphen_values = true, conflicts_with = "target")]
    pub pid: Option<Pid>,
    /// Play a recording instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "pid", "rate", "freeze_holder", "exact", "engine", "runtime"])]
    pub replay: Option<PathBuf>,
    /// What to show first
    #[arg(long, value_enum, default_value_t = View::Threads)]
    pub view: View,
    /// The time that the figures cover
    #[arg(short, long, value_enum, default_value_t = Span::TenSeconds)]
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
    /// How to measure.
    #[command(flatten)]
    pub measure: MeasureArgs,
}
