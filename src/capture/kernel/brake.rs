//! When the kernel engine costs too much: of a program that switches very often its own programs
//! would take a large part of the time.
//!
//! Each second has a budget, and a drain that finds it exceeded ends the engine. So the program
//! loses at most what the budget costs, and what happens until the next drain.

use crate::process::kernel_events::ProgramCost;
use crate::units::Nanos;
use std::collections::VecDeque;
use std::fmt;

/// The most switches of the program within [`PERIOD`].
const MAX_SWITCHES: u64 = 20_000;
/// The most time of the kernel's programs within it: 2 % of a core. Ticks of the clock do not
/// count, because they follow from the rate that the user asked for.
const MAX_TIME: Nanos = Nanos::from_millis(20);
const PERIOD: Nanos = Nanos::from_millis(1_000);

/// What was above its bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Excess {
    /// Switches of the program, per second.
    Switches(f64),
    /// The time of the programs in the kernel, as a share of a core. The switches of all programs
    /// of the machine pass through them.
    Time(f64),
}

/// The costs within the last period. The first one that is checked is where it begins.
#[derive(Debug, Default)]
pub struct Brake {
    /// When the cost was read, oldest first. The first one may be older than a period.
    readings: VecDeque<(Nanos, ProgramCost)>,
}

impl Brake {
    /// What is above its bound, by the cost so far.
    pub fn check(&mut self, now: Nanos, cost: ProgramCost) -> Option<Excess> {
        while self.readings.get(1).is_some_and(|(at, _)| now.saturating_since(*at) >= PERIOD) {
            self.readings.pop_front();
        }
        let first = self.readings.front().copied();
        self.readings.push_back((now, cost));
        let (from, before) = first?;
        let span = now.saturating_since(from).as_secs_f64();
        let periods = (span / PERIOD.as_secs_f64()).max(1.0);
        let switches = cost.switches.saturating_sub(before.switches) as f64;
        let time = cost.time.saturating_since(before.time).as_secs_f64();
        if switches > MAX_SWITCHES as f64 * periods {
            Some(Excess::Switches(switches / span))
        } else if time > MAX_TIME.as_secs_f64() * periods {
            Some(Excess::Time(time / span))
        } else {
            None
        }
    }
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Excess::Switches(per_second) => {
                write!(f, "{:.0},000 switches a second (bound {:.0},000)", per_second / 1e3, MAX_SWITCHES as f64 / 1e3)
            }
            Excess::Time(share) => {
                let percent = |share: f64| 100.0 * share;
                write!(f, "its programs took {:.1} % of a core (bound {:.0} %)", percent(*share), percent(MAX_TIME.as_secs_f64()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(switches: u64, time_ms: u64) -> ProgramCost {
        ProgramCost { switches, time: Nanos::from_millis(time_ms), clock_time: Nanos::from_millis(900), ..ProgramCost::default() }
    }

    fn begun() -> Brake {
        let mut brake = Brake::default();
        assert_eq!(brake.check(Nanos::ZERO, ProgramCost::default()), None);
        brake
    }

    /// Drains ten times a second. The number of the one that ended the engine, and why.
    fn drains(each: impl Fn(u64) -> ProgramCost) -> Option<(u64, Excess)> {
        let mut brake = begun();
        (1..100).find_map(|drain| Some((drain, brake.check(Nanos::from_millis(100 * drain), each(drain))?)))
    }

    #[test]
    fn a_rate_above_the_bound_ends_it_within_a_second_and_one_below_never() {
        assert_eq!(drains(|n| cost(1_900 * n, n)), None);
        assert_eq!(drains(|n| cost(5_000 * n, n)), Some((5, Excess::Switches(50_000.0))));
        assert_eq!(drains(|n| cost(30_000 * n, n)), Some((1, Excess::Switches(300_000.0))));
        let Some((drain, Excess::Switches(rate))) = drains(|n| cost(2_100 * n, n)) else { panic!("not ended") };
        assert!(drain == 10 && (20_000.0..22_000.0).contains(&rate), "{drain} {rate}");
        let Some((drain, Excess::Time(share))) = drains(|n| cost(n, 4 * n)) else { panic!("not ended") };
        assert!(drain == 6 && (share - 0.04).abs() < 1e-9, "{drain} {share}");
    }

    #[test]
    fn a_burst_is_judged_by_its_second() {
        let burst = |size: u64| move |n: u64| cost(1_000 * n + if n >= 50 { size } else { 0 }, n);
        assert_eq!(drains(burst(9_000)), None);
        let Some((50, Excess::Switches(rate))) = drains(burst(15_000)) else { panic!("not ended by the burst") };
        assert_eq!(rate, 25_000.0);
    }

    #[test]
    fn a_late_first_drain_has_a_budget_for_its_time() {
        let mut brake = begun();
        assert_eq!(brake.check(Nanos::from_millis(3_000), cost(50_000, 50)), None);
        let mut brake = begun();
        assert_eq!(brake.check(Nanos::from_millis(2_000), cost(50_000, 0)), Some(Excess::Switches(25_000.0)));
    }

    #[test]
    fn an_excess_names_the_bound() {
        assert_eq!(Excess::Switches(52_300.0).to_string(), "52,000 switches a second (bound 20,000)");
        assert_eq!(Excess::Time(0.034).to_string(), "its programs took 3.4 % of a core (bound 2 %)");
    }
}
