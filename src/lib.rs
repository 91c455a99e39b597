//! gilprof measures contention on CPython's Global Interpreter Lock (GIL) in a live process, from
//! outside and without stopping it, and says whether processes would be faster than threads.
//!
//! The crate is a library and the program `gilprof`; the program only reads arguments and writes
//! files. To measure a running program ([`Target`]) and add up what its threads do
//! ([`profile::ProfileBuilder`], or your own [`sample::Sink`]):
//!
//! ```
//! use gilprof::profile::ProfileBuilder;
//! use gilprof::units::Nanos;
//! use gilprof::{analysis, CaptureConfig, Target};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use std::{io::Read, process::{Command, Stdio}};
//! # let mut child = Command::new("python3");
//! # child.args(["-c", "
//! # import threading
//! # def work():
//! #     print(end='.', flush=True)
//! #     while True: pass
//! # for _ in range(2): threading.Thread(target=work).start()"]);
//! # struct Killed(std::process::Child);
//! # impl Drop for Killed {
//! #     fn drop(&mut self) {
//! #         let _ = self.0.kill().and_then(|()| self.0.wait());
//! #     }
//! # }
//! # let mut child = Killed(child.stdout(Stdio::piped()).spawn()?);
//! # child.0.stdout.take().ok_or("no pipe")?.read_exact(&mut [0; 2])?;
//! # let pid = child.0.id() as i32;
//! let duration = Some(Nanos::from_millis(500));
//! let config = CaptureConfig { duration, ..CaptureConfig::default() };
//! let mut builder = ProfileBuilder::new();
//! let window = Target::attach(pid)?.config(config).run(&mut builder)?;
//!
//! let report = analysis::report(&builder.finish(window.target, window.stats));
//! println!("{:?}: {}", report.verdict.code, report.verdict.headline);
//! for thread in &report.threads {
//!     println!("{} waits {:.0} % of its time", thread.name, 100.0 * thread.states.waiting);
//! }
//! # assert!(report.threads.iter().any(|thread| thread.states.waiting > 0.2));
//! # Ok(())
//! # }
//! ```
//!
//! A recording needs no live program:
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
//! let report = analysis::report(&builder.finish(replayed.target, replayed.window));
//! assert!(json::render(&report)?.contains("gilprof.report/1"));
//! # Ok(())
//! # }
//! ```
//!
//! Inside, two sides never import each other and share one vocabulary ([`sample`], [`units`],
//! [`ids`], [`error`]): capture reads samples of a process and estimates each thread's state in
//! them; report ([`profile`], [`analysis`], [`output`]) adds them up, concludes and writes. The
//! feature `cli` is the program with its dependencies, `pictures` the flame graphs and the page,
//! `peers` the Pythons before 3.7: a library user can leave out each.
//!
//! Linux only. Reading another process needs the permission that a debugger needs.

// The program uses more than the library shows.
#![cfg_attr(not(feature = "cli"), allow(dead_code, unused_imports))]

pub mod analysis;
pub mod error;
pub mod ids;
pub mod output;
pub mod profile;
pub mod sample;
pub mod units;

// For the program, and with the feature `internals` for the tests. They may change at any time.
#[cfg(not(feature = "internals"))]
mod capture;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod capture;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(not(feature = "internals"))]
mod estimate;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod estimate;
#[cfg(all(feature = "cli", not(feature = "internals")))]
mod gate;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod gate;
#[cfg(not(feature = "internals"))]
mod process;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod process;
#[cfg(not(feature = "internals"))]
mod python;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod python;

#[cfg(all(feature = "cli", not(feature = "internals")))]
mod top;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod top;

pub use capture::session::{CaptureConfig, CaptureResult, Progress, ProgressHook, StopReason};
pub use capture::target::Target;
