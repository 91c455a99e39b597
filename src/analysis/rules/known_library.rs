//! A library that is known to keep the GIL in C, or to release it, where this program spends time
//! in it. A finding, never the verdict.
//!
//! `libraries.tsv` lists the libraries, each with its source. The file of the innermost Python
//! function identifies a library. A C function that the user's code calls directly has no frame and
//! is not recognised.

use super::{position, Code, Diagnosis, Position, RuleInput, RuleResult, Severity};
use crate::analysis::bootstrap;
use crate::analysis::phrases::percent;
use crate::analysis::report::FunctionRow;

const KNOWN: &str = include_str!("../libraries.tsv");
/// Threads in the C code of a library that releases the GIL, or waiting for one that keeps it, on
/// average, from which the library is worth a finding.
const MATTERS: f64 = 0.05;

/// What the code of a library does with the GIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GilUse {
    Keeps,
    Releases,
    /// Releases it, but threads of one process delay each other there, by counters or locks that
    /// they share: the time does not show as waiting.
    Contends,
}

/// A line of the table.
struct Library<'t> {
    file: &'t str,
    gil: GilUse,
    what: &'t str,
    source: &'t str,
    advice: &'t str,
}

pub(in crate::analysis) fn keeps(e: &RuleInput<'_>) -> RuleResult {
    evaluate(
        e,
        |gil| gil == GilUse::Keeps,
        // A library does no harm by keeping a GIL that no other thread wants then.
        |f| if f.holding > 0.0 { f.inflicted_wait * (f.holding_native / f.holding).min(1.0) } else { 0.0 },
        |l, f, waiting| {
            Diagnosis::finding(Code::KnownLibrary).with_severity(Severity::Medium).because(format!(
                "{} keeps the GIL: {} is in that code {} of the time, and {waiting:.2} other threads wait for it on average. (Source: {})",
                l.what,
                e.place_and_caller_clause(&f.place()),
                percent(f.holding_native.min(1.0)),
                l.source
            ))
        },
    )
}

pub(in crate::analysis) fn releases(e: &RuleInput<'_>) -> RuleResult {
    evaluate(
        e,
        |gil| gil != GilUse::Keeps,
        |f| f.native,
        |l, f, time| {
            let severity = if l.gil == GilUse::Contends { Severity::Medium } else { Severity::Low };
            Diagnosis::finding(Code::KnownLibrary).with_severity(severity).because(format!(
                "{} runs without the GIL {} of the time, in {}. (Source: {})",
                e.place_and_caller_clause(&f.place()),
                percent(time.min(1.0)),
                l.what,
                l.source
            ))
        },
    )
}

/// What is advised where a function of such a library keeps the GIL.
pub(super) fn keeper_advice(file: &str) -> Option<&'static str> {
    libraries().find(|l| l.gil == GilUse::Keeps && file.contains(l.file)).map(|l| l.advice)
}

/// The function of such a library with most of that time.
fn evaluate(
    e: &RuleInput<'_>,
    kind: fn(GilUse) -> bool,
    time: fn(&FunctionRow) -> f64,
    describe: impl Fn(&Library<'_>, &FunctionRow, f64) -> Diagnosis,
) -> RuleResult {
    let theirs = e.functions.iter().filter_map(|f| Some((library(f).filter(|l| kind(l.gil))?, f)));
    let Some((library, most)) = theirs.max_by(|a, b| time(a.1).total_cmp(&time(b.1))) else { return RuleResult::DoesNotApply };
    let share = bootstrap::share_interval(time(most).min(1.0), 1.0, e.profile.window.counts.samples as f64);
    match position(&share, MATTERS) {
        Position::Below => RuleResult::DoesNotApply,
        Position::Straddles => RuleResult::Undetermined(format!(
            "Between {:.2} and {:.2} threads are in {}, or wait for it, on average.",
            share.low, share.high, library.what
        )),
        Position::Above => describe(&library, most, time(most)).next_step(library.advice).applies(),
    }
}

fn library(f: &FunctionRow) -> Option<Library<'static>> {
    let matches = |l: &Library<'_>| match l.file.split_once(':') {
        Some((file, name)) => f.file.contains(file) && f.name.ends_with(name),
        None => f.file.contains(l.file),
    };
    libraries().find(matches)
}

