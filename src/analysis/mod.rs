//! What the numbers mean: shares, contention, prediction, verdict.
pub mod report;
