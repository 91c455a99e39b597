//! Replaces the sampled waiting of a slice by the measured waiting. Pure.
//!
//! A sample represents all the time since the previous sample. The events say how much of that time
//! was waiting. The states of the slice still add up to its length, by these rules:
//!
//! - If the events show more waiting than the sample, the difference is taken first from the
//!   uncertain states: from `unknown` and, where conservation split the slice, from `starved` and
//!   `native`. The remainder is taken from all other states in proportion, and becomes a debt to
//!   them, because the sample represented as much time as any other sample.
//! - If the events show less waiting and conservation had supplied it, the thread was runnable
//!   without a CPU and did not wait: the difference is `starved`.
//! - If the events show less waiting and the sample itself had found a waiter, the wait began
//!   inside the slice. The time before the wait repays the states that have a debt to collect. If
//!   no state has one, the thread continued what it did at the previous sample, and that state owes
//!   the time. If the thread waited at the previous sample too, it held the GIL in between, because
//!   every wait ends with the GIL: the time is `holding`.
//!
//! Without the debts, states that follow waits and last for less than the sampling period would be
//! reported too short.

use crate::sample::{Evidence, State, StateTimes};

/// Largest debt or credit of a state, in nanoseconds: about twenty samples at 1 kHz.
const MAX_DEBT: f64 = 20e6;

/// State of the correction for one thread, carried from slice to slice.
#[derive(Clone, Copy, Debug)]
pub struct WaitCorrection {
    /// States at the previous sample, without waiting; empty if the thread waited.
    activity: StateTimes,
    /// The state in which the thread last held the GIL.
    last_hold: State,
    /// Per state: time taken from it for waits, minus time given back to it.
    debt: StateTimes,
}

impl Default for WaitCorrection {
    fn default() -> Self {
        WaitCorrection { activity: StateTimes::default(), last_hold: State::HoldingPython, debt: StateTimes::default() }
    }
}

impl WaitCorrection {
    /// Returns the slice `times` with exactly `waiting` nanoseconds of waiting.
    pub fn correct(&mut self, times: &StateTimes, evidence: Evidence, waiting: f64) -> StateTimes {
        let sampled_waiting = times.get(State::Waiting);
        let waiting = waiting.clamp(0.0, times.total());
        let mut out = if waiting >= sampled_waiting {
            self.add_waiting(times, evidence, waiting - sampled_waiting)
        } else {
            let mut out = without_waiting(times);
            self.reduce_waiting(&mut out, evidence, sampled_waiting - waiting);
            out
        };
        out.add(State::Waiting, waiting);
        self.remember(times, evidence, &out);
        out
    }

    fn reduce_waiting(&mut self, out: &mut StateTimes, evidence: Evidence, nanos: f64) {
        if evidence == Evidence::Conservation {
            return out.add(State::Starved, nanos);
        }
        let mut debts = StateTimes::default();
        State::ALL.iter().for_each(|&s| debts.add(s, self.debt.get(s).max(0.0)));
        let repaid = debts.total().min(nanos);
        if repaid > 0.0 {
            self.repay(out, &debts, repaid);
        }
        let known = self.activity;
        if known.total() > 0.0 {
            self.repay(out, &known, nanos - repaid);
        } else {
            self.repay(out, &StateTimes::single(self.last_hold, 1.0), nanos - repaid);
        }
    }

    /// Gives `nanos` to the states, in the proportions of `to`.
    fn repay(&mut self, out: &mut StateTimes, to: &StateTimes, nanos: f64) {
        for state in State::ALL {
            let part = nanos * to.get(state) / to.total();
            out.add(state, part);
            self.add_debt(state, -part);
        }
    }

    fn add_debt(&mut self, state: State, nanos: f64) {
        let debt = self.debt.get(state);
        self.debt.add(state, (debt + nanos).clamp(-MAX_DEBT, MAX_DEBT) - debt);
    }

    /// Removes the waiting from the slice, and `nanos` more.
    fn add_waiting(&mut self, times: &StateTimes, evidence: Evidence, mut nanos: f64) -> StateTimes {
        let mut out = without_waiting(times);
        let doubtful: &[State] =
            if evidence == Evidence::Conservation { &[State::Unknown, State::Starved, State::Native] } else { &[State::Unknown] };
        for &state in doubtful {
            let part = nanos.min(out.get(state));
            out.add(state, -part);
            nanos -= part;
        }
        let rest = out.total();
        if nanos > 0.0 && rest > 0.0 {
            let share = (nanos / rest).min(1.0);
            for state in State::ALL {
                let part = out.get(state) * share;
                out.add(state, -part);
                self.add_debt(state, part);
            }
        }
        out
    }

