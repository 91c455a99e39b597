//! The grammar of limits; its model is the threshold syntax of k6:
//!
//! ```text
//! limit      := metric op number [unit] [level]
//!             | "verdict" ["not"] "in" "[" code {"," code} "]" [level]
//!             | "verdict" ("==" | "!=") code [level]
//! regression := metric ":" ("+" | "-") number [unit] ["," "min" number [unit]] [level]
//! metric     := name
//!             | "thread" "(" '"' glob '"' ")" "." state
//!             | "function" "(" '"' FILE:NAME '"' ")" "." figure
//! op         := "<=" | "<" | ">=" | ">"
//! level      := "@fail" | "@warn"
//! ```
//!
//! | metric counts | units of a limit | units of a regression |
//! |---|---|---|
//! | a share | `20%`, or `0.2` | `+5pp`, or `+0.05`; `+10%` of the baseline |
//! | threads | `0.5`, `0.5threads` | `+0.2`; `+10%` |
//! | milliseconds | `25ms`, `25`, `500us`, `0.5s` | `+5ms`; `+10%` |
//! | a factor | `1.3`, `1.3x` | `+0.2`, `+0.2x`; `+10%` |
//! | a number per second | `200`, `200/s` | `+50`, `+50/s`; `+10%` |
//!
//! `+` allows a metric to grow by the amount, `-` to fall by it. `min` is a floor: a change is a
//! regression only if it exceeds both. Its default is 2pp (percentage points), 0.05 threads, 1 ms,
//! 0.1x or 10/s. White space between tokens is optional. The error for an unknown name lists the
//! known ones.

use super::metric::{self, Metric};
use super::outcome::{Level, Unit};
use crate::analysis::report::Code;
use std::fmt;

/// The longest expression, in bytes.
pub const MAX_BYTES: usize = 1000;
/// The largest number in an expression.
const LARGEST: f64 = 1e9;

/// The operator that compares a figure with its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    AtMost,
    Below,
    AtLeast,
    Above,
}

/// The condition on a figure.
#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    /// A comparison with a number.
    Number(Op, f64),
    /// The verdict is one of these.
    In(Vec<Code>),
    /// The verdict is none of these.
    NotIn(Vec<Code>),
}

/// A limit on a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// The metric that is limited.
    pub metric: Metric,
    /// The condition that must hold.
    pub bound: Bound,
    /// Whether a broken check fails the build.
    pub level: Level,
}

/// The allowed size of a change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allowed {
    /// In the metric's own unit.
    Absolute(f64),
    /// As a fraction of the baseline's figure.
    Relative(f64),
}

/// A limit on the change of a metric from the baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Regression {
    /// The metric that is compared.
    pub metric: Metric,
    /// Whether growth is worse; otherwise a fall is.
    pub grows: bool,
    /// The allowed change.
    pub allowed: Allowed,
    /// The least allowed change, in the metric's own unit.
    pub floor: f64,
    /// Whether a broken check fails the build.
    pub level: Level,
}

impl Limit {
    /// Parses a limit.
    pub fn parse(text: &str) -> Result<Limit, String> {
        let mut parser = Parser::new(text)?;
        let metric = parser.metric()?;
        let bound = if metric == Metric::Verdict { parser.verdicts()? } else { parser.bound(metric.unit())? };
        Ok(Limit { metric, bound, level: parser.end()? })
    }
}

impl Regression {
    /// Parses a regression.
    pub fn parse(text: &str) -> Result<Regression, String> {
        let mut parser = Parser::new(text)?;
        let metric = parser.metric()?;
        if metric == Metric::Verdict {
            return Err("a verdict has no size that can grow; use a limit: verdict not in [latency-victims]".into());
        }
        if !parser.accept(":") {
            return Err(parser.unexpected("a colon", "waiting: +5pp, min 2pp"));
        }
        let grows = parser.accept("+");
        if !grows && !parser.accept("-") {
            return Err(parser.unexpected("+ or -", "waiting: +5pp, or gil.saturates_at: -1"));
        }
        let unit = metric.unit();
        let allowed = parser.allowed(unit)?;
        let floor = if parser.accept(",") {
            if !parser.accept("min") {
                return Err(parser.unexpected("min", "waiting: +5pp, min 2pp"));
            }
            match parser.allowed(unit)? {
                Allowed::Absolute(floor) => floor,
                Allowed::Relative(_) => return Err(format!("min is an absolute change, such as {}", default_floor(unit).1)),
            }
        } else {
            default_floor(unit).0
        };
        Ok(Regression { metric, grows, allowed, floor, level: parser.end()? })
    }
}

fn default_floor(unit: Unit) -> (f64, &'static str) {
    match unit {
        Unit::Share => (0.02, "min 2pp"),
        Unit::Threads => (0.05, "min 0.05"),
        Unit::Ms => (1.0, "min 1ms"),
        Unit::PerSecond => (10.0, "min 10/s"),
        Unit::Factor | Unit::Verdict => (0.1, "min 0.1x"),
    }
}

