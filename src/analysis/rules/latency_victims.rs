//! Threads that want the GIL only briefly wait for a thread that hardly ever releases it (a
//! convoy), while processes would gain no throughput.
//!
//! The work-weighted gain does not show this, because the victims do little work. Their own waiting
//! decides, and that others hold the GIL for most of it. What helps depends on what holds the GIL:
//! Python code obeys drop requests, so that a lower switch interval helps. A long C call and a
//! garbage collection keep the GIL to their end; both were measured with ten times the drop
//! requests, and the victims waited as long. A holder that sleeps is the matter of
//! `blocked_holding_gil`.

use super::{advice, gc, gil_limits, position, too_wide, Code, Diagnosis, Position, RuleInput, RuleResult, Severity};
use crate::analysis::phrases::{clean, percent, threads, verb};
use crate::analysis::report::Thread;

/// Average number of waiting threads below which the delay is negligible.
const WAITING: f64 = 0.1;
/// Share of its time that a victim waits.
const VICTIM: f64 = 0.1;
/// How many times longer a victim waits for the GIL than it holds it.
const OUT_OF_PROPORTION: f64 = 2.0;
/// Part of all holding that threads must have which hold the GIL for longer than they wait for it.
const HOGS: f64 = 0.5;
/// The GIL is held for this part of the time in which threads wait for it, or more. If not, they do
/// not wait behind a holder.
const EXPLAINED: f64 = 0.5;
/// A switch interval, in microseconds, that need not be lowered further.
const SHORT_INTERVAL: u64 = 500;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let Some(worst) = victims(e).max_by(|a, b| a.states.waiting.total_cmp(&b.states.waiting)) else { return RuleResult::DoesNotApply };
    if e.holder_mix.is_asleep() || !others_hold(e) || e.gil.busy < EXPLAINED * e.gil.contended {
        return RuleResult::DoesNotApply;
    }
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

/// Whether threads that hold the GIL for longer than they wait for it have it for most of the time
/// in which it is held. The threads of a pool that all wait for each other are no victims of one.
fn others_hold(e: &RuleInput<'_>) -> bool {
    let held = |threads: &mut dyn Iterator<Item = &Thread>| threads.map(|t| t.seconds * t.states.holding).sum::<f64>();
    let hogs = held(&mut e.threads.iter().filter(|t| t.states.holding >= t.states.waiting));
    hogs >= HOGS * held(&mut e.threads.iter())
}

fn convoy(e: &RuleInput<'_>, worst: &Thread) -> RuleResult {
    let count = victims(e).count();
    let victims = format!("{} {} for the GIL", threads(count), verb(count, "wait"));
    let diagnosis = if e.holder_mix.is_collecting() { behind_collector(e, &victims) } else { behind_hog(e, &victims) };
    diagnosis.with_severity(Severity::Medium).because(waits(worst)).rests_on_gain().applies()
}

fn waits(worst: &Thread) -> String {
    let each = worst.wait_ms.map_or(String::new(), |w| {
        let bound = if w.at_most { "at most " } else { "" };
        format!(", {bound}{:.1} ms per wait", w.mean)
    });
    format!(
        "Thread {} holds the GIL {} of its time but waits for it {} of its time{each}.",
        clean(&worst.name),
        percent(worst.states.holding),
        percent(worst.states.waiting)
    )
}

fn behind_hog(e: &RuleInput<'_>, victims: &str) -> Diagnosis {
    let hog = e.culprit();
    let headline = format!("{victims} while {hog} holds it: throughput as a whole is fine, the response times of the others are not.");
    let diagnosis = Diagnosis::new(Code::LatencyVictims, headline).because(e.waiting_summary()).next_step_with_sketch(
        format!("Move {} to a process of its own ({}); the other threads then do not wait for it.", advice::subject(e), advice::means(e)),
        advice::sketch(e),
    );
    if e.holder_mix.in_c_calls() {
        let call = super::top_holder(e, |f| f.holding_native);
        let at = call.map_or(String::new(), |(holder, hot_line)| format!(" in {} at line {hot_line}", e.place(&holder)));
        return diagnosis.next_step(format!(
            "Or release the GIL in the C code that is called{at}. A lower switch interval does not help: a C call keeps the GIL to its end."
        ));
    }
    let interval = e.profile.target.switch_interval_us;
    if !e.holder_mix.obeys_drop_requests() || interval.is_some_and(|us| us <= SHORT_INTERVAL) {
        return diagnosis;
    }
    let now = interval.map_or(String::new(), |us| format!(" in place of {}", us as f64 / 1e6));
    diagnosis.next_step_with_sketch(
        format!(
            "Or lower the switch interval, as by sys.setswitchinterval(0.0005){now}: waits get shorter, and {hog} gets somewhat slower."
        ),
        ["import sys", "sys.setswitchinterval(0.0005)  # seconds; the default is 0.005"].map(String::from).to_vec(),
    )
}

