//! SARIF 2.1.0, as code scanning services and editors read it: a result for each check that is not passed, with file, line and stack.
//!
//! An inconclusive check is a result of kind `open`, which is the standard's word for it. Passed checks are left out: services show every
//! result as an alert. A result without a location is refused by some of them, so that what concerns the program as a whole is told at its
//! script's first line. Fingerprints do not hold lines: an alert stays the same one when code above it moves.

use super::shared;
use super::source_location::{directory_uri, SourceLocation};
use crate::error::Result;
use crate::gate::outcome::{Check, Culprit, Level, Outcome, StackFrame, Verdict};
use crate::output::json;
use crate::output::sanitize::clean;
use serde_json::{json, Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// The schema by which other tools check it.
const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
/// The name of the working directory among URI bases, by which services know the checkout.
const ROOT: &str = "%SRCROOT%";

/// The whole log. Paths are told relative to `base`.
pub fn render(outcome: &Outcome, base: &Path) -> Result<String> {
    let checks = shared::unpassed(outcome);
    let rules: BTreeMap<String, Value> = checks.iter().map(|check| (rule_id(check), rule(check))).collect();
    let notes = outcome.error.iter().map(|error| ("error", error)).chain(outcome.notes.iter().map(|note| ("note", note)));
    let notifications: Vec<Value> = notes.map(|(level, text)| json!({ "level": level, "message": message(text) })).collect();
    let log = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "gilprof",
                "version": outcome.gilprof,
                "rules": rules.values().collect::<Vec<_>>(),
            } },
            "invocations": [{
                "executionSuccessful": outcome.error.is_none(),
                "exitCode": outcome.exit_code,
                "toolExecutionNotifications": notifications,
            }],
            "originalUriBaseIds": { ROOT: { "uri": directory_uri(base) } },
            "columnKind": "unicodeCodePoints",
            "results": checks.iter().map(|check| result(check, outcome, base)).collect::<Vec<_>>(),
        }],
    });
    json::to_string(&log)
}

/// Stable from build to build: what is measured, not how much of it is allowed.
fn rule_id(check: &Check) -> String {
    format!("gil/{}/{}", shared::kind(check), clean(&check.metric))
}

fn rule(check: &Check) -> Value {
    let level = match check.level {
        Level::Fail => "error",
        Level::Warn => "warning",
    };
    json!({
        "id": rule_id(check),
        "shortDescription": message(&format!("{} of {}", shared::kind(check), check.metric)),
        "defaultConfiguration": { "level": level },
    })
}

fn result(check: &Check, outcome: &Outcome, base: &Path) -> Value {
    let (kind, level) = match check.verdict {
        Verdict::Fail => ("fail", "error"),
        Verdict::Warn => ("fail", "warning"),
        Verdict::Inconclusive | Verdict::Pass => ("open", "none"),
    };
    let mut said = shared::sentence(check);
    let mut result = Map::new();
    let mut location = shared::place(check, outcome, base).map(|place| json!({ "physicalLocation": physical(&place) }));
    let mut subject = String::new();
    if let Some(culprit) = &check.culprit {
        said = format!("{said}\n{}", shared::culprit_sentence(culprit, base));
        subject = format!(
            "{} {}",
            clean(&culprit.name),
            SourceLocation::new(&culprit.file, 1, base).map_or_else(String::new, |place| place.uri())
        );
        if let Some(location) = &mut location {
            location["logicalLocations"] = json!([{ "fullyQualifiedName": clean(&culprit.name), "kind": "function" }]);
        }
        if !culprit.stack.is_empty() {
            result.insert("stacks".into(), json!([stack(culprit, base)]));
        }
    }
    result.insert("ruleId".into(), json!(rule_id(check)));
    result.insert("kind".into(), json!(kind));
    result.insert("level".into(), json!(level));
    result.insert("message".into(), json!({ "text": without_links(&said) }));
    result.insert("locations".into(), json!(location.into_iter().collect::<Vec<_>>()));
    result.insert("partialFingerprints".into(), json!({ "gilprofCheck/v1": format!("{} {subject}", rule_id(check)) }));
    result.into()
}

