//! An outcome with one check of each kind, for the tests of the writers.

use super::outcome::*;
use crate::analysis::report::{Caller, Code};

/// The outcome with a culprit of the standard library, called by the user's `export`.
pub(super) fn in_library() -> Outcome {
    let mut outcome = outcome();
    for culprit in outcome.checks.iter_mut().filter_map(|check| check.culprit.as_mut()) {
        (culprit.name, culprit.file) = ("iterencode".into(), "/usr/lib/python3.11/json/encoder.py".into());
        (culprit.first_line, culprit.line) = (205, 258);
        culprit.called_from = Some(Caller { name: "export".into(), file: "/srv/app/shop.py".into(), line: 3, call_line: 4 });
    }
    outcome
}

/// One check that passes, one that fails with a hostile name in its stack, one inconclusive, one
/// with a warning, and a regression that fails.
pub(super) fn outcome() -> Outcome {
    let culprit = Culprit {
        name: "Parser.parse<T>".into(),
        file: "/srv/app/app.py".into(),
        first_line: 12,
        line: 16,
        called_from: None,
        thread: Some("worker-0".into()),
        what: "holds the GIL 97 % of the time; 1.9 threads wait behind it".into(),
        stack: vec![
            StackFrame { name: "main".into(), file: "/srv/app/app.py".into(), line: 40 },
            StackFrame { name: "evil\x1b[31m]]>&\"'|\n::error::x".into(), file: "".into(), line: 0 },
            StackFrame { name: "Parser.parse<T>".into(), file: "/srv/app/app.py".into(), line: 16 },
        ],
    };
    let share = |value, low, high| Some(Interval { value, low, high });
    let check = |metric: &str, expression: &str, verdict| Check {
        metric: metric.into(),
        kind: Kind::Limit,
        expression: expression.into(),
        level: Level::Fail,
        verdict,
        unit: Unit::Share,
        limit: Some(0.2),
        limit_text: "<= 20 %".into(),
        measured: share(0.521, 0.503, 0.539),
        measured_text: "52.1 % (50.3 - 53.9)".into(),
        baseline: None,
        baseline_text: "-".into(),
        change: None,
        why: "all of the interval is above the limit".into(),
        process: None,
        culprit: None,
    };
    let failed = Check { culprit: Some(culprit.clone()), ..check("waiting", "waiting <= 20%", Verdict::Fail) };
    let passed = Check { why: "within the limit".into(), ..check("gil.busy", "gil.busy <= 90%", Verdict::Pass) };
    let unsure = Check {
        unit: Unit::Ms,
        limit: Some(25.0),
        limit_text: "<= 25 ms".into(),
        measured: None,
        measured_text: "-".into(),
        why: "no thread waited".into(),
        ..check("wait_ms.p99", "wait_ms.p99 <= 25ms", Verdict::Inconclusive)
    };
    let warned = Check {
        level: Level::Warn,
        unit: Unit::Verdict,
        limit: None,
        limit_text: "not in [latency-victims]".into(),
        measured: None,
        measured_text: "latency-victims".into(),
        why: "the verdict is latency-victims".into(),
        ..check("verdict", "verdict not in [latency-victims] @warn", Verdict::Warn)
    };
    let regressed = Check {
        kind: Kind::Regression,
        limit: Some(0.383),
        limit_text: "<= 38.3 %".into(),
        baseline: share(0.333, 0.32, 0.345),
        baseline_text: "33.3 % (32.0 - 34.5)".into(),
        change: share(0.188, 0.17, 0.206),
        culprit: Some(culprit),
        ..check("thread(\"worker-*\").waiting", "thread(\"worker-*\").waiting: +5pp, min 2pp", Verdict::Fail)
    };
    Outcome {
        schema: SCHEMA,
        gilprof: env!("CARGO_PKG_VERSION"),
        verdict: Verdict::Fail,
        exit_code: 1,
        headline: "2 of 5 checks are broken: waiting, thread(\"worker-*\").waiting".into(),
        error: None,
        command_failure: None,
        program: "app.py".into(),
        target: None,
        runs: vec![RunBrief { seconds: 5.0, samples: 4996, missed: 4, verdict: Code::SwitchToProcesses, unusable: None }],
        baseline: Some(BaselineBrief { path: "gate-baseline.json".into(), runs: 3, python: "3.11.7".into() }),
        checks: vec![passed, failed, unsure, warned, regressed],
        notes: vec!["the baseline was measured on another machine".into()],
    }
}
