//! Decides the checks. A limit is broken when the whole interval is beyond it, kept when the whole
//! interval is within it, and otherwise inconclusive; then the check says how much longer to
//! measure.
//!
//! A regression is decided in the same way by the difference from the baseline, against the larger
//! of the allowed change and the floor. A check of the verdict is broken when every run has a
//! forbidden verdict, and kept when no run has one.

use super::estimate::{estimate, MetricEstimate, NoEstimate, Worst};
use super::expr::{Allowed, Bound, Limit, Op, Regression};
use super::metric::Metric;
use super::outcome::{Check, Interval, Kind, Level, Unit, Verdict};
use super::run::Run;
use crate::analysis::report::{Code, Confidence};
use crate::output::numbers;

/// Factor on the advised window, so that the next interval clears the limit with some margin.
const SAFETY_FACTOR: f64 = 1.2;
/// The longest window that is advised, in seconds.
const LONGEST_S: f64 = 3600.0;

/// Decides a limit.
pub fn limit(limit: &Limit, runs: &[Run]) -> Check {
    let mut check = empty_check(&limit.metric, Kind::Limit, limit.to_string(), limit.level);
    match &limit.bound {
        Bound::Number(op, bound) => number(&mut check, &limit.metric, *op, *bound, runs),
        Bound::In(codes) => verdict(&mut check, runs, codes, true),
        Bound::NotIn(codes) => verdict(&mut check, runs, codes, false),
    }
    with_level(check)
}

/// Decides a regression.
pub fn regression(regression: &Regression, runs: &[Run], base: &[Run]) -> Check {
    let mut check = empty_check(&regression.metric, Kind::Regression, regression.to_string(), regression.level);
    let worst = if regression.grows { Worst::Most } else { Worst::Least };
    let (new, old) = (estimate(&regression.metric, runs, worst), estimate(&regression.metric, base, worst));
    let unit = check.unit;
    check.measured = new.as_ref().ok().map(|f| f.interval);
    check.measured_text = new.as_ref().map_or(numbers::NONE.into(), |f| interval(unit, &f.interval));
    let (new, old) = match (new, zero_if_unseen(old)) {
        (Ok(new), Ok(old)) => (new, old),
        (Err(why), _) => return with_level(Check { why: why.to_string(), ..check }),
        (_, Err(why)) => return with_level(Check { why: format!("the baseline has no such figure: {why}"), ..check }),
    };
    let allowed = match regression.allowed {
        Allowed::Absolute(most) => most,
        Allowed::Relative(part) => part * old.interval.value,
    };
    let allowed = allowed.max(regression.floor);
    let sign = if regression.grows { 1.0 } else { -1.0 };
    let bound = old.interval.value + sign * allowed;
    let change = difference(&new.interval, &old.interval);
    check.limit = Some(bound);
    check.limit_text = format!("{} {}", if regression.grows { "<=" } else { ">=" }, amount(unit, bound));
    check.baseline = Some(old.interval);
    check.baseline_text = interval(unit, &old.interval);
    check.change = Some(change);
    // The interval of the change in the direction that is worse.
    let (least, most) = if regression.grows { (change.low, change.high) } else { (-change.high, -change.low) };
    check.verdict = verdict_of_bound(least, most, allowed);
    let most = difference_text(unit, allowed);
    let changed =
        format!("changed by {} ({} .. {})", signed(unit, change.value), signed_number(unit, change.low), signed_number(unit, change.high));
    check.why = match check.verdict {
        Verdict::Fail => format!("{changed}, more than the allowed {most}"),
        Verdict::Pass => format!("{changed}, within the allowed {most}"),
        _ => format!("{changed}, and the allowed {most} is inside that interval: {}", advice_on_duration(&change, sign * allowed, runs)),
    };
    with_level(check)
}

/// A baseline stores the functions with the most time, so a function that is not in it counts as
/// zero.
fn zero_if_unseen(old: Result<MetricEstimate, NoEstimate>) -> Result<MetricEstimate, NoEstimate> {
    match old {
        Err(NoEstimate::NoFunction(_)) => Ok(MetricEstimate { interval: Interval { value: 0.0, low: 0.0, high: 0.0 }, subject: None }),
        old => old,
    }
}