fn behind_collector(e: &RuleInput<'_>, victims: &str) -> Diagnosis {
    let share = percent(e.holder_mix.collecting);
    Diagnosis::new(Code::LatencyVictims, format!("{victims}, and the long waits are for the garbage collector."))
        .because(format!("In {share} of that waiting, a garbage collection runs{}.", gc::started(e)))
        .because(e.waiting_summary())
        .next_step_with_sketch(gc::REMEDY, gc::sketch())
        .next_step(format!(
            "Or move {} to a process of its own. A lower switch interval does not help: a collection keeps the GIL to its end.",
            e.culprit()
        ))
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
    fn the_remedy_depends_on_what_holds() {
        // The victim waits for half of each 20 ms.
        let behind = |holds: &'static str| {
            move |t: u64| match t % 20 {
                0 => vec!["W crunch", "P reply"],
                1..10 => vec![holds, "I recv"],
                _ => vec![holds, "W reply"],
            }
        };
        let advises = |v: &crate::analysis::report::Verdict| {
            assert_eq!(v.code, Code::LatencyVictims, "{v:?}");
            v.next_steps.iter().any(|step| step.contains("setswitchinterval"))
        };
        let python = report(&Scene::new(2.0).run(4000, behind("P crunch"))).verdict;
        assert!(advises(&python) && python.sketches[1].lines[1].starts_with("sys.setswitchinterval"), "{python:?}");
        let c_call = report(&Scene::new(2.0).run(4000, behind("C crunch"))).verdict;
        assert!(
            !advises(&c_call)
                && c_call.next_steps[1].contains("release the GIL in the C code that is called in crunch (app.py:12) at line 14"),
            "{c_call:?}"
        );
        let collector = report(&Scene::new(2.0).collecting(|t| t % 20 > 3).run(4000, behind("P crunch"))).verdict;
        assert!(!advises(&collector), "{collector:?}");
        assert!(
            collector.because[0].starts_with("In 91 % of that waiting, a garbage collection runs, mostly started in crunch"),
            "{collector:?}"
        );
        assert!(collector.next_steps[0].starts_with("Call gc.freeze()") && collector.sketch[1].starts_with("gc.freeze()"), "{collector:?}");
        let short = report(&Scene::new(2.0).with(|t, _| t.switch_interval_us = Some(500)).run(4000, behind("P crunch"))).verdict;
        assert!(!advises(&short), "{short:?}");
    }

    #[test]
    fn a_hog_beside_sleepers_has_no_victims() {
        let calm = |t: u64| if t.is_multiple_of(20) { vec!["I pause", "P reply"] } else { vec!["P crunch", "I recv"] };
        assert_eq!(report(&Scene::new(2.0).run(4000, calm)).verdict.code, Code::Serial);
    }

    #[test]
    fn threads_that_wait_for_each_other_are_no_victims_of_one() {
        // Four of a pool, each with the GIL for a twentieth of the time, waiting thrice as long.
        let pool = |t: u64| {
            let mut all = vec!["I recv"; 4];
            if t % 5 < 1 {
                all[(t / 5 % 4) as usize] = "P parse";
                (1..=3).for_each(|n| all[((t / 5 + n) % 4) as usize] = "W recv");
            }
            all
        };
        assert_ne!(report(&Scene::new(2.0).run(4000, pool)).verdict.code, Code::LatencyVictims);
    }

    #[test]
    fn victims_in_a_small_part_of_the_window_are_not_enough() {
        let once = |t: u64| if t < 150 { vec!["P crunch", "W reply"] } else { vec!["P crunch", "I recv"] };
        assert!(is_undetermined(super::evaluate, &Scene::new(2.0).run(1400, once)));
    }
}
