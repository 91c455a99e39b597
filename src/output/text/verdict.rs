//! The verdict at the top of the page in words, and the findings further down.

use super::Page;
use crate::analysis::report::{Code, Confidence, Estimate, Finding, GroupGain, Report, Severity, Speedup, Verdict, WhatIf};
use crate::output::{columns, numbers, palette, sanitize};

/// The verdict's name, in capitals unless the confidence is low, and the headline without a label
/// that repeats the name, as in "Keep threads: …".
pub fn banner(verdict: &Verdict) -> (String, &str) {
    let name = verdict.code.name().replace('-', " ");
    let rest = verdict.headline.split_once(": ").filter(|(label, _)| label.eq_ignore_ascii_case(&name));
    let shown = match verdict.confidence {
        Confidence::Low => name[..1].to_uppercase() + &name[1..],
        Confidence::Medium | Confidence::High => name.to_uppercase(),
    };
    (shown, rest.map_or(verdict.headline.as_str(), |(_, rest)| rest))
}

pub(super) fn write(page: &mut Page, report: &Report) {
    statement(page, &report.verdict);
    what_if(page, report);
}

/// The name, the headline, the facts and the steps.
pub(super) fn statement(page: &mut Page, verdict: &Verdict) {
    page.blank();
    let (name, headline) = banner(verdict);
    let headline = sanitize::clean(headline);
    let painted = palette::verdict(&name, verdict.code, page.style.colour);
    if 5 + columns::width(&name) + columns::width(&headline) <= page.style.width {
        page.line(&format!("  {painted}   {headline}"));
    } else {
        page.line(&format!("  {painted}"));
        page.prose("  ", &headline);
    }
    for fact in &verdict.because {
        page.prose("  - ", fact);
    }
    for (n, step) in verdict.next_steps.iter().enumerate() {
        page.prose("  -> ", step);
        verdict.sketch_of(n).iter().for_each(|line| code(page, line));
    }
}

/// A line of code. Only a line with a long name is wider than the page.
fn code(page: &mut Page, line: &str) {
    let line = columns::fit(&format!("       {}", sanitize::clean(line)), page.style.width);
    page.line(&line);
}

fn interval(e: Estimate) -> String {
    numbers::interval(e.low, e.high)
}

/// Where the GIL saturates. The number says nothing about cores, which are another limit.
fn saturation(threads: f64) -> String {
    match numbers::count(threads) {
        n if n == "1" => "one thread is enough to saturate the GIL".into(),
        n => format!("the GIL saturates at about {n} such threads"),
    }
}

pub(super) fn confidence(verdict: &Verdict) -> String {
    let confidence = match verdict.confidence {
        Confidence::Low => "low",
        Confidence::Medium => "medium",
        Confidence::High => "high",
    };
    format!("confidence {confidence}")
}

/// The confidence in the verdict, where the GIL saturates, and all predictions side by side.
fn what_if(page: &mut Page, report: &Report) {
    let verdict = &report.verdict;
    let Speedup { processes, free_threading, release_in_native, by_group } = &verdict.speedup;
    let mut pieces = vec![confidence(verdict)];
    pieces.extend(verdict.gil_saturates_at.filter(|n| n.is_finite()).map(saturation));
    page.flow("  ", "; ", &pieces);
    let figure = |e: Option<Estimate>| numbers::or_none(e.map(|e| format!("{} ({})", numbers::factor(e.estimate), interval(e))));
    if [processes, free_threading, release_in_native].iter().all(|gain| gain.is_none()) {
        page.prose("  ", "what if: not predicted");
        what_if_answers(page, &report.what_if);
        return;
    }
    page.flow(
        "  what if: ",
        ", ",
        &[
            format!("processes {}", figure(*processes)),
            format!("free-threaded {}", figure(*free_threading)),
            format!("GIL released in C calls {}", figure(*release_in_native)),
        ],
    );
    if !by_group.is_empty() {
        page.flow("  processes, by threads: ", ", ", &by_group.iter().map(group).collect::<Vec<_>>());
    }
    what_if_answers(page, &report.what_if);
    if report.findings.iter().any(|finding| matches!(finding.code, Code::EventLoopBlocked | Code::EventLoopStarved)) {
        page.prose("  ", "What the late event loop would gain is not counted.");
    }
    // The contract asks the text to say so wherever such a gain is shown.
    if processes.is_some() && !advises_processes(verdict.code) {
        page.prose("  ", "Moving data between processes is not counted.");
    }
}

