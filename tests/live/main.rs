//! Everything that needs a live interpreter: the command line, the reads of a process, and the
//! measurements.
//!
//! There is a case for each check and interpreter; see `harness.rs` and tests/README.md.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on panics
#![allow(clippy::print_stdout)] // tables of figures belong in the log

mod accuracy;
mod churn;
mod cli {
    pub mod attach;
    pub mod bad_input;
    pub mod dump;
    pub mod gate;
    pub mod run;
}
mod compat_children;
mod compat_frozen;
mod compat_gils;
mod compat_life;
mod compat_musl;
mod compat_namespaces;
mod compat_programs;
mod compat_runtimes;
mod deep_stacks;
mod docs;
mod engines;
mod findings;
mod free_threaded;
mod gate_ci;
mod harness;
mod kernel_events;
mod kernel_limits;
mod kernel_sums;
mod kernel_truth;
mod moving;
mod packaging;
mod process_trees;
mod pytest_plugin;
mod reads {
    pub mod layouts;
    pub mod locate;
    pub mod stacks;
    pub mod thread_names;
    pub mod workloads;
}
mod recordings;
mod sample_cost;
mod schemas;
mod states;
mod stops;
#[path = "../support/mod.rs"]
mod support;
mod top;

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    let mut suite = harness::Suite::default();
    for cases in [
        cli::attach::cases,
        cli::bad_input::cases,
        cli::dump::cases,
        cli::gate::cases,
        cli::run::cases,
        reads::layouts::cases,
        reads::locate::cases,
        reads::stacks::cases,
        reads::thread_names::cases,
        reads::workloads::cases,
        accuracy::cases,
        churn::cases,
        compat_children::cases,
        compat_frozen::cases,
        compat_gils::cases,
        compat_life::cases,
        compat_musl::cases,
        compat_namespaces::cases,
        compat_programs::cases,
        compat_runtimes::cases,
        deep_stacks::cases,
        docs::cases,
        engines::cases,
        findings::cases,
        free_threaded::cases,
        gate_ci::cases,
        harness::cases,
        kernel_events::cases,
        kernel_limits::cases,
        kernel_sums::cases,
        kernel_truth::cases,
        moving::cases,
        packaging::cases,
        process_trees::cases,
        pytest_plugin::cases,
        recordings::cases,
        sample_cost::cases,
        schemas::cases,
        states::cases,
        stops::cases,
        top::cases,
    ] {
        cases(&mut suite);
    }
    libtest_mimic::run(&arguments, suite.trials()).exit();
}
