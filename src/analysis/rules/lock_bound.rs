//! Threads that work also wait for a lock of the program. Waits for work, for a result or for the
//! end of a thread do not count.

use super::{position, Code, Diagnosis, Estimate, Place, Position, RuleInput, RuleResult, Severity};
use crate::analysis::phrases::{number, threads, verb};

/// Average number of threads that wait for a lock, from which the lock limits the program.
const THREADS: f64 = 0.5;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let locks = &e.lock_waits;
    let Some((at, hot_line)) = &locks.worst else { return RuleResult::DoesNotApply };
    if locks.threads < 2 || locks.rate <= e.rates.waiting.high {
        return RuleResult::DoesNotApply;
    }
    // Assumed to vary as much as all waiting for locks, of which it is a part.
    let all = &e.rates.lock;
    let rate = Estimate {
        estimate: locks.rate,
        low: (locks.rate - (all.estimate - all.low)).max(0.0),
        high: locks.rate + (all.high - all.estimate),
    };
    match position(&rate, THREADS) {
        Position::Below => RuleResult::DoesNotApply,
        Position::Straddles => {
            RuleResult::Undetermined(format!("Between {:.1} and {:.1} threads wait for locks other than the GIL.", rate.low, rate.high))
        }
        Position::Above => bound(e, at, *hot_line),
    }
}

fn bound(e: &RuleInput<'_>, at: &Place, hot_line: u32) -> RuleResult {
    let locks = &e.lock_waits;
    let name = e.place_and_caller(at);
    Diagnosis::new(Code::LockBound, format!("Threads wait for a lock, not for the GIL: {name}."))
        .with_severity(Severity::Medium)
        .because(format!(
            "{} {} for locks other than the GIL, {} at a time on average, mostly in {} at line {hot_line}.",
            threads(locks.threads),
            verb(locks.threads, "wait"),
            number(locks.rate),
            e.place(at)
        ))
        .because(format!("On average, {} of the threads wait for the GIL.", number(e.rates.waiting.estimate)))
        .next_step(format!(
            "Hold the lock taken in {} at line {hot_line} for a shorter time, or split the data that it protects; processes help only if they do not share that data.",
            e.place(at)
        ))
        .applies()
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::Code;
    use crate::analysis::testing::{is_undetermined, Scene};

    /// Three workers, one at a time; the others do what `word` says.
    fn turns(word: &'static str) -> impl Fn(u64) -> Vec<&'static str> {
        move |t| {
            let mut all = vec!["L join@threading.py", word, word, word];
            all[1 + (t / 5 % 3) as usize] = "P update";
            all
        }
    }

    #[test]
    fn workers_on_a_lock_are_lock_bound() {
        let r = report(&Scene::new(2.0).run(2000, turns("L update")));
        assert_eq!(r.verdict.code, Code::LockBound);
        assert!(r.verdict.because[0].contains("update (app.py:12) at line 14"), "{:?}", r.verdict.because);
    }

    #[test]
    fn a_lock_whose_holder_sleeps_blocks_threads_with_little_work() {
        // Seven threads take turns of 5 ms; each does something in 4 of a thousand samples.
        let sleepy = |t: u64| {
            let mut all = vec!["L update"; 8];
            all[0] = "L join@threading.py";
            all[1 + (t / 5 % 7) as usize] = if t.is_multiple_of(36) { "P update" } else { "I update" };
            all
        };
        assert_eq!(report(&Scene::new(2.0).run(5000, sleepy)).verdict.code, Code::LockBound);
    }

    #[test]
    fn workers_without_work_and_waiters_for_the_gil_are_not() {
        assert_ne!(report(&Scene::new(2.0).run(2000, turns("L get@queue.py"))).verdict.code, Code::LockBound);
        assert_eq!(report(&Scene::new(2.0).run(2000, turns("W update"))).verdict.code, Code::SwitchToProcesses);
    }

    #[test]
    fn one_thread_on_a_lock_is_not_enough() {
        let one = |t: u64| vec![if t.is_multiple_of(20) { "P poll" } else { "L poll" }, "I accept"];
        assert_ne!(report(&Scene::new(2.0).run(2000, one)).verdict.code, Code::LockBound);
    }

    #[test]
    fn locks_in_a_part_of_the_window_are_not_enough() {
        let phased = |t: u64| if t < 700 { turns("L update")(t) } else { vec!["L join@threading.py", "I recv", "I recv", "P update"] };
        assert!(is_undetermined(super::evaluate, &Scene::new(2.0).run(2400, phased)));
    }
}
