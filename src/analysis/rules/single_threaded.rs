//! One thread does all the work and no other thread waits: the GIL is busy, not contended.

use super::{gil_limits, position, Code, Diagnosis, Position, RuleInput, RuleResult};
use crate::analysis::phrases::{clean, cores, percent};

/// Share of the work from which one thread does it all.
const ALONE: f64 = 0.9;
/// Share of the time in which the GIL is held, below which the program mostly sleeps.
const BUSY: f64 = 0.5;
/// Average number of waiting threads from which waiting is not negligible.
const WAITING: f64 = 0.2;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    if gil_limits(e) != Position::Below || position(&e.rates.waiting, WAITING) == Position::Above {
        return RuleResult::DoesNotApply;
    }
    match (position(&e.rates.top_thread_share, ALONE), position(&e.rates.holding, BUSY)) {
        (Position::Below, _) | (_, Position::Below) => RuleResult::DoesNotApply,
        (Position::Above, Position::Above) => serial(e),
        _ => RuleResult::Undetermined(format!(
            "One thread does between {} and {} of the work, and the GIL is held between {} and {} of the time.",
            percent(e.rates.top_thread_share.low),
            percent(e.rates.top_thread_share.high),
            percent(e.rates.holding.low),
            percent(e.rates.holding.high)
        )),
    }
}

fn serial(e: &RuleInput<'_>) -> RuleResult {
    let worker = e.threads.iter().max_by(|a, b| (a.seconds * a.states.holding).total_cmp(&(b.seconds * b.states.holding)));
    let name = worker.map_or_else(String::new, |t| clean(&t.name));
    Diagnosis::new(Code::Serial, "One thread does nearly all the work: it keeps the GIL busy, but hardly any other thread waits.".into())
        .because(format!(
            "Thread {name} does {} of the work and holds the GIL {} of the time.",
            percent(e.rates.top_thread_share.estimate),
            percent(e.rates.holding.estimate)
        ))
        .because(format!("At least one other thread waits for the GIL {} of the time.", percent(e.gil.contended)))
        .next_step(advice(e))
        .applies()
}

fn advice(e: &RuleInput<'_>) -> String {
    let culprit = e.culprit();
    if e.cores() < 1.5 {
        return format!("Make {culprit} faster; there is no further core that a second process could use.");
    }
    format!("Make {culprit} faster, or split its work among processes, which could use {} in place of one.", cores(e.cores()))
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::Code;
    use crate::analysis::testing::{is_undetermined, Scene};

    #[test]
    fn one_worker_is_serial_and_two_that_wait_are_not() {
        let r = report(&Scene::new(2.0).run(2000, |_| vec!["L join@threading.py", "P burn"]));
        assert_eq!(r.verdict.code, Code::Serial);
        assert!(r.verdict.because[0].starts_with("Thread worker-1 does 100 % of the work"), "{:?}", r.verdict.because);
        let turns = |t: u64| if (t / 5).is_multiple_of(2) { vec!["P burn", "W burn"] } else { vec!["W burn", "P burn"] };
        assert_ne!(report(&Scene::new(2.0).run(2000, turns)).verdict.code, Code::Serial);
    }

    #[test]
    fn work_that_moves_between_threads_in_phases_is_not_called_serial() {
        let phased = |t: u64| if t < 1900 { vec!["P burn", "I rest"] } else { vec!["I rest", "P burn"] };
        assert!(is_undetermined(super::evaluate, &Scene::new(2.0).run(2100, phased)));
    }
}
