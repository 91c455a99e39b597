//! A late event loop (asyncio): other threads hold the GIL, or a callback sleeps where it should
//! await.
//!
//! A finding, never the verdict. `_run_once` of asyncio/base_events.py in its stack identifies the
//! thread of a loop. uvloop has no Python frame there and is not recognised. Time below a selector
//! is the loop's idle time; everything else belongs to a callback.

use super::{position, Code, Diagnosis, Position, RuleInput, RuleResult, Severity};
use crate::analysis::bootstrap;
use crate::analysis::phrases::{clean, percent};
use crate::analysis::report::{Estimate, Place};
use crate::profile::StackTime;
use crate::sample::{Stack, State, StateTimes};
use std::collections::HashMap;

/// Share of the loop's time spent waiting for the GIL, or asleep in a callback, from which every
/// task is noticeably late.
const FELT: f64 = 0.05;

pub(in crate::analysis) fn starved(e: &RuleInput<'_>) -> RuleResult {
    evaluate(
        e,
        "waits for the GIL",
        |l| l.waiting,
        |e, l, share| {
            Diagnosis::finding(Code::EventLoopStarved)
            .with_severity(Severity::Medium)
            .because(format!(
                "The event loop in {} waits for the GIL {share} of its time, which delays every task on the loop; threads wait most while {} holds the GIL.",
                l.name,
                e.culprit()
            ))
            .next_step(format!(
                "Run {} in a concurrent.futures.ProcessPoolExecutor (loop.run_in_executor) instead of in a thread, or lower sys.setswitchinterval().",
                e.culprit()
            ))
        },
    )
}

pub(in crate::analysis) fn blocked(e: &RuleInput<'_>) -> RuleResult {
    evaluate(
        e,
        "sleeps inside a callback",
        |l| l.asleep,
        |e, l, share| {
            let at = l.sleeper.as_ref().map_or(String::new(), |(p, line)| format!(", mostly in {} at line {line}", e.place_and_caller(p)));
            Diagnosis::finding(Code::EventLoopBlocked)
                .with_severity(Severity::Medium)
                .because(format!(
                    "The event loop in {} sleeps inside a callback {share} of its time{at}: no other task of the loop runs meanwhile.",
                    l.name
                ))
                .next_step("Use await there (asyncio.sleep, an asynchronous client), or run the call in asyncio.to_thread().")
        },
    )
}