/// Checks a number after its conversion to the metric's own unit.
fn within_range(number: f64) -> Result<f64, String> {
    if number <= LARGEST {
        Ok(number)
    } else {
        Err(format!("{number} is larger than any figure"))
    }
}

/// A parser; `rest` is the remaining text.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Parser<'a>, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("an expression has at most {MAX_BYTES} bytes"));
        }
        Ok(Parser { rest: text.trim_start() })
    }

    /// Consumes `word` if it comes next. A word of letters must end there.
    fn accept(&mut self, word: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(word) else { return false };
        let ends_word = |c: char| !(c.is_alphanumeric() || c == '_');
        if word.chars().all(char::is_alphabetic) && !rest.chars().next().is_none_or(ends_word) {
            return false;
        }
        self.rest = rest.trim_start();
        true
    }

    /// Consumes characters as long as they satisfy a predicate.
    fn take_while(&mut self, accepted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c: char| !accepted(c)).unwrap_or(self.rest.len());
        let (run, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        run
    }

    fn unexpected(&self, wanted: &str, example: &str) -> String {
        let found = if self.rest.is_empty() { "the expression ends".into() } else { format!("found {:?}", self.rest) };
        format!("{found}, expected {wanted}, as in: {example}")
    }

    fn metric(&mut self) -> Result<Metric, String> {
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
        if name.is_empty() {
            return Err(self.unexpected(&format!("a metric ({})", metric::names()), "waiting <= 20%"));
        }
        if !self.accept("(") {
            return Metric::plain(name).ok_or_else(|| format!("there is no metric {name:?}; there are: {}", metric::names()));
        }
        let example = "thread(\"worker-*\").waiting";
        let Some((glob, rest)) = self.rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) else {
            return Err(self.unexpected("a name in double quotes", example));
        };
        self.rest = rest.trim_start();
        if !self.accept(")") || !self.accept(".") {
            return Err(self.unexpected("a closing bracket and a dot", example));
        }
        let what = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        Metric::selected(name, glob, what)
    }

    fn op(&mut self) -> Result<Op, String> {
        let all = [("<=", Op::AtMost), (">=", Op::AtLeast), ("<", Op::Below), (">", Op::Above)];
        let found = all.into_iter().find(|(sign, _)| self.accept(sign));
        found.map(|(_, op)| op).ok_or_else(|| self.unexpected("<=, <, >= or >", "waiting <= 20%"))
    }

    fn number(&mut self) -> Result<f64, String> {
        let text = self.take_while(|c| c.is_ascii_digit() || c == '.' || c == '_').replace('_', "");
        let number = text.parse::<f64>().ok().filter(|number| (0.0..=LARGEST).contains(number));
        number.ok_or_else(|| self.unexpected("a number", "waiting <= 20%"))
    }

    /// Consumes a unit.
    fn unit(&mut self) -> &'a str {
        self.take_while(|c| c.is_ascii_alphabetic() || c == '%' || c == '/')
    }

    fn bound(&mut self, unit: Unit) -> Result<Bound, String> {
        let op = self.op()?;
        let number = self.number()?;
        let word = self.unit();
        let factor = absolute(unit, word).or_else(|| (unit == Unit::Share && word == "%").then_some(0.01));
        let factor =
            factor.ok_or_else(|| unknown_unit(word, unit, if unit == Unit::Share { "%, or no unit for a fraction" } else { "" }))?;
        let bound = within_range(number * factor)?;
        if unit == Unit::Share && bound > 1.0 {
            return Err(format!("a share is at most 100%; {number} without a unit is a fraction: write {number}%"));
        }
        Ok(Bound::Number(op, bound))
    }

    fn allowed(&mut self, unit: Unit) -> Result<Allowed, String> {
        let number = self.number()?;
        let word = self.unit();
        let change = match word {
            "%" => return Ok(Allowed::Relative(number / 100.0)),
            "pp" if unit == Unit::Share => number / 100.0,
            _ => {
                let share = if unit == Unit::Share { "pp (percentage points), or % of the baseline" } else { "% of the baseline" };
                number * absolute(unit, word).ok_or_else(|| unknown_unit(word, unit, share))?
            }
        };
        if unit == Unit::Share && change > 1.0 {
            let hint = if word.is_empty() { format!("; {number} without a unit is a fraction: write {number}pp") } else { String::new() };
            return Err(format!("a share changes by at most 100pp{hint}"));
        }
        Ok(Allowed::Absolute(within_range(change)?))
    }

    fn verdicts(&mut self) -> Result<Bound, String> {
        let example = "verdict not in [blocked-holding-gil, latency-victims]";
        for (sign, equal) in [("==", true), ("!=", false)] {
            if self.accept(sign) {
                let codes = vec![self.code()?];
                return Ok(if equal { Bound::In(codes) } else { Bound::NotIn(codes) });
            }
        }
        let not = self.accept("not");
        if !self.accept("in") || !self.accept("[") {
            return Err(self.unexpected("not in […], in […], == or !=", example));
        }
        let mut codes = vec![self.code()?];
        while self.accept(",") {
            codes.push(self.code()?);
        }
        if !self.accept("]") {
            return Err(self.unexpected("a comma or ]", example));
        }
        codes.dedup();
        Ok(if not { Bound::NotIn(codes) } else { Bound::In(codes) })
    }

    fn code(&mut self) -> Result<Code, String> {
        let name = self.take_while(|c| c.is_ascii_lowercase() || c == '-');
        let known = Code::from_name(name).filter(|code| code.is_verdict());
        let all = || Code::verdicts().map(Code::name).collect::<Vec<_>>().join(", ");
        known.ok_or_else(|| format!("there is no verdict {name:?}; there are: {}", all()))
    }

    /// The level, then the end of the text.
    fn end(&mut self) -> Result<Level, String> {
        let level = if self.accept("@") {
            match (self.accept("warn"), self.accept("fail")) {
                (true, _) => Level::Warn,
                (_, true) => Level::Fail,
                _ => return Err(self.unexpected("warn or fail", "gil.busy <= 0.9 @warn")),
            }
        } else {
            Level::Fail
        };
        if self.rest.is_empty() {
            Ok(level)
        } else {
            Err(self.unexpected("the end", "gil.busy <= 0.9 @warn"))
        }
    }
}

