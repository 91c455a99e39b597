//! Throughput is fine, but threads that want the GIL only briefly wait for a thread that hardly
//! ever releases it (a convoy).
//!
//! The work-weighted gain does not show this, because the victims do little work. Their own waiting
//! decides.

use super::{advice, gil_limits, position, too_wide, Code, Diagnosis, Position, RuleInput, RuleResult, Severity};
use crate::analysis::phrases::{clean, percent, threads, verb};
use crate::analysis::report::Thread;

/// Average number of waiting threads below which the delay is negligible.
const WAITING: f64 = 0.1;
/// Share of its time that a victim waits.
const VICTIM: f64 = 0.1;
/// How many times longer a victim waits for the GIL than it holds it.
const OUT_OF_PROPORTION: f64 = 2.0;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let Some(worst) = victims(e).max_by(|a, b| a.states.waiting.total_cmp(&b.states.waiting)) else { return RuleResult::DoesNotApply };
    match (gil_limits(e), position(&e.rates.waiting, WAITING)) {
        (Position::Above, _) | (_, Position::Below) => RuleResult::DoesNotApply,
        (Position::Straddles, _) => too_wide(&e.gains.processes),
        (_, Position::Straddles) => RuleResult::Undetermined(format!(
            "Between {:.2} and {:.2} threads wait for the GIL on average.",
            e.rates.waiting.low, e.rates.waiting.high
        )),
        (Position::Below, Position::Above) => convoy(e, worst),
    }
}

/// Threads that wait much longer for the GIL than they use it.
fn victims<'e>(e: &'e RuleInput<'_>) -> impl Iterator<Item = &'e Thread> {
    e.threads.iter().filter(|t| t.states.waiting >= VICTIM && t.states.waiting > OUT_OF_PROPORTION * t.states.holding)
}

fn convoy(e: &RuleInput<'_>, worst: &Thread) -> RuleResult {
    let (count, hog) = (victims(e).count(), e.culprit());
    let each = worst.wait_ms.map_or(String::new(), |w| format!(", {:.1} ms per wait", w.mean));
    let interval = e.profile.target.switch_interval_us.map_or(String::new(), |us| format!(", now {} s", us as f64 / 1e6));
    Diagnosis::new(
        Code::LatencyVictims,
        format!("{} {} for the GIL while {hog} holds it: throughput is fine, response times are not.", threads(count), verb(count, "wait")),
    )
    .with_severity(Severity::Medium)
    .because(e.waiting_summary())
    .because(format!(
        "Thread {} holds the GIL {} of its time but waits for it {} of its time{each}.",
        clean(&worst.name),
        percent(worst.states.holding),
        percent(worst.states.waiting)
    ))
    .next_step_with_sketch(
        format!("Move {hog} to a process of its own ({}); the other threads then do not wait for it.", advice::means(e)),
        advice::sketch(e),
    )
    .next_step_with_sketch(
        format!("Or lower the switch interval (sys.setswitchinterval(){interval}): waits get shorter, and {hog} gets somewhat slower."),
        ["import sys", "sys.setswitchinterval(0.0005)  # seconds; the default is 0.005"].map(String::from).to_vec(),
    )
    .applies()
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::Code;
    use crate::analysis::testing::{is_undetermined, Scene};

    #[test]
    fn short_users_behind_a_hog_are_victims() {
        let convoy = |t: u64| match t % 20 {
            0 => vec!["W crunch", "P reply"],
            1..10 => vec!["P crunch", "I recv"],
            _ => vec!["P crunch", "W reply"],
        };
        let r = report(&Scene::new(2.0).run(4000, convoy));
        assert_eq!(r.verdict.code, Code::LatencyVictims, "{:?}", r.verdict);
        assert!(r.verdict.headline.starts_with("1 thread waits for the GIL while crunch (app.py:12) holds it"), "{}", r.verdict.headline);
        assert!(r.verdict.sketch_of(0)[2].contains("pool.map(crunch, items"), "{:?}", r.verdict.sketches);
        assert_eq!(r.verdict.sketch_of(1)[0], "import sys");
    }

    #[test]
    fn a_hog_beside_sleepers_has_no_victims() {
        let calm = |t: u64| if t.is_multiple_of(20) { vec!["I pause", "P reply"] } else { vec!["P crunch", "I recv"] };
        assert_eq!(report(&Scene::new(2.0).run(4000, calm)).verdict.code, Code::Serial);
    }

    #[test]
    fn victims_in_a_small_part_of_the_window_are_not_enough() {
        let once = |t: u64| if t < 150 { vec!["P crunch", "W reply"] } else { vec!["P crunch", "I recv"] };
        assert!(is_undetermined(super::evaluate, &Scene::new(2.0).run(1400, once)));
    }
}
