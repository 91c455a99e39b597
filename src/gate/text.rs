//! The outcome on the terminal: the verdict, a row for each check, and for each broken check the
//! culprit with its stack.

use super::outcome::{Check, Culprit, Outcome, Verdict};
use super::output::shared;
use crate::analysis::file_names::FileNames;
use crate::output::text::{Page, Style};
use crate::output::{columns, file_names, numbers, palette, sanitize};
use crate::sample::State;
use std::path::Path;

/// The most frames of a stack that are printed, from the leaf on.
const MAX_FRAMES: usize = 12;
/// The most notes that are printed.
const MAX_NOTES: usize = 10;

/// The whole page.
pub fn render(outcome: &Outcome, style: Style) -> String {
    let mut page = Page::new(style);
    header(&mut page, outcome);
    page.blank();
    page.line(&format!("  {}", paint(&outcome.title().to_uppercase(), outcome.verdict, style.colour)));
    // The headline of an outcome with an error repeats the line above.
    page.prose("  ", outcome.error.as_ref().unwrap_or(&outcome.headline));
    if !outcome.checks.is_empty() {
        page.blank();
    }
    outcome.checks.iter().for_each(|check| row(&mut page, check));
    culprits(&mut page, outcome);
    notes(&mut page, &outcome.notes);
    without_commands(&page.finish())
}

/// GitHub's runner executes a printed line as a command if it begins with `::` or contains `##[`.
/// Names from the target must not form one.
fn without_commands(page: &str) -> String {
    let line = |line: &str| {
        let text = line.trim_start();
        let begin = &line[..line.len() - text.len()];
        let text = text.strip_prefix("::").map_or(text.to_string(), |rest| format!(": :{rest}"));
        format!("{begin}{}\n", text.replace("##[", "# #["))
    };
    page.lines().map(line).collect()
}

fn header(page: &mut Page, outcome: &Outcome) {
    let mut pieces = vec![sanitize::clean(&outcome.program)];
    if let Some(target) = &outcome.target {
        pieces.push(format!("python {}", columns::fit(&sanitize::clean(&target.python), 16)));
        pieces.push(numbers::counted(target.cpus, "core"));
    }
    let seconds: f64 = outcome.runs.iter().map(|run| run.seconds).sum();
    let samples = outcome.runs.iter().fold(0u64, |sum, run| sum.saturating_add(run.samples));
    match outcome.runs.len() {
        0 => {}
        1 => pieces.push(format!("1 run, {}, {} samples", numbers::seconds(seconds), numbers::thousands(samples))),
        n => pieces.push(format!("{n} runs, {} in all, {} samples", numbers::seconds(seconds), numbers::thousands(samples))),
    }
    page.flow("gilprof gate  ", "  ", &pieces);
}

fn paint(text: &str, verdict: Verdict, colour: bool) -> String {
    let state = match verdict {
        Verdict::Pass => State::Native,
        Verdict::Warn | Verdict::Inconclusive => State::HoldingPython,
        Verdict::Fail => State::HoldingBlocked,
    };
    palette::paint(text, state, colour)
}

/// The expression, the figure and the baseline's figure; for a check that does not pass, the
/// reason.
fn row(page: &mut Page, check: &Check) {
    let (wide, colour) = (page.style.width, page.style.colour);
    let mark = paint(&check.verdict.symbol().to_string(), check.verdict, colour);
    let mut figures = check.measured_text.clone();
    if check.baseline.is_some() {
        figures += &format!("   baseline {}", check.baseline_text);
    }
    if let Some(pid) = check.process {
        figures += &format!("   pid {pid}");
    }
    let (expression, figures) = (sanitize::clean(&check.expression), sanitize::clean(&figures));
    let room = wide.saturating_sub(4);
    if columns::width(&expression) + columns::width(&figures) + 2 <= room {
        let gap =
            (40usize.saturating_sub(columns::width(&expression))).max(2).min(room - columns::width(&expression) - columns::width(&figures));
        page.line(&format!("  {mark} {expression}{}{figures}", " ".repeat(gap)));
    } else {
        page.line(&format!("  {mark} {}", columns::fit(&expression, room)));
        page.prose("      ", &figures);
    }
    if check.verdict != Verdict::Pass {
        page.prose("      ", &check.why);
    }
}

