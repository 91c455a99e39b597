//! One thread's totals, and its runs of holding and waiting.
//!
//! A run is a series of consecutive slices in one state. A slice divided by conservation counts
//! whole as its largest part. A run shorter than the distance between two samples may be missed, so
//! counts are floors and lengths are estimates. Two runs of one state with a shorter one between
//! them would count as one long run, so a run ends where CPython's `switch_number` shows that a
//! thread had the GIL which no sample saw hold it.

use super::histogram::Histogram;
use crate::sample::{Evidence, IntervalKind, State, StateTimes, ThreadInfo, ThreadTotals};
use serde::{Deserialize, Serialize};

/// One thread over the window.
#[derive(Clone, Debug)]
pub struct ThreadProfile {
    /// Its identity.
    pub info: ThreadInfo,
    /// Nanoseconds per state.
    pub times: StateTimes,
    /// The kernel's totals; `None` when the thread's end was not captured.
    pub totals: Option<ThreadTotals>,
    /// Uninterrupted holds: estimated from samples, or measured (see `measured`).
    pub hold_runs: Histogram,
    /// Uninterrupted waits, likewise.
    pub wait_runs: Histogram,
    /// How often samples saw the thread acquire the GIL: a floor.
    pub acquisitions: u64,
    /// How often samples saw the thread go from holding the GIL, or waiting for it, to another
    /// state: a floor.
    pub gil_exits: u64,
    /// Kernel engine: how often the thread waited for the GIL.
    pub waits: Option<u64>,
    /// Kernel engine: which of the histograms hold measured lengths instead of estimates.
    pub measured: Measured,
    exact_waits: Histogram,
    exact_holds: Histogram,
    run: Option<(RunKind, f64)>,
}

/// Which lengths were measured by kernel events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Lengths of waits.
    pub waits: bool,
    /// Lengths of holds. A hold can be measured only if it followed a wait and ended while another
    /// thread waited.
    pub holds: bool,
}

/// The state of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunKind {
    Hold,
    Wait,
    Other,
}

impl ThreadProfile {
    /// A thread without time.
    pub(super) fn new(info: ThreadInfo) -> ThreadProfile {
        ThreadProfile {
            info,
            times: StateTimes::default(),
            totals: None,
            hold_runs: Histogram::default(),
            wait_runs: Histogram::default(),
            acquisitions: 0,
            gil_exits: 0,
            waits: None,
            measured: Measured::default(),
            exact_waits: Histogram::default(),
            exact_holds: Histogram::default(),
            run: None,
        }
    }

    /// Adds a slice to the totals.
    pub(super) fn add(&mut self, times: &StateTimes) {
        self.times.merge(times);
    }

    /// Adds a slice to the runs. Not for the row that stands for many threads: its slices do not
    /// follow one another. `unseen_turns`: when threads that no sample saw hold the GIL had it, in
    /// nanoseconds from the begin of the slice, and whether it is asked for a thread that waited.
    pub(super) fn extend_run<T>(&mut self, times: &StateTimes, evidence: Evidence, unseen_turns: impl FnOnce(bool) -> T)
    where
        T: IntoIterator<Item = f64>,
    {
        let (kind, total) = (dominant(times), times.total());
        match &mut self.run {
            Some((current, nanos)) if *current == kind => *nanos += total,
            run => {
                let before = run.replace((kind, total));
                self.begin_run(before, kind, evidence);
            }
        }
        // An unseen turn ends a hold. It ends a wait only if it can have been this thread's own:
        // the thread has run since the sample before.
        let may_have_held = matches!(evidence, Evidence::GilFutex | Evidence::PushedOff);
        if kind == RunKind::Hold || kind == RunKind::Wait && may_have_held {
            unseen_turns(kind == RunKind::Wait).into_iter().for_each(|turn| self.divide_run(kind, total - turn));
        }
    }

    /// Ends the current run and begins one of the same kind, `rest` nanoseconds ago.
    fn divide_run(&mut self, kind: RunKind, rest: f64) {
        let length = self.run.map_or(0.0, |(_, nanos)| nanos - rest);
        if length > 0.0 && rest > 0.0 {
            self.run = Some((kind, rest));
            self.record(Some((kind, length)));
        }
    }

    /// Counts the change from one run to the next.
    fn begin_run(&mut self, before: Option<(RunKind, f64)>, now: RunKind, evidence: Evidence) {
        self.record(before);
        // A thread that waited and is then in another state must have held in between, for less
        // than a sample. Time divided by conservation is no evidence of that: it may cut one wait
        // in two.
        let unseen_hold =
            before.is_some_and(|(kind, _)| kind == RunKind::Wait) && now == RunKind::Other && evidence != Evidence::Conservation;
        if before.is_some() && now == RunKind::Hold || unseen_hold {
            self.acquisitions += 1;
        }
    }

    /// The holds and waits that ended since the last call; `None` when there are none.
    pub(super) fn take_runs(&mut self) -> Option<(Histogram, Histogram)> {
        let ended = self.hold_runs.count() + self.wait_runs.count() > 0;
        ended.then(|| (std::mem::take(&mut self.hold_runs), std::mem::take(&mut self.wait_runs)))
    }

