//! Garbage collections: the part of the waiting that falls into them, and the function that starts
//! most of them. Each sample reads with the GIL whether a collection runs.

use super::phrases::named;
use super::report::Place;
use crate::profile::{GilProfile, Profile, NO_PYTHON};

/// The part of the waiting that samples saw during which the collector ran.
pub(super) fn share_of_waiting(profile: &Profile) -> f64 {
    let sum = |of: fn(&GilProfile) -> f64| profile.gils.iter().map(of).sum::<f64>();
    let waiting = sum(|gil| gil.seen_waiting);
    if waiting > 0.0 {
        sum(|gil| gil.seen_waiting_for_collector) / waiting
    } else {
        0.0
    }
}

/// The function in which most of the collections' time was started.
pub(super) fn starter(profile: &Profile) -> Option<Place> {
    let (function, _) = profile.collecting.iter().find(|(function, _)| *function != NO_PYTHON)?;
    Some(named(profile.function(*function)))
}
