//! A late event loop (asyncio): other threads hold the GIL, or a callback sleeps where it should
//! await, or computes for long.
//!
//! A finding, never the verdict, which says it too where it has nothing else to mend. The stack
//! identifies the thread of a loop: asyncio's own loop has the frame `_run_once` of
//! asyncio/base_events.py. A compiled loop, such as uvloop, has no frames of its own: the function
//! that runs the loop is the innermost frame while the loop is idle, and callbacks are directly
//! above it. A program that calls `run_forever()` of a compiled loop in a function of its own is
//! not recognised. Time below a selector is the loop's idle time; everything else belongs to a
//! callback.

use super::{position, Code, Diagnosis, Position, RuleInput, RuleResult, Severity};
use crate::analysis::bootstrap;
use crate::analysis::phrases::{self, clean, percent};
use crate::analysis::report::{Estimate, Place};
use crate::analysis::rule_input::with_caller;
use crate::analysis::shares::on_cpu;
use crate::profile::StackTime;
use crate::sample::{Frame, Stack, State, StateTimes};
use std::collections::HashMap;

/// Functions that run an event loop until it ends: end of the file, name without its class.
const RUNNERS: [(&str, &str); 5] = [
    ("asyncio/runners.py", "run"),
    ("uvloop/__init__.py", "run"),
    ("uvicorn/_compat.py", "asyncio_run"),
    ("aiohttp/web.py", "run_app"),
    ("tornado/platform/asyncio.py", "start"),
];

/// Share of the loop's time spent waiting for the GIL, or asleep in a callback, from which every
/// task is noticeably late.
const FELT: f64 = 0.05;
/// Share of the loop's time in which callbacks compute, and milliseconds for which it holds the GIL
/// at a time, from which every task may be noticeably late.
const COMPUTING: f64 = 0.2;
const LONG_MS: f64 = 20.0;
/// Share of that computing from which one function does it. Many short callbacks are in many.
const ONE: f64 = 0.5;

