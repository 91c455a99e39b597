//! gilprof's files in the programs that read them: a browser, pprof, Perfetto, speedscope, the
//! Firefox Profiler, readers of JUnit and SARIF. scripts/setup-viewers fetches them. A test without
//! its viewer is skipped.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on panics
#![allow(clippy::print_stdout)] // tables of figures belong in the log

mod gate_outputs;
mod html_report;
mod pictures;
#[path = "../support/mod.rs"]
mod support;
