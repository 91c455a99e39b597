//! Evaluates the gate: decides each check, names the culprits, and derives the verdict and the exit
//! code from the worst check.

use super::baseline::Baseline;
use super::check;
use super::culprit::{self, MeasuredRun};
use super::estimate;
use super::expr::{Limit, Regression};
use super::fingerprint::Fingerprint;
use super::outcome::{BaselineBrief, Check, Outcome, RunBrief, Verdict, SCHEMA};
use super::run::Run;
use crate::analysis::report::Code;
use crate::output::{numbers, text};
use std::collections::HashSet;

/// Exit codes of the gate; a command that fails passes on its own. docs/cli.md, docs/gate.md and
/// the help list them.
pub mod gate_exit {
    /// Every check passes, or only warns.
    pub const PASS: u8 = 0;
    /// A limit or a regression check is broken.
    pub const FAIL: u8 = 1;
    /// The arguments, a file or an expression are wrong, or an output cannot be written.
    pub const USAGE: u8 = 2;
    /// A check is inconclusive, the measurement is incomplete, or the baseline cannot be compared.
    pub const INCONCLUSIVE: u8 = 3;
    /// Nothing could be measured.
    pub const NOT_MEASURED: u8 = 4;
    /// A signal came before the first sample, or a second one.
    pub const INTERRUPTED: u8 = 130;

    /// All of them, ascending.
    pub const ALL: [u8; 6] = [PASS, FAIL, USAGE, INCONCLUSIVE, NOT_MEASURED, INTERRUPTED];
}

/// A larger share of missed samples is noted.
const MAX_MISSED: f64 = 0.05;

/// The checks to decide.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    /// Limits.
    pub limits: Vec<Limit>,
    /// Regressions.
    pub regressions: Vec<Regression>,
}

/// A baseline to compare with.
#[derive(Clone, Copy, Debug)]
pub struct ComparedBaseline<'a> {
    /// The path of its file, as given.
    pub path: &'a str,
    /// The content of the file.
    pub baseline: &'a Baseline,
    /// The fingerprint of the new runs.
    pub now: &'a Fingerprint,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measurement<'a> {
    /// The runs.
    pub runs: &'a [Run],
    /// The last of them, from which culprits are taken.
    pub last: MeasuredRun<'a>,
    /// The warnings of all reports.
    pub warnings: Vec<String>,
    /// Why the runs are not all that was to be measured. No check passes then.
    pub incomplete: Option<String>,
}

/// Decides all checks.
pub fn evaluate(checks: &Checks, measurement: &Measurement<'_>, compared: Option<ComparedBaseline<'_>>) -> Outcome {
    let Measurement { runs, last: measured, warnings, incomplete } = measurement;
    let mut notes: Vec<String> = incomplete.iter().cloned().collect();
    let differences = compared.map(|a| a.baseline.fingerprint.compare(a.now)).unwrap_or_default();
    notes.extend(differences.notable.iter().map(|what| format!("{what}; that alone may change the figures")));
    let refused = (!differences.incompatible.is_empty())
        .then(|| format!("the baseline cannot be compared: {}; write it again (--update-baseline)", differences.incompatible.join(", ")));
    // No function of the measured process is responsible for the work of others.
    let elsewhere = runs.iter().any(Run::is_elsewhere);
    let mut checked: Vec<Check> = Vec::new();
    for limit in &checks.limits {
        let mut check = check::limit(limit, runs);
        if !matches!(check.verdict, Verdict::Pass) && check.limit_text != numbers::NONE && !elsewhere {
            check.culprit = culprit::find(&limit.metric, *measured, runs, None);
        }
        checked.push(check);
    }
    for regression in &checks.regressions {
        let base = compared.map(|a| &a.baseline.runs[..]).filter(|_| refused.is_none());
        let mut check = check::regression(regression, runs, base.unwrap_or_default());
        if let (Some(why), true) = (&refused, check.verdict != Verdict::Fail) {
            check.why.clone_from(why);
        }
        if matches!(check.verdict, Verdict::Fail | Verdict::Warn) {
            check.culprit = culprit::find(&regression.metric, *measured, runs, base);
        }
        checked.push(check);
    }
    if let Some(why) = incomplete {
        checked = checked.into_iter().map(|check| check::without_pass(check, why)).collect();
    }
    notes.extend(distinct(warnings));
    notes.extend(unused_runs(checks, runs));
    notes.extend(missed_samples(runs));
    notes.extend(refused);
    let verdict = worst(&checked);
    Outcome {
        verdict,
        exit_code: code(verdict),
        headline: headline(&checked),
        target: Some(measured.report.target.clone()),
        program: text::program(&measured.report.target),
        runs: runs.iter().map(brief).collect(),
        baseline: compared.map(|a| BaselineBrief {
            path: a.path.into(),
            runs: a.baseline.runs.len(),
            python: a.baseline.fingerprint.python.clone(),
        }),
        checks: checked,
        notes,
        ..not_evaluated("", String::new(), 0)
    }
    .without_error()
}

