//! One diagnosis per file. A rule reads the figures and applies, does not apply, or is
//! undetermined.
//!
//! Rules compare intervals with bounds: a figure passes a bound when its whole interval does. A
//! figure whose interval straddles the bound leaves the rule undetermined.

mod advice;
pub(super) mod already_parallel;
pub(super) mod blocked_holding_gil;
pub(super) mod cpu_limit;
pub(super) mod cpu_starved;
pub(super) mod event_loop;
pub(super) mod excessive_switching;
pub(super) mod foreign_threads;
pub(super) mod gc;
pub(super) mod gil_disabled;
pub(super) mod idle;
pub(super) mod inconclusive;
pub(super) mod keep_threads;
pub(super) mod known_library;
pub(super) mod latency_victims;
pub(super) mod lock_bound;
pub(super) mod release_the_gil;
pub(super) mod single_threaded;
pub(super) mod switch_to_processes;
pub(super) mod work_in_children;

use super::report::{Code, Estimate, FunctionRow, Place, Severity, Thread};
use super::rule_input::RuleInput;

/// Lower end of a gain from which a change of the program is worth proposing.
pub(super) const WORTH_IT: f64 = 1.1;
/// Estimate below which a gain whose lower end is not worth it counts as no gain.
const NO_GAIN: f64 = 1.2;

/// A rule.
pub(super) type Rule = fn(&RuleInput<'_>) -> RuleResult;

/// The result of a rule.
#[derive(Debug)]
pub(super) enum RuleResult {
    /// The rule applies.
    Applies(Box<Diagnosis>),
    /// The rule does not apply.
    DoesNotApply,
    /// The rule may apply. The sentence says why that is not known.
    Undetermined(String),
}

/// What a diagnosis may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The verdict, or a finding if the verdict is another one.
    Verdict,
    /// A finding only.
    Finding,
}

/// A diagnosis in sentences.
#[derive(Debug)]
pub(super) struct Diagnosis {
    pub(super) code: Code,
    pub(super) role: Role,
    /// Whether the diagnosis, as the verdict, rules out a prediction of gains.
    pub(super) without_prediction: bool,
    pub(super) severity: Severity,
    pub(super) headline: String,
    pub(super) because: Vec<String>,
    pub(super) next_steps: Vec<Step>,
    /// A last step that states a predicted gain. It is left out where gains are not predicted.
    pub(super) gain_step: Option<String>,
    /// Whether the diagnosis follows from a predicted gain. It is left out where gains are not
    /// predicted.
    pub(super) rests_on_gain: bool,
}

/// What the headline of a mere description adds where an event loop is late.
const LATE_LOOP: &str = "; but an event loop is late, which that does not count.";

/// What to do.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) text: String,
    /// Code that shows it, three lines at most.
    pub(super) sketch: Vec<String>,
}

impl Diagnosis {
    /// A diagnosis that may be the verdict, with gains, of low severity.
    fn new(code: Code, headline: String) -> Diagnosis {
        let (because, next_steps) = (Vec::new(), Vec::new());
        Diagnosis {
            code,
            role: Role::Verdict,
            without_prediction: false,
            severity: Severity::Low,
            headline,
            because,
            next_steps,
            gain_step: None,
            rests_on_gain: false,
        }
    }

    fn because(mut self, fact: impl Into<String>) -> Diagnosis {
        self.because.push(fact.into());
        self
    }

    fn next_step(self, step: impl Into<String>) -> Diagnosis {
        self.next_step_with_sketch(step, Vec::new())
    }

    /// A step with the lines of code that show it.
    fn next_step_with_sketch(mut self, step: impl Into<String>, sketch: Vec<String>) -> Diagnosis {
        self.next_steps.push(Step { text: step.into(), sketch });
        self
    }

    fn next_steps(mut self, steps: Vec<Step>) -> Diagnosis {
        self.next_steps.extend(steps);
        self
    }

    fn with_severity(mut self, severity: Severity) -> Diagnosis {
        self.severity = severity;
        self
    }

    /// Gains are not predicted.
    fn without_prediction(mut self) -> Diagnosis {
        self.without_prediction = true;
        self
    }

    /// A last step that states a predicted gain.
    fn gain_step(mut self, step: impl Into<String>) -> Diagnosis {
        self.gain_step = Some(step.into());
        self
    }

    /// The diagnosis follows from a predicted gain.
    fn rests_on_gain(mut self) -> Diagnosis {
        self.rests_on_gain = true;
        self
    }

    /// With the step that states a gain after the others, or without it.
    pub(super) fn settle_gain(mut self, predicted: bool) -> Diagnosis {
        match self.gain_step.take().filter(|_| predicted) {
            Some(step) => self.next_step(step),
            None => self,
        }
    }

