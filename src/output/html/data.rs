//! The page's data as JSON: the report, and the data of the pictures.
//!
//! Text from the target is sanitized here, as in every output (see [`sanitize`]); all lists are
//! bounded; and [`embed`] escapes the characters that could end the element of the data. The page
//! itself writes text and never markup.

use super::matrix;
use super::service;
use super::timeline::Budget;
use super::{flames, timeline};
use crate::analysis::report::{Report, Target, Thread};
use crate::analysis::service::report::ServiceReport;
use crate::error::{Error, Result};
use crate::output::file_names;
use crate::output::text::verdict::banner;
use crate::output::{palette, sanitize, text, Source};
use crate::sample::State;
use serde_json::{json, Value};

/// Threads that have a row of their own.
const MAX_THREADS: usize = 400;
/// Arguments of the command line, and characters of any text.
const MAX_ARGS: usize = 40;
const LONGEST_TEXT: usize = 2000;
/// Findings, and warnings, at most.
const MAX_REMARKS: usize = 100;
/// Processes that one page shows, at most.
pub const MAX_PROCESSES: usize = 32;

/// All data of the page.
pub fn value(sources: &[Source<'_>], of_all: Option<&ServiceReport>) -> Result<Value> {
    let budget = Budget::shared(sources.len().min(MAX_PROCESSES));
    // All processes are on one clock, which begins with the first of them.
    let begin = sources.iter().take(MAX_PROCESSES).map(|source| source.report.window.begin_ns).min().unwrap_or(0);
    let processes = sources.iter().take(MAX_PROCESSES).map(|source| process(source, budget, begin)).collect::<Result<Vec<_>>>()?;
    let states: Vec<Value> = State::ALL
        .iter()
        .map(|&state| {
            let (style, (r, g, b)) = (palette::style(state), palette::style(state).rgb);
            json!({"label": state.label(), "short": style.legend, "rgb": [r, g, b], "quiet": state == State::Io})
        })
        .collect();
    let (r, g, b) = palette::NEUTRAL;
    let mut all = json!({
        "gilprof": env!("CARGO_PKG_VERSION"), "states": states, "neutral": [r, g, b],
        "service": of_all.map(|of_all| service::value(of_all, sources, MAX_PROCESSES)), "processes": processes, "left_out": sources.len() - sources.len().min(MAX_PROCESSES),
    });
    sanitize_values(&mut all);
    Ok(all)
}

fn process(source: &Source<'_>, budget: Budget, begin: u64) -> Result<Value> {
    let report = source.report;
    let (banner, headline) = banner(&report.verdict);
    let args: Vec<String> = report.target.command.iter().take(MAX_ARGS).map(|arg| sanitize::clean(arg)).collect();
    let (threads, more) = threads(report);
    let names = file_names::of_report(report);
    let short = Report {
        threads,
        blame: Vec::new(),
        findings: report.findings.iter().take(MAX_REMARKS).cloned().collect(),
        warnings: report.warnings.iter().take(MAX_REMARKS).cloned().collect(),
        target: Target { command: args, ..report.target.clone() },
        ..report.clone()
    };
    Ok(json!({
        "program": text::program(&report.target), "offset": report.window.begin_ns.saturating_sub(begin) as f64 / 1e9,
        "banner": banner, "headline": headline, "tone": palette::verdict_style(report.verdict.code) as usize,
        "report": short, "more_threads": more,
        "places": report.functions.iter().map(|f| file_names::place(&names, &f.file, f.line)).collect::<Vec<_>>(),
        "callers": report.functions.iter().map(|f| file_names::caller(&names, f.called_from.as_ref())).collect::<Vec<_>>(),
        "timeline": timeline::value(source, budget)?,
        "flames": flames::value(source, budget.frames),
        "matrix": matrix::value(&report.blame, &names),
    }))
}

/// The threads that have a row of their own, and the number of the others. The report lists the
/// busiest thread first.
fn threads(report: &Report) -> (Vec<Thread>, usize) {
    let shown = report.threads.len().min(MAX_THREADS);
    (report.threads[..shown].to_vec(), report.threads.len() - shown)
}

/// Escapes control and invisible characters in every text, and rounds every figure to six decimals.
fn sanitize_values(value: &mut Value) {
    match value {
        Value::String(text) if text.chars().any(sanitize::is_hostile) || text.len() > LONGEST_TEXT => *text = shortened(text),
        Value::Number(n) => {
            if let Some(rounded) = n.as_f64().filter(|_| n.is_f64()).map(|f| (f * 1e6).round() / 1e6 + 0.0) {
                *value = json!(rounded);
            }
        }
        Value::Array(all) => all.iter_mut().for_each(sanitize_values),
        Value::Object(all) => {
            for (key, value) in all.iter_mut() {
                // Packed numbers are long, and none comes from the target.
                if key != "packed" {
                    sanitize_values(value);
                }
            }
        }
        _ => {}
    }
}

fn shortened(text: &str) -> String {
    let mut out = String::new();
    text.chars().take(LONGEST_TEXT).for_each(|c| sanitize::push_clean(&mut out, c));
    if text.chars().nth(LONGEST_TEXT).is_some() {
        out.push('…');
    }
    out
}

/// JSON that can stand in a `<script>` element. The escaped characters occur in JSON only inside
/// strings, where the escape means the same.
pub fn embed(value: &Value) -> Result<String> {
    let json = serde_json::to_string(value).map_err(|e| Error::System { what: "write JSON".into(), source: e.into() })?;
    let mut out = String::with_capacity(json.len() + json.len() / 16);
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::{measured, HOSTILE};

    #[test]
    fn no_text_can_end_its_element_or_hide_itself() {
        let written = measured();
        let text = embed(&value(&[written.source()], None).unwrap()).unwrap();
        assert!(!text.contains(['<', '>', '&']) && !text.chars().any(sanitize::is_hostile));
        let back: Value = serde_json::from_str(&text).unwrap();
        let names: Vec<&str> =
            back["processes"][0]["report"]["threads"].as_array().unwrap().iter().filter_map(|t| t["name"].as_str()).collect();
        assert!(names.contains(&sanitize::clean(HOSTILE).as_str()), "{names:?}");
    }

    #[test]
    fn line_separators_are_escaped_and_mean_the_same() {
        let value = json!({"a\u{2028}": "</script>\u{2029}&"});
        let text = embed(&value).unwrap();
        assert!(text.is_ascii() && !text.contains('<'), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn long_lists_and_texts_are_cut() {
        let written = measured();
        let mut report = written.report.clone();
        report.threads = vec![report.threads[0].clone(); 1000];
        report.target.command = vec!["x".repeat(10_000); 1000];
        report.warnings = vec!["y".repeat(10_000); 1000];
        let source = Source { report: &report, ..written.source() };
        let value = value(&[source], None).unwrap();
        let process = &value["processes"][0];
        assert_eq!((&process["more_threads"], process["report"]["threads"].as_array().unwrap().len()), (&json!(600), 400));
        assert!(value.to_string().len() < 2_000_000);
    }
}
