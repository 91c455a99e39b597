//! The gate's files in the tools that read them: JUnit in junitparser, SARIF against the schema of
//! its standard. Every name in the outcome is hostile. scripts/setup-viewers fetches both tools.

use crate::support::{self, viewers};
use gilprof::analysis::report::{Caller, Code};
use gilprof::gate::outcome::*;
use gilprof::gate::output::{junit, sarif};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::{repository, Folder};

/// Names that would have an effect if they were not escaped.
const NAMES: [&str; 9] = [
    "parse",
    "<listcomp>",
    "]]></failure><script>",
    "\"' onload='x' & &amp; &#0;",
    "\u{1b}[31m\r\n::error::x\u{0}\u{8}\u{fffe}\u{202e}",
    "[link](javascript:x) {0} {{1}}",
    "名前 \u{1f600} \u{301}",
    "../../etc/passwd?a=b#c%00",
    "",
];

fn check(name: &str, verdict: Verdict) -> Check {
    let culprit = Culprit {
        name: name.into(),
        file: name.into(),
        first_line: 3,
        line: 0,
        called_from: Some(Caller { name: name.into(), file: name.into(), line: 0, call_line: 0 }),
        thread: Some(name.into()),
        what: format!("holds the GIL: {name}"),
        stack: vec![StackFrame { name: name.into(), file: name.into(), line: 0 }; 3],
    };
    Check {
        metric: format!("function({name:?}).inflicted_wait"),
        kind: Kind::Limit,
        expression: format!("function({name:?}).inflicted_wait <= 0.5 {name}"),
        level: if verdict == Verdict::Warn { Level::Warn } else { Level::Fail },
        verdict,
        unit: Unit::Threads,
        limit: Some(0.5),
        limit_text: "<= 0.5".into(),
        measured: Some(Interval { value: 1.9, low: 1.8, high: 2.0 }),
        measured_text: "1.9 (1.8 - 2.0)".into(),
        baseline: None,
        baseline_text: "-".into(),
        change: None,
        why: format!("all of the interval is above the limit {name}"),
        process: Some(4242),
        culprit: (verdict != Verdict::Pass).then_some(culprit),
    }
}

fn outcome() -> Outcome {
    let verdicts = [Verdict::Fail, Verdict::Pass, Verdict::Inconclusive, Verdict::Warn];
    Outcome {
        schema: SCHEMA,
        gilprof: "0.1.0",
        verdict: Verdict::Fail,
        exit_code: 1,
        headline: NAMES.concat(),
        error: Some(NAMES.concat()),
        command_failure: None,
        program: NAMES[2].into(),
        target: None,
        runs: vec![RunBrief { seconds: 1.5, samples: 1500, missed: 0, verdict: Code::SwitchToProcesses, unusable: None }],
        baseline: Some(BaselineBrief { path: NAMES[3].into(), runs: 3, python: "3.11.7".into() }),
        checks: NAMES.iter().flat_map(|name| verdicts.map(|verdict| check(name, verdict))).collect(),
        notes: NAMES.map(String::from).to_vec(),
    }
}

/// Runs Python with a viewer's packages.
fn python(viewer: &str, args: &[&str]) -> Option<String> {
    let package = viewers::viewer(viewer)?;
    let out = Command::new("python3").args(args).env("PYTHONPATH", package.parent().unwrap()).env("PYTHONDONTWRITEBYTECODE", "1").output();
    let out = out.unwrap();
    let (output, complained) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{viewer} {args:?}: {}\n{output}\n{complained}", out.status);
    Some(output.into_owned())
}

const COUNT: &str = "
import json, sys
from junitparser import JUnitXml, Failure, Error
xml = JUnitXml.fromfile(sys.argv[1])
cases = [case for suite in xml for case in suite]
kinds = [[type(result).__name__ for result in case.result] for case in cases]
declared = (xml.tests, xml.failures, xml.errors)
xml.update_statistics()
print(json.dumps({'declared': declared, 'counted': (xml.tests, xml.failures, xml.errors), 'kinds': kinds, 'names': [case.name for case in cases],
                  'texts': [result.text for case in cases for result in case.result]}))