/// A group of threads, with its gain.
fn group(of: &GroupGain) -> String {
    let count = if of.threads > 1 { format!(" ({} threads)", of.threads) } else { String::new() };
    format!("{}{count} {} ({})", sanitize::clean(&of.group), numbers::factor(of.processes.estimate), interval(of.processes))
}

/// Whether a verdict's next steps are about processes. Those steps state themselves what the
/// predicted gain leaves out.
fn advises_processes(code: Code) -> bool {
    matches!(code, Code::SwitchToProcesses | Code::ReleaseTheGil)
}

/// Answers to `--what-if`, a line each.
pub(super) fn what_if_answers(page: &mut Page, answers: &[WhatIf]) {
    for answer in answers {
        let question = sanitize::clean(&answer.question);
        match answer.gain {
            Some(e) => {
                page.prose("  ", &format!("what if {question}: {} ({}) as much work as now", numbers::factor(e.estimate), interval(e)))
            }
            None => page.prose("  ", &format!("what if {question}: {}", answer.note)),
        }
    }
}

pub(super) fn write_findings(page: &mut Page, findings: &[Finding]) {
    if findings.is_empty() {
        return;
    }
    page.heading("  findings");
    for finding in findings {
        let severity = match finding.severity {
            Severity::Low => "low   ",
            Severity::Medium => "medium",
            Severity::High => "high  ",
        };
        page.prose(&format!("  {severity}  "), &format!("{}: {}", finding.code.name(), finding.evidence));
        page.prose("          -> ", &finding.advice);
    }
}

#[cfg(test)]
mod tests {
    use super::saturation;
    use crate::analysis::report::{Code, Report, Sketch};
    use crate::output::testing::measured;
    use crate::output::text::{render, Style};

    #[test]
    fn what_the_gain_leaves_out_is_stated_once() {
        let stated = |report: &Report| {
            let text = render(report, Style::PLAIN).to_lowercase();
            text.split_whitespace().collect::<Vec<_>>().join(" ").matches("moving data between processes").count()
        };
        let mut report = measured().report;
        (report.verdict.code, report.verdict.next_steps) = (Code::KeepThreads, vec!["Leave the threads as they are.".into()]);
        assert_eq!(stated(&report), 1);
        let step = "Run burn in a ProcessPoolExecutor; moving data between processes is not counted in the gain.";
        (report.verdict.code, report.verdict.next_steps) = (Code::SwitchToProcesses, vec![step.into()]);
        assert_eq!(stated(&report), 1);
    }

    #[test]
    fn a_sketch_stands_under_its_step() {
        let mut report = measured().report;
        report.verdict.next_steps = vec!["First step.".into(), "Second step.".into()];
        report.verdict.sketches = vec![Sketch { step: 1, lines: vec!["import sys".into(), "x".repeat(500)] }];
        let text = render(&report, Style::PLAIN);
        assert!(text.contains("  -> First step.\n  -> Second step.\n       import sys\n       xxx"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn the_line_names_the_threads_that_saturate_the_gil() {
        assert_eq!(saturation(766.6), "the GIL saturates at about 767 such threads");
        assert_eq!(saturation(2.2), "the GIL saturates at about 2.2 such threads");
        assert_eq!(saturation(1.0), "one thread is enough to saturate the GIL");
    }
}