pub(in crate::analysis) fn starved(e: &RuleInput<'_>) -> RuleResult {
    evaluate(
        e,
        "waits for the GIL",
        |l| l.waiting,
        |e, l, share| {
            let hog = l
                .behind
                .as_ref()
                .map_or_else(|| e.culprit(), |holder| e.place_and_caller_clause(&with_caller(e.functions, holder.clone())));
            let or = if e.holder_mix.obeys_drop_requests() { ", or lower sys.setswitchinterval()" } else { "" };
            Diagnosis::finding(Code::EventLoopStarved)
                .with_severity(Severity::Medium)
                .because(format!(
                    "The event loop in {} waits for the GIL {share} of its time, mostly while {hog} holds it; this delays every task on the loop.",
                    l.name
                ))
                .next_step(format!(
                    "Run {hog} in a concurrent.futures.ProcessPoolExecutor (loop.run_in_executor) instead of in a thread{or}."
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
            let at = l.sleeper.as_ref().map(|(p, line)| format!("{} at line {line}", e.place_and_caller(p)));
            let (mostly, there) = at.map_or((String::new(), "there".to_owned()), |at| (format!(", mostly in {at}"), format!("in {at}")));
            Diagnosis::finding(Code::EventLoopBlocked)
                .with_severity(Severity::Medium)
                .because(format!(
                    "The event loop in {} sleeps inside a callback {share} of its time{mostly}: no other task of the loop runs meanwhile.",
                    l.name
                ))
                .next_step(format!("Use await {there} (asyncio.sleep, an asynchronous client), or run the call in asyncio.to_thread()."))
        },
    )
}

/// A callback that computes much. For how long at a time is not known: the loop may have gone back
/// to its selector between two samples.
pub(in crate::analysis) fn computing(e: &RuleInput<'_>) -> RuleResult {
    evaluate(
        e,
        "computes in callbacks",
        |l| l.computing,
        |e, l, share| {
            let at = l.computer.as_ref().map_or(String::new(), |p| format!(", mostly in {}", e.place_and_caller(p)));
            let own = l
                .computer
                .as_ref()
                .map_or_else(|| "the function".to_owned(), |p| e.place(&phrases::own_caller(p).unwrap_or_else(|| p.clone())));
            Diagnosis::finding(Code::EventLoopBlocked)
                .with_severity(Severity::Medium)
                .because(format!(
                    "The event loop in {} computes in callbacks {share} of its time{at}: no other task of the loop runs meanwhile.",
                    l.name
                ))
                .next_step(format!(
                    "If a call of {own} takes long, run it in a process (loop.run_in_executor with a concurrent.futures.ProcessPoolExecutor), or let it await asyncio.sleep(0) now and then."
                ))
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
    /// Zero unless one function does most of it, and the loop holds the GIL for long at a time.
    computing: Estimate,
    /// The function that held the GIL during most of the loop's waiting.
    behind: Option<Place>,
    /// The function and line in which a callback sleeps most.
    sleeper: Option<(Place, u32)>,
    /// The function in which a callback computes most.
    computer: Option<Place>,
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
    let (mut computes, mut computers) = (0.0, HashMap::new());
    for w in e.profile.stack_times.iter().filter(mine) {
        total += w.times.total();
        let stack = e.profile.stack(w.stack);
        if callback(stack) == Some(true) {
            let sleeps = w.times.get(State::Io) + w.times.get(State::Lock) + w.times.get(State::HoldingBlocked);
            asleep += sleeps;
            let runs = on_cpu(&w.times);
            computes += runs;
            *computers.entry(e.profile.leaf(w.stack)).or_default() += runs;
            *places.entry((e.profile.leaf(w.stack), stack.leaf().map_or(0, |f| f.line))).or_default() += sleeps;
        }
    }
    let waiting =
        |all: &[StateTimes]| all.get(thread).map_or(0.0, |t| if t.total() > 0.0 { t.get(State::Waiting) / t.total() } else { 0.0 });
    let tid = e.profile.threads[thread].info.tid.0;
    let hold_ms = e.threads.iter().find(|t| t.tid == tid).and_then(|t| t.hold_ms).map_or(0.0, |ms| ms.p99);
    let by_one = computers.values().copied().fold(0.0, f64::max) >= ONE * computes;
    let long = hold_ms >= LONG_MS && by_one && computes >= COMPUTING * total;
    Loop {
        name: clean(&e.profile.threads[thread].info.name),
        waiting: bootstrap::interval(e.profile, waiting),
        asleep: asleep_share(e, thread, (asleep, total)),
        computing: bootstrap::share_interval(if long { computes } else { 0.0 }, total, e.profile.window.counts.samples as f64),
        computer: most(computers).map(|function| e.function(function)),
        behind: behind(e, thread),
        sleeper: most(places).map(|(function, line)| {
            let place = e.function(function);
            let line = place.called_from.as_ref().map_or(line, |caller| caller.call_line);
            (place, line)
        }),
    }
}

/// The key with the most time.
fn most<K: Ord>(times: HashMap<K, f64>) -> Option<K> {
    times.into_iter().filter(|entry| entry.1 > 0.0).max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0))).map(|entry| entry.0)
}

/// Share of a thread's time asleep in callbacks. Successive samples of a sleep are not independent,
/// so blocks are drawn; `whole`, both times, serves where blocks have too many sleeps.
fn asleep_share(e: &RuleInput<'_>, thread: usize, whole: (f64, f64)) -> Estimate {
    if e.profile.blocks.iter().any(|block| block.sleeps.is_none()) {
        return bootstrap::share_interval(whole.0, whole.1, e.profile.window.counts.samples as f64);
    }
    bootstrap::block_share(e.profile, |block| {
        let mine =
            block.sleeps.iter().flatten().filter(|(owner, stack, _)| *owner == thread && callback(e.profile.stack(*stack)) == Some(true));
        let total = block.threads.iter().find(|(owner, _)| *owner == thread).map_or(0.0, |(_, times)| times.total());
        (mine.map(|(.., nanos)| nanos).sum(), total)
    })
}

/// The function that held the GIL during most of a thread's waiting.
fn behind(e: &RuleInput<'_>, thread: usize) -> Option<Place> {
    let mut holders: HashMap<(&str, &str, u32), f64> = HashMap::new();
    for (waiter, _, holder, nanos) in e.profile.waited_on() {
        let Some(leaf) = holder.and_then(Stack::leaf).filter(|_| std::ptr::eq(waiter, &e.profile.threads[thread])) else { continue };
        let function = &leaf.function;
        *holders.entry((function.name.as_str(), function.file.as_str(), function.first_line)).or_default() += nanos;
    }
    let most = holders.into_iter().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
    most.map(|((name, file, line), _)| Place { name: name.into(), file: file.into(), line, called_from: None })
}

/// Whether a stack belongs to a callback of an event loop. `Some(false)`: to the loop itself, which
/// selects or does its bookkeeping. `None`: there is no loop.
fn callback(stack: &Stack) -> Option<bool> {
    let frames = &stack.frames;
    let is_in = |frame: &Frame, end: &str| frame.function.file.ends_with(end);
    let run_once = frames.iter().position(|f| f.function.name.ends_with("_run_once") && is_in(f, "asyncio/base_events.py"));
    if let Some(run_once) = run_once {
        return Some(frames.get(run_once + 1).is_some_and(|f| is_in(f, "asyncio/events.py")));
    }
    let runs = |f: &Frame| {
        let name = f.function.name.rsplit('.').next().unwrap_or_default();
        RUNNERS.iter().any(|(file, function)| is_in(f, file) && name == *function)
    };
    let runner = frames.iter().rposition(runs)?;
    // asyncio's own loop and its runner have frames there when they start and end.
    Some(frames.get(runner + 1).is_some_and(|f| !is_in(f, "asyncio/base_events.py") && !is_in(f, "asyncio/runners.py")))
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

    #[test]
    fn a_callback_that_computes_for_long_blocks_the_loop_too() {
        let (select, answers) = (word('I', SELECT), word('P', CALLBACK));
        let computing =
            |ms: u64| report(&Scene::new(2.0).switching(0).run(3000, move |t| vec![if t % 100 < ms { answers } else { select }]));
        let long = computing(40);
        let evidence = evidence_of(&long, Code::EventLoopBlocked).unwrap();
        assert!(
            evidence.starts_with("The event loop in MainThread computes in callbacks 40 % of its time, mostly in answer"),
            "{evidence}"
        );
        assert!(long.verdict.headline.ends_with("; but an event loop is late, which that does not count."), "{}", long.verdict.headline);
        assert!(
            long.verdict.next_steps[0].starts_with("If a call of answer (app.py:12) takes long, run it in a process"),
            "{:?}",
            long.verdict.next_steps
        );
        // A window with too few samples is refused, whatever else it shows.
        let few = Scene::new(2.0).switching(0).with(|_, window| window.counts.missed = 100_000);
        let refused = report(&few.run(3000, move |t| vec![if t % 100 < 40 { answers } else { select }]));
        assert_eq!(refused.verdict.code, Code::Inconclusive);
        assert!(!format!("{:?} {:?}", refused.verdict, refused.findings).contains("event loop"), "{:?}", refused.verdict);
        // Many callbacks one after the other, and a busier thread with long holds.
        let each: Vec<&'static str> = (0..4).map(|n| word('P', Box::leak(format!("{CALLBACK}>step_{n}").into_boxed_str()))).collect();
        let many = report(
            &Scene::new(2.0).switching(0).run(3000, move |t| vec![if t % 100 < 40 { each[t as usize % 4] } else { select }, "N zip"]),
        );
        assert_eq!(evidence_of(&many, Code::EventLoopBlocked), None);
        assert_eq!(evidence_of(&computing(5), Code::EventLoopBlocked), None);
    }

    /// The same with uvloop, which has no frames of its own.
    fn compiled(waits: u64, sleeps: u64) -> Report {
        const RUN: &str = "run@uvloop/__init__.py>run@asyncio/runners.py>Runner.run@asyncio/runners.py";
        let above = |state: char| word(state, Box::leak(format!("{RUN}>answer").into_boxed_str()));
        let (idle, waiting, answers, asleep) = (word('I', RUN), above('W'), above('P'), above('I'));
        report(&Scene::new(2.0).run(5000, move |t| match t % 100 {
            n if n < waits => vec![waiting, "P crunch"],
            n if n < waits + sleeps => vec![asleep, "P crunch"],
            99 => vec![answers, "W crunch"],
            _ => vec![idle, "P crunch"],
        }))
    }

    #[test]
    fn a_compiled_loop_gets_the_same_findings() {
        let starved = compiled(30, 0);
        assert!(evidence_of(&starved, Code::EventLoopStarved).unwrap_or_default().contains("30 % of its time"), "{:?}", starved.findings);
        assert!(evidence_of(&starved, Code::EventLoopBlocked).is_none());
        let blocked = compiled(0, 20);
        let evidence = evidence_of(&blocked, Code::EventLoopBlocked).unwrap_or_default();
        assert!(evidence.contains("sleeps inside a callback 20 % of its time, mostly in answer (app.py:12)"), "{evidence}");
        assert!(compiled(0, 0).findings.is_empty());
    }

    #[test]
    fn the_loop_is_behind_what_it_waits_for_and_not_what_most_threads_wait_for() {
        let (select, waiting) = (word('I', SELECT), word('W', CALLBACK));
        let r = report(&Scene::new(2.0).run(5000, |t| match t % 10 {
            0..2 => vec![waiting, "P parse", "I recv", "I recv"],
            _ => vec![select, "P crunch", "W crunch", "W crunch"],
        }));
        let evidence = evidence_of(&r, Code::EventLoopStarved).unwrap_or_default();
        assert!(evidence.contains("mostly while parse (app.py:12) holds it"), "{evidence}");
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
    fn one_long_sleep_is_less_certain_than_many_short_ones() {
        let (select, asleep) = (word('I', SELECT), word('I', CALLBACK));
        // A tenth of the window, in one sleep or in fifty.
        let sleeps =
            |period: u64| Scene::new(2.0).run(5000, move |t| vec![if t % period < period / 10 { asleep } else { select }, "P crunch"]);
        assert!(is_undetermined(super::blocked, &sleeps(5000)));
        assert!(!is_undetermined(super::blocked, &sleeps(100)));
    }

    #[test]
    fn the_same_stacks_without_a_loop_give_no_finding() {
        let r =
            report(&Scene::new(2.0).run(5000, |t| if t % 3 == 0 { vec!["W answer", "P crunch"] } else { vec!["I answer", "P crunch"] }));
        assert!(evidence_of(&r, Code::EventLoopStarved).or(evidence_of(&r, Code::EventLoopBlocked)).is_none());
    }
}
