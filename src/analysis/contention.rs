//! The figures of each GIL: how busy, how contended, how long holds and waits last. Never summed
//! over GILs.

use super::report::{Gil, Quantiles};
use crate::ids::GilId;
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
        hold_ms: quantiles(profile, gil.id, &holds, measured.holds),
        wait_ms: quantiles(profile, gil.id, &waits, measured.waits),
    }
}

/// Median of runs, in sampling intervals, up to which samples say only that a length is no longer:
/// a run that one sample saw may have any length up to two intervals.
const SHORT: f64 = 1.5;

/// Mean, median, 99th percentile and longest, in milliseconds.
pub(super) fn quantiles(profile: &Profile, gil: GilId, runs: &Histogram, measured: bool) -> Option<Quantiles> {
    let rate = profile.window.rate_hz;
    let resolution_ms = (!measured && rate > 0.0).then(|| 1e3 / rate).filter(|r| r.is_finite());
    let (mean, p50, p99) = (runs.mean()? / 1e6, runs.quantile(0.5)? / 1e6, runs.quantile(0.99)? / 1e6);
    let counted = profile.gils.iter().any(|row| row.id == gil && row.switches_per_s().is_some());
    let at_most = resolution_ms.is_some_and(|interval| !counted || p50 <= SHORT * interval);
    Some(Quantiles { mean, p50, p99, max: runs.max() / 1e6, estimated: !measured, resolution_ms, at_most })
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::testing::Scene;

    #[test]
    fn waits_and_holds_around_unseen_turns_do_not_run_together() {
        // CPython counts a GIL switch every 5 ms, and every sample sees the same holder.
        let gil = report(&Scene::new(2.0).run(2000, |_| vec!["P crunch", "w poll"])).gil;
        for lengths in [gil.wait_ms.unwrap(), gil.hold_ms.unwrap()] {
            assert!((lengths.p50 - 5.0).abs() < 0.5 && lengths.max < 6.0 && !lengths.at_most, "{lengths:?}");
        }
        // A thread that has not run since still waits.
        let gil = report(&Scene::new(2.0).run(2000, |_| vec!["P crunch", "W poll"])).gil;
        assert!(gil.wait_ms.unwrap().p50 > 1900.0, "{gil:?}");
    }

    #[test]
    fn lengths_that_samples_cannot_show_are_upper_bounds() {
        let brief = report(&Scene::new(2.0).switching(5).run(2000, |_| vec!["P crunch", "w poll"])).gil;
        assert!(brief.wait_ms.unwrap().at_most && brief.wait_ms.unwrap().p50 < 1.5, "{brief:?}");
        let turns = |t: u64| if (t / 5).is_multiple_of(2) { vec!["P burn", "W burn"] } else { vec!["W burn", "P burn"] };
        let plain = report(&Scene::new(2.0).run(2000, turns)).gil;
        assert!(!plain.wait_ms.unwrap().at_most && (plain.wait_ms.unwrap().p50 - 5.0).abs() < 0.5, "{plain:?}");
        assert!(serde_json::to_string(&brief).unwrap().contains("\"at_most\":true"));
        assert!(!serde_json::to_string(&plain).unwrap().contains("at_most"));
    }
}
