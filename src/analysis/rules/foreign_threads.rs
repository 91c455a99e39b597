//! Threads that the user's code did not start: threads without Python (of BLAS, OpenMP, a driver,
//! or the program around Python), those of them that call back into Python, and Python threads that
//! never run the user's code.
//!
//! A finding, never the verdict: these threads take cores or the GIL, whatever the user's own
//! threads do.

use super::{position, Code, Diagnosis, Position, RuleInput, RuleResult, Severity};
use crate::analysis::bootstrap;
use crate::analysis::own_code::{origin, Origin};
use crate::analysis::phrases::{clean, cores, percent, threads, verb};
use crate::analysis::report::Estimate;
use crate::analysis::shares::on_cpu;
use crate::sample::{StackStatus, State, StateTimes};

/// Cores that native threads use together, from which they matter.
const CPUS: f64 = 0.1;
/// Share of the time in which a library's Python threads hold the GIL, from which they matter.
const HOLDS: f64 = 0.02;
/// The same for the time in which native threads that call back hold the GIL or wait for it.
const HOLDS_OR_WAITS: f64 = 0.05;
/// Share of its time without any Python frame, from which a thread calls back. A thread that Python
/// started has none only while it starts and ends.
const OUTSIDE_PYTHON: f64 = 0.05;
/// Share of the window for which such a thread must have been there: in a short life, the wait for
/// the first GIL may be that share.
const STAYS: f64 = 0.5;
/// Most names in one sentence.
const NAMES: usize = 3;

/// Cores that threads without Python use.
pub(super) fn cores_of_native(e: &RuleInput<'_>) -> f64 {
    let theirs = which(e, |e, n| !e.profile.threads[n].info.python);
    measured(e, &theirs, on_cpu).estimate
}

pub(in crate::analysis) fn native(e: &RuleInput<'_>) -> RuleResult {
    let theirs: Vec<usize> = which(e, |e, n| !e.profile.threads[n].info.python);
    evaluate(&theirs, measured(e, &theirs, on_cpu), CPUS, |cpus| {
        Diagnosis::finding(Code::ForeignThreads)
            .because(format!(
                "{} that {} no Python code ({}) {} {}; Python did not start {}.",
                threads(theirs.len()),
                verb(theirs.len(), "run"),
                names(e, &theirs),
                verb(theirs.len(), "use"),
                cores(cpus),
                if theirs.len() == 1 { "it" } else { "them" }
            ))
            .next_step("Count them when you choose a number of workers. If they are a pool of BLAS or OpenMP, one in each process overloads the cores (OMP_NUM_THREADS=1 or threadpoolctl limits the pool).")
    })
}

pub(in crate::analysis) fn calling_back(e: &RuleInput<'_>) -> RuleResult {
    let theirs: Vec<usize> = which(e, |e, n| is_pythons(e, n) && calls_back(e, n));
    let holding = measured(e, &theirs, StateTimes::holding).estimate;
    evaluate(&theirs, measured(e, &theirs, |t| t.holding() + t.get(State::Waiting)), HOLDS_OR_WAITS, |both| {
        let count = theirs.len();
        let waits = (both - holding).max(0.0) / count as f64;
        Diagnosis::finding(Code::ForeignThreads)
            .because(format!(
                "{} that Python did not start ({}) {} back into Python: the calls hold the GIL {} of the time, and each such thread waits for it {}.",
                threads(count),
                names(e, &theirs),
                verb(count, "call"),
                percent(holding),
                percent(waits),
            ))
            .next_step("Each call needs the GIL: let fewer such threads enter Python, or handle more in one call.")
    })
}

pub(in crate::analysis) fn python(e: &RuleInput<'_>) -> RuleResult {
    let theirs: Vec<usize> = which(e, |e, n| is_pythons(e, n) && !runs_users_code(e, n) && !calls_back(e, n));
    evaluate(&theirs, measured(e, &theirs, StateTimes::holding), HOLDS, |held| {
        Diagnosis::finding(Code::ForeignThreads)
            .because(format!(
                "{} that only {} a library's code ({}) {} the GIL {:.0} % of the time.",
                threads(theirs.len()),
                verb(theirs.len(), "run"),
                names(e, &theirs),
                verb(theirs.len(), "hold"),
                100.0 * held
            ))
            .next_step("Check whether that library's background thread can be switched off or woken less often.")
    })
}

fn evaluate(theirs: &[usize], figure: Estimate, bound: f64, describe: impl FnOnce(f64) -> Diagnosis) -> RuleResult {
    match position(&figure, bound) {
        _ if theirs.is_empty() => RuleResult::DoesNotApply,
        Position::Below => RuleResult::DoesNotApply,
        Position::Straddles => RuleResult::Undetermined(format!(
            "Threads that the user's code did not start take between {:.2} and {:.2} of a core.",
            figure.low, figure.high
        )),
        Position::Above => describe(figure.estimate).with_severity(Severity::Low).applies(),
    }
}

fn which(e: &RuleInput<'_>, is: impl Fn(&RuleInput<'_>, usize) -> bool) -> Vec<usize> {
    (0..e.profile.threads.len()).filter(|n| e.profile.threads[*n].times.total() > 0.0 && is(e, *n)).collect()
}

