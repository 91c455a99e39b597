//! What gilprof writes, in the programs that it is written for: a browser, pprof, Perfetto, speedscope, the Firefox Profiler, JUnit and SARIF
//! readers. scripts/setup-viewers fetches them; a test whose viewer is not there is skipped and says so.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on says so by a panic
#![allow(clippy::print_stdout)] // tables of figures belong in the log

mod gate_outputs;
mod html_report;
mod pictures;
#[path = "../support/mod.rs"]
mod support;