/// The worst loop, if its figure is above the bound.
fn evaluate(
    e: &RuleInput<'_>,
    what: &str,
    figure: fn(&Loop) -> Estimate,
    describe: fn(&RuleInput<'_>, &Loop, String) -> Diagnosis,
) -> RuleResult {
    let loops = loops(e);
    let Some(worst) = loops.iter().max_by(|a, b| figure(a).estimate.total_cmp(&figure(b).estimate)) else {
        return RuleResult::DoesNotApply;
    };
    let share = figure(worst);
    match position(&share, FELT) {
        Position::Above => describe(e, worst, percent(share.estimate)).applies(),
        Position::Below => RuleResult::DoesNotApply,
        Position::Straddles => RuleResult::Undetermined(format!(
            "The event loop in {} {what} between {} and {} of its time.",
            worst.name,
            percent(share.low),
            percent(share.high)
        )),
    }
}

/// A thread that runs an event loop. Shares of its time.
struct Loop {
    name: String,
    waiting: Estimate,
    asleep: Estimate,
    /// The function and line in which a callback sleeps most.
    sleeper: Option<(Place, u32)>,
}

fn loops(e: &RuleInput<'_>) -> Vec<Loop> {
    let mut threads: Vec<usize> =
        e.profile.stack_times.iter().filter(|w| callback(e.profile.stack(w.stack)).is_some()).map(|w| w.thread).collect();
    threads.dedup();
    threads.sort_unstable();
    threads.dedup();
    threads.iter().map(|thread| one(e, *thread)).collect()
}

fn one(e: &RuleInput<'_>, thread: usize) -> Loop {
    let mine = |w: &&StackTime| w.thread == thread;
    let (mut asleep, mut total) = (0.0, 0.0);
    let mut places: HashMap<(crate::profile::FunctionId, u32), f64> = HashMap::new();
    for w in e.profile.stack_times.iter().filter(mine) {
        total += w.times.total();
        let stack = e.profile.stack(w.stack);
        if callback(stack) == Some(true) {
            let sleeps = w.times.get(State::Io) + w.times.get(State::Lock) + w.times.get(State::HoldingBlocked);
            asleep += sleeps;
            *places.entry((e.profile.leaf(w.stack), stack.leaf().map_or(0, |f| f.line))).or_default() += sleeps;
        }
    }
    let waiting =
        |all: &[StateTimes]| all.get(thread).map_or(0.0, |t| if t.total() > 0.0 { t.get(State::Waiting) / t.total() } else { 0.0 });
    let most = places.into_iter().filter(|p| p.1 > 0.0).max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
    Loop {
        name: clean(&e.profile.threads[thread].info.name),
        waiting: bootstrap::interval(e.profile, waiting),
        asleep: bootstrap::share_interval(asleep, total, e.profile.window.samples as f64),
        sleeper: most.map(|((function, line), _)| {
            let place = e.function(function);
            let line = place.called_from.as_ref().map_or(line, |caller| caller.call_line);
            (place, line)
        }),
    }
}

/// Whether a stack belongs to a callback of an event loop. `Some(false)`: to the loop itself, which
/// selects or does its bookkeeping. `None`: there is no loop.
fn callback(stack: &Stack) -> Option<bool> {
    let file = |n: usize, end: &str| stack.frames.get(n).is_some_and(|f| f.function.file.ends_with(end));
    let run_once =
        stack.frames.iter().position(|f| f.function.name.ends_with("_run_once") && f.function.file.ends_with("asyncio/base_events.py"))?;
    Some(file(run_once + 1, "asyncio/events.py"))
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::{Code, Report};
    use crate::analysis::testing::{is_undetermined, Scene};
    use crate::profile::Profile;

    const SELECT: &str = "run_forever@asyncio/base_events.py>_run_once@asyncio/base_events.py>select@selectors.py";
    const CALLBACK: &str = "run_forever@asyncio/base_events.py>_run_once@asyncio/base_events.py>_run@asyncio/events.py>answer";

    fn word(state: char, stack: &'static str) -> &'static str {
        Box::leak(format!("{state} {stack}").into_boxed_str())
    }

    fn evidence_of(r: &Report, code: Code) -> Option<&str> {
        r.findings.iter().find(|f| f.code == code).map(|f| f.evidence.as_str())
    }

    /// Of each 100 ms the loop waits `waits` ms for the GIL that a worker holds, and sleeps
    /// `sleeps` ms in its answer.
    fn profile(samples: u64, waits: u64, sleeps: u64) -> Profile {
        let (select, waiting, answers, asleep) = (word('I', SELECT), word('W', CALLBACK), word('P', CALLBACK), word('I', CALLBACK));
        Scene::new(2.0).run(samples, |t| match t % 100 {
            n if n < waits => vec![waiting, "P crunch"],
            n if n < waits + sleeps => vec![asleep, "P crunch"],
            99 => vec![answers, "W crunch"],
            _ => vec![select, "P crunch"],
        })
    }

    fn service(samples: u64, waits: u64, sleeps: u64) -> Report {
        report(&profile(samples, waits, sleeps))
    }

    #[test]
    fn a_loop_behind_a_worker_is_starved_and_one_that_only_selects_is_not() {
        let starved = service(5000, 30, 0);
        let evidence = evidence_of(&starved, Code::EventLoopStarved).unwrap_or_default();
        assert!(
            evidence.starts_with("The event loop in MainThread waits for the GIL 30 % of its time")
                && evidence.contains("crunch (app.py:12)"),
            "{evidence}"
        );
        assert!(evidence_of(&starved, Code::EventLoopBlocked).is_none());
        assert!(evidence_of(&service(5000, 0, 0), Code::EventLoopStarved).is_none());
    }

    #[test]
    fn a_loop_that_sleeps_in_a_callback_blocks_itself_and_one_that_selects_does_not() {
        let blocked = service(5000, 0, 20);
        let evidence = evidence_of(&blocked, Code::EventLoopBlocked).unwrap_or_default();
        assert!(evidence.contains("sleeps inside a callback 20 % of its time, mostly in answer (app.py:12) at line 14"), "{evidence}");
        assert!(evidence_of(&blocked, Code::EventLoopStarved).is_none());
        assert!(evidence_of(&service(5000, 0, 0), Code::EventLoopBlocked).is_none());
    }

    #[test]
    fn a_share_near_the_bound_is_undetermined() {
        assert!(is_undetermined(super::starved, &profile(1500, 5, 0)));
        assert!(is_undetermined(super::blocked, &profile(1500, 0, 5)));
    }

    #[test]
    fn the_same_stacks_without_a_loop_give_no_finding() {
        let r =
            report(&Scene::new(2.0).run(5000, |t| if t % 3 == 0 { vec!["W answer", "P crunch"] } else { vec!["I answer", "P crunch"] }));
        assert!(evidence_of(&r, Code::EventLoopStarved).or(evidence_of(&r, Code::EventLoopBlocked)).is_none());
    }
}
