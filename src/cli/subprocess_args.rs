//! The arguments about the processes below the measured one.

use super::values::parse_max_cpu;
use clap::Args;

/// Whether to measure the processes below the program, and at what cost.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct SubprocessArgs {
    /// Also measure the Python processes that it starts [default for a CMD]
    #[arg(short, long, overrides_with = "no_subprocesses")]
    pub subprocesses: bool,
    /// Measure the first Python process only
    #[arg(long, overrides_with = "subprocesses", hide = true)]
    pub no_subprocesses: bool,
    /// Lower the rate if several processes cost more of a core, such as 25%
    #[arg(long, value_name = "PERCENT", value_parser = parse_max_cpu)]
    pub max_cpu: Option<f64>,
}
