//! Garbage collection in the holder: other threads wait while the cyclic collector walks all
//! containers.
//!
//! A finding, never the verdict. Each sample reads with the GIL whether a collection is under way
//! (`gc.collecting`), where the address of that field is known.

use super::{position, Code, Diagnosis, Position, RuleInput, RuleResult, Severity};
use crate::analysis::bootstrap;
use crate::analysis::collector;
use crate::analysis::phrases::percent;

/// Share of the time in which the GIL is held, from which collections are worth a finding.
const MATTERS: f64 = 0.05;
/// Share of the window below which collections cost too little, whatever part of the holding they
/// are: a program that does nothing holds the GIL for some milliseconds, and may collect in them.
const FLOOR: f64 = 0.01;
/// What reduces collections. `latency_victims` gives the same advice.
pub(super) const REMEDY: &str =
    "Call gc.freeze() once all permanent data is loaded, raise gc.set_threshold(), or create fewer containers (lists, dicts, objects) that outlive a call.";

/// The code that shows it.
pub(super) fn sketch() -> Vec<String> {
    ["import gc", "gc.freeze()  # once all permanent data is loaded"].map(String::from).to_vec()
}

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let Some(gil) = e.profile.gils.iter().filter(|gil| gil.busy > 0.0).max_by(|a, b| a.collecting.total_cmp(&b.collecting)) else {
        return RuleResult::DoesNotApply;
    };
    if gil.collecting < FLOOR * gil.observed {
        return RuleResult::DoesNotApply;
    }
    let share = bootstrap::share_interval(gil.collecting, gil.busy, gil.samples as f64 * gil.busy / gil.observed);
    match position(&share, MATTERS) {
        Position::Below => RuleResult::DoesNotApply,
        Position::Straddles => RuleResult::Undetermined(format!(
            "Garbage collection takes between {} and {} of the time in which a thread holds the GIL.",
            percent(share.low),
            percent(share.high)
        )),
        Position::Above => Diagnosis::finding(Code::GarbageCollection)
            .with_severity(Severity::Medium)
            .because(format!(
                "{} of the time in which a thread holds the GIL goes to garbage collection{}, during which no other thread runs Python code.",
                percent(share.estimate),
                started(e)
            ))
            .next_step(REMEDY)
            .applies(),
    }
}

/// ", mostly started in load (app.py:12)".
pub(super) fn started(e: &RuleInput<'_>) -> String {
    collector::starter(e.profile).map_or(String::new(), |starter| format!(", mostly started in {}", e.place(&starter)))
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::{Code, Report};
    use crate::analysis::testing::{is_undetermined, Scene};

    fn is_reported(r: &Report) -> bool {
        r.findings.iter().any(|f| f.code == Code::GarbageCollection)
    }

    const TURNS: fn(u64) -> Vec<&'static str> =
        |t| if (t / 5).is_multiple_of(2) { vec!["P load", "W load"] } else { vec!["W load", "P load"] };

    #[test]
    fn collections_are_named_where_they_take_much_and_not_where_they_take_nothing() {
        let r = report(&Scene::new(2.0).collecting(|t| t % 5 == 0).run(3000, TURNS));
        assert!(is_reported(&r));
        let evidence = r.findings.iter().find(|f| f.code == Code::GarbageCollection).unwrap().evidence.clone();
        assert!(evidence.starts_with("20 % of the time") && evidence.contains("mostly started in load (app.py:12)"), "{evidence}");
        assert!(!is_reported(&report(&Scene::new(2.0).run(3000, TURNS))));
    }

    #[test]
    fn the_last_collections_of_an_idle_program_are_no_finding() {
        let ends = |t: u64| vec![if t < 6 { "P main" } else { "I main" }];
        assert!(!is_reported(&report(&Scene::new(2.0).collecting(|t| t < 4).run(2000, ends))));
        // The same share of the holding, in a program that works.
        let works = |t: u64| vec![if t % 10 < 6 { "P main" } else { "I main" }];
        assert!(is_reported(&report(&Scene::new(2.0).collecting(|t| t % 10 < 4).run(2000, works))));
    }

    #[test]
    fn a_share_near_the_bound_is_undetermined() {
        assert!(is_undetermined(super::evaluate, &Scene::new(2.0).collecting(|t| t % 20 == 0).run(600, TURNS)));
    }
}
