//! `gilprof gate`: limits on measured figures. Intervals decide, so that a build fails for a reason
//! and not by chance.
//!
//! `expr` parses limits, `limits` the file of limits, and `metric` names what can be limited. `run`
//! is the stored part of a measured window, in 16 buckets; `estimate` computes a metric from one
//! run or several, with its interval at 99 %. `check` compares estimates with limits and with a
//! `baseline`, whose `fingerprint` decides whether the comparison is allowed. `culprit` finds the
//! function that is responsible. `processes` chooses among several the one that a check is of.
//! `evaluate` combines all of it into an `outcome`; `text` renders it for the terminal, `output`
//! for other programs, one file for each format. This module measures nothing and opens only files
//! of limits and baselines.

pub mod baseline;
pub mod check;
pub mod culprit;
pub mod estimate;
pub mod evaluate;
pub mod expr;
pub mod fingerprint;
pub mod limits;
pub mod metric;
pub mod outcome;
pub mod output;
pub mod processes;
pub mod run;
#[cfg(test)]
mod testing;
pub mod text;