/// What most of the work without the GIL is spent in, with the advice on it, if threads of one
/// process delay each other there.
pub(super) fn contended(e: &RuleInput<'_>) -> Option<(&'static str, String)> {
    let (mut all, mut contended, mut most) = (0.0, 0.0, 0.0);
    let mut which = None;
    for f in e.functions {
        all += f.native;
        if let Some(l) = library(f).filter(|l| l.gil == GilUse::Contends) {
            contended += f.native;
            if f.native > most {
                (most, which) = (f.native, Some((l.what, format!("See {}. {}", e.place_and_caller(&f.place()), l.advice))));
            }
        }
    }
    which.filter(|_| contended > 0.5 * all)
}

fn libraries() -> impl Iterator<Item = Library<'static>> {
    KNOWN.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut columns = line.split('\t');
        let mut next = || columns.next();
        let (file, gil) = (next()?, next()?);
        let gil = match gil {
            "keeps" => GilUse::Keeps,
            "releases" => GilUse::Releases,
            _ => GilUse::Contends,
        };
        Some(Library { file, gil, what: next()?, source: next()?, advice: next()? })
    })
}

#[cfg(test)]
mod tests {
    use super::{libraries, KNOWN};
    use crate::analysis::report;
    use crate::analysis::report::{Code, Report};
    use crate::analysis::testing::{is_undetermined, Scene};

    fn finding_text(r: &Report) -> Option<&str> {
        r.findings.iter().find(|f| f.code == Code::KnownLibrary).map(|f| f.evidence.as_str())
    }

    #[test]
    fn every_line_of_the_table_is_whole() {
        let lines = KNOWN.lines().filter(|line| !line.starts_with('#')).count();
        assert!(lines > 10 && libraries().count() == lines);
        for line in KNOWN.lines().filter(|line| !line.starts_with('#')) {
            let columns: Vec<&str> = line.split('\t').collect();
            assert!(
                columns.len() == 5 && ["keeps", "releases", "contends"].contains(&columns[1]) && columns.iter().all(|c| !c.is_empty()),
                "{line}"
            );
        }
    }

    #[test]
    fn a_library_that_keeps_the_gil_is_named_where_others_want_it() {
        let turns =
            |t: u64| if (t / 5).is_multiple_of(2) { vec!["C encode@json/encoder.py", "W answer"] } else { vec!["W answer", "P answer"] };
        let r = report(&Scene::new(2.0).run(3000, turns));
        let evidence = finding_text(&r).unwrap_or_default();
        assert!(
            evidence
                .starts_with("json's C encoder keeps the GIL: encode (encoder.py:12) is in that code 50 % of the time, and 0.50 other threads wait for it on average."),
            "{evidence}"
        );
        let alone = |t: u64| if (t / 5).is_multiple_of(2) { vec!["C encode@json/encoder.py", "I recv"] } else { vec!["P main", "I recv"] };
        assert!(finding_text(&report(&Scene::new(2.0).run(3000, alone))).is_none());
    }

    #[test]
    fn a_library_that_no_thread_waits_for_is_no_finding_beside_contention_elsewhere() {
        // Nobody waits during the encoding; the contention is between other functions.
        let apart = |t: u64| match t % 10 {
            0..3 => vec!["C encode@json/encoder.py", "I recv"],
            n if n % 2 == 0 => vec!["P answer", "W answer"],
            _ => vec!["W answer", "P answer"],
        };
        assert!(finding_text(&report(&Scene::new(2.0).run(3000, apart))).is_none());
    }

    #[test]
    fn a_library_that_releases_it_is_named_and_unknown_code_is_not() {
        let r = report(&Scene::new(2.0).run(3000, |_| vec!["N sort@numpy/core/fromnumeric.py", "I recv"]));
        assert!(finding_text(&r).unwrap_or_default().contains("in NumPy's loops"), "{:?}", r.findings);
        assert!(finding_text(&report(&Scene::new(2.0).run(3000, |_| vec!["N sort@mine.py", "I recv"]))).is_none());
    }

    #[test]
    fn a_share_near_the_bound_is_undetermined() {
        let some = |t: u64| vec![if t.is_multiple_of(20) { "N sort@numpy/core/fromnumeric.py" } else { "I recv" }, "I recv"];
        assert!(is_undetermined(super::releases, &Scene::new(2.0).run(600, some)));
    }
}
