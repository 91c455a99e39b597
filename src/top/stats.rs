//! How the measurement went between two of its moments: the difference of what was counted since
//! its start.

use crate::sample::{CaptureStats, Descendant, DescendantCpu, EventCounts, SampleCounts, Stop};
use crate::units::Nanos;

/// The statistics of the time from `earlier` to `later`, which both count from the start.
pub fn between(earlier: &CaptureStats, later: &CaptureStats) -> CaptureStats {
    let seconds = (later.seconds - earlier.seconds).max(0.0);
    let own = later.profiler_cpu * later.seconds - earlier.profiler_cpu * earlier.seconds;
    CaptureStats {
        begin: earlier.begin.max(later.begin) + Nanos::from_secs_f64(earlier.seconds),
        seconds,
        counts: counts(&earlier.counts, &later.counts),
        profiler_cpu: if seconds > 0.0 { (own / seconds).max(0.0) } else { 0.0 },
        // Measured over the whole window only.
        idle_cpus: None,
        events: events(&earlier.events, &later.events),
        stops: stops(&earlier.stops, &later.stops),
        descendants: later.descendants.as_ref().map(|cpu| descendants(earlier.descendants.as_ref(), cpu)),
        ..later.clone()
    }
}

fn counts(earlier: &SampleCounts, later: &SampleCounts) -> SampleCounts {
    SampleCounts {
        samples: later.samples.saturating_sub(earlier.samples),
        missed: later.missed.saturating_sub(earlier.missed),
        torn: later.torn.saturating_sub(earlier.torn),
        failed: later.failed.saturating_sub(earlier.failed),
    }
}

fn events(earlier: &EventCounts, later: &EventCounts) -> EventCounts {
    let lost = |events: &EventCounts| events.lost_events;
    EventCounts {
        events: later.events.saturating_sub(earlier.events),
        lost_events: lost(later).map(|now| now.saturating_sub(lost(earlier).unwrap_or(0))),
    }
}

/// The stops that took time, or began, since `earlier`.
fn stops(earlier: &[Stop], later: &[Stop]) -> Vec<Stop> {
    let since = |stop: &Stop| {
        let before = earlier.iter().find(|before| before.cause == stop.cause);
        let seconds = stop.seconds - before.map_or(0.0, |before| before.seconds);
        (before.is_none() || seconds > 0.0).then(|| Stop { cause: stop.cause.clone(), seconds: seconds.max(0.0) })
    };
    later.iter().filter_map(since).collect()
}

fn descendants(earlier: Option<&DescendantCpu>, later: &DescendantCpu) -> DescendantCpu {
    let Some(earlier) = earlier else { return later.clone() };
    let before = |one: &Descendant| earlier.largest.iter().find(|before| before.pid == one.pid).map_or(Nanos::ZERO, |before| before.cpu);
    let mut largest: Vec<Descendant> =
        later.largest.iter().map(|one| Descendant { cpu: one.cpu.saturating_since(before(one)), ..one.clone() }).collect();
    largest.sort_by_key(|one| std::cmp::Reverse(one.cpu));
    DescendantCpu {
        own: later.own.saturating_since(earlier.own),
        python: later.python.saturating_since(earlier.python),
        other: later.other.saturating_since(earlier.other),
        unknown: later.unknown.saturating_since(earlier.unknown),
        largest,
        ..later.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::StopCause;

    #[test]
    fn what_came_before_does_not_count() {
        let at = |seconds: f64, samples, profiler_cpu, stopped| CaptureStats {
            begin: Nanos::from_millis(5_000),
            seconds,
            counts: SampleCounts { samples, ..SampleCounts::default() },
            profiler_cpu,
            stops: vec![Stop { cause: StopCause::Signal, seconds: stopped }],
            ..CaptureStats::default()
        };
        let window = between(&at(10.0, 9_990, 0.1, 2.0), &at(20.0, 19_980, 0.2, 2.5));
        assert_eq!((window.begin, window.seconds, window.counts.samples), (Nanos::from_millis(15_000), 10.0, 9_990));
        assert!((window.profiler_cpu - 0.3).abs() < 1e-9, "{window:?}");
        assert_eq!(window.stops, [Stop { cause: StopCause::Signal, seconds: 0.5 }]);
        assert!(between(&at(10.0, 1, 0.1, 2.0), &at(20.0, 1, 0.1, 2.0)).stops.is_empty());
        let whole = between(&CaptureStats::default(), &at(20.0, 19_980, 0.2, 2.5));
        assert_eq!((whole.begin, whole.seconds), (Nanos::from_millis(5_000), 20.0));
    }
}
