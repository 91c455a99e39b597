//! Python processes below the measured one used CPU time: a pool's workers, a server's workers.
//!
//! A finding, never the verdict: the verdict is about the threads of the measured process.

use super::{Code, Diagnosis, RuleInput, RuleResult, Severity};
use crate::analysis::phrases::cores;

/// CPU time of the child processes, as a part of the measured process's own, from which the report
/// misses a part of the program that matters.
const MATTERS: f64 = 0.25;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let Some(children) = e.children.as_ref().filter(|children| children.python_works()) else { return RuleResult::DoesNotApply };
    let severity = match children.python_cores {
        python if python > children.own_cores => Severity::High,
        python if python > MATTERS * children.own_cores => Severity::Medium,
        _ => Severity::Low,
    };
    Diagnosis::finding(Code::WorkInChildren)
        .with_severity(severity)
        .because(format!("{}, this process itself {}: {}.", children.python_summary(), cores(children.own_cores), children.python_names()))
        .next_step(format!("They are not part of this report. Measure them too: {}", children.attach_command))
        .applies()
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::{Code, Confidence, Report};
    use crate::analysis::testing::{children, Scene};
    use crate::sample::ProcessKind::{Other, Python, Unknown};

    fn finding_text(r: &Report) -> String {
        r.findings.iter().filter(|f| f.code == Code::WorkInChildren).map(|f| format!("{} {}", f.evidence, f.advice)).collect()
    }

    fn idle(processes: &[(i32, crate::sample::ProcessKind, u64, bool)]) -> Report {
        report(
            &Scene::new(2.0).with(|_, w| w.descendants = Some(children(10, processes))).run(2000, |_| vec!["I accept", "L get@queue.py"]),
        )
    }

    #[test]
    fn python_children_that_work_are_named_with_the_command() {
        let r = idle(&[(7, Python, 1900, true), (8, Python, 1800, false), (9, Other, 50, false)]);
        assert_eq!(
            finding_text(&r),
            "2 Python child processes used 1.9 cores, this process itself 0 cores: 7 (python worker.py, ended) 0.9 cores, \
             8 (python worker.py) 0.9 cores. They are not part of this report. Measure them too: gilprof attach --subprocesses --pid 0"
        );
        assert_eq!((r.verdict.code, r.verdict.confidence), (Code::Inconclusive, Confidence::Low));
        assert_eq!(r.verdict.next_steps, ["Measure the processes that do the work too: gilprof attach --subprocesses --pid 0"]);
        let figures = r.children.unwrap();
        assert!((figures.python_cores - 1.85).abs() < 1e-3 && figures.processes.len() == 3, "{figures:?}");
    }

    #[test]
    fn other_children_and_idle_ones_are_no_finding() {
        let r = idle(&[(9, Other, 1900, false)]);
        assert_eq!((finding_text(&r).as_str(), r.verdict.code), ("", Code::Idle));
        assert!(r.verdict.headline.contains("not Python") && !r.verdict.next_steps[0].contains("under load"), "{:?}", r.verdict);
        let r = idle(&[(9, Unknown, 1900, true)]);
        assert!(r.verdict.headline.contains("ended too soon"), "{:?}", r.verdict);
        assert!(r.warnings.iter().any(|warning| warning.contains("whether they were Python")), "{:?}", r.warnings);
        let r = idle(&[(7, Python, 10, false)]);
        assert_eq!((finding_text(&r).as_str(), r.verdict.next_steps[0].contains("under load")), ("", true));
        assert_eq!(r.verdict.confidence, Confidence::High);
        assert!(idle(&[]).children.is_none());
    }

    #[test]
    fn many_children_are_counted_and_four_are_named() {
        let all: Vec<(i32, crate::sample::ProcessKind, u64, bool)> = (1..=9).map(|pid| (pid, Python, 100, true)).collect();
        let text = finding_text(&idle(&all));
        assert!(text.starts_with("9 Python child processes used 0.5 cores") && text.contains("and 5 more"), "{text}");
        assert!(text.ends_with("Measure them too: gilprof attach --subprocesses --pid 0"), "{text}");
    }

    #[test]
    fn a_window_that_is_too_short_keeps_the_finding() {
        let burn = |_| vec!["P burn", "W burn"];
        let r = report(&Scene::new(2.0).with(|_, w| w.descendants = Some(children(10, &[(7, Python, 80, false)]))).run(90, burn));
        assert_eq!(r.verdict.code, Code::Inconclusive);
        assert!(finding_text(&r).contains("gilprof attach --subprocesses"), "{:?}", r.findings);
    }
}