fn empty_check(metric: &Metric, kind: Kind, expression: String, level: Level) -> Check {
    Check {
        metric: metric.to_string(),
        kind,
        expression,
        level,
        verdict: Verdict::Inconclusive,
        unit: metric.unit(),
        limit: None,
        limit_text: numbers::NONE.into(),
        measured: None,
        measured_text: numbers::NONE.into(),
        baseline: None,
        baseline_text: numbers::NONE.into(),
        change: None,
        why: String::new(),
        process: None,
        culprit: None,
    }
}

/// A check marked `@warn` that is broken or inconclusive becomes a warning.
fn with_level(check: Check) -> Check {
    let fails = matches!(check.verdict, Verdict::Fail | Verdict::Inconclusive);
    match check.level {
        Level::Warn if fails => Check { verdict: Verdict::Warn, ..check },
        _ => check,
    }
}

/// A check that is not enforced: what does not pass becomes a warning.
pub fn only_shown(check: Check) -> Check {
    with_level(Check { level: Level::Warn, ..check })
}

/// A check of an incomplete measurement: what would pass is inconclusive, and what is broken stays
/// broken.
pub fn without_pass(check: Check, why: &str) -> Check {
    match check.verdict {
        Verdict::Pass => with_level(Check { verdict: Verdict::Inconclusive, why: format!("{}, but {why}", check.why), ..check }),
        _ => check,
    }
}

/// The verdict on an interval that must not exceed a bound.
fn verdict_of_bound(low: f64, high: f64, bound: f64) -> Verdict {
    if low > bound {
        Verdict::Fail
    } else if high <= bound {
        Verdict::Pass
    } else {
        Verdict::Inconclusive
    }
}

fn number(check: &mut Check, metric: &Metric, op: Op, bound: f64, runs: &[Run]) {
    let worst = if op.is_upper_bound() { Worst::Most } else { Worst::Least };
    let unit = check.unit;
    check.limit = Some(bound);
    check.limit_text = format!("{} {}", op.sign(), amount(unit, bound));
    let found = match estimate(metric, runs, worst) {
        Ok(found) => found,
        Err(why) => return check.why = why.to_string(),
    };
    let i = found.interval;
    check.measured = Some(i);
    check.measured_text = interval(unit, &i);
    check.verdict = match op {
        Op::AtMost => verdict_of_bound(i.low, i.high, bound),
        Op::AtLeast => verdict_of_bound(-i.high, -i.low, -bound),
        // The strict operators differ only at the bound.
        Op::Below => {
            if i.low >= bound {
                Verdict::Fail
            } else if i.high < bound {
                Verdict::Pass
            } else {
                Verdict::Inconclusive
            }
        }
        Op::Above => {
            if i.high <= bound {
                Verdict::Fail
            } else if i.low > bound {
                Verdict::Pass
            } else {
                Verdict::Inconclusive
            }
        }
    };
    let subject = match &found.subject {
        Some((_, name)) => format!(" (of {name})"),
        None => String::new(),
    };
    check.why = match check.verdict {
        Verdict::Fail => format!("all of the interval{subject} is {} the limit", if op.is_upper_bound() { "above" } else { "below" }),
        Verdict::Pass => format!("all of the interval{subject} is within the limit"),
        _ => format!("the limit is inside the interval{subject}: {}", advice_on_duration(&i, bound, runs)),
    };
}

/// How much longer to measure until the interval clears a bound: its width falls with the square
/// root of the time.
fn advice_on_duration(i: &Interval, bound: f64, runs: &[Run]) -> String {
    let measured: f64 = runs.iter().map(|run| run.seconds).sum();
    let distance = (i.value - bound).abs();
    let half = if i.value <= bound { i.high - i.value } else { i.value - i.low };
    let factor = (half / distance).powi(2) * SAFETY_FACTOR;
    let needed = measured * factor;
    if !needed.is_finite() || needed > LONGEST_S.max(measured) {
        return "the figure is so close to the limit that no reasonable window decides it; change the limit or the program".into();
    }
    match runs.len() {
        0..=2 => format!("measure for about {} instead of {}", numbers::seconds(needed.max(1.0)), numbers::seconds(measured)),
        n => format!("take about {} runs instead of {n} (--runs), or longer ones", ((n as f64 * factor).ceil() as usize).max(n + 1)),
    }
}