/// The factor of a unit that converts to the metric's own unit.
fn absolute(unit: Unit, word: &str) -> Option<f64> {
    match (unit, word) {
        (_, "") | (Unit::Threads, "threads" | "thread") | (Unit::Ms, "ms") | (Unit::Factor, "x") | (Unit::PerSecond, "/s") => Some(1.0),
        (Unit::Ms, "s") => Some(1e3),
        (Unit::Ms, "us") => Some(1e-3),
        _ => None,
    }
}

fn unknown_unit(word: &str, unit: Unit, more: &str) -> String {
    let own = match unit {
        Unit::Share => "",
        Unit::Threads => "threads",
        Unit::Ms => "ms, us, s",
        Unit::Factor => "x",
        Unit::PerSecond => "/s",
        Unit::Verdict => "none",
    };
    let all: Vec<&str> = [own, more].into_iter().filter(|text| !text.is_empty()).collect();
    format!("there is no unit {word:?} for this metric; there are: {}", all.join(", "))
}

/// Formats a number in the metric's own unit for an expression.
fn format_number(unit: Unit, number: f64) -> String {
    // With six decimals, so that 0.2 is not written as 20.000000000000004%.
    let plain = |n: f64| format!("{:.6}", n).trim_end_matches('0').trim_end_matches('.').to_string();
    match unit {
        Unit::Share => plain(number * 100.0) + "%",
        Unit::Threads | Unit::Verdict => plain(number),
        Unit::Ms => plain(number) + "ms",
        Unit::Factor => plain(number) + "x",
        Unit::PerSecond => plain(number) + "/s",
    }
}

impl Op {
    /// Its sign in expressions.
    pub fn sign(self) -> &'static str {
        match self {
            Op::AtMost => "<=",
            Op::Below => "<",
            Op::AtLeast => ">=",
            Op::Above => ">",
        }
    }

    /// Whether it bounds the figure from above.
    pub fn is_upper_bound(self) -> bool {
        matches!(self, Op::AtMost | Op::Below)
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Fail => "",
        Level::Warn => " @warn",
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |codes: &[Code]| codes.iter().map(|code| code.name()).collect::<Vec<_>>().join(", ");
        match &self.bound {
            Bound::Number(op, bound) => write!(f, "{} {} {}", self.metric, op.sign(), format_number(self.metric.unit(), *bound))?,
            Bound::In(codes) => write!(f, "{} in [{}]", self.metric, list(codes))?,
            Bound::NotIn(codes) => write!(f, "{} not in [{}]", self.metric, list(codes))?,
        }
        f.write_str(level(self.level))
    }
}

impl fmt::Display for Regression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.metric.unit();
        let points = |number| format_number(unit, number).replace('%', "pp");
        let allowed = match self.allowed {
            Allowed::Absolute(number) => points(number),
            Allowed::Relative(part) => format_number(Unit::Share, part),
        };
        let sign = if self.grows { '+' } else { '-' };
        write!(f, "{}: {sign}{allowed}, min {}{}", self.metric, points(self.floor), level(self.level))
    }
}

#[cfg(test)]
#[path = "expr_tests.rs"]
mod tests;
