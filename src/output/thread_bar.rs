//! A thread's time as the parts of a bar: the states of its row, with holding split.

use crate::analysis::report::{Holding, States};
use crate::sample::State;

/// The shares may miss 1 by this much before the difference is shown as unknown.
const SLACK: f64 = 0.005;

/// The shares of a thread in the order of a table's columns: holding, waiting, native, starved,
/// lock, io, unknown.
pub fn shares(states: &States) -> [f64; 7] {
    [states.holding, states.waiting, states.native, states.starved, states.lock, states.io, states.unknown]
}

/// The same; time that they do not cover is unknown.
pub fn covering_shares(states: &States) -> [f64; 7] {
    let mut shares = shares(states);
    let uncovered = 1.0 - shares.iter().sum::<f64>();
    if uncovered > SLACK {
        shares[6] += uncovered;
    }
    shares
}

/// The shares with holding split. Where the split does not cover holding, the rest is shown as
/// Python code.
pub fn parts(shares: &[f64; 7], holding: &Holding) -> [(State, f64); State::COUNT] {
    let python = (shares[0] - holding.native - holding.blocked - holding.starved).max(0.0);
    [
        (State::HoldingPython, python),
        (State::HoldingNative, holding.native),
        (State::HoldingBlocked, holding.blocked),
        (State::HoldingStarved, holding.starved),
        (State::Waiting, shares[1]),
        (State::Native, shares[2]),
        (State::Starved, shares[3]),
        (State::Lock, shares[4]),
        (State::Io, shares[5]),
        (State::Unknown, shares[6]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_bar_cover_all_time() {
        let states = States { holding: 0.5, waiting: 0.2, ..States::default() };
        let holding = Holding { blocked: 0.1, ..Holding::default() };
        let parts = parts(&covering_shares(&states), &holding);
        assert!((parts.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(parts.contains(&(State::HoldingPython, 0.4)) && parts.iter().any(|&(s, n)| s == State::Unknown && (n - 0.3).abs() < 1e-9));
    }
}