fn difference(new: &Interval, old: &Interval) -> Interval {
    let change = new.value - old.value;
    let below = (new.value - new.low).hypot(old.high - old.value);
    let above = (new.high - new.value).hypot(old.value - old.low);
    Interval { value: change, low: change - below, high: change + above }
}

fn verdict(check: &mut Check, runs: &[Run], codes: &[Code], wanted: bool) {
    let list = codes.iter().map(|code| code.name()).collect::<Vec<_>>().join(", ");
    check.limit_text = format!("{}in [{list}]", if wanted { "" } else { "not " });
    let mut seen: Vec<&str> = runs.iter().filter_map(|run| run.verdict).map(Code::name).collect();
    seen.sort_unstable();
    seen.dedup();
    check.measured_text = if seen.is_empty() { numbers::NONE.into() } else { seen.join(", ") };
    // A verdict of low confidence decides nothing, except a check for `inconclusive` itself. A
    // verdict on a small part of the program, or on a program in which nothing ran, decides nothing
    // either, except a check for `idle` itself.
    let asks_for = |run: &Run, code: Code| codes.contains(&code) && run.verdict == Some(code);
    let is_confident = |run: &Run| {
        asks_for(run, Code::Inconclusive)
            || (run.verdict != Some(Code::Inconclusive) && run.confidence.is_some_and(|confidence| confidence > Confidence::Low))
    };
    let decides = |run: &&Run| !run.is_elsewhere() && (!run.is_idle() || asks_for(run, Code::Idle)) && is_confident(run);
    let conforming: Vec<bool> =
        runs.iter().filter(decides).filter_map(|run| run.verdict).map(|code| codes.contains(&code) == wanted).collect();
    let (kept, all) = (conforming.iter().filter(|kept| **kept).count(), conforming.len());
    (check.verdict, check.why) = if all * 2 <= runs.len() {
        let why = match runs.iter().find_map(|run| run.unusable.as_ref()) {
            Some(unusable) if matches!(unusable.code, Code::WorkInChildren | Code::Idle) => unusable.why.clone(),
            Some(unusable) => format!("{}; measure for longer", unusable.why.trim_end_matches('.')),
            None => "the verdict is of low confidence; measure for longer".into(),
        };
        (Verdict::Inconclusive, why)
    } else if kept == all {
        (Verdict::Pass, format!("the verdict is {}", check.measured_text))
    } else if kept == 0 {
        (Verdict::Fail, format!("the verdict is {}", check.measured_text))
    } else {
        (Verdict::Inconclusive, format!("the verdict differs from run to run: {}", check.measured_text))
    };
}

/// A number with its unit.
pub fn amount(unit: Unit, value: f64) -> String {
    let text = without_unit(unit, value);
    match unit {
        Unit::Share => text + " %",
        Unit::Ms => text + " ms",
        Unit::Factor => text + "x",
        Unit::PerSecond => text + "/s",
        Unit::Threads | Unit::Verdict => text,
    }
}

fn without_unit(unit: Unit, value: f64) -> String {
    match unit {
        _ if !value.is_finite() => numbers::NONE.into(),
        Unit::Share => format!("{:.1}", value * 100.0 + 0.0),
        Unit::Ms if value.abs() < 9.95 => format!("{value:.1}"),
        Unit::Ms | Unit::PerSecond => format!("{value:.0}"),
        Unit::Threads | Unit::Factor | Unit::Verdict => format!("{value:.2}"),
    }
}

fn interval(unit: Unit, i: &Interval) -> String {
    format!("{} ({} - {})", amount(unit, i.value), without_unit(unit, i.low), without_unit(unit, i.high))
}

/// The size of a change. The change of a share counts in percentage points.
fn difference_text(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Share => without_unit(unit, value) + " percentage points",
        _ => amount(unit, value),
    }
}

fn sign_of(value: f64) -> &'static str {
    if value < 0.0 {
        "-"
    } else {
        "+"
    }
}

/// A change with its sign and unit.
fn signed(unit: Unit, value: f64) -> String {
    format!("{}{}", sign_of(value), difference_text(unit, value.abs()))
}

/// A change with its sign.
fn signed_number(unit: Unit, value: f64) -> String {
    format!("{}{}", sign_of(value), without_unit(unit, value.abs()))
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
