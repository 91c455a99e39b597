//! Everything that needs no live interpreter: memory built by hand or recorded, made-up threads, the source itself. Parallel, in seconds.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on says so by a panic
#![allow(clippy::print_stdout)] // tables of figures belong in the log

mod builds;
mod classify;
mod cli;
mod fuzz;
mod gate;
mod layers;
mod layouts;
mod output;
mod recordings;
mod replayed;
mod sample_cost;
mod simulated;
#[path = "../support/mod.rs"]
mod support;
mod untrusted_memory;

/// Counts what each parser has on the heap, for `fuzz`.
#[global_allocator]
static HEAP: fuzz::heap::Counting = fuzz::heap::Counting;