/// The outcome when nothing could be checked, and why.
pub fn not_evaluated(program: &str, why: String, exit_code: u8) -> Outcome {
    Outcome {
        schema: SCHEMA,
        gilprof: env!("CARGO_PKG_VERSION"),
        verdict: Verdict::Inconclusive,
        exit_code,
        headline: format!("Nothing was checked: {why}"),
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
        Verdict::Pass | Verdict::Warn => gate_exit::PASS,
        Verdict::Fail => gate_exit::FAIL,
        Verdict::Inconclusive => gate_exit::INCONCLUSIVE,
    }
}

fn headline(checks: &[Check]) -> String {
    // Two checks of one metric are distinguished by their expressions.
    let name = |check: &Check| match checks.iter().filter(|other| other.metric == check.metric).count() {
        1 => check.metric.clone(),
        _ => check.expression.clone(),
    };
    let of = |verdict| checks.iter().filter(|check| check.verdict == verdict).map(name).collect::<Vec<_>>();
    let parts: Vec<String> =
        [(of(Verdict::Fail), "broken"), (of(Verdict::Inconclusive), "inconclusive"), (of(Verdict::Warn), "warning only")]
            .into_iter()
            .filter(|(names, _)| !names.is_empty())
            .map(|(names, what)| format!("{} of {} checks {what}: {}", names.len(), checks.len(), names.join(", ")))
            .collect();
    match (parts.is_empty(), checks.len()) {
        (false, _) => parts.join("; "),
        (true, 0) => "Nothing was checked.".into(),
        (true, 1) => "The check passed.".into(),
        (true, n) => format!("All {n} checks passed."),
    }
}

fn brief(run: &Run) -> RunBrief {
    RunBrief {
        seconds: run.seconds,
        samples: run.samples,
        missed: run.missed,
        verdict: run.verdict.unwrap_or(Code::Inconclusive),
        unusable: run.unusable.clone(),
    }
}

/// Each warning once. Runs differ in the numbers of a warning, which do not make it another one.
fn distinct(warnings: &[String]) -> Vec<String> {
    let mut known = HashSet::new();
    let without_numbers = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    warnings.iter().filter(|text| known.insert(without_numbers(text))).cloned().collect()
}

/// How many runs a check leaves out, and why. A check that has no run at all says so itself.
fn unused_runs(checks: &Checks, runs: &[Run]) -> Vec<String> {
    let metrics = checks.limits.iter().map(|limit| &limit.metric).chain(checks.regressions.iter().map(|regression| &regression.metric));
    let mut notes: Vec<String> = Vec::new();
    for metric in metrics {
        let reasons: Vec<&str> = runs.iter().filter_map(|run| estimate::unusable(metric, run)).collect();
        if let Some(why) = reasons.first().filter(|_| reasons.len() < runs.len()) {
            notes.push(format!("{} of {} runs could not be used: {why}", reasons.len(), runs.len()));
        }
    }
    notes.sort_unstable();
    notes.dedup();
    notes
}

/// A note if many samples were missed.
fn missed_samples(runs: &[Run]) -> Option<String> {
    let (samples, missed): (u64, u64) =
        runs.iter().fold((0, 0), |(l, m), run| (l.saturating_add(run.samples), m.saturating_add(run.missed)));
    let all = samples.saturating_add(missed);
    (missed as f64 > MAX_MISSED * all as f64)
        .then(|| format!("{} of {} samples were missed: the machine is busy", numbers::thousands(missed), numbers::thousands(all)))
}
