//! The states of each thread as shares of its own wall time. The shares add to 1; a thread without
//! any slice is all `unknown`.

use super::contention::quantiles;
use super::report::{Holding, States, Thread};
use crate::profile::{Profile, ThreadProfile};
use crate::sample::{State, StateTimes};

/// One row per thread, the busiest first.
pub(super) fn threads(profile: &Profile) -> Vec<Thread> {
    let mut rows: Vec<Thread> = profile.threads.iter().map(|thread| row(profile, thread)).collect();
    let busy = |t: &Thread| t.seconds * (t.states.holding + t.states.waiting + t.states.native + t.states.starved);
    rows.sort_by(|a, b| busy(b).total_cmp(&busy(a)).then(a.tid.cmp(&b.tid)));
    rows
}

fn row(profile: &Profile, thread: &ThreadProfile) -> Thread {
    let several = profile.gils.len() > 1;
    let gil = thread.info.gil.filter(|_| several).and_then(|id| profile.gils.iter().position(|gil| gil.id == id));
    let own_gil = thread.info.gil.unwrap_or_default();
    let seconds = thread.times.total() / 1e9;
    Thread {
        tid: thread.info.tid.0,
        name: thread.info.name.clone(),
        python: thread.info.python,
        gil,
        seconds,
        cpu: cpu(thread),
        states: states(&thread.times),
        holding: holding(&thread.times),
        hold_ms: quantiles(profile, own_gil, &thread.hold_runs, thread.measured.holds),
        wait_ms: quantiles(profile, own_gil, &thread.wait_runs, thread.measured.waits),
        waits: thread.waits,
        acquisitions_per_s: if seconds > 0.0 { thread.acquisitions as f64 / seconds } else { 0.0 },
    }
}

/// Share of time on a CPU: from the kernel where it is known, else from the states.
fn cpu(thread: &ThreadProfile) -> f64 {
    match thread.totals {
        Some(t) if t.seen.as_nanos() > 0 => t.cpu.as_secs_f64() / t.seen.as_secs_f64(),
        _ => on_cpu(&thread.times) / thread.times.total().max(1.0),
    }
}

/// Time on a CPU, from the states.
pub(super) fn on_cpu(times: &StateTimes) -> f64 {
    times.get(State::HoldingPython) + times.get(State::HoldingNative) + times.get(State::Native)
}

fn share(times: &StateTimes, part: f64) -> f64 {
    let total = times.total();
    if total > 0.0 {
        part / total
    } else {
        0.0
    }
}

fn states(times: &StateTimes) -> States {
    let of = |state| share(times, times.get(state));
    States {
        holding: share(times, times.holding()),
        waiting: of(State::Waiting),
        native: of(State::Native),
        starved: of(State::Starved),
        lock: of(State::Lock),
        io: of(State::Io),
        unknown: if times.total() > 0.0 { of(State::Unknown) } else { 1.0 },
    }
}

fn holding(times: &StateTimes) -> Holding {
    let of = |state| share(times, times.get(state));
    Holding {
        python: of(State::HoldingPython),
        native: of(State::HoldingNative),
        blocked: of(State::HoldingBlocked),
        starved: of(State::HoldingStarved),
    }
}
