//! The figures of each GIL: how busy, how contended, how long holds and waits last. Never summed
//! over GILs.

use super::report::{Gil, Quantiles};
use crate::profile::{GilProfile, Histogram, Measured, Profile};

/// Figures of every GIL, by number.
pub(super) fn gils(profile: &Profile) -> Vec<Gil> {
    profile.gils.iter().map(|gil| row(profile, gil)).collect()
}

/// The GIL with the most waiting; all zero when none was read.
pub(super) fn most_contended(gils: &[Gil]) -> Gil {
    let key = |g: &Gil| (g.waiters_mean, g.busy);
    let more = |a: &&Gil, b: &&Gil| key(a).0.total_cmp(&key(b).0).then(key(a).1.total_cmp(&key(b).1));
    gils.iter().max_by(more).cloned().unwrap_or_default()
}

fn row(profile: &Profile, gil: &GilProfile) -> Gil {
    let share = |nanos: f64| if gil.observed > 0.0 { nanos / gil.observed } else { 0.0 };
    let (mut holds, mut waits) = (Histogram::default(), Histogram::default());
    let its = || profile.threads.iter().filter(|t| t.info.gil.unwrap_or_default() == gil.id);
    // Where the holds of some threads were measured, estimated holds of others stay out: an
    // estimate has other errors.
    let measured = Measured { waits: its().any(|t| t.measured.waits), holds: its().any(|t| t.measured.holds) };
    for thread in its() {
        if thread.measured.holds == measured.holds {
            holds.merge(&thread.hold_runs);
        }
        waits.merge(&thread.wait_runs);
    }
    Gil {
        busy: share(gil.busy),
        contended: share(gil.contended),
        waiters_mean: share(gil.waiting),
        switches_per_s: gil.switches_per_s(),
        hold_ms: quantiles(profile, &holds, measured.holds),
        wait_ms: quantiles(profile, &waits, measured.waits),
    }
}

/// Mean, median, 99th percentile and longest, in milliseconds.
pub(super) fn quantiles(profile: &Profile, runs: &Histogram, measured: bool) -> Option<Quantiles> {
    let rate = profile.window.rate_hz;
    let resolution_ms = (!measured && rate > 0.0).then(|| 1e3 / rate).filter(|r| r.is_finite());
    let (mean, p50, p99) = (runs.mean()? / 1e6, runs.quantile(0.5)? / 1e6, runs.quantile(0.99)? / 1e6);
    Some(Quantiles { mean, p50, p99, max: runs.max() / 1e6, estimated: !measured, resolution_ms })
}
