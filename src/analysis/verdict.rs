//! The verdict: the first rule that applies, in a fixed order, and its confidence.
//!
//! The order starts with what makes other diagnoses meaningless and ends with what remains when
//! nothing is wrong: no GIL; too few samples; nothing runs; no CPU to run on; the cause of waiting;
//! the shape of a program without much waiting. Further rules that apply become findings if they
//! name something that can be fixed. Some rules are only ever findings.

use super::phrases;
use super::report::{Code, Confidence, Estimate, Finding, GroupGain, Sketch, Speedup, Verdict};
use super::rule_input::RuleInput;
use super::rules::{self, Diagnosis, Role, Rule, RuleResult, Step};

/// The rules that may give the verdict, in their order. If none applies, the reasons of the
/// undetermined rules are the reasons of the verdict.
pub(super) const VERDICT_RULES: &[Rule] = &[
    rules::gil_disabled::evaluate,
    rules::inconclusive::evaluate,
    rules::idle::evaluate,
    rules::cpu_starved::evaluate,
    rules::blocked_holding_gil::evaluate,
    rules::release_the_gil::evaluate,
    rules::switch_to_processes::evaluate,
    rules::latency_victims::evaluate,
    rules::lock_bound::evaluate,
    rules::already_parallel::evaluate,
    rules::single_threaded::evaluate,
    rules::keep_threads::evaluate,
];

/// The rules that give findings only. They give nothing when undetermined.
const FINDING_RULES: &[Rule] = &[
    rules::work_in_children::evaluate,
    rules::cpu_limit::evaluate,
    rules::event_loop::starved,
    rules::event_loop::blocked,
    rules::event_loop::computing,
    rules::known_library::keeps,
    rules::known_library::releases,
    rules::gc::evaluate,
    rules::excessive_switching::evaluate,
    rules::foreign_threads::native,
    rules::foreign_threads::calling_back,
    rules::foreign_threads::python,
];

/// The one verdict, and the findings.
pub(super) fn decide(input: &RuleInput<'_>) -> (Verdict, Vec<Finding>) {
    let (mut primary, mut others, mut undetermined) = (None, Vec::new(), Vec::new());
    for rule in VERDICT_RULES {
        match rule(input) {
            RuleResult::Applies(diagnosis) if diagnosis.role == Role::Verdict && primary.is_none() => primary = Some(*diagnosis),
            RuleResult::Applies(diagnosis) => others.push(*diagnosis),
            RuleResult::Undetermined(why) => undetermined.push(why),
            RuleResult::DoesNotApply => {}
        }
    }
    for rule in FINDING_RULES {
        if let RuleResult::Applies(diagnosis) = rule(input) {
            others.push(*diagnosis);
        }
    }
    let mut diagnosis = primary.unwrap_or_else(|| rules::inconclusive::undecided(undetermined));
    // Where the verdict predicts no gain, no finding states one or follows from one.
    let predicted = !diagnosis.without_prediction;
    others.retain(|other| predicted || !other.rests_on_gain);
    if diagnosis.code == Code::Inconclusive && diagnosis.without_prediction {
        // The kernel's count of other processes needs no samples.
        others.retain(|other| other.code == Code::WorkInChildren);
    }
    if describes(diagnosis.code) {
        let late = others.iter().filter(|other| matches!(other.code, Code::EventLoopBlocked | Code::EventLoopStarved));
        late.rev().for_each(|other| diagnosis.adopt(other));
    }
    let findings = others.into_iter().filter_map(|other| finding(other.settle_gain(predicted))).collect();
    (verdict(input, diagnosis.settle_gain(predicted)), findings)
}

fn verdict(e: &RuleInput<'_>, diagnosis: Diagnosis) -> Verdict {
    let speedup = if diagnosis.without_prediction { Speedup::default() } else { speedup(e) };
    let saturation = Some(e.saturation).filter(|n| n.estimate > 0.0 && !diagnosis.without_prediction);
    Verdict {
        confidence: confidence(e, &diagnosis, speedup.processes.as_ref()),
        code: diagnosis.code,
        headline: diagnosis.headline,
        speedup,
        gil_saturates_at: saturation.map(|n| n.estimate),
        gil_saturates_at_interval: saturation,
        because: diagnosis.because,
        sketch: diagnosis.next_steps.first().map(|step| step.sketch.clone()).unwrap_or_default(),
        sketches: sketches(&diagnosis.next_steps),
        next_steps: diagnosis.next_steps.into_iter().map(|step| step.text).collect(),
    }
}

