//! Waits by waiting and holding function, as rows of the report. Only the largest rows: small ones
//! would fill the file and say little.

use super::phrases::named;
use super::report::{Blame, Caller, FunctionRow, Place};
use crate::profile::{FunctionId, Profile};
use std::collections::HashMap;

/// How many rows a report has at most.
const MAX_ROWS: usize = 500;

/// The rows, longest waits first, with the callers of `functions`.
pub(super) fn rows(profile: &Profile, functions: &[FunctionRow]) -> Vec<Blame> {
    let callers: HashMap<(&str, &str, u32), &Caller> =
        functions.iter().filter_map(|f| Some(((f.name.as_str(), f.file.as_str(), f.line), f.called_from.as_ref()?))).collect();
    let place = |id: FunctionId| {
        let function = profile.function(id);
        let caller = callers.get(&(function.name.as_str(), function.file.as_str(), function.first_line));
        Place { called_from: caller.map(|caller| (*caller).clone()), ..named(function) }
    };
    let row = |r: &crate::profile::BlameRow| Blame { waiter: place(r.waiter), holder: r.holder.map(place), seconds: r.nanos / 1e9 };
    profile.blame.iter().take(MAX_ROWS).map(row).collect()
}
