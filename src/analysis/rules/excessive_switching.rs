//! The GIL changes hands so often that each turn is shorter than what a change of hands costs to make worthwhile: very many tiny acquisitions.
//!
//! A finding, never the verdict. CPython counts the changes itself (`switch_number`), so only chance separates the count from the rate.

use super::{position, Code, Diagnosis, Position, RuleInput, RuleResult, Severity};
use crate::analysis::bootstrap;
use crate::analysis::phrases::percent;

/// Changes of hands a second, from which it is a storm. A switch interval of 5 ms makes 200; a change of hands costs some tens of microseconds
/// in which nobody runs Python (a futex wake-up, a scheduling, cold caches), so that at this rate they take several percent of the time.
const EXCESSIVE: f64 = 2000.0;
/// A share of the time in which somebody waits, below which nobody minds.
const MIN_CONTENDED: f64 = 0.05;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    if e.gil.contended < MIN_CONTENDED {
        return RuleResult::DoesNotApply;
    }
    let Some(rate) = e.gil.switches_per_s else {
        return RuleResult::Undetermined("How often the GIL changes hands could not be read.".into());
    };
    let rate = bootstrap::rate_interval(rate * e.profile.seconds(), e.profile.seconds());
    match position(&rate, EXCESSIVE) {
        Position::Below => RuleResult::DoesNotApply,
        Position::Straddles => RuleResult::Undetermined(format!("The GIL changes hands {:.0} to {:.0} times a second.", rate.low, rate.high)),
        Position::Above => Diagnosis::finding(Code::ExcessiveSwitching)
            .with_severity(Severity::Medium)
            .because(format!(
                "The GIL changes hands {:.0} times a second, so that each turn is about {:.2} ms long, and somebody waits for it {} of the time.",
                rate.estimate,
                1e3 * e.gil.busy / rate.estimate,
                percent(e.gil.contended)
            ))
            .next_step(format!("Do more at each turn around {}: larger blocks per read, hash or send, items in batches, fewer threads.", e.culprit()))
            .applies(),
    }
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::{Code, Report};
    use crate::analysis::testing::{is_undetermined, Scene};

    const TURNS: fn(u64) -> Vec<&'static str> = |t| if t % 2 == 0 { vec!["P send", "W send"] } else { vec!["W send", "P send"] };

    fn is_reported(r: &Report) -> bool {
        r.findings.iter().any(|f| f.code == Code::ExcessiveSwitching)
    }

    #[test]
    fn thousands_of_turns_are_a_storm_and_hundreds_are_not() {
        let r = report(&Scene::new(2.0).switching(5).run(2000, TURNS));
        assert!(is_reported(&r), "{:?}", r.gil);
        let evidence = &r.findings.iter().find(|f| f.code == Code::ExcessiveSwitching).unwrap().evidence;
        assert!(evidence.contains("5000 times a second") && evidence.contains("0.20 ms"), "{evidence}");
        assert!(!is_reported(&report(&Scene::new(2.0).run(2000, TURNS))));
    }

    #[test]
    fn nobody_minds_turns_for_which_nobody_waits() {
        assert!(!is_reported(&report(&Scene::new(2.0).switching(5).run(2000, |_| vec!["P send", "I recv"]))));
    }

    #[test]
    fn a_rate_about_the_bound_is_not_called() {
        assert!(is_undetermined(super::evaluate, &Scene::new(2.0).switching(2).run(400, TURNS)));
    }
}