fn sketches(steps: &[Step]) -> Vec<Sketch> {
    let sketch = |(n, step): (usize, &Step)| (!step.sketch.is_empty()).then(|| Sketch { step: n, lines: step.sketch.clone() });
    steps.iter().enumerate().filter_map(sketch).collect()
}

fn speedup(e: &RuleInput<'_>) -> Speedup {
    Speedup {
        processes: Some(e.gains.processes),
        free_threading: (!e.profile.target.free_threaded).then_some(e.gains.free_threading),
        release_in_native: Some(e.gains.release_in_native),
        by_group: by_group(e),
    }
}

/// Share of the work, or of a thread's own time spent waiting for the GIL, below which a group of
/// threads is not listed.
const GROUP: f64 = 0.01;
/// Most groups that are listed.
const MAX_GROUPS: usize = 8;

/// The gain of each group of threads, unless they gain alike.
fn by_group(e: &RuleInput<'_>) -> Vec<GroupGain> {
    let works = |n: &usize| e.program.groups[*n].work >= GROUP || e.gains.groups[*n].low >= rules::WORTH_IT;
    let listed = |n: &usize| e.program.groups[*n].python && works(n);
    let groups: Vec<usize> = (0..e.program.groups.len()).filter(listed).take(MAX_GROUPS).collect();
    let highest_low = groups.iter().map(|n| e.gains.groups[*n].low).fold(0.0, f64::max);
    if groups.iter().all(|n| e.gains.groups[*n].high >= highest_low) {
        return Vec::new();
    }
    let group = |n: &usize| {
        let of = &e.program.groups[*n];
        GroupGain { group: phrases::clean(&of.name), threads: of.threads, work: of.work, processes: e.gains.groups[*n] }
    };
    groups.iter().map(group).collect()
}

/// High for a long enough window and a steady program; low when samples are few or much is unknown.
/// Not high if most of the program's work is in processes that were not measured, nor where C code
/// keeps the GIL: it may be so quick that moving its data to a process costs as much.
fn confidence(e: &RuleInput<'_>, diagnosis: &Diagnosis, gain: Option<&Estimate>) -> Confidence {
    let window = &e.profile.window;
    let seconds = e.profile.running_seconds();
    let sampled =
        window.counts.samples as f64 / (window.counts.samples as f64 + window.counts.missed as f64 + window.counts.failed as f64).max(1.0);
    let unknown = e.unknown_share(false).unwrap_or(1.0);
    let elsewhere = e.children.as_ref().is_some_and(|c| c.python_works() && c.python_cores > c.own_cores);
    let in_c_calls = diagnosis.code == Code::ReleaseTheGil;
    let width = gain.map_or(0.0, |g| (g.high - g.low) / g.estimate.max(0.1));
    if diagnosis.code == Code::Inconclusive || seconds < 1.0 || sampled < 0.8 || unknown > 0.15 || width > 0.8 {
        Confidence::Low
    } else if seconds < 2.0 || sampled < 0.95 || unknown > 0.05 || width > 0.45 || elsewhere || in_c_calls {
        Confidence::Medium
    } else {
        Confidence::High
    }
}

/// Whether a code merely describes the program.
fn describes(code: Code) -> bool {
    matches!(code, Code::KeepThreads | Code::AlreadyParallel | Code::Serial | Code::Idle | Code::Inconclusive)
}

/// A diagnosis of something that can be fixed is a finding; a mere description of the program is
/// not.
fn finding(diagnosis: Diagnosis) -> Option<Finding> {
    (!describes(diagnosis.code)).then(|| Finding {
        code: diagnosis.code,
        severity: diagnosis.severity,
        evidence: diagnosis.because.join(" "),
        advice: diagnosis.next_steps.into_iter().map(|step| step.text).collect::<Vec<_>>().join(" "),
    })
}
