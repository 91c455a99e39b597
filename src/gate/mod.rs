//! `gilprof gate`: limits on what was measured, judged by intervals, so that a build fails for a reason and not by chance.
//!
//! `expr` reads limits and `limits` the file of them; `metric` names what can be limited. `run` is what is kept of a measured window, stretch by stretch,
//! and `estimate` what a metric is by one run or several, with its interval at 99 %. `check` compares figures with limits and with a `baseline`, whose
//! `fingerprint` says whether it may be; `culprit` finds the function to look at. `evaluate` puts it together as an `outcome`, which `text` shows to
//! people and `output` writes down for others, a format a file. Nothing here measures or opens anything but files of limits and baselines.

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
pub mod run;
#[cfg(test)]
mod testing;
pub mod text;
