//! gilprof measures contention on CPython's Global Interpreter Lock in live processes, from outside.
pub mod analysis;
pub mod capture;
pub mod cli;
pub mod error;
pub mod gate;
pub mod ids;
pub mod output;
pub mod process;
pub mod profile;
pub mod python;
pub mod sample;
pub mod units;
