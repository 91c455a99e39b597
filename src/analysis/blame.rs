//! Who waited behind whom, as rows of the report. The largest rows only: small ones would fill a file and help nobody.

use super::phrases::named;
use super::report::Blame;
use crate::profile::Profile;

/// How many rows a report has at most.
const MAX_ROWS: usize = 500;

/// The rows, most first.
pub(super) fn rows(profile: &Profile) -> Vec<Blame> {
    let place = |id| named(profile.function(id));
    let row = |r: &crate::profile::BlameRow| Blame { waiter: place(r.waiter), holder: r.holder.map(place), seconds: r.nanos / 1e9 };
    profile.blame.iter().take(MAX_ROWS).map(row).collect()
}
