//! Samples a live interpreter: reads, and leaves it to `estimate` what the readings mean.
//!
//! ```text
//! schedule ─► sampler ───► RawSample ─► estimate ─► Sink
//! when to     one sample:  plain data               slices
//! sample      GILs, tasks,
//!             stacks
//! ```
//!
//! - `target` is what a library user starts from.
//! - `session` says what a capture is; `running` is one in progress: it takes samples of a
//!   [`session::SampleSource`] on schedule, and counts missed and failed ones. `tree` captures a
//!   process and all Python processes below it.
//! - `program` is the source of a Python that gilprof reads itself; it follows the process across
//!   `exec`. `backend` is the one of those that only py-spy reads.
//! - `sampler` reads one sample from the target. It skips reads whose result cannot have changed,
//!   by what `estimate` knows of earlier samples.
//! - `thread_reader` reads one OS thread's files and stack; `task_state` where it is in the kernel.
//! - `tid_resolver` and `bindings` match thread states (`PyThreadState`) with OS threads.
//! - `descendants` counts the CPU time of the processes below the target.
//! - `kernel` is the engine that kernel events feed; it samples no more than is needed to find
//!   threads. `pause` stops a thread while its stack is read, if the user asks for that.

pub mod address_space;
pub mod backend;
pub mod bindings;
pub mod descendants;
pub mod kernel;
pub mod pause;
pub mod program;
pub mod recorded_sample;
pub mod running;
pub mod sampler;
pub mod schedule;
pub mod session;
pub mod stop_detector;
pub mod target;
pub mod task_state;
pub mod thread_reader;
pub mod tid_resolver;
pub mod tree;