    fn record(&mut self, run: Option<(RunKind, f64)>) {
        match run {
            Some((RunKind::Hold, nanos)) => self.hold_runs.record(nanos),
            Some((RunKind::Wait, nanos)) => self.wait_runs.record(nanos),
            Some((RunKind::Other, _)) => self.gil_exits += 1,
            None => {}
        }
    }

    /// Adds an interval measured from kernel events.
    pub(super) fn record_interval(&mut self, kind: IntervalKind, nanos: f64) {
        match kind {
            IntervalKind::Wait => self.exact_waits.record(nanos),
            IntervalKind::Hold => self.exact_holds.record(nanos),
            // The slices already hold its time. It is not a wait of its own, since no `take_gil`
            // followed.
            IntervalKind::ForcedSwitch => {}
        }
    }

    /// Closes the window: the unfinished run counts with its length so far. `exact`: lengths that
    /// kernel events measured replace the estimates.
    pub(super) fn close(&mut self, exact: bool) {
        let run = self.run.take();
        self.record(run);
        if exact {
            self.waits = Some(self.exact_waits.count());
            self.acquisitions = self.acquisitions.max(self.exact_waits.count());
            self.measured = Measured { waits: true, holds: self.exact_holds.count() > 0 };
            self.wait_runs = std::mem::take(&mut self.exact_waits);
        }
        if self.measured.holds {
            self.hold_runs = std::mem::take(&mut self.exact_holds);
        }
    }
}

fn dominant(times: &StateTimes) -> RunKind {
    let (hold, wait) = (times.holding(), times.get(State::Waiting));
    let other = times.total() - hold - wait;
    if hold >= wait && hold >= other {
        RunKind::Hold
    } else if wait >= other {
        RunKind::Wait
    } else {
        RunKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{GilId, ThreadId, Tid};

    /// One letter per millisecond: H holds, W waits, I sleeps, n native by conservation.
    fn run(timeline: &str) -> ThreadProfile {
        let info = ThreadInfo { id: ThreadId(0), tid: Tid(1), name: String::new(), python: true, main: false, gil: Some(GilId(0)) };
        let mut thread = ThreadProfile::new(info);
        for letter in timeline.chars() {
            let (state, evidence) = match letter {
                'H' => (State::HoldingPython, Evidence::GilHolder),
                'W' => (State::Waiting, Evidence::GilFutex),
                'n' => (State::Native, Evidence::Conservation),
                _ => (State::Io, Evidence::Syscall),
            };
            thread.extend_run(&StateTimes::single(state, 1e6), evidence, |_| None);
        }
        thread.close(false);
        thread
    }

    #[test]
    fn runs_follow_the_timeline() {
        let t = run("HHWWWWHIII");
        assert_eq!((t.hold_runs.count(), t.wait_runs.count(), t.acquisitions), (2, 1, 1));
        assert_eq!((t.hold_runs.max(), t.wait_runs.max(), t.gil_exits), (2e6, 4e6, 1));
    }

    #[test]
    fn a_wait_that_ends_in_another_state_counts_an_acquisition() {
        assert_eq!(run("IIWWIIWWII").acquisitions, 2);
        assert_eq!(run("IIWWnnWWnn").acquisitions, 0);
    }

    #[test]
    fn measured_lengths_replace_runs() {
        for (exact, holds) in [(false, false), (true, false), (true, true)] {
            let mut t = run("HHWWWWHIII");
            t.record_interval(IntervalKind::Wait, 3.5e6);
            t.record_interval(IntervalKind::ForcedSwitch, 1e3);
            if holds {
                t.record_interval(IntervalKind::Hold, 2.5e6);
            }
            t.close(exact);
            let max = if exact { 3.5e6 } else { 4e6 };
            assert_eq!((t.wait_runs.max(), t.waits, t.measured.waits), (max, exact.then_some(1), exact));
            assert_eq!((t.hold_runs.max(), t.measured.holds), if holds { (2.5e6, true) } else { (2e6, false) });
        }
    }

    #[test]
    fn an_unseen_turn_ends_a_hold_and_the_wait_of_a_thread_that_has_run() {
        let info = ThreadInfo { id: ThreadId(0), tid: Tid(1), name: String::new(), python: true, main: false, gil: Some(GilId(0)) };
        let lengths = |state: State, evidence: Evidence| {
            let mut thread = ThreadProfile::new(info.clone());
            // Ten slices of 2 ms; an unseen turn in the middle of every second one.
            for n in 0..10 {
                thread.extend_run(&StateTimes::single(state, 2e6), evidence, |_| (n % 2 == 1).then_some(1e6));
            }
            thread.close(false);
            let runs = if state == State::Waiting { &thread.wait_runs } else { &thread.hold_runs };
            (runs.count(), runs.max())
        };
        assert_eq!(lengths(State::HoldingPython, Evidence::GilHolder), (6, 4e6));
        assert_eq!(lengths(State::Waiting, Evidence::GilFutex), (6, 4e6));
        assert_eq!(lengths(State::Waiting, Evidence::SameHolder), (1, 20e6));
        assert_eq!(lengths(State::Io, Evidence::Syscall), (0, 0.0));
    }

    #[test]
    fn the_unfinished_run_counts() {
        assert_eq!(run("IWWWWW").wait_runs.max(), 5e6);
    }
}
