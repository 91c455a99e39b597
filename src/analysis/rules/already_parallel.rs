//! The work runs without the GIL (NumPy, zlib, hashlib …): threads scale until the cores are used
//! up or the GIL saturates.

use super::{gil_limits, position, Code, Diagnosis, Position, RuleInput, RuleResult};
use crate::analysis::phrases::{gain, number, percent, such_threads};

/// Share of the work that runs without the GIL.
const OUTSIDE: f64 = 0.5;
/// Cores used without the GIL below which the work is negligible.
const NATIVE: f64 = 0.2;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let rates = &e.rates;
    if rates.native.low < NATIVE || gil_limits(e) != Position::Below {
        return RuleResult::DoesNotApply;
    }
    match position(&rates.off_gil_share, OUTSIDE) {
        Position::Below => RuleResult::DoesNotApply,
        Position::Straddles => RuleResult::Undetermined(format!(
            "Between {} and {} of the work runs without the GIL.",
            percent(rates.off_gil_share.low),
            percent(rates.off_gil_share.high)
        )),
        Position::Above => Diagnosis::new(Code::AlreadyParallel, "Already parallel: most of the work runs without the GIL.".into())
            .because(format!(
                "{} of the work runs without the GIL; the program uses {} of {} cores.",
                percent(rates.off_gil_share.estimate),
                number(rates.on_cpu.estimate),
                number(e.cores())
            ))
            .because(format!("Waiting for the GIL costs the threads little: processes would be {}.", gain(&e.gains.processes)))
            .next_step(limit(e))
            .applies(),
    }
}

/// The limit that more threads would reach next.
fn limit(e: &RuleInput<'_>) -> String {
    let (cores, saturation) = (e.cores(), e.saturation.estimate);
    if e.rates.on_cpu.estimate >= 0.9 * cores {
        return "All cores are in use: more threads would not help, more cores would.".into();
    }
    if saturation > 0.0 && saturation < cores {
        return format!(
            "More threads help until the GIL saturates at about {}, before the {} cores are used up.",
            such_threads(saturation),
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
