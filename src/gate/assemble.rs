//! Everything judged, put together: each check, the function to look at, the whole's verdict and what gilprof ends with.

use super::baseline::Baseline;
use super::culprit::{self, Seen};
use super::expr::{Limit, Regression};
use super::fingerprint::Fingerprint;
use super::judge;
use super::outcome::{BaselineBrief, Check, Outcome, RunBrief, Verdict, SCHEMA};
use super::run::Run;
use crate::analysis::report::{Code, Report};
use crate::output::{numbers, text};

/// Exit codes of the gate, besides the command's own.
pub mod exit {
    /// Every check is passed, or only warns.
    pub const PASS: u8 = 0;
    /// A limit is broken, or something got worse.
    pub const FAIL: u8 = 1;
    /// The words or the files do not fit.
    pub const USAGE: u8 = 2;
    /// It cannot be told, or the baseline is of something else.
    pub const INCONCLUSIVE: u8 = 3;
    /// Nothing could be measured.
    pub const NOT_MEASURED: u8 = 4;
}

/// More looks missed than this share of them is worth a note.
const MISSED: f64 = 0.05;

/// What is to hold.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// Limits.
    pub limits: Vec<Limit>,
    /// Regressions.
    pub regressions: Vec<Regression>,
}

/// A baseline to compare with.
#[derive(Clone, Copy, Debug)]
pub struct Against<'a> {
    /// Its file, as it was given.
    pub path: &'a str,
    /// What is in it.
    pub baseline: &'a Baseline,
    /// What the new runs were measured on.
    pub now: &'a Fingerprint,
}

/// Judges runs. `seen` is the last of them, or the one to name functions from.
pub fn judged(checks: &Checks, runs: &[Run], seen: Seen<'_>, against: Option<Against<'_>>, mut notes: Vec<String>) -> Outcome {
    let differences = against.map(|a| a.baseline.fingerprint.against(a.now)).unwrap_or_default();
    notes.extend(differences.said.iter().map(|what| format!("{what}: figures may differ for that reason alone")));
    let refused = (!differences.refused.is_empty())
        .then(|| format!("the baseline cannot be compared with: {}; measure it anew (--update-baseline)", differences.refused.join(", ")));
    let mut judged: Vec<Check> = Vec::new();
    for limit in &checks.limits {
        let mut check = judge::limit(limit, runs);
        if !matches!(check.verdict, Verdict::Pass) && check.limit_text != numbers::NONE {
            check.culprit = culprit::of(&limit.metric, seen, runs, None);
        }
        judged.push(check);
    }
    for regression in &checks.regressions {
        let base = against.map(|a| &a.baseline.runs[..]).filter(|_| refused.is_none());
        let mut check = judge::regression(regression, runs, base.unwrap_or_default());
        if let (Some(why), true) = (&refused, check.verdict != Verdict::Fail) {
            check.why.clone_from(why);
        }
        if matches!(check.verdict, Verdict::Fail | Verdict::Warn) {
            check.culprit = culprit::of(&regression.metric, seen, runs, base);
        }
        judged.push(check);
    }
    notes.extend(run_notes(runs, seen.report));
    notes.extend(refused);
    let verdict = worst(&judged);
    Outcome {
        verdict,
        exit_code: code(verdict),
        headline: headline(&judged),
        target: Some(seen.report.target.clone()),
        program: text::program(&seen.report.target),
        runs: runs.iter().map(brief).collect(),
        baseline: against.map(|a| BaselineBrief {
            path: a.path.into(),
            runs: a.baseline.runs.len(),
            python: a.baseline.fingerprint.python.clone(),
        }),
        checks: judged,
        notes,
        ..failed("", String::new(), 0)
    }
    .without_error()
}

/// A gate that could not be judged, and why.
pub fn failed(program: &str, why: String, exit_code: u8) -> Outcome {
    Outcome {
        schema: SCHEMA,
        gilprof: env!("CARGO_PKG_VERSION"),
        verdict: Verdict::Inconclusive,
        exit_code,
        headline: format!("Not judged: {why}"),
        error: Some(why),
        program: program.into(),
        target: None,
        runs: Vec::new(),
        baseline: None,
        checks: Vec::new(),
        notes: Vec::new(),
    }
}

impl Outcome {
    fn without_error(self) -> Outcome {
        Outcome { error: None, ..self }
    }
}

/// The worst of the checks.
fn worst(checks: &[Check]) -> Verdict {
    checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Pass)
}

fn code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Pass | Verdict::Warn => exit::PASS,
        Verdict::Fail => exit::FAIL,
        Verdict::Inconclusive => exit::INCONCLUSIVE,
    }
}

fn headline(checks: &[Check]) -> String {
    let of = |verdict| checks.iter().filter(move |check| check.verdict == verdict).map(|check| check.metric.as_str()).collect::<Vec<_>>();
    let said: Vec<String> =
        [(of(Verdict::Fail), "broken"), (of(Verdict::Inconclusive), "inconclusive"), (of(Verdict::Warn), "only warned of")]
            .into_iter()
            .filter(|(names, _)| !names.is_empty())
            .map(|(names, what)| format!("{} of {} checks {what}: {}", names.len(), checks.len(), names.join(", ")))
            .collect();
    match (said.is_empty(), checks.len()) {
        (false, _) => said.join("; "),
        (true, 0) => "Nothing was checked.".into(),
        (true, 1) => "The check passed.".into(),
        (true, n) => format!("All {n} checks passed."),
    }
}

fn brief(run: &Run) -> RunBrief {
    RunBrief { seconds: run.seconds, looks: run.looks, missed: run.missed, verdict: run.verdict.unwrap_or(Code::Inconclusive) }
}

/// What limits the figures.
fn run_notes(runs: &[Run], last: &Report) -> Vec<String> {
    let mut notes = last.warnings.clone();
    let (looks, missed): (u64, u64) = runs.iter().fold((0, 0), |(l, m), run| (l.saturating_add(run.looks), m.saturating_add(run.missed)));
    if missed as f64 > MISSED * (looks as f64 + missed as f64) {
        notes.push(format!(
            "{} of {} looks were missed: the machine is busy",
            numbers::thousands(missed),
            numbers::thousands(looks + missed)
        ));
    }
    notes
}
