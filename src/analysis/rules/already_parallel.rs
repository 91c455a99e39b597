//! The work runs outside the GIL (NumPy, zlib, hashlib …): threads do scale, up to the cores or until the GIL is full.

use super::{position, worth_it, Code, Diagnosis, Position, RuleInput, RuleResult};
use crate::analysis::phrases::{count, gain, number, percent};

/// Share of the work outside the GIL.
const OUTSIDE: f64 = 0.5;
/// CPUs used outside the GIL, below which it is no work to speak of.
const NATIVE: f64 = 0.2;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let rates = &e.rates;
    if rates.native.low < NATIVE || worth_it(&e.gains.processes) != Position::Below {
        return RuleResult::DoesNotApply;
    }
    match position(&rates.off_gil_share, OUTSIDE) {
        Position::Below => RuleResult::DoesNotApply,
        Position::Straddles => RuleResult::Undetermined(format!(
            "Between {} and {} of the work runs outside the GIL.",
            percent(rates.off_gil_share.low),
            percent(rates.off_gil_share.high)
        )),
        Position::Above => Diagnosis::new(Code::AlreadyParallel, "Already parallel: the work runs outside the GIL.".into())
            .because(format!(
                "{} of the work runs without the GIL, on {} CPUs of {}.",
                percent(rates.off_gil_share.estimate),
                number(rates.on_cpu.estimate),
                number(e.cores())
            ))
            .because(format!("Waiting for the GIL costs little: processes would be {}.", gain(&e.gains.processes)))
            .next_step(limit(e))
            .applies(),
    }
}

/// What stops growth next.
fn limit(e: &RuleInput<'_>) -> String {
    let (cores, saturation) = (e.cores(), e.saturation.estimate);
    if e.rates.on_cpu.estimate >= 0.9 * cores {
        return "All cores are in use: more threads would not help, more cores would.".into();
    }
    if saturation > 0.0 && saturation < cores {
        return format!(
            "More threads help until the GIL is full, at about {}; that comes before the {} cores are used up.",
            count(saturation),
            number(cores)
        );
    }
    format!("More threads help until the {} cores are used up.", number(cores))
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::Code;
    use crate::analysis::testing::{is_undetermined, Scene};

    #[test]
    fn released_work_is_parallel_and_the_next_limit_named() {
        let hash = |t: u64| if t.is_multiple_of(50) { vec!["P hash", "N hash"] } else { vec!["N hash", "N hash"] };
        let r = report(&Scene::new(2.0).run(2000, hash));
        assert_eq!(r.verdict.code, Code::AlreadyParallel);
        assert!(r.verdict.next_steps[0].starts_with("All cores"));
        assert!((r.verdict.speedup.processes.unwrap().estimate - 1.0).abs() < 0.05);
        let r = report(&Scene::new(8.0).run(2000, hash));
        assert!(r.verdict.next_steps[0].contains("8 cores are used up"), "{:?}", r.verdict.next_steps);
    }

    #[test]
    fn the_same_work_without_release_is_not() {
        let kept = |t: u64| if (t / 5).is_multiple_of(2) { vec!["C hash", "W hash"] } else { vec!["W hash", "C hash"] };
        assert_eq!(report(&Scene::new(2.0).run(2000, kept)).verdict.code, Code::ReleaseTheGil);
    }

    #[test]
    fn half_of_the_time_in_phases_is_not_enough() {
        let phased = |t: u64| vec![if t < 1000 { "N hash" } else { "P sum" }];
        assert!(is_undetermined(super::evaluate, &Scene::new(2.0).run(2000, phased)));
    }
}
