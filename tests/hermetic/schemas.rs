//! The published schemas, `docs/schemas/*.schema.json`, hold for what gilprof makes of the recorded
//! profile and for the golden files. `tests/live/schemas.rs` has what needs a live program.

use crate::support::schema::{assert_valid, schemas, stdout, validator};
use crate::support::{self, repository, Folder};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

fn recording() -> String {
    repository().join("tests/dumps/recordings/v1.gilprof").to_str().unwrap().to_string()
}

#[test]
fn report_reports_and_diff_of_a_recording_are_valid() {
    let file = recording();
    let report = assert_valid("report", &stdout(&["report", &file, "--format", "json"], &[0]));
    assert_eq!(report["schema"], "gilprof.report/1");
    assert_valid("report", &stdout(&["report", &file, "--format", "json", "--what-if", "threads=4", "--what-if", "processes=2"], &[0]));
    let several = assert_valid("reports", &stdout(&["report", &file, &file, "--format", "json"], &[0]));
    assert_eq!((several["reports"].as_array().unwrap().len(), &several["service"]["processes"]), (2, &2.into()));
    assert_eq!(several["reports"][0]["target"]["role"], "worker");
    let asked = stdout(&["report", &file, &file, "--format", "json", "--what-if", "workers=2,threads=1", "--what-if", "cores=4"], &[0]);
    let asked = assert_valid("reports", &asked);
    assert_eq!(asked["service"]["what_if"][0]["question"], "workers=2,threads=1");
    assert_eq!(asked["reports"][0]["what_if"].as_array().unwrap().len(), 1, "the other question is about each process");
    assert_valid("diff", &stdout(&["diff", &file, &file, "--format", "json"], &[0]));
}

#[test]
fn gate_and_baseline_of_a_recording_are_valid() {
    let (folder, file) = (Folder::new("schemas"), recording());
    let baseline = folder.path().join("baseline.json");
    let path = baseline.to_str().unwrap();
    stdout(&["gate", "--baseline", path, "--update-baseline", &file], &[0]);
    assert_valid("baseline", &std::fs::read(&baseline).unwrap());
    let limits = ["--max", "waiting <= 1%", "--max", "gil.busy >= 1%", "--max", "verdict not in [serial]"];
    let gate = [&["gate", "--baseline", path, "--format", "json"], &limits[..], &[&file]].concat();
    let outcome = assert_valid("gate", &stdout(&gate, &[1]));
    let checks = outcome["checks"].as_array().unwrap();
    // Each kind of check, and a culprit, was there to be validated.
    assert!(
        checks.len() >= 4 && checks.iter().any(|c| c["kind"] == "regression") && checks.iter().any(|c| !c["culprit"].is_null()),
        "{outcome}"
    );
}

#[test]
fn every_golden_report_and_dump_is_valid() {
    // `unknown` is left out: its figures are not numbers, which no measurement gives.
    for (file, schema) in [("crowd", "report"), ("saturated", "report"), ("service", "reports"), ("dump", "dump")] {
        assert_valid(schema, &std::fs::read(repository().join(format!("tests/dumps/golden/{file}.json"))).unwrap());
    }
}

/// What each object of a schema says: every key described, and typed.
fn loose(schema: &Value, at: &str, out: &mut Vec<String>) {
    let children = |key: &str| schema[key].as_object().into_iter().flatten();
    let typed = ["type", "$ref", "anyOf"].iter().any(|key| schema.get(key).is_some());
    if !typed || (schema.get("description").is_none() && schema.get("$ref").is_none()) {
        out.push(at.to_string());
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        if schema["properties"].get(required.as_str().unwrap()).is_none() {
            out.push(format!("{at}: required {required} is no property"));
        }
    }
    children("properties").chain(children("$defs")).for_each(|(key, child)| loose(child, &format!("{at}.{key}"), out));
    if let Some(items) = schema.get("items") {
        loose(items, &format!("{at}[]"), out);
    }
}

#[test]
fn schemas_are_sound_and_agree_with_each_other() {
    let all = schemas();
    let names: BTreeSet<&str> = all.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["baseline", "diff", "dump", "gate", "report", "reports"]));
    let mut faults = Vec::new();
    for (name, schema) in &all {
        assert!(jsonschema::meta::is_valid(schema), "{name}");
        assert_eq!(schema["title"], schema["properties"]["schema"]["const"], "{name}");
        loose(schema, name, &mut faults);
        validator(name);
    }
    assert!(faults.is_empty(), "{faults:#?}");
    // What stands in several files is the same in all.
    for shared in ["target", "estimate", "verdict_code", "finding_code"] {
        let seen: BTreeSet<String> = all.values().filter_map(|schema| schema["$defs"].get(shared)).map(Value::to_string).collect();
        assert_eq!(seen.len(), 1, "{shared}");
    }
}

#[test]
fn a_missing_or_mistyped_key_is_found() {
    let text = std::fs::read_to_string(repository().join("tests/dumps/golden/saturated.json")).unwrap();
    let validator = validator("report");
    for (from, to) in [("\"missed\": 4", "\"missed\": \"4\""), ("\"missed\": 4,", ""), ("\"high\"", "\"sure\"")] {
        let broken = text.replacen(from, to, 1);
        assert!(text != broken && !validator.is_valid(&serde_json::from_str(&broken).unwrap()), "{from}");
    }
}

#[test]
fn the_document_names_every_schema_and_its_jq_examples_run() {
    let document = std::fs::read_to_string(repository().join("docs/json-schema.md")).unwrap();
    for (name, schema) in schemas() {
        assert!(
            document.contains(&format!("schemas/{name}.schema.json")) && document.contains(schema["title"].as_str().unwrap()),
            "{name}"
        );
    }
    let examples = document.lines().filter(|line| line.starts_with("jq "));
    if Command::new("jq").arg("--version").output().is_err() {
        return support::skip("the jq examples of docs/json-schema.md: jq is not installed");
    }
    let file = recording();
    let folder = Folder::new("jq");
    let runs: [(&str, Vec<&str>); 4] = [
        ("report.json", vec!["report", &file]),
        ("reports.json", vec!["report", &file, &file]),
        ("diff.json", vec!["diff", &file, &file]),
        ("gate.json", vec!["gate", "--max", "waiting <= 20%", &file]),
    ];
    for (name, args) in runs {
        std::fs::write(folder.path().join(name), stdout(&[&args[..], &["--format", "json"]].concat(), &[0, 1, 3])).unwrap();
    }
    std::fs::copy(repository().join("tests/dumps/golden/dump.json"), folder.path().join("dump.json")).unwrap();
    let mut count = 0;
    for example in examples {
        let out = Command::new("sh").args(["-c", example]).current_dir(folder.path()).output().unwrap();
        assert!(out.status.code() == Some(0) || out.status.code() == Some(1) && example.contains(" -e "), "{example}: {out:?}");
        let printed = String::from_utf8_lossy(&out.stdout);
        assert!(!printed.contains("null"), "a key that is not there: {example}: {printed}");
        count += 1;
    }
    assert!(count >= 5, "{count}");
}
