//! SARIF 2.1.0 for code scanning services and editors: a result for each check that does not pass,
//! with file, line and stack.
//!
//! An inconclusive check is a result of kind `open`, the standard's term. Checks that pass are left
//! out, because services show every result as an alert. Some services reject a result without a
//! location, so a result about the whole program is located at the first line of its script.
//! Fingerprints do not contain lines: an alert keeps its identity when the code above it moves.

use super::shared;
use super::source_location::{directory_uri, SourceLocation};
use crate::error::Result;
use crate::gate::outcome::{Check, Culprit, Level, Outcome, StackFrame, Verdict};
use crate::output::json;
use crate::output::sanitize::clean;
use serde_json::{json, Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// The schema that other tools validate it with.
const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
/// The URI base of the working directory; services map it to the checkout.
const ROOT: &str = "%SRCROOT%";

/// The whole log. Paths are relative to `base`.
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

/// Stable from build to build: it contains the metric and not the limit.
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
    let mut text = shared::sentence(check);
    let mut result = Map::new();
    let mut location = shared::place(check, outcome, base).map(|place| json!({ "physicalLocation": physical(&place) }));
    let mut subject = String::new();
    if let Some(culprit) = &check.culprit {
        text = format!("{text}\n{}", shared::culprit_sentence(culprit, base));
        subject = format!(
            "{} {}",
            clean(&culprit.name),
            SourceLocation::new(&culprit.file, 1, base).map_or_else(String::new, |place| place.uri())
        );
        if let Some(location) = &mut location {
            let name = shared::culprit_place(culprit, base).map_or(culprit.name.as_str(), |(name, _)| name);
            location["logicalLocations"] = json!([{ "fullyQualifiedName": clean(name), "kind": "function" }]);
        }
        if !culprit.stack.is_empty() {
            result.insert("stacks".into(), json!([stack(culprit, base)]));
        }
    }
    result.insert("ruleId".into(), json!(rule_id(check)));
    result.insert("kind".into(), json!(kind));
    result.insert("level".into(), json!(level));
    result.insert("message".into(), json!({ "text": without_links(&text) }));
    result.insert("locations".into(), json!(location.into_iter().collect::<Vec<_>>()));
    result.insert("partialFingerprints".into(), json!({ "gilprofCheck/v1": format!("{} {subject}", rule_id(check)) }));
    result.into()
}

fn physical(place: &SourceLocation) -> Value {
    let artifact = if place.is_relative() { json!({ "uri": place.uri(), "uriBaseId": ROOT }) } else { json!({ "uri": place.uri() }) };
    json!({ "artifactLocation": artifact, "region": { "startLine": place.line } })
}

/// The standard requires the innermost frame first.
fn stack(culprit: &Culprit, base: &Path) -> Value {
    let (_, shown) = shared::innermost(&culprit.stack);
    let frames: Vec<Value> = shown.iter().rev().map(|frame| json!({ "location": frame_location(frame, base) })).collect();
    json!({ "message": message("the most frequent stack of this function"), "frames": frames })
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

/// SARIF renders `[text](target)` as a link even in plain text.
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
    fn an_outcome_without_checks_is_an_unsuccessful_invocation() {
        let log = parsed(&Outcome { error: Some("no\nway".into()), checks: Vec::new(), notes: Vec::new(), ..testing::outcome() });
        let invocation = &log["runs"][0]["invocations"][0];
        assert_eq!(invocation["executionSuccessful"], false);
        assert_eq!(invocation["toolExecutionNotifications"], json!([{ "level": "error", "message": { "text": "no\\nway" } }]));
    }

    proptest! {
        /// No name becomes a link, and every path becomes a valid URI.
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
