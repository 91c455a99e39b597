//! JUnit XML for Jenkins, GitLab and others: a case for each check.
//!
//! There is no standard, but all readers agree that `failure` and `error` are red and `skipped` is
//! not. An inconclusive check does not pass the build (exit code 3), so it is an `error` and not
//! `skipped`. A check that only warns is a passed case with a `system-out`.

use super::shared;
use crate::gate::outcome::{Check, Outcome, Verdict};
use crate::output::sanitize::clean;
use std::path::Path;

/// The whole file. Paths are relative to `base`.
pub fn render(outcome: &Outcome, base: &Path) -> String {
    let count = |verdict| outcome.checks.iter().filter(|check| check.verdict == verdict).count();
    let without_checks = usize::from(outcome.error.is_some());
    let attributes = format!(
        "name=\"gilprof gate\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"0\" time=\"{:.3}\"",
        outcome.checks.len() + without_checks,
        count(Verdict::Fail),
        count(Verdict::Inconclusive) + without_checks,
        outcome.runs.iter().map(|run| run.seconds).filter(|seconds| seconds.is_finite()).sum::<f64>(),
    );
    let mut out = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {attributes}>\n  <testsuite {attributes}>\n");
    out.push_str(&properties(outcome));
    if let Some(error) = &outcome.error {
        let text = escaped(&clean(error));
        let start = start_tag("measuring", outcome, "");
        out.push_str(&format!("{start}      <error message=\"{text}\" type=\"gate\">{text}</error>\n    </testcase>\n"));
    }
    for check in &outcome.checks {
        out.push_str(&case(check, outcome, base));
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

fn properties(outcome: &Outcome) -> String {
    let target = outcome.target.as_ref();
    let facts = [
        ("gilprof", Some(outcome.gilprof.to_string())),
        ("verdict", Some(outcome.verdict.as_str().to_string())),
        ("headline", Some(outcome.headline.clone())),
        ("python", target.map(|target| target.python.clone())),
        ("baseline", outcome.baseline.as_ref().map(|baseline| baseline.path.clone())),
    ];
    let property = |(name, value): (&str, Option<String>)| {
        value.map(|value| format!("      <property name=\"{name}\" value=\"{}\"/>\n", escaped(&clean(&value)))).unwrap_or_default()
    };
    format!("    <properties>\n{}    </properties>\n", facts.into_iter().map(property).collect::<String>())
}

fn case(check: &Check, outcome: &Outcome, base: &Path) -> String {
    let place = check.culprit.as_ref().and_then(|_| shared::place(check, outcome, base));
    let at = place.map_or_else(String::new, |place| format!(" file=\"{}\" line=\"{}\"", escaped(&clean(&place.path)), place.line));
    let body = escaped(&shared::lines(check, base).join("\n"));
    let element = |name: &str, kind: &str| {
        format!("      <{name} message=\"{}\" type=\"{kind}\">{body}</{name}>\n", escaped(&shared::sentence(check)))
    };
    let result = match check.verdict {
        Verdict::Fail => element("failure", shared::kind(check)),
        Verdict::Inconclusive => element("error", "inconclusive"),
        Verdict::Warn | Verdict::Pass => format!("      <system-out>{body}</system-out>\n"),
    };
    format!("{}{result}    </testcase>\n", start_tag(&shared::title(check), outcome, &at))
}

fn start_tag(name: &str, outcome: &Outcome, at: &str) -> String {
    let class = escaped(&clean(&outcome.program));
    format!("    <testcase name=\"{}\" classname=\"gilprof.{class}\" time=\"0\"{at}>\n", escaped(name))
}

/// Escapes text for elements and attributes. `clean` has already replaced what XML forbids.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::testing;
    use proptest::prelude::*;

    #[test]
    fn there_is_a_case_for_each_check_and_the_counts_add_up() {
        let text = render(&testing::outcome(), Path::new("/srv/app"));
        assert!(text.contains("tests=\"5\" failures=\"2\" errors=\"1\" skipped=\"0\" time=\"5.000\""), "{text}");
        let count = |what: &str| text.matches(what).count();
        assert_eq!(["<testcase ", "<failure ", "<error ", "<system-out>"].map(count), [5, 2, 1, 2]);
        assert!(text.contains("name=\"waiting &lt;= 20%\" classname=\"gilprof.app.py\" time=\"0\" file=\"app.py\" line=\"16\""), "{text}");
        assert!(text.contains("evil\\x1b[31m]]&gt;&amp;&quot;&apos;|\\n::error::x"), "{text}");
    }

    #[test]
    fn an_outcome_without_checks_is_a_case_with_an_error() {
        let outcome = Outcome { error: Some("the command ended with 3 <>".into()), checks: Vec::new(), ..testing::outcome() };
        let text = render(&outcome, Path::new("/"));
        assert!(text.contains("tests=\"1\" failures=\"0\" errors=\"1\""), "{text}");
        assert!(text.contains("<error message=\"the command ended with 3 &lt;&gt;\" type=\"gate\">"), "{text}");
    }

    fn named(name: &str) -> String {
        let mut outcome = testing::outcome();
        (outcome.program, outcome.error) = (name.into(), Some(name.into()));
        for check in &mut outcome.checks {
            check.expression = name.into();
            if let Some(culprit) = &mut check.culprit {
                (culprit.name, culprit.file) = (name.into(), name.into());
            }
        }
        render(&outcome, Path::new("/"))
    }

    proptest! {
        /// Any name gives the same number of tags, only the entities of the writer, and nothing
        /// that XML forbids.
        #[test]
        fn names_stay_text(name in "(\\PC|[<>&\"'\r\n\u{0}\u{8}\u{fffe}]|\\]\\]>){0,80}") {
            let text = named(&name);
            prop_assert_eq!(text.matches('<').count(), named("x").matches('<').count());
            for rest in text.split('&').skip(1) {
                prop_assert!(["amp;", "lt;", "gt;", "quot;", "apos;"].iter().any(|entity| rest.starts_with(entity)), "{}", rest);
            }
            let forbidden = |c: char| (c.is_control() && c != '\n') || c == '\u{fffe}';
            prop_assert!(!text.contains(forbidden));
        }
    }
}