    fn remember(&mut self, sampled: &StateTimes, evidence: Evidence, out: &StateTimes) {
        let waiter = evidence != Evidence::Conservation && sampled.get(State::Waiting) > 0.0;
        self.activity = if waiter { StateTimes::default() } else { without_waiting(out) };
        let (python, native) = (sampled.get(State::HoldingPython), sampled.get(State::HoldingNative));
        if python + native > 0.0 {
            self.last_hold = if native > python { State::HoldingNative } else { State::HoldingPython };
        }
    }
}

fn without_waiting(times: &StateTimes) -> StateTimes {
    let mut out = StateTimes::default();
    State::ALL.iter().filter(|&&s| s != State::Waiting).for_each(|&s| out.add(s, times.get(s)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use Evidence as E;
    use State::*;

    fn parts(states: &[(State, f64)]) -> StateTimes {
        let mut times = StateTimes::default();
        states.iter().for_each(|&(s, n)| times.add(s, n));
        times
    }

    #[test]
    fn a_wait_that_ends_in_the_slice_is_taken_from_the_states_after_it() {
        let mut correction = WaitCorrection::default();
        let out = correction.correct(&parts(&[(HoldingPython, 9.0), (HoldingStarved, 1.0)]), E::GilHolder, 5.0);
        assert_eq!(out, parts(&[(HoldingPython, 4.5), (HoldingStarved, 0.5), (Waiting, 5.0)]));
    }

    #[test]
    fn a_wait_that_begins_in_the_slice_gives_to_the_state_before_it() {
        let mut correction = WaitCorrection::default();
        correction.correct(&parts(&[(Io, 10.0)]), E::Syscall, 0.0);
        assert_eq!(correction.correct(&parts(&[(Waiting, 10.0)]), E::GilFutex, 7.0), parts(&[(Waiting, 7.0), (Io, 3.0)]));
    }

    #[test]
    fn the_time_between_two_waits_is_holding() {
        let mut correction = WaitCorrection::default();
        correction.correct(&parts(&[(HoldingNative, 10.0)]), E::GilHolder, 0.0);
        correction.correct(&parts(&[(Waiting, 10.0)]), E::GilFutex, 7.0);
        assert_eq!(correction.correct(&parts(&[(Waiting, 10.0)]), E::GilFutex, 8.0), parts(&[(Waiting, 8.0), (HoldingNative, 2.0)]));
    }

    #[test]
    fn a_short_hold_after_each_wait_gets_its_share() {
        // Each ms: 0.5 waiting, 0.25 holding, 0.25 asleep on a lock. The share of samples that find
        // a state is its share of the time, and waits end inside slices.
        let (mut correction, mut sum) = (WaitCorrection::default(), StateTimes::default());
        for sample in 0..400 {
            let (state, evidence) = match sample % 4 {
                0 => (HoldingPython, E::GilHolder),
                1 => (Lock, E::Syscall),
                _ => (Waiting, E::GilFutex),
            };
            sum.merge(&correction.correct(&parts(&[(state, 1e6)]), evidence, 0.5e6));
        }
        assert!((sum.get(HoldingPython) - 100e6).abs() < 1e6 && (sum.get(Lock) - 100e6).abs() < 1e6, "{sum:?}");
        assert_eq!(sum.get(Waiting), 200e6);
    }

    #[test]
    fn states_from_conservation_are_replaced_first() {
        let mut correction = WaitCorrection::default();
        let open = parts(&[(Native, 6.0), (Starved, 1.0), (Waiting, 3.0)]);
        assert_eq!(correction.correct(&open, E::Conservation, 5.0), parts(&[(Native, 5.0), (Waiting, 5.0)]));
        assert_eq!(correction.correct(&open, E::Conservation, 0.0), parts(&[(Native, 6.0), (Starved, 4.0)]));
    }

    proptest! {
        #[test]
        fn the_sum_is_preserved_and_waiting_is_the_measured_one(
            slices in proptest::collection::vec((0..10usize, 0.0..1e6f64, 0..10usize, 0.0..1e6f64, any::<bool>(), 0.0..3e6f64), 1..20)
        ) {
            let mut correction = WaitCorrection::default();
            for (a, x, b, y, open, waiting) in slices {
                let times = parts(&[(State::ALL[a], x), (State::ALL[b], y)]);
                let out = correction.correct(&times, if open { E::Conservation } else { E::GilFutex }, waiting);
                prop_assert!((out.total() - times.total()).abs() < 1e-6);
                prop_assert!((out.get(Waiting) - waiting.min(times.total())).abs() < 1e-6);
                prop_assert!(State::ALL.iter().all(|&s| out.get(s) > -1e-6));
            }
        }
    }
}
