//! Threads that work also wait for a lock that is not the GIL. Waits for work, for a result or for
//! the end of a thread do not count. The advice depends on whose lock it is and on what its owner
//! does.

use super::{position, Code, Diagnosis, Estimate, Position, RuleInput, RuleResult, Severity};
use crate::analysis::lock_waits::{Lock, LockKind, Owner};
use crate::analysis::own_code::{origin, Origin};
use crate::analysis::phrases::{number, threads, verb};
use crate::analysis::rule_input::with_caller;
use crate::sample::State;

/// Average number of threads that wait for a lock, from which the lock limits the program.
const THREADS: f64 = 0.5;
/// The remedy where the C code is that of BLAS, which no frame shows.
pub(super) const BLAS: &str =
    "If the call is one of BLAS (matrix products, numpy.linalg), start the program with OPENBLAS_NUM_THREADS=1: then calls do not share one pool of threads.";

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let locks = &e.lock_waits;
    let Some(worst) = &locks.worst else { return RuleResult::DoesNotApply };
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
        Position::Above => bound(e, worst),
    }
}

fn bound(e: &RuleInput<'_>, lock: &Lock) -> RuleResult {
    let locks = &e.lock_waits;
    let name = e.place_and_caller(&with_caller(e.functions, lock.place.clone()));
    let headline = match lock.kind {
        LockKind::Logging => "Threads wait for the lock of a logging handler, not for the GIL.".into(),
        LockKind::Import => "Threads wait for a module that another thread imports, not for the GIL.".into(),
        LockKind::InCCode => {
            let caller = e.place_and_caller_clause(&with_caller(e.functions, lock.place.clone()));
            format!("Threads wait for a lock inside the C code that {caller} calls, not for the GIL.")
        }
        LockKind::Python => format!("Threads wait for a lock, not for the GIL: {name}."),
    };
    let mut diagnosis = Diagnosis::new(Code::LockBound, headline).with_severity(Severity::Medium).because(format!(
        "{} {} for locks other than the GIL, {} at a time on average, mostly in {} at line {}.",
        threads(locks.threads),
        verb(locks.threads, "wait"),
        number(locks.rate),
        e.place(&lock.place),
        lock.line
    ));
    if let Some(owner) = &lock.owner {
        diagnosis = diagnosis.because(owned_by(e, owner));
    }
    diagnosis = diagnosis.because(format!("On average, {} of the threads wait for the GIL.", number(e.rates.waiting.estimate)));
    remedy(e, diagnosis, lock).applies()
}

/// "The thread that has the lock is mostly in flush (__init__.py:1085) at line 1087, asleep in a
/// system call."
fn owned_by(e: &RuleInput<'_>, owner: &Owner) -> String {
    let does = match owner.state {
        State::HoldingPython => "and runs Python code",
        State::HoldingNative => "inside a C call that keeps the GIL",
        State::HoldingBlocked => "asleep with the GIL",
        State::HoldingStarved | State::Starved => "without a core",
        State::Waiting => "and waits for the GIL",
        State::Native => "in C code without the GIL",
        State::Lock => "and waits for another lock",
        State::Io | State::Unknown => "asleep in a system call",
    };
    format!("The thread that has the lock is mostly in {} at line {}, {does}.", e.place(&owner.place), owner.line)
}

