//! Threads that the user's code did not start: native threads of a library (BLAS, OpenMP, a
//! driver), and Python threads that never run the user's code.
//!
//! A finding, never the verdict: these threads take cores or the GIL, whatever the user's own
//! threads do.

use super::{position, Code, Diagnosis, Position, RuleInput, RuleResult, Severity};
use crate::analysis::bootstrap;
use crate::analysis::phrases::{clean, cores, threads, verb};
use crate::analysis::report::Estimate;
use crate::analysis::shares::on_cpu;
use crate::sample::StateTimes;

/// Cores that native threads use together, from which they matter.
const CPUS: f64 = 0.1;
/// Share of the time in which a library's Python threads hold the GIL, from which they matter.
const HOLDS: f64 = 0.02;
/// Most names in one sentence.
const NAMES: usize = 3;
/// Parts of paths of code that the user did not write.
const LIBRARIES: [&str; 4] = ["/site-packages/", "/dist-packages/", "/lib/python3", "<frozen "];

pub(in crate::analysis) fn native(e: &RuleInput<'_>) -> RuleResult {
    let theirs: Vec<usize> = which(e, |e, n| !e.profile.threads[n].info.python);
    evaluate(&theirs, measured(e, &theirs, on_cpu), CPUS, |cpus| {
        Diagnosis::finding(Code::ForeignThreads)
            .because(format!(
                "{} that {} no Python code ({}) {} {}: a library started {}.",
                threads(theirs.len()),
                verb(theirs.len(), "run"),
                names(e, &theirs),
                verb(theirs.len(), "use"),
                cores(cpus),
                if theirs.len() == 1 { "it" } else { "them" }
            ))
            .next_step("Count them when you choose a number of workers: a pool of BLAS or OpenMP threads in each process overloads the cores (OMP_NUM_THREADS=1 or threadpoolctl limits the pool).")
    })
}

pub(in crate::analysis) fn python(e: &RuleInput<'_>) -> RuleResult {
    let theirs: Vec<usize> = which(e, |e, n| e.profile.threads[n].info.python && !e.profile.threads[n].info.main && !runs_users_code(e, n));
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
            "Threads that a library started take between {:.2} and {:.2} of a core.",
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

/// Whether any sample shows the thread in code outside of libraries. A thread without any frame was
/// sampled too briefly and counts as the user's.
fn runs_users_code(e: &RuleInput<'_>, thread: usize) -> bool {
    let theirs = |file: &str| LIBRARIES.iter().any(|part| file.contains(part));
    let stacks = e.profile.stack_times.iter().filter(|w| w.thread == thread).map(|w| e.profile.stack(w.stack));
    let mut frames = stacks.flat_map(|stack| &stack.frames).peekable();
    frames.peek().is_none() || frames.any(|frame| !theirs(&frame.function.file))
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
        assert_eq!(finding_text(&r), ["1 thread that runs no Python code (worker-2) uses 1 core: a library started it."]);
        assert!(finding_text(&report(&Scene::new(4.0).native(2).run(3000, |_| vec!["P main", "I recv", "I -"]))).is_empty());
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
