//! Samples a live interpreter and classifies what each thread does.
//!
//! ```text
//! schedule ─► sampler ───► classify ──► state_machine ─► cpu_attribution ─► Sink
//! when to     one sample:  one sample   history of       time that one      slices
//! sample      GILs, tasks, to a state   one thread       sample cannot
//!             stacks                                     decide
//! ```
//!
//! - `session` runs one capture: it takes samples on schedule, counts missed and failed ones, and
//!   follows the process across `exec`.
//! - `sampler` reads one sample from the target. It skips reads whose result cannot have changed.
//! - `thread_tracker` keeps one OS thread's files, stack and history; `state_machine` is the
//!   history, and `classify` the decision table for one sample.
//! - `task_state` reads where a thread is in the kernel.
//! - `cpu_attribution` divides time that one sample cannot decide, by the CPU time that the kernel
//!   counted. `off_gil` estimates what such time is for one thread.
//! - `tid_resolver` and `bindings` match thread states (`PyThreadState`) with OS threads.
//! - `descendants` counts the CPU time of the processes below the target.
//! - `exact` replaces sampled waits by waits measured from kernel events; `backend` measures
//!   interpreters that only py-spy reads. `pause` stops a thread while its stack is read, if the
//!   user asks for that.
pub mod address_space;
pub mod backend;
pub mod bindings;
pub mod classify;
pub mod cpu_attribution;
pub mod descendants;
pub mod exact;
pub mod off_gil;
pub mod pause;
pub mod pending_wait;
pub mod recorded_sample;
pub mod sampler;
pub mod schedule;
pub mod session;
pub mod state_machine;
pub mod stop_detector;
pub mod task_state;
pub mod thread_tracker;
pub mod tid_resolver;
