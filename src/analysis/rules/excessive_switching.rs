//! Very many tiny acquisitions: the GIL switches so often that a switch costs a notable part of
//! each turn.
//!
//! A finding, never the verdict. CPython counts the switches itself (`switch_number`), so the rate
//! has no error but chance.

use super::{position, Code, Diagnosis, Position, RuleInput, RuleResult, Severity};
use crate::analysis::bootstrap;
use crate::analysis::phrases::percent;

/// Switches per second from which they are excessive. A switch interval of 5 ms makes 200. A switch
/// costs some tens of microseconds in which no thread runs Python (a futex wake-up, the scheduler,
/// cold caches), so at this rate switches take several percent of the time.
const EXCESSIVE: f64 = 2000.0;
/// Share of the time in which a thread waits, below which the switches do no harm.
const MIN_CONTENDED: f64 = 0.05;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    if e.gil.contended < MIN_CONTENDED {
        return RuleResult::DoesNotApply;
    }
    let Some(rate) = e.gil.switches_per_s else {
        return RuleResult::Undetermined("gilprof could not read the number of GIL switches.".into());
    };
    let rate = bootstrap::rate_interval(rate * e.profile.seconds(), e.profile.seconds());
    match position(&rate, EXCESSIVE) {
        Position::Below => RuleResult::DoesNotApply,
        Position::Straddles => RuleResult::Undetermined(format!("The GIL switches between threads {:.0} to {:.0} times a second.", rate.low, rate.high)),
        Position::Above => Diagnosis::finding(Code::ExcessiveSwitching)
            .with_severity(Severity::Medium)
            .because(format!(
                "The GIL switches between threads {:.0} times a second, so a thread keeps it for about {} at a time; at least one thread waits for it {} of the time.",
                rate.estimate,
                brief(e.gil.busy / rate.estimate),
                percent(e.gil.contended)
            ))
            .next_step(format!("Do more work per call{}: larger blocks per read, hash or send, items in batches, or fewer threads.", around(e)))
            .applies(),
    }
}

/// A time below a millisecond or so.
fn brief(seconds: f64) -> String {
    match seconds * 1e6 {
        micros if micros < 100.0 => format!("{micros:.0} µs"),
        micros => format!("{:.2} ms", micros / 1e3),
    }
}

/// Where threads wait to get the GIL back is where they have released it, mostly by themselves at
/// such a rate.
fn around(e: &RuleInput<'_>) -> String {
    let most = e.functions.iter().filter(|f| f.waiting > 0.0).max_by(|a, b| a.waiting.total_cmp(&b.waiting));
    most.map_or(String::new(), |f| format!(" around {}", e.place_and_caller(&f.place())))
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
    fn thousands_of_switches_are_excessive_and_hundreds_are_not() {
        let r = report(&Scene::new(2.0).switching(5).run(2000, TURNS));
        assert!(is_reported(&r), "{:?}", r.gil);
        let evidence = &r.findings.iter().find(|f| f.code == Code::ExcessiveSwitching).unwrap().evidence;
        assert!(evidence.contains("5000 times a second") && evidence.contains("0.20 ms"), "{evidence}");
        assert!(!is_reported(&report(&Scene::new(2.0).run(2000, TURNS))));
    }

    #[test]
    fn switches_without_waiting_are_not_reported() {
        assert!(!is_reported(&report(&Scene::new(2.0).switching(5).run(2000, |_| vec!["P send", "I recv"]))));
    }

    #[test]
    fn a_rate_near_the_bound_is_undetermined() {
        assert!(is_undetermined(super::evaluate, &Scene::new(2.0).switching(2).run(400, TURNS)));
    }
}
