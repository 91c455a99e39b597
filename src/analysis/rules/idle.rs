//! Nothing runs: every thread sleeps nearly all the time.

use super::{event_loop, position, Code, Diagnosis, Position, RuleInput, RuleResult};
use crate::analysis::phrases::{percent, threads};

/// Thread-seconds per second without sleep below which a program is idle.
const ACTIVE: f64 = 0.02;
/// Unknown thread-seconds per second above which the threads may have run.
const UNKNOWN: f64 = 0.02;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    if e.rates.unknown.high > UNKNOWN && kernel_cpu(e) > ACTIVE || e.rates.active.estimate >= ACTIVE {
        return RuleResult::DoesNotApply;
    }
    if position(&e.rates.active, ACTIVE) != Position::Below {
        return RuleResult::Undetermined("The program ran in short bursts only; for the rest of the window it was idle.".into());
    }
    let (code, headline, step) = headline_and_step(e);
    let diagnosis = Diagnosis::new(code, headline.into())
        .because(format!(
            "{} slept or waited for work, and ran for {} of the time.",
            threads(e.threads.len()),
            percent(e.rates.active.estimate)
        ))
        .without_prediction();
    // The step against a late event loop is that of its finding.
    match step {
        Some(step) => diagnosis.next_step(step),
        None => diagnosis,
    }
    .applies()
}

/// The work of an idle process may be in its child processes. If these are Python, the figures of
/// this process say nothing of the program.
fn headline_and_step(e: &RuleInput<'_>) -> (Code, &'static str, Option<String>) {
    match &e.children {
        Some(children) if children.python_works() => (
            Code::Inconclusive,
            "Idle: nothing ran in this process; its Python child processes do the work, and were not measured.",
            Some(format!("Measure the processes that do the work too: {}", children.attach_command)),
        ),
        Some(children) if children.others_work() && children.other_cores >= children.unknown_cores => (
            Code::Idle,
            "Idle: nothing ran in this process; its child processes, which are not Python, do the work.",
            Some("Do not expect the GIL to matter here: this program waits for other programs.".into()),
        ),
        Some(children) if children.others_work() => (
            Code::Idle,
            "Idle: nothing ran in this process; its child processes do the work, and ended too soon to be identified.",
            Some("Measure such a child process by itself, if it is Python: gilprof run -- CMD".into()),
        ),
        _ if matches!(event_loop::blocked(e), RuleResult::Applies(_)) => {
            (Code::Idle, "Idle: nothing ran, and an event loop sleeps inside a callback, so that its other tasks cannot run.", None)
        }
        _ => (Code::Idle, "Idle: nothing ran during the measurement.", Some("Measure while the program is under load.".into())),
    }
}

/// Cores used by the kernel's count, which is right also where states are unknown.
fn kernel_cpu(e: &RuleInput<'_>) -> f64 {
    let seconds = e.profile.seconds();
    let used: f64 = e.threads.iter().map(|t| t.cpu * t.seconds).sum();
    if seconds > 0.0 {
        used / seconds
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::Code;
    use crate::analysis::testing::{is_undetermined, Scene};

    #[test]
    fn sleepers_are_idle_and_workers_are_not() {
        let idle = report(&Scene::new(2.0).run(2000, |_| vec!["I accept", "L get@queue.py"]));
        assert_eq!((idle.verdict.code, idle.verdict.speedup.processes), (Code::Idle, None));
        let some = |t: u64| if t.is_multiple_of(10) { vec!["P serve", "L get@queue.py"] } else { vec!["I accept", "L get@queue.py"] };
        assert_eq!(report(&Scene::new(2.0).run(2000, some)).verdict.code, Code::KeepThreads);
    }

    #[test]
    fn an_event_loop_that_sleeps_in_a_callback_is_not_asked_for_load() {
        const SLEEPS: &str = "I _run_once@asyncio/base_events.py>_run@asyncio/events.py>answer";
        const SELECTS: &str = "I _run_once@asyncio/base_events.py>select@selectors.py";
        let v = report(&Scene::new(2.0).run(4000, |t| vec![if t % 10 < 7 { SLEEPS } else { SELECTS }])).verdict;
        assert!(v.code == Code::Idle && v.headline.contains("sleeps inside a callback"), "{v:?}");
        assert!(v.next_steps[0].contains("await") && !v.next_steps[0].contains("load"), "{v:?}");
    }

    #[test]
    fn one_burst_is_not_enough_to_call_it_idle() {
        let burst = |t: u64| if t < 600 { vec!["P start"] } else { vec!["I accept"] };
        assert!(is_undetermined(super::evaluate, &Scene::new(2.0).run(40_000, burst)));
    }
}
