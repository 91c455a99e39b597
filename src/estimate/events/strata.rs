//! Divides time on a CPU between holding and native code: post-stratification. Pure.
//!
//! Events give the time on a CPU exactly. What the thread did there is known from the clock's
//! ticks, a sample of it. Runs that began and ended alike form a stratum, and a tick stands for the
//! time of its own stratum only: a short run that ended in a wait takes nothing from a long one
//! that held the GIL throughout.

use crate::sample::{Evidence, State};

/// What the end of a run says of the GIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunEnd {
    /// The thread held the GIL until the end, or until a moment before.
    Held,
    /// It wanted the GIL.
    Wanted,
    /// It was the last holder.
    LastHolder,
    /// Another thread was.
    Other,
}

/// Runs that began and ended alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stratum(u8);

impl Stratum {
    /// Their number.
    pub const COUNT: usize = 8;

    /// Of a run that held the GIL at its begin, or not, and ended so.
    pub fn new(held_at_begin: bool, end: RunEnd) -> Stratum {
        Stratum(u8::from(held_at_begin) * 4 + end as u8)
    }

    /// Its place among all.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The state that its endpoints suggest, where there has been no tick.
    pub fn evident(self) -> State {
        if self.0 >= 4 || self.0 == RunEnd::Held as u8 {
            State::HoldingPython
        } else {
            State::Native
        }
    }
}

/// The states that a tick can find.
pub(super) const ON_CPU: [State; 3] = [State::HoldingPython, State::HoldingNative, State::Native];
/// Ticks of a stratum that are counted in full; older ones are halved.
const MAX_TICKS: u32 = 4_000;

/// How often ticks found each state, by stratum.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shares([[u32; ON_CPU.len()]; Stratum::COUNT]);

impl Shares {
    /// Counts a tick.
    pub fn record(&mut self, stratum: Stratum, state: State) {
        let counts = &mut self.0[stratum.index()];
        if counts.iter().sum::<u32>() >= MAX_TICKS {
            counts.iter_mut().for_each(|count| *count /= 2);
        }
        counts.iter_mut().zip(ON_CPU).filter(|(_, of)| *of == state).for_each(|(count, _)| *count += 1);
    }

    /// The share of each state of [`ON_CPU`]; `None` without a tick.
    pub fn of(&self, stratum: Stratum) -> Option<[f64; ON_CPU.len()]> {
        let counts = self.0[stratum.index()];
        let sum: u32 = counts.iter().sum();
        (sum > 0).then(|| counts.map(|count| f64::from(count) / f64::from(sum)))
    }
}

/// How a state found by a tick is known.
pub(super) fn tick_evidence(state: State) -> Evidence {
    if state.is_holding() {
        Evidence::GilHolder
    } else {
        Evidence::Conservation
    }
}