/// Each culprit once, with all the checks that name it.
fn culprits(page: &mut Page, outcome: &Outcome) {
    let mut shown: Vec<&Culprit> = Vec::new();
    let checks = &outcome.checks;
    for culprit in checks.iter().filter_map(named_culprit) {
        if shown.iter().any(|known| is_same(known, culprit)) {
            continue;
        }
        shown.push(culprit);
        let of: Vec<String> = checks
            .iter()
            .filter(|check| named_culprit(check).is_some_and(|other| is_same(other, culprit)))
            .map(|check| format!("{} {}", check.verdict.symbol(), sanitize::clean(outcome.name(check))))
            .collect();
        page.blank();
        page.flow("  ", "  ", &of);
        culprit_lines(page, culprit);
    }
}

/// The culprit of a check that does not pass.
fn named_culprit(check: &Check) -> Option<&Culprit> {
    check.culprit.as_ref().filter(|_| check.verdict != Verdict::Pass)
}

fn is_same(a: &Culprit, b: &Culprit) -> bool {
    (&a.name, &a.file, a.first_line, &a.what) == (&b.name, &b.file, b.first_line, &b.what)
}

fn culprit_lines(page: &mut Page, culprit: &Culprit) {
    // Paths are printed as the target has them: the page has no working directory.
    page.prose("    ", &shared::culprit_name(culprit, Path::new("")));
    let thread = culprit.thread.as_ref().map_or(String::new(), |thread| format!("in thread {thread}: "));
    page.prose("    ", &format!("{thread}{}", culprit.what));
    let skipped = culprit.stack.len().saturating_sub(MAX_FRAMES);
    if skipped > 0 {
        page.line(&format!("      … {skipped} outer frames left out"));
    }
    let names = FileNames::new(culprit.stack.iter().map(|frame| frame.file.as_str()));
    for frame in &culprit.stack[skipped..] {
        let (name, place) = (sanitize::clean(&frame.name), file_names::place(&names, &frame.file, frame.line));
        let place = columns::fit(&place, page.style.width - 41);
        let name = columns::left(&name, columns::width(&name).max(34).min(page.style.width - 7 - columns::width(&place)));
        page.line(&format!("      {name} {place}"));
    }
}

fn notes(page: &mut Page, notes: &[String]) {
    if !notes.is_empty() {
        page.blank();
    }
    notes.iter().take(MAX_NOTES).for_each(|note| page.prose("  note: ", note));
    if notes.len() > MAX_NOTES {
        page.line(&format!("  and {} more", notes.len() - MAX_NOTES));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_the_function_within_its_width() {
        let text = render(&super::super::testing::outcome(), Style::PLAIN);
        for part in [
            "FAIL",
            "✗ waiting <= 20%",
            "✓ gil.busy <= 90%",
            "~ wait_ms.p99",
            "baseline 33.3 %",
            "\n    Parser.parse<T> (",
            "in thread worker-0",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\x1b') && text.lines().all(|line| columns::width(line) <= 80), "{text}");
    }

    #[test]
    fn a_name_cannot_form_a_command_for_githubs_runner() {
        let mut outcome = super::super::testing::outcome();
        for culprit in outcome.checks.iter_mut().filter_map(|check| check.culprit.as_mut()) {
            culprit.stack.iter_mut().for_each(|frame| frame.name = "::error::##[group]".into());
            culprit.thread = Some("a ".repeat(40) + "::warning::##[endgroup]");
        }
        let text = render(&outcome, Style::PLAIN);
        assert!(text.contains(": :error::# #[group]"), "{text}");
        assert!(text.lines().all(|line| !line.trim_start().starts_with("::") && !line.contains("##[")), "{text}");
    }

    #[test]
    fn an_outcome_without_checks_says_why_once() {
        let outcome = super::super::evaluate::not_evaluated("app.py", "the command ended with exit code 7".into(), 7);
        let text = render(&outcome, Style::PLAIN);
        assert!(text.contains("NOT CHECKED\n  the command ended with exit code 7\n"), "{text}");
        assert_eq!(text.to_lowercase().matches("checked").count(), 1, "{text}");
    }
}