fn remedy(e: &RuleInput<'_>, diagnosis: Diagnosis, lock: &Lock) -> Diagnosis {
    let at = format!("in {} at line {}", e.place(&lock.place), lock.line);
    match (lock.kind, &lock.owner) {
        (LockKind::Logging, _) => diagnosis
            .next_step("Log less (a higher level, fewer lines), or write the log to where it is taken faster.")
            .next_step_with_sketch(
                "Or log through logging.handlers.QueueHandler, set on the logger that has the handler: its listener alone writes, and the threads do not wait. If the output stays slower than the threads log, lines pile up in memory.",
                [
                    "queue, log = SimpleQueue(), logging.getLogger()  # or its own logger",
                    "QueueListener(queue, *log.handlers).start()",
                    "log.handlers = [QueueHandler(queue)]",
                ]
                .map(String::from)
                .to_vec(),
            ),
        (LockKind::Import, _) => diagnosis.next_step("Import modules when the program starts, not in its threads."),
        (LockKind::InCCode, _) => diagnosis
            .next_step(format!("Make the call {at} from fewer threads at a time, or from several processes: each process has such a lock of its own."))
            .next_step(BLAS),
        (LockKind::Python, _) if origin(&lock.place.file) != Origin::Own => diagnosis
            .next_step(format!("The lock belongs to {}, not to your code: call that from fewer threads, or less often.", e.place(&lock.place))),
        (LockKind::Python, Some(owner)) if owner.state == State::Io => diagnosis.next_step(format!(
            "Move the call in {} at line {}, which sleeps, out of the lock that is taken {at}; processes help only if they do not share the data that it protects.",
            e.place(&owner.place),
            owner.line
        )),
        (LockKind::Python, Some(_)) => diagnosis.next_step(format!(
            "Hold the lock taken {at} for a shorter time, or split the data that it protects; processes help only if they do not share that data."
        )),
        (LockKind::Python, None) => diagnosis
            .next_step(format!("Find which thread has the lock that is taken {at}, and let it hold the lock for a shorter time."))
            .next_step("If threads wait there for work, as in a queue or a client written in C, nothing is wrong."),
    }
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

    /// Five threads, one of them at a time in `owner`; the others wait in `waiter`.
    fn turns_of(owner: &'static str, waiter: &'static str) -> crate::analysis::report::Report {
        report(&Scene::new(2.0).run(3000, move |t| {
            let mut all = vec![waiter; 5];
            all[(t / 3 % 5) as usize] = if t.is_multiple_of(20) { "P main" } else { owner };
            all
        }))
    }

    #[test]
    fn the_lock_of_a_logging_handler_is_named_with_its_owner_and_its_remedy() {
        const HANDLE: &str = "handle@logging/__init__.py>";
        let owner = Box::leak(format!("I {HANDLE}StreamHandler.flush@logging/__init__.py").into_boxed_str());
        let waiter = Box::leak(format!("L {HANDLE}Handler.acquire@logging/__init__.py").into_boxed_str());
        let v = turns_of(owner, waiter).verdict;
        assert_eq!((v.code, v.headline.as_str()), (Code::LockBound, "Threads wait for the lock of a logging handler, not for the GIL."));
        assert!(
            v.because[1].contains("mostly in StreamHandler.flush (logging/__init__.py:12) at line 14, asleep in a system call"),
            "{v:?}"
        );
        assert!(v.next_steps[1].contains("QueueHandler") && v.sketch_of(1)[2].contains("QueueHandler"), "{v:?}");
        assert!(!v.next_steps.iter().any(|step| step.contains("Hold the lock")), "{v:?}");
    }

    #[test]
    fn a_lock_inside_c_code_is_known_by_its_line() {
        let v = turns_of("N multiply", "L multiply").verdict;
        assert!(v.headline.starts_with("Threads wait for a lock inside the C code that multiply (app.py:12) calls"), "{v:?}");
        assert!(v.next_steps[1].contains("OPENBLAS_NUM_THREADS=1"), "{v:?}");
        let v = turns_of("P update>add", "L update").verdict;
        assert!(v.headline.starts_with("Threads wait for a lock, not for the GIL: update"), "{v:?}");
        assert!(v.because[1].contains("mostly in add (app.py:12) at line 14, and runs Python code"), "{v:?}");
    }

    #[test]
    fn idle_consumers_of_a_queue_in_c_are_not_lock_bound() {
        // Four consumers; there is work for one of them in a third of the time.
        let consumers = |t: u64| {
            let mut all = vec!["I main", "L consume_all", "L consume_all", "L consume_all", "L consume_all"];
            if t.is_multiple_of(3) {
                all[1 + (t / 3 % 4) as usize] = "P consume_all>handle";
            }
            all
        };
        let r = report(&Scene::new(2.0).run(3000, consumers));
        assert!(r.verdict.code != Code::LockBound && r.findings.iter().all(|f| f.code != Code::LockBound), "{:?}", r.verdict);
        // A client of a library that waits in C, and a pool of a library without Python.
        let poll = |t: u64| match t % 10 {
            0 => vec!["P main", "L poll@/site-packages/client.py", "L poll@/site-packages/client.py", "L -"],
            1 => vec!["I main", "P poll@/site-packages/client.py", "L poll@/site-packages/client.py", "N -"],
            2 => vec!["I main", "L poll@/site-packages/client.py", "P poll@/site-packages/client.py", "N -"],
            _ => vec!["I main", "L poll@/site-packages/client.py", "L poll@/site-packages/client.py", "L -"],
        };
        assert_ne!(report(&Scene::new(2.0).native(3).without_main().run(3000, poll)).verdict.code, Code::LockBound);
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
