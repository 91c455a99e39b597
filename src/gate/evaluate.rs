//! Evaluates the gate: decides each check, names the culprits, and derives the verdict and the exit
//! code from the worst check.

use super::baseline::Baseline;
use super::check;
use super::culprit::{self, MeasuredRun};
use super::estimate;
use super::expr::{Limit, Regression};
use super::fingerprint::Fingerprint;
use super::outcome::{short_name, BaselineBrief, Check, Outcome, RunBrief, Verdict, SCHEMA};
use super::processes::ProcessRuns;
use super::run::Run;
use crate::analysis::report::Code;
use crate::output::{numbers, text};
use std::collections::HashSet;

/// Exit codes of the gate. docs/gate.md and docs/cli.md have [`gate_exit::TABLE`], the help and
/// examples/ci/gate.sh list the codes.
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
    /// The measured command failed by itself.
    pub const COMMAND_FAILED: u8 = 5;
    /// A signal came before the first sample, or a second one, or it ended the command.
    pub const INTERRUPTED: u8 = 130;

    /// Every code, ascending, and when the gate ends with it.
    #[cfg(any(test, feature = "internals"))]
    pub const TABLE: [(u8, &str); 7] = [
        (PASS, "every check passed, or only warned; with `--update-baseline`, the baseline was written"),
        (FAIL, "a limit is broken, or a figure is worse than the baseline allows"),
        (USAGE, "an argument, a file or an expression is wrong; also if every check passed and an output could not be written"),
        (
            INCONCLUSIVE,
            "inconclusive: a limit is inside the interval of its figure, too little was measured, or the baseline cannot be compared",
        ),
        (NOT_MEASURED, "nothing was measured: the program could not be started, attached to or read, or was not Python"),
        (COMMAND_FAILED, "the command failed by itself, by its exit code or a signal, which the output names; nothing was checked"),
        (INTERRUPTED, "Ctrl-C or SIGTERM came before the first sample, or twice, or made the command fail"),
    ];
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
    /// Whether broken checks fail the build.
    pub enforcement: Enforcement,
}

/// Whether broken checks fail the build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// They do, unless they are marked `@warn`.
    #[default]
    Enforced,
    /// They are only shown, while a baseline is made.
    OnlyShown,
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
    pub runs: &'a [ProcessRuns],
    /// The processes of the last of them, from which culprits are taken.
    pub last: &'a [MeasuredRun<'a>],
    /// The warnings of all reports.
    pub warnings: Vec<String>,
    /// Why the runs are not all that was to be measured. No check passes then.
    pub incomplete: Option<String>,
}

impl Measurement<'_> {
    /// The process of each run that did most: it is compared with a baseline, and becomes one.
    pub fn busiest(&self) -> Vec<Run> {
        self.runs.iter().filter_map(ProcessRuns::busiest_run).cloned().collect()
    }
}

/// Decides all checks.
pub fn evaluate(checks: &Checks, measurement: &Measurement<'_>, compared: Option<ComparedBaseline<'_>>) -> Outcome {
    let Measurement { runs: all, last, warnings, incomplete } = measurement;
    let runs: &[Run] = &measurement.busiest();
    let Some(measured) = all.last().and_then(|run| last.get(run.busiest())) else {
        return not_evaluated("", "nothing was measured".into(), gate_exit::NOT_MEASURED);
    };
    let mut notes: Vec<String> = incomplete.iter().cloned().collect();
    let differences = compared.map(|a| a.baseline.fingerprint.compare(a.now)).unwrap_or_default();
    notes.extend(differences.notable.iter().map(|what| format!("{what}; that alone may change the figures")));
    let refused = (!differences.incompatible.is_empty())
        .then(|| format!("the baseline cannot be compared: {}; write it again (--update-baseline)", differences.incompatible.join(", ")));
    // No function is responsible for the work of other processes, or for no work.
    let without_culprit = runs.iter().any(Run::is_elsewhere) || runs.iter().all(Run::is_idle);
    let mut checked: Vec<Check> = Vec::new();
    for limit in &checks.limits {
        let (chosen, processes): (Vec<Run>, Vec<usize>) =
            all.iter().filter_map(|run| run.worst(limit)).map(|(number, run)| (run.clone(), number)).unzip();
        let mut check = check::limit(limit, &chosen);
        let Some(measured) = processes.last().and_then(|&number| last.get(number)) else { continue };
        if !matches!(check.verdict, Verdict::Pass) && check.limit_text != numbers::NONE && !without_culprit {
            check.culprit = culprit::find(&limit.metric, *measured, &chosen, None);
        }
        if last.len() > 1 {
            check.process = Some(measured.report.target.pid);
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
    if last.len() > 1 {
        notes.push(format!("{} processes were measured; each limit is checked in the one that meets it worst", last.len()));
    }
    if let Some(why) = incomplete {
        checked = checked.into_iter().map(|check| check::without_pass(check, why)).collect();
    }
    if checks.enforcement == Enforcement::OnlyShown {
        checked = checked.into_iter().map(check::only_shown).collect();
        if checked.iter().any(|check| check.verdict != Verdict::Pass) {
            notes.push("limits are shown but not enforced while a baseline is made".into());
        }
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
        command_failure: None,
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
    let part = |(verdict, is, are): (Verdict, &str, &str)| {
        let names: Vec<&str> = checks.iter().filter(|check| check.verdict == verdict).map(|check| short_name(checks, check)).collect();
        let subject = match checks.len() {
            1 => "The check".to_string(),
            all => format!("{} of {all} checks", names.len()),
        };
        (!names.is_empty()).then(|| format!("{subject} {}: {}", if names.len() == 1 { is } else { are }, names.join(", ")))
    };
    let not_passed = [
        (Verdict::Fail, "is broken", "are broken"),
        (Verdict::Inconclusive, "is inconclusive", "are inconclusive"),
        (Verdict::Warn, "only warns", "only warn"),
    ];
    let parts: Vec<String> = not_passed.into_iter().filter_map(part).collect();
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
