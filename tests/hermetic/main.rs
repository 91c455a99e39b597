//! Everything that needs no live interpreter: memory built by hand or recorded, simulated threads,
//! the source and the documents themselves. Parallel, in seconds.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on panics
#![allow(clippy::print_stdout)] // tables of figures belong in the log

mod builds;
mod classify;
mod cli;
mod cli_doc;
mod docs;
mod fuzz;
mod gate;
mod language;
mod layers;
mod layouts;
mod output;
mod recordings;
mod replayed;
mod sample_cost;
mod schemas;
mod simulated;
mod simulated_process;
#[path = "../support/mod.rs"]
mod support;
mod top;
mod truth;
mod untrusted_memory;

/// Counts the heap of each parser, for `fuzz`.
#[global_allocator]
static HEAP: fuzz::heap::Counting = fuzz::heap::Counting;
