//! Annotations for GitHub Actions: workflow commands, one a line, which the runner takes from the
//! output of the job.
//!
//! The runner shows at most ten annotations of a step and drops the rest silently, so the last one
//! counts the checks that are left out. A line is a command if it begins with `::`; line breaks,
//! percent signs and separators in it are escaped as in the runner's own toolkit.

use super::shared;
use crate::gate::outcome::{Check, Outcome, Verdict};
use crate::output::sanitize::clean;
use std::path::Path;

/// The most annotations that the runner shows for a step.
pub const MAX_ANNOTATIONS: usize = 10;

/// The commands, each with its line break. Empty if all checks pass. Paths are relative to `base`.
pub fn render(outcome: &Outcome, base: &Path) -> String {
    let mut commands: Vec<String> = Vec::new();
    if let Some(error) = &outcome.error {
        commands.push(command("error", &[("title", "gilprof gate")], &clean(error)));
    }
    let checks = shared::unpassed(outcome);
    commands.extend(checks.iter().map(|check| annotation(check, outcome, base)));
    if commands.len() > MAX_ANNOTATIONS {
        let left_out = commands.len() - (MAX_ANNOTATIONS - 1);
        commands.truncate(MAX_ANNOTATIONS - 1);
        commands.push(command(
            "warning",
            &[("title", "gilprof gate")],
            &format!("{left_out} more checks did not pass; the log has all of them"),
        ));
    }
    commands.concat()
}

fn annotation(check: &Check, outcome: &Outcome, base: &Path) -> String {
    let severity = if check.verdict == Verdict::Fail { "error" } else { "warning" };
    let (place, title) = (shared::place(check, outcome, base), format!("gilprof gate: {}", shared::title(check)));
    let mut properties: Vec<(&str, String)> = Vec::new();
    if let Some(place) = place {
        properties.extend([("file", clean(&place.path)), ("line", place.line.to_string())]);
    }
    properties.push(("title", title));
    let properties: Vec<(&str, &str)> = properties.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let culprit = check.culprit.as_ref().map_or_else(String::new, |culprit| format!("\n{}", shared::culprit_sentence(culprit, base)));
    command(severity, &properties, &format!("{}{culprit}", shared::sentence(check)))
}

fn command(name: &str, properties: &[(&str, &str)], message: &str) -> String {
    let properties: Vec<String> = properties.iter().map(|(name, value)| format!("{name}={}", property(value))).collect();
    format!("::{name} {}::{}\n", properties.join(","), data(message))
}

/// `toolkit/packages/core/src/command.ts`, `escapeData`.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// `escapeProperty` of the same file.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::testing;
    use proptest::prelude::*;

    fn check(name: &str) -> Check {
        let mut check = testing::outcome().checks.remove(1);
        let culprit = check.culprit.as_mut().unwrap();
        culprit.name = name.into();
        culprit.file = name.into();
        check.expression = name.into();
        check
    }

    #[test]
    fn failures_are_errors_on_the_line_that_holds_the_gil() {
        let text = render(&testing::outcome(), Path::new("/srv/app"));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "::error file=app.py,line=16,title=gilprof gate%3A waiting <= 20%25::waiting is 52.1 %25 (50.3 - 53.9), limit <= 20 %25: \
             all of the interval is above the limit%0AParser.parse<T> (app.py:12) at line 16, thread worker-0: holds the GIL 97 %25 of the \
             time; 1.9 threads wait behind it"
        );
        let in_library = render(&testing::in_library(), Path::new("/srv/app"));
        assert!(in_library.starts_with("::error file=shop.py,line=4,title="), "{in_library}");
        assert!(lines[2].starts_with("::warning title=gilprof gate%3A wait_ms.p99 <= 25ms::"), "{}", lines[2]);
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn there_are_at_most_ten_and_the_last_counts_the_rest() {
        let with = |count: usize| Outcome { checks: (0..count).map(|n| check(&format!("f{n}"))).collect(), ..testing::outcome() };
        let text = render(&with(10), Path::new("/"));
        assert!(text.lines().count() == 10 && text.lines().all(|line| line.starts_with("::error file=f")), "{text}");
        let text = render(&with(25), Path::new("/"));
        assert_eq!(text.lines().count(), 10);
        assert!(text.ends_with("::16 more checks did not pass; the log has all of them\n"), "{text}");
        let error = Outcome { error: Some("no\nway".into()), checks: Vec::new(), ..testing::outcome() };
        assert_eq!(render(&error, Path::new("/")), "::error title=gilprof gate::no\\nway\n");
        let passed = Outcome { checks: testing::outcome().checks.drain(..1).collect(), ..testing::outcome() };
        assert_eq!(render(&passed, Path::new("/")), "");
    }

    proptest! {
        /// Any name gives one command, with the properties of the writer and no others.
        #[test]
        fn no_name_can_forge_a_command(name in "(\\PC|[\r\n%:,=\u{85}\u{2028}]|::error::){0,60}") {
            let outcome = Outcome { checks: vec![check(&name)], ..testing::outcome() };
            let text = render(&outcome, Path::new("/"));
            prop_assert_eq!(text.lines().count(), 1);
            let (head, _) = text.strip_prefix("::error ").unwrap().split_once("::").unwrap();
            for property in head.split(',') {
                let (key, value) = property.split_once('=').unwrap();
                prop_assert!(["file", "line", "title"].contains(&key), "{}", head);
                prop_assert!(!value.contains([':', ',', '\r', '\n']), "{}", head);
            }
        }
    }
}
