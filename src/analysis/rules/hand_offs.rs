//! The GIL changes hands so often that each turn is shorter than what a change of hands costs to make worthwhile: very many tiny acquisitions.
//!
//! A finding, never the verdict. CPython counts the changes itself (`switch_number`), so only chance separates the count from the rate.

use super::{against, Against, Code, Evidence, Judgement, Opinion, Severity};
use crate::analysis::stats;
use crate::analysis::words::percent;

/// Changes of hands a second, from which it is a storm. A switch interval of 5 ms makes 200; a change of hands costs some tens of microseconds
/// in which nobody runs Python (a futex wake-up, a scheduling, cold caches), so that at this rate they take several percent of the time.
const STORM: f64 = 2000.0;
/// A share of the time in which somebody waits, below which nobody minds.
const MINDED: f64 = 0.05;

pub(in crate::analysis) fn judge(e: &Evidence<'_>) -> Judgement {
    if e.gil.contended < MINDED {
        return Judgement::No;
    }
    let Some(rate) = e.gil.switches_per_s else {
        return Judgement::NotEnough("How often the GIL changes hands could not be read.".into());
    };
    let rate = stats::count(rate * e.profile.seconds(), e.profile.seconds());
    match against(&rate, STORM) {
        Against::Below => Judgement::No,
        Against::Astride => Judgement::NotEnough(format!("The GIL changes hands {:.0} to {:.0} times a second.", rate.low, rate.high)),
        Against::Above => Opinion::finding(Code::HandOffStorm)
            .severe(Severity::Medium)
            .because(format!(
                "The GIL changes hands {:.0} times a second, so that each turn is about {:.2} ms long, and somebody waits for it {} of the time.",
                rate.estimate,
                1e3 * e.gil.busy / rate.estimate,
                percent(e.gil.contended)
            ))
            .next(format!("Do more at each turn around {}: larger blocks per read, hash or send, items in batches, fewer threads.", e.culprit()))
            .yes(),
    }
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::{Code, Report};
    use crate::analysis::testing::{is_unsure, Scene};

    const TURNS: fn(u64) -> Vec<&'static str> = |t| if t % 2 == 0 { vec!["P send", "W send"] } else { vec!["W send", "P send"] };

    fn stormy(r: &Report) -> bool {
        r.findings.iter().any(|f| f.code == Code::HandOffStorm)
    }

    #[test]
    fn thousands_of_turns_are_a_storm_and_hundreds_are_not() {
        let r = report(&Scene::new(2.0).switching(5).run(2000, TURNS));
        assert!(stormy(&r), "{:?}", r.gil);
        let said = &r.findings.iter().find(|f| f.code == Code::HandOffStorm).unwrap().evidence;
        assert!(said.contains("5000 times a second") && said.contains("0.20 ms"), "{said}");
        assert!(!stormy(&report(&Scene::new(2.0).run(2000, TURNS))));
    }

    #[test]
    fn nobody_minds_turns_for_which_nobody_waits() {
        assert!(!stormy(&report(&Scene::new(2.0).switching(5).run(2000, |_| vec!["P send", "I recv"]))));
    }

    #[test]
    fn a_rate_about_the_bound_is_not_called() {
        assert!(is_unsure(super::judge, &Scene::new(2.0).switching(2).run(400, TURNS)));
    }
}