    /// Takes over what a finding says, ahead of its own: there is something to be mended after all.
    pub(super) fn adopt(&mut self, finding: &Diagnosis) {
        self.because.splice(0..0, finding.because.iter().cloned());
        let steps = finding.next_steps.iter().map(|step| Step { text: step.text.clone(), sketch: step.sketch.clone() });
        self.next_steps.splice(0..0, steps);
        if !self.headline.contains("event loop") {
            self.headline = format!("{}{LATE_LOOP}", self.headline.trim_end_matches('.'));
        }
    }

    /// A diagnosis that is a finding only. A finding has no headline.
    fn finding(code: Code) -> Diagnosis {
        Diagnosis::new(code, String::new()).finding_only()
    }

    fn finding_only(mut self) -> Diagnosis {
        self.role = Role::Finding;
        self
    }

    fn applies(self) -> RuleResult {
        RuleResult::Applies(Box::new(self))
    }
}

/// Position of an interval relative to a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Above,
    Below,
    Straddles,
}

fn position(e: &Estimate, bound: f64) -> Position {
    if e.low >= bound {
        Position::Above
    } else if e.high < bound {
        Position::Below
    } else {
        Position::Straddles
    }
}

/// Threads that wait for the GIL on average, from which it limits the program.
const LIMITS: f64 = 0.3;

/// Share of the time in which a thread waits, from which the GIL is what threads wait for most of
/// the time.
const CONTENDED: f64 = 0.5;

/// Whether the GIL limits the program. That is certain if processes gain for certain, or if they
/// probably gain and threads wait for certain: how much they gain is another question. Threads that
/// seldom wait for the GIL, and mostly for something outside the program, are limited by that.
fn gil_limits(e: &RuleInput<'_>) -> Position {
    let gain = &e.gains.processes;
    let certain = position(&e.rates.waiting, LIMITS) == Position::Above && e.gil.contended >= CONTENDED;
    match worth_it(gain) {
        Position::Above => Position::Above,
        _ if certain && gain.estimate >= WORTH_IT => Position::Above,
        Position::Straddles if waits_outside(e) && e.gil.contended < CONTENDED => Position::Below,
        position => position,
    }
}

/// Share of their own time that the working threads are asleep, from which what they wait for may
/// be the limit.
const ASLEEP: f64 = 0.5;

/// Whether the threads that work mostly sleep, perhaps for what gilprof cannot see: a server or a
/// disk that gets no faster.
fn waits_outside(e: &RuleInput<'_>) -> bool {
    let working = || e.threads.iter().filter(|t| t.states.holding + t.states.native > 0.01);
    let sum = |part: fn(&Thread) -> f64| working().map(|t| t.seconds * part(t)).sum::<f64>();
    sum(|t| t.states.io) > ASLEEP * sum(|t| 1.0 - t.states.waiting - t.states.lock)
}

/// The sentence on that.
const LIMIT_OUTSIDE: &str =
    "The threads mostly sleep, or wait for something outside the program; if that is the limit, processes gain nothing.";

/// Whether a gain is worth it. A low end below [`WORTH_IT`] with an estimate well above it is
/// undetermined.
fn worth_it(gain: &Estimate) -> Position {
    if gain.low >= WORTH_IT {
        Position::Above
    } else if gain.estimate < NO_GAIN {
        Position::Below
    } else {
        Position::Straddles
    }
}

/// How much a gain matters.
fn severity(gain: &Estimate) -> Severity {
    match gain.low {
        low if low >= 1.5 => Severity::High,
        low if low >= 1.2 => Severity::Medium,
        _ => Severity::Low,
    }
}

/// The function with most of a kind of holding, with its hottest line.
fn top_holder(e: &RuleInput<'_>, kind: impl Fn(&FunctionRow) -> f64) -> Option<(Place, u32)> {
    let most = e.functions.iter().filter(|f| kind(f) > 0.0).max_by(|a, b| kind(a).total_cmp(&kind(b)))?;
    Some((most.place(), most.hot_line))
}

/// The reason of every undetermined rule on contention.
fn too_wide(gain: &Estimate) -> RuleResult {
    RuleResult::Undetermined(format!(
        "In separate processes the program may be between {:.1} and {:.1} times as fast; this range is too wide for advice.",
        gain.low, gain.high
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_passes_a_bound_only_as_a_whole() {
        let e = |low, estimate, high| Estimate { estimate, low, high };
        assert_eq!(position(&e(1.0, 2.0, 3.0), 1.0), Position::Above);
        assert_eq!(position(&e(1.0, 2.0, 3.0), 3.5), Position::Below);
        assert_eq!(position(&e(1.0, 2.0, 3.0), 2.0), Position::Straddles);
        assert_eq!(worth_it(&e(1.05, 1.1, 1.3)), Position::Below);
        assert_eq!(worth_it(&e(1.05, 1.3, 1.6)), Position::Straddles);
    }
}
