//! A summary in Markdown, for the page of a job (`GITHUB_STEP_SUMMARY`) or a comment.
//!
//! Names come from the target and must stay text: each ASCII character with a meaning in Markdown
//! or HTML is written as a numeric reference. By CommonMark a reference is never structure, not
//! even in a table cell, where a backslash may have no effect.

use super::shared;
use crate::gate::outcome::{Check, Outcome, Verdict};
use crate::output::numbers;
use crate::output::sanitize::clean;
use std::path::Path;

/// The whole summary. Paths are relative to `base`; `flamegraph` is the path of the flame graph if
/// one was written.
pub fn render(outcome: &Outcome, base: &Path, flamegraph: Option<&Path>) -> String {
    let mut out = format!("## {} gilprof gate: {}\n\n{}\n\n", outcome.verdict.symbol(), outcome.title(), text(&outcome.headline));
    if !outcome.checks.is_empty() {
        out.push_str(&table(outcome));
    }
    for check in shared::unpassed(outcome).into_iter().filter(|check| check.verdict != Verdict::Warn || check.culprit.is_some()) {
        out.push_str(&section(check, base));
    }
    out.push_str(&measured(outcome));
    if let Some(baseline) = &outcome.baseline {
        let runs = if baseline.runs == 1 { "run" } else { "runs" };
        out.push_str(&format!("- baseline {} ({} {runs}, Python {})\n", code(&baseline.path), baseline.runs, text(&baseline.python)));
    }
    if let Some(path) = flamegraph {
        let path = path.strip_prefix(base).unwrap_or(path);
        out.push_str(&format!("- flame graph: {}\n", code(&path.to_string_lossy())));
    }
    outcome.notes.iter().for_each(|note| out.push_str(&format!("- {}\n", text(note))));
    out
}

fn table(outcome: &Outcome) -> String {
    let rows = outcome.checks.iter().map(|check| {
        let cells =
            [text(&check.measured_text), text(&check.baseline_text), format!("{} {}", check.verdict.symbol(), check.verdict.as_str())];
        format!("| {} | {} |\n", code(&check.expression), cells.join(" | "))
    });
    format!("| limit | measured | baseline | verdict |\n| --- | --- | --- | --- |\n{}\n", rows.collect::<String>())
}

fn section(check: &Check, base: &Path) -> String {
    let mut out = format!("### {} {}\n\n{}\n\n", check.verdict.symbol(), code(&check.expression), text(&check.why));
    if let Some(culprit) = &check.culprit {
        out.push_str(&format!("{}\n\n", text(&shared::culprit_sentence(culprit, base))));
        let stack = shared::stack(culprit, base);
        if !stack.is_empty() {
            let lines: Vec<String> = stack.iter().map(|line| text(line)).collect();
            out.push_str(&format!("<details><summary>stack</summary>\n\n<pre>\n{}\n</pre>\n\n</details>\n\n", lines.join("\n")));
        }
    }
    out
}

fn measured(outcome: &Outcome) -> String {
    let python = outcome.target.as_ref().map_or_else(String::new, |target| format!(", Python {}", text(&target.python)));
    let run = |run: &crate::gate::outcome::RunBrief| {
        let samples = format!("{} samples", numbers::thousands(run.samples));
        format!("- measured {} for {}, {samples}, {} missed{python}\n", code(&outcome.program), numbers::seconds(run.seconds), run.missed)
    };
    outcome.runs.iter().map(run).collect()
}

fn code(name: &str) -> String {
    format!("<code>{}</code>", text(name))
}

/// Escaped text on one line.
fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in clean(raw).chars() {
        if c.is_ascii() && !c.is_ascii_alphanumeric() && c != ' ' {
            out.push_str(&format!("&#{};", c as u32));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::testing;
    use proptest::prelude::*;

    /// The text as a reader of the page sees it.
    fn rendered(markdown: &str) -> String {
        let mut out = String::new();
        let mut rest = markdown;
        while let Some((before, after)) = rest.split_once("&#") {
            let (number, tail) = after.split_once(';').unwrap();
            out.push_str(before);
            out.push(char::from(number.parse::<u8>().unwrap()));
            rest = tail;
        }
        out + rest
    }

    #[test]
    fn it_shows_the_table_the_function_the_stack_and_the_flamegraph() {
        let text = rendered(&render(&testing::outcome(), Path::new("/srv/app"), Some(Path::new("/srv/app/gil.svg"))));
        for part in [
            "## ✗ gilprof gate: fail\n",
            "| <code>waiting <= 20%</code> | 52.1 % (50.3 - 53.9) | - | ✗ fail |\n",
            "| 33.3 % (32.0 - 34.5) | ✗ fail |\n",
            "Parser.parse<T> (app.py:12) at line 16, thread worker-0: holds the GIL 97 % of the time; 1.9 threads wait behind it\n",
            "<pre>\nmain (app.py:40)\n",
            "- measured <code>app.py</code> for 5.0 s, 4 996 samples, 4 missed\n",
            "- baseline <code>gate-baseline.json</code> (3 runs, Python 3.11.7)\n",
            "- flame graph: <code>gil.svg</code>\n",
            "- the baseline was measured on another machine\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    proptest! {
        /// No character of any name is structure, and the reader sees all of it.
        #[test]
        fn names_stay_text(name in "(\\PC|[|\\\\`*_<>\\[\\]#@&;\r\n]){0,80}") {
            let shown = text(&name);
            prop_assert_eq!(rendered(&shown), clean(&name));
            let unescaped = shown.chars().filter(|c| c.is_ascii_punctuation() && !"&#;".contains(*c)).count();
            prop_assert_eq!(unescaped, 0);
        }
    }
}
