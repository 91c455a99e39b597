//! The verdict: the rules in their order, the first that says yes, and how sure it is.
//!
//! The order is from what makes other judgements meaningless to what is left when nothing is wrong: no GIL at all; too little seen to say;
//! nothing runs; no CPU to run on; then who is to blame for waiting; then how a program without much waiting is built. Rules that say
//! yes but are not first become findings, when they name something that can be mended. Some rules are only ever findings.

use super::evidence::Evidence;
use super::report::{Code, Confidence, Estimate, Finding, Speedup, Verdict};
use super::rules::{self, Judgement, Opinion, Role, Rule};

/// The rules whose opinion may be the verdict, in their order. If none says yes, their doubts are the verdict's reasons.
const VERDICT_RULES: &[Rule] = &[
    rules::gil_disabled::judge,
    rules::inconclusive::judge,
    rules::idle::judge,
    rules::cpu_starved::judge,
    rules::blocked_holding_gil::judge,
    rules::release_the_gil::judge,
    rules::switch_to_processes::judge,
    rules::latency_victims::judge,
    rules::lock_bound::judge,
    rules::already_parallel::judge,
    rules::serial::judge,
    rules::keep_threads::judge,
];

/// The rules that give findings only. Their doubts count for nothing.
const FINDING_RULES: &[Rule] = &[
    rules::cpu_limit::judge,
    rules::event_loop::starved,
    rules::event_loop::blocked,
    rules::known_library::keeps,
    rules::known_library::releases,
    rules::garbage::judge,
    rules::hand_offs::judge,
    rules::foreign_threads::native,
    rules::foreign_threads::python,
];

/// The one verdict, and everything else worth knowing.
pub(super) fn judge(evidence: &Evidence<'_>) -> (Verdict, Vec<Finding>) {
    let (mut primary, mut findings, mut doubts) = (None, Vec::new(), Vec::new());
    for rule in VERDICT_RULES {
        match rule(evidence) {
            Judgement::Yes(opinion) if opinion.role == Role::Verdict && primary.is_none() => primary = Some(*opinion),
            Judgement::Yes(opinion) => findings.extend(finding(*opinion)),
            Judgement::NotEnough(why) => doubts.push(why),
            Judgement::No => {}
        }
    }
    for rule in FINDING_RULES {
        if let Judgement::Yes(opinion) = rule(evidence) {
            findings.extend(finding(*opinion));
        }
    }
    let opinion = primary.unwrap_or_else(|| rules::inconclusive::undecided(doubts));
    if opinion.code == Code::Inconclusive && opinion.refuses {
        findings.clear();
    }
    (verdict(evidence, opinion), findings)
}

fn verdict(e: &Evidence<'_>, opinion: Opinion) -> Verdict {
    let speedup = if opinion.refuses { Speedup::default() } else { speedup(e) };
    let saturation = Some(e.saturation).filter(|n| n.estimate > 0.0 && !opinion.refuses);
    Verdict {
        confidence: confidence(e, &opinion, speedup.processes.as_ref()),
        code: opinion.code,
        headline: opinion.headline,
        speedup,
        threads_worth_having: saturation.map(|n| n.estimate),
        threads_worth_having_interval: saturation,
        because: opinion.because,
        next_steps: opinion.next_steps,
        sketch: opinion.sketch,
    }
}

fn speedup(e: &Evidence<'_>) -> Speedup {
    Speedup {
        processes: Some(e.gains.processes),
        free_threading: (!e.profile.target.free_threaded).then_some(e.gains.free_threading),
        release_in_native: Some(e.gains.release_in_native),
    }
}

/// High for a good look at a steady program; low when little was seen or much is unknown.
fn confidence(e: &Evidence<'_>, opinion: &Opinion, gain: Option<&Estimate>) -> Confidence {
    let window = &e.profile.window;
    let seconds = e.profile.seconds();
    let seen = window.looks as f64 / (window.looks as f64 + window.missed as f64 + window.failed as f64).max(1.0);
    let total: f64 = e.threads.iter().map(|t| t.seconds).sum();
    let unknown: f64 = e.threads.iter().map(|t| t.seconds * t.states.unknown).sum();
    let unknown = if total > 0.0 { unknown / total } else { 1.0 };
    let width = gain.map_or(0.0, |g| (g.high - g.low) / g.estimate.max(0.1));
    if opinion.code == Code::Inconclusive || seconds < 1.0 || seen < 0.8 || unknown > 0.15 || width > 0.8 {
        Confidence::Low
    } else if seconds < 2.0 || seen < 0.95 || unknown > 0.05 || width > 0.45 {
        Confidence::Medium
    } else {
        Confidence::High
    }
}

/// What can be mended is worth a finding; what merely describes the program is not.
fn finding(opinion: Opinion) -> Option<Finding> {
    let describes = matches!(opinion.code, Code::KeepThreads | Code::AlreadyParallel | Code::Serial | Code::Idle | Code::Inconclusive);
    (!describes).then(|| Finding {
        code: opinion.code,
        severity: opinion.severity,
        evidence: opinion.because.join(" "),
        advice: opinion.next_steps.join(" "),
    })
}
