//! Keeps gilprof's own CPU time below a limit: if the samples of all processes together cost more,
//! all are taken less often.

use crate::process::sys_linux;
use crate::units::Nanos;

/// How often the cost is compared with the limit.
const PERIOD: Nanos = Nanos::from_millis(500);
/// Finding the processes costs much at first, and that passes.
const FIRST: Nanos = Nanos::from_millis(1_000);
/// The lowest rate, in Hz. Below it a window has too few samples, and most of the cost is not that
/// of samples.
const MIN_RATE_HZ: f64 = 20.0;
/// Rates rise again while the cost is below this share of the limit, by this factor a period.
const LOW: f64 = 0.7;
const RISE: f64 = 1.2;
/// Rates are lowered to this share of what the limit would allow.
const MARGIN: f64 = 0.95;

/// The limit, and what it has led to.
#[derive(Debug)]
pub struct RateBudget {
    /// In cores; `None`: no limit.
    max_cpu: Option<f64>,
    min_factor: f64,
    factor: f64,
    /// When the cost is first counted.
    from: Nanos,
    /// When it was last compared, and the CPU time at that time.
    checked: Option<(Nanos, Nanos)>,
    /// The sum of factor times seconds, and of seconds.
    weighted: (f64, f64),
}

impl RateBudget {
    /// A limit of `max_cpu` cores on samples at `rate_hz`, from `now` on.
    pub fn new(max_cpu: Option<f64>, rate_hz: f64, now: Nanos) -> RateBudget {
        let min_factor = (MIN_RATE_HZ / rate_hz).min(1.0);
        RateBudget { max_cpu, min_factor, factor: 1.0, from: now + FIRST, checked: None, weighted: (0.0, 0.0) }
    }

    /// By what the rates are to be multiplied from now on, if that has changed.
    pub fn check(&mut self, now: Nanos) -> Option<f64> {
        if now < self.from || self.checked.is_some_and(|(at, _)| now.saturating_since(at) < PERIOD) {
            return None;
        }
        let cpu = sys_linux::process_cpu_time();
        let (at, before) = self.checked.replace((now, cpu))?;
        let passed = now.saturating_since(at);
        let used = cpu.saturating_since(before).as_secs_f64() / passed.as_secs_f64();
        self.weighted.0 += self.factor * passed.as_secs_f64();
        self.weighted.1 += passed.as_secs_f64();
        let factor = next_factor(self.factor, used / self.max_cpu?).max(self.min_factor);
        (std::mem::replace(&mut self.factor, factor) != factor).then_some(factor)
    }

    /// What the reader should know, if rates were lowered.
    pub fn warning(&self, rate_hz: f64) -> Option<String> {
        let (sum, seconds) = self.weighted;
        let mean = if seconds > 0.0 { sum / seconds } else { 1.0 };
        let max_cpu = self.max_cpu.filter(|_| mean < 0.995)?;
        Some(format!(
            "processes that worked were sampled {:.0} times a second instead of {rate_hz:.0}, so that gilprof uses at most {:.0} % of a core (--max-cpu)",
            mean * rate_hz,
            100.0 * max_cpu,
        ))
    }
}

/// The factor after a period in which the cost was this multiple of the limit.
fn next_factor(factor: f64, cost: f64) -> f64 {
    if cost > 1.0 {
        factor * MARGIN / cost
    } else if cost < LOW {
        (factor * RISE).min(1.0)
    } else {
        factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_comes_below_the_limit_and_the_rate_back() {
        // A cost of .1 that does not depend on the rate, and one in proportion to it.
        let settle = |per_rate: f64, from: f64| (0..100).fold(from, |factor, _| next_factor(factor, (0.1 + per_rate * factor) / 0.25));
        assert_eq!(settle(0.1, 1.0), 1.0);
        assert_eq!(settle(0.05, 0.02), 1.0, "the rate comes back");
        for per_rate in [0.2, 0.5, 4.0] {
            let factor = settle(per_rate, 1.0);
            let cost = 0.1 + per_rate * factor;
            assert!((0.175..=0.25).contains(&cost), "{per_rate}: {factor} costs {cost}");
        }
    }

    #[test]
    fn without_a_limit_no_rate_is_lowered() {
        let mut budget = RateBudget::new(None, 1000.0, Nanos::ZERO);
        for ms in [1_100, 1_600, 2_100] {
            assert_eq!(budget.check(Nanos::from_millis(ms)), None);
        }
        assert_eq!(budget.warning(1000.0), None);
    }

    #[test]
    fn lowered_rates_are_said() {
        let mut budget = RateBudget::new(Some(1e-9), 1000.0, Nanos::ZERO);
        for ms in [400, 1_000, 1_400] {
            assert_eq!(budget.check(Nanos::from_millis(ms)), None, "too early");
        }
        // So that the CPU time of a moment is far above the limit.
        let began = sys_linux::thread_cpu_time();
        while sys_linux::thread_cpu_time().saturating_since(began) < Nanos::from_micros(100) {}
        let factor = budget.check(Nanos::from_millis(1_500)).unwrap();
        assert_eq!(factor, 0.02, "no fewer than 20 a second");
        budget.check(Nanos::from_millis(2_500));
        let warning = budget.warning(1000.0).unwrap();
        assert!(warning.contains("instead of 1000") && warning.contains("--max-cpu"), "{warning}");
    }
}
