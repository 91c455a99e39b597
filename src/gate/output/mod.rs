//! The formats of an outcome, one file each, with `pub fn render(outcome: &Outcome, …)`: a pure
//! function of an [`Outcome`](super::outcome::Outcome) and of the directory that paths are relative
//! to.

pub mod github;
pub mod junit;
pub mod markdown;
pub mod sarif;
pub mod shared;
pub mod source_location;