fn physical(place: &SourceLocation) -> Value {
    let artifact = if place.is_relative() { json!({ "uri": place.uri(), "uriBaseId": ROOT }) } else { json!({ "uri": place.uri() }) };
    json!({ "artifactLocation": artifact, "region": { "startLine": place.line } })
}

/// The standard wants the innermost frame first.
fn stack(culprit: &Culprit, base: &Path) -> Value {
    let (_, shown) = shared::innermost(&culprit.stack);
    let frames: Vec<Value> = shown.iter().rev().map(|frame| json!({ "location": frame_location(frame, base) })).collect();
    json!({ "message": message("the commonest stack of this function"), "frames": frames })
}

fn frame_location(frame: &StackFrame, base: &Path) -> Value {
    let mut location = json!({ "logicalLocations": [{ "fullyQualifiedName": clean(&frame.name), "kind": "function" }] });
    if let Some(place) = SourceLocation::new(&frame.file, frame.line, base) {
        location["physicalLocation"] = physical(&place);
    }
    location
}

fn message(text: &str) -> Value {
    json!({ "text": without_links(&clean(text)) })
}

/// `[text](target)` would be a link, also in plain text.
fn without_links(text: &str) -> String {
    text.replace("](", "] (")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::testing;
    use proptest::prelude::*;

    fn parsed(outcome: &Outcome) -> Value {
        serde_json::from_str(&render(outcome, Path::new("/srv/app")).unwrap()).unwrap()
    }

    #[test]
    fn results_have_file_line_and_stack() {
        let log = parsed(&testing::outcome());
        let run = &log["runs"][0];
        assert_eq!(run["results"].as_array().unwrap().len(), 4);
        assert_eq!(run["tool"]["driver"]["rules"].as_array().unwrap().len(), 4);
        let failed = &run["results"][0];
        let place = &failed["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"], json!({ "uri": "app.py", "uriBaseId": "%SRCROOT%" }));
        assert_eq!(
            (&place["region"]["startLine"], &failed["level"], &failed["ruleId"]),
            (&json!(16), &json!("error"), &json!("gil/limit/waiting"))
        );
        let frames = failed["stacks"][0]["frames"].as_array().unwrap();
        assert_eq!((frames.len(), &frames[0]["location"]["physicalLocation"]["region"]["startLine"]), (3, &json!(16)));
        assert_eq!((&run["results"][2]["kind"], &run["results"][2]["level"]), (&json!("open"), &json!("none")));
        assert_eq!(run["originalUriBaseIds"]["%SRCROOT%"]["uri"], "file:///srv/app/");
    }

    #[test]
    fn a_gate_that_could_not_be_judged_did_not_run_well() {
        let log = parsed(&Outcome { error: Some("no\nway".into()), checks: Vec::new(), notes: Vec::new(), ..testing::outcome() });
        let invocation = &log["runs"][0]["invocations"][0];
        assert_eq!(invocation["executionSuccessful"], false);
        assert_eq!(invocation["toolExecutionNotifications"], json!([{ "level": "error", "message": { "text": "no\\nway" } }]));
    }

    proptest! {
        /// No name makes a link, and no path anything but a URI.
        #[test]
        fn names_stay_names(name in "(\\PC|[\\[\\]()\r\n]|\\]\\(){0,60}") {
            let mut outcome = testing::outcome();
            for culprit in outcome.checks.iter_mut().filter_map(|check| check.culprit.as_mut()) {
                culprit.name = name.clone();
                culprit.file = name.clone();
            }
            for result in parsed(&outcome)["runs"][0]["results"].as_array().unwrap() {
                prop_assert!(!result["message"]["text"].as_str().unwrap().contains("]("));
                if let Some(uri) = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].as_str() {
                    prop_assert!(uri.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/%:".contains(&b)), "{}", uri);
                }
            }
        }
    }
}
