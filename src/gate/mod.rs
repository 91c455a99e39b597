//! `gilprof gate`: limits on what was measured, judged by intervals, so that a build fails for a reason and not by chance.
//!
//! `outcome` is what a judged gate looks like, and `output` writes it down, a format a file.

pub mod outcome;
pub mod output;
#[cfg(test)]
mod testing;