";

#[test]
fn junitparser_reads_a_case_for_each_check() {
    let outcome = outcome();
    let folder = Folder::new("junit");
    let file = folder.path().join("gate.xml");
    std::fs::write(&file, junit::render(&outcome, Path::new("/srv"))).unwrap();
    let Some(output) = python("junitparser", &["-c", COUNT, file.to_str().unwrap()]) else { return };
    let read: serde_json::Value = serde_json::from_str(&output).unwrap();
    // One more case and error: the gate as a whole has no result.
    let (cases, each) = (outcome.checks.len() + 1, NAMES.len());
    assert_eq!(read["declared"], serde_json::json!([cases, each, each + 1]));
    assert_eq!(read["counted"], read["declared"]);
    let kinds = read["kinds"].as_array().unwrap();
    assert_eq!(kinds[0], serde_json::json!(["Error"]));
    for four in kinds[1..].chunks(4) {
        assert_eq!(four, [serde_json::json!(["Failure"]), serde_json::json!([]), serde_json::json!(["Error"]), serde_json::json!([])]);
    }
    // Escaped names are read back unchanged.
    assert_eq!(read["names"][1], "function(\"parse\").inflicted_wait <= 0.5 parse");
    assert!(read["names"][9].as_str().unwrap().ends_with("<= 0.5 ]]></failure><script>"), "{}", read["names"][9]);
    assert!(
        read["texts"][1].as_str().unwrap().contains("\nparse (parse:3), called from parse (parse), thread parse: holds the GIL: parse\n"),
        "{}",
        read["texts"][1]
    );
}

#[test]
fn sarif_keeps_to_the_schema_of_the_standard() {
    let Some(schema) = viewers::viewer("sarif-schema") else { return };
    let folder = Folder::new("sarif");
    let check = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        let schema = format!("--schemafile={}", schema.display());
        python("check-jsonschema", &["-m", "check_jsonschema", "--no-cache", "--regex-variant=nonunicode", &schema, file.to_str().unwrap()])
    };
    let whole = sarif::render(&outcome(), Path::new("/srv")).unwrap();
    if check("gate.sarif", &whole).is_none() {
        return;
    }
    let empty = Outcome { checks: Vec::new(), error: None, notes: Vec::new(), ..outcome() };
    check("empty.sarif", &sarif::render(&empty, Path::new("/srv")).unwrap());
    // The check is able to fail.
    let broken = std::panic::catch_unwind(|| check("broken.sarif", &whole.replace("\"startLine\": 3", "\"startLine\": 0")));
    assert!(broken.is_err());
}

/// A file of `examples/ci`.
fn example(name: &str) -> PathBuf {
    repository().join("examples/ci").join(name)
}

#[track_caller]
fn ended(out: &Output, code: i32) {
    let output = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{output}");
}

/// check-jsonschema contains the schemas of the CI systems.
#[test]
fn the_ci_files_keep_to_their_schemas() {
    let Some(package) = viewers::viewer("check-jsonschema") else { return };
    let folder = Folder::new("yaml");
    let check = |schema: &str, file: &PathBuf| {
        let mut command = Command::new("python3");
        command.args(["-m", "check_jsonschema", "--builtin-schema", schema]).arg(file);
        command.env("PYTHONPATH", package.parent().unwrap()).env("PYTHONDONTWRITEBYTECODE", "1").output().unwrap()
    };
    for (schema, name, word) in
        [("vendor.github-workflows", "github.yml", "runs-on:"), ("vendor.gitlab-ci", "gitlab.yml", "allow_failure:")]
    {
        ended(&check(schema, &example(name)), 0);
        // The check is able to fail.
        let spoilt = folder.path().join(name);
        std::fs::write(&spoilt, std::fs::read_to_string(example(name)).unwrap().replace(word, "no-such-key:")).unwrap();
        ended(&check(schema, &spoilt), 1);
    }
}
