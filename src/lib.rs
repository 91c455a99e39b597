//! gilprof measures contention on CPython's Global Interpreter Lock (GIL) in a live process, from
//! outside and without stopping it, and says whether processes would be faster than threads.
//!
//! The crate is a library and the program `gilprof`; the program only reads arguments and writes
//! files. The library has two sides that never import each other and share one vocabulary
//! ([`sample`], [`units`], [`ids`], [`error`]):
//!
//! - capture: [`process`] reads another process, [`python`] finds CPython's data in it, and
//!   [`capture`] reads samples, and [`estimate`] gives each thread its state in them;
//! - report: [`profile`] adds up the states, [`analysis`] derives figures and a verdict, and
//!   [`output`] writes them in one format per file.
//!
//! Above both stand [`cli`], the command line, and [`gate`], limits for CI.
//!
//! `examples/shares.rs` measures a running program in one page. A recording needs no live program:
//!
//! ```
//! use gilprof::analysis;
//! use gilprof::output::json;
//! use gilprof::profile::{file::Recording, ProfileBuilder};
//! use std::path::Path;
//!
//! # fn main() -> Result<(), gilprof::error::Error> {
//! // Made by `gilprof record -o run.gilprof -- python3 app.py`.
//! let recording = Recording::open(Path::new("tests/dumps/recordings/v1.gilprof"))?;
//! let mut builder = ProfileBuilder::new();
//! let replayed = recording.replay(&mut builder)?;
//! let profile = builder.finish(replayed.target, replayed.window);
//!
//! let report = analysis::report(&profile);
//! println!("{:?}: {}", report.verdict.code, report.verdict.headline);
//! for thread in &report.threads {
//!     println!("{} waits {:.0} % of its time", thread.name, 100.0 * thread.states.waiting);
//! }
//! assert!(json::render(&report)?.contains("gilprof.report/1"));
//! # Ok(())
//! # }
//! ```
//!
//! Linux only. Reading another process needs the permission that a debugger needs.

pub mod analysis;
pub mod capture;
pub mod cli;
pub mod error;
pub mod estimate;
pub mod gate;
pub mod ids;
pub mod output;
pub mod process;
pub mod profile;
pub mod python;
pub mod sample;
pub mod units;
