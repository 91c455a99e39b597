//! A judged gate, written down for those who read it: one file per format, each with `pub fn render(outcome: &Outcome, …)`, a pure function
//! of an [`Outcome`](super::outcome::Outcome) and of the directory that paths are told relative to.

pub mod github;
pub mod junit;
pub mod markdown;
pub mod sarif;
pub mod shared;
pub mod source_location;