fn measured(e: &RuleInput<'_>, theirs: &[usize], figure: impl Fn(&StateTimes) -> f64) -> Estimate {
    bootstrap::interval(e.profile, |all| theirs.iter().filter_map(|n| all.get(*n)).map(&figure).sum())
}

/// Whether the thread has run Python code and is not the main thread.
fn is_pythons(e: &RuleInput<'_>, thread: usize) -> bool {
    e.profile.threads[thread].info.python && !e.profile.threads[thread].info.main
}

/// Whether the thread is a native one that calls Python code now and then: samples show it without
/// any Python frame and with frames that no `threading.Thread` started.
fn calls_back(e: &RuleInput<'_>, thread: usize) -> bool {
    let (mut outside, mut all, mut inside) = (0.0, 0.0, false);
    for row in e.profile.stack_times.iter().filter(|row| row.thread == thread) {
        let (stack, time) = (e.profile.stack(row.stack), row.times.total());
        all += time;
        match stack.frames.first() {
            // From 3.11 with the name of its class.
            Some(root) if root.function.name.rsplit('.').next() == Some("_bootstrap") => return false,
            None if stack.status == StackStatus::Complete => outside += time,
            root => inside |= root.is_some(),
        }
    }
    inside && outside > OUTSIDE_PYTHON * all && all > STAYS * 1e9 * e.profile.seconds()
}

/// Whether any sample shows the thread in code outside of libraries. A thread without any frame was
/// sampled too briefly and counts as the user's.
fn runs_users_code(e: &RuleInput<'_>, thread: usize) -> bool {
    let stacks = e.profile.stack_times.iter().filter(|w| w.thread == thread).map(|w| e.profile.stack(w.stack));
    let mut frames = stacks.flat_map(|stack| &stack.frames).peekable();
    frames.peek().is_none() || frames.any(|frame| origin(&frame.function.file) == Origin::Own)
}

fn names(e: &RuleInput<'_>, theirs: &[usize]) -> String {
    let mut all: Vec<String> = theirs.iter().map(|n| clean(&e.profile.threads[*n].info.name)).collect();
    all.sort();
    all.dedup();
    let more = if all.len() > NAMES { ", …" } else { "" };
    format!("{}{more}", all.iter().take(NAMES).cloned().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::{Code, Report};
    use crate::analysis::testing::{is_undetermined, Scene};

    fn finding_text(r: &Report) -> Vec<&str> {
        r.findings.iter().filter(|f| f.code == Code::ForeignThreads).map(|f| f.evidence.as_str()).collect()
    }

    #[test]
    fn a_librarys_native_threads_are_named_and_idle_ones_are_not() {
        let r = report(&Scene::new(4.0).native(2).run(3000, |_| vec!["P main", "I recv", "N -"]));
        assert_eq!(finding_text(&r), ["1 thread that runs no Python code (worker-2) uses 1 core; Python did not start it."]);
        assert!(finding_text(&report(&Scene::new(4.0).native(2).run(3000, |_| vec!["P main", "I recv", "I -"]))).is_empty());
    }

    #[test]
    fn native_threads_that_call_back_are_named_and_threads_of_python_are_not() {
        let calls = |t: u64| match t % 4 {
            0 => vec!["I main", "P on_event", "W -"],
            1 => vec!["I main", "W -", "P on_event"],
            _ => vec!["I main", "N -", "N -"],
        };
        let r = report(&Scene::new(4.0).without_main().run(3000, calls));
        let text = "2 threads that Python did not start (worker-1, worker-2) call back into Python: the calls hold the GIL 50 % of the \
                    time, and each such thread waits for it 25 %.";
        assert_eq!(finding_text(&r), [text]);
        let own = |t: u64| match t % 4 {
            0 => vec!["I main", "W -"],
            _ => vec!["I main", "P Thread._bootstrap@threading.py>work"],
        };
        assert!(finding_text(&report(&Scene::new(4.0).without_main().run(3000, own))).is_empty());
        let new = |t: u64| vec!["I main", if t < 10 { "W -" } else { "P work" }];
        assert!(finding_text(&report(&Scene::new(4.0).without_main().run(3000, new))).is_empty());
    }

    #[test]
    fn a_librarys_python_threads_are_named_and_the_users_are_not() {
        let monitor = |t: u64| {
            if t.is_multiple_of(10) {
                vec!["I main", "P poll@/site-packages/tqdm/_monitor.py"]
            } else {
                vec!["P main", "I wait@/lib/python3.11/threading.py"]
            }
        };
        let r = report(&Scene::new(4.0).without_main().run(3000, monitor));
        assert!(
            finding_text(&r).iter().any(|s| s.starts_with("1 thread that only runs a library's code (worker-1) holds the GIL 10 %")),
            "{:?}",
            r.findings
        );
        let own =
            |t: u64| if t.is_multiple_of(10) { vec!["I main", "P poll"] } else { vec!["P main", "I wait@/lib/python3.11/threading.py"] };
        assert!(finding_text(&report(&Scene::new(4.0).without_main().run(3000, own))).is_empty());
    }

    #[test]
    fn use_near_the_bound_is_undetermined() {
        let now_and_then = |t: u64| vec!["P main", "I recv", if (t / 50).is_multiple_of(10) { "N -" } else { "I -" }];
        assert!(is_undetermined(super::native, &Scene::new(4.0).native(2).run(1500, now_and_then)));
    }
}
