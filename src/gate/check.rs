//! The judgement: a limit is broken when the whole interval lies beyond it, kept when the whole interval lies within it, and otherwise it
//! cannot be told, and how much longer to run is said.
//!
//! A regression is judged by the difference to the baseline in the same way, against the larger of what is allowed and of the floor. A
//! verdict is forbidden when every run has a forbidden one, and allowed when none has.

use super::estimate::{estimate, MetricEstimate, NoEstimate, Worst};
use super::expr::{Allowed, Bound, Limit, Op, Regression};
use super::metric::Metric;
use super::outcome::{Check, Interval, Kind, Level, Unit, Verdict};
use super::run::Run;
use crate::analysis::report::{Code, Confidence};
use crate::output::numbers;

/// What is run longer than asked for, so that the next interval surely clears the limit.
const SAFETY_FACTOR: f64 = 1.2;
/// No longer window than this is advised.
const LONGEST_S: f64 = 3600.0;

/// Judges a limit.
pub fn limit(limit: &Limit, runs: &[Run]) -> Check {
    let mut check = empty_check(&limit.metric, Kind::Limit, limit.to_string(), limit.level);
    match &limit.bound {
        Bound::Number(op, bound) => number(&mut check, &limit.metric, *op, *bound, runs),
        Bound::In(codes) => verdict(&mut check, runs, codes, true),
        Bound::NotIn(codes) => verdict(&mut check, runs, codes, false),
    }
    with_level(check)
}

/// Judges a regression.
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
        (_, Err(why)) => return with_level(Check { why: format!("the baseline does not say: {why}"), ..check }),
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
    // Towards the worse, whichever way that is.
    let (least, most) = if regression.grows { (change.low, change.high) } else { (-change.high, -change.low) };
    check.verdict = verdict_of_bound(least, most, allowed);
    let most = points(unit, allowed);
    let changed = format!("changed by {} ({} .. {})", signed(unit, change.value), signed(unit, change.low), signed(unit, change.high));
    check.why = match check.verdict {
        Verdict::Fail => format!("{changed}, which is more than the {most} that are allowed"),
        Verdict::Pass => format!("{changed}, within the {most} that are allowed"),
        _ => format!("{changed}, about the {most} that are allowed: {}", advice_on_duration(&change, sign * allowed, runs)),
    };
    with_level(check)
}

/// A function that the baseline does not know did nothing then: it keeps those that did most.
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
        culprit: None,
    }
}

/// What is only to be said is said, and fails nothing: neither when it is broken nor when it cannot be told.
fn with_level(check: Check) -> Check {
    let fails = matches!(check.verdict, Verdict::Fail | Verdict::Inconclusive);
    match check.level {
        Level::Warn if fails => Check { verdict: Verdict::Warn, ..check },
        _ => check,
    }
}

/// Where an interval lies by a bound.
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
        // Strict ones differ at the bound only.
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
    let of = match &found.subject {
        Some((_, name)) => format!(" (of {name})"),
        None => String::new(),
    };
    check.why = match check.verdict {
        Verdict::Fail => format!("all of the interval{of} is {} the limit", if op.is_upper_bound() { "above" } else { "below" }),
        Verdict::Pass => format!("all of the interval{of} is within the limit"),
        _ => format!("the interval{of} straddles the limit: {}", advice_on_duration(&i, bound, runs)),
    };
}

/// How much longer to run until an interval clears a bound. It shrinks with the root of the time.
fn advice_on_duration(i: &Interval, bound: f64, runs: &[Run]) -> String {
    let measured: f64 = runs.iter().map(|run| run.seconds).sum();
    let distance = (i.value - bound).abs();
    let half = if i.value <= bound { i.high - i.value } else { i.value - i.low };
    let factor = (half / distance).powi(2) * SAFETY_FACTOR;
    let needed = measured * factor;
    if !needed.is_finite() || needed > LONGEST_S.max(measured) {
        return "it is so close that no reasonable window would tell; move the limit, or the program away from it".into();
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
    // What is too unsure to be said is too unsure to be judged, unless that itself is what was asked about.
    let is_confident = |run: &&Run| {
        run.verdict.is_some_and(|code| codes.contains(&code) && code == Code::Inconclusive)
            || (run.verdict != Some(Code::Inconclusive) && run.confidence.is_some_and(|confidence| confidence > Confidence::Low))
    };
    let conforming: Vec<bool> =
        runs.iter().filter(is_confident).filter_map(|run| run.verdict).map(|code| codes.contains(&code) == wanted).collect();
    let (kept, all) = (conforming.iter().filter(|kept| **kept).count(), conforming.len());
    (check.verdict, check.why) = if all * 2 <= runs.len() {
        let why = runs.iter().find_map(|run| run.unusable.as_ref()).map_or("the verdict is of low confidence".into(), |u| u.why.clone());
        (Verdict::Inconclusive, format!("{why}; measure for longer"))
    } else if kept == all {
        (Verdict::Pass, format!("the verdict is {}", check.measured_text))
    } else if kept == 0 {
        (Verdict::Fail, format!("the verdict is {}", check.measured_text))
    } else {
        (Verdict::Inconclusive, format!("the verdict is another one from run to run: {}", check.measured_text))
    };
}

/// A figure with its unit.
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

/// A change's size: of shares in points.
fn points(unit: Unit, value: f64) -> String {
    let text = amount(unit, value);
    if unit == Unit::Share {
        text.replace(" %", "pp")
    } else {
        text
    }
}

/// A change.
fn signed(unit: Unit, value: f64) -> String {
    format!("{}{}", if value < 0.0 { "-" } else { "+" }, points(unit, value.abs()))
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
