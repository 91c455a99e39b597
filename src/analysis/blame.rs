//! Waits by waiting and holding function, as rows of the report. Only the largest rows: small ones
//! would fill the file and say little.

use super::phrases::named;
use super::report::Blame;
use crate::profile::Profile;

/// How many rows a report has at most.
const MAX_ROWS: usize = 500;

/// The rows, longest waits first.
pub(super) fn rows(profile: &Profile) -> Vec<Blame> {
    let place = |id| named(profile.function(id));
    let row = |r: &crate::profile::BlameRow| Blame { waiter: place(r.waiter), holder: r.holder.map(place), seconds: r.nanos / 1e9 };
    profile.blame.iter().take(MAX_ROWS).map(row).collect()
}
