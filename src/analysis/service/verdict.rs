//! The verdict on the service: the first diagnosis that applies, in a fixed order.
//!
//! The order is that of the verdict on one process: first what makes other diagnoses meaningless,
//! then the causes of waiting, then what describes a service without much of it.

use super::figures::ServiceFigures;
use super::rules::{self, ServiceDiagnosis};
use crate::analysis::report::{Code, Confidence, Sketch, Speedup, Verdict};

/// A rule. The first that gives a diagnosis decides.
type ServiceRule = fn(&ServiceFigures<'_>) -> Option<ServiceDiagnosis>;

const RULES: &[ServiceRule] = &[
    rules::unmeasured::different_times,
    rules::unmeasured::one_process,
    rules::unmeasured::elsewhere,
    rules::unmeasured::too_little,
    rules::of_processes::without_gil,
    rules::of_processes::idle,
    rules::of_processes::blocked,
    rules::roles::computing_master,
    rules::cores::starved,
    rules::roles::hot_worker,
    rules::workers::contended,
    rules::cores::full,
    rules::of_processes::lock_or_latency,
    rules::workers::parallel,
    rules::workers::mostly_asleep,
];

pub(super) struct Decided {
    pub(super) verdict: Verdict,
    pub(super) refused: bool,
}

pub(super) fn decide(e: &ServiceFigures<'_>) -> Decided {
    let mut diagnosis = RULES.iter().find_map(|rule| rule(e)).unwrap_or_else(|| rules::of_processes::busiest(e));
    diagnosis.because.extend(rules::unmeasured::fact(e, diagnosis.code));
    let refused = diagnosis.refused;
    Decided { verdict: verdict(e, diagnosis), refused }
}

fn verdict(e: &ServiceFigures<'_>, diagnosis: ServiceDiagnosis) -> Verdict {
    let sketch = |(step, (_, lines)): (usize, &(String, Vec<String>))| (!lines.is_empty()).then(|| Sketch { step, lines: lines.clone() });
    let sketches: Vec<Sketch> = diagnosis.next_steps.iter().enumerate().filter_map(sketch).collect();
    Verdict {
        confidence: confidence(e, &diagnosis),
        code: diagnosis.code,
        headline: diagnosis.headline,
        speedup: Speedup { processes: diagnosis.gain, ..Speedup::default() },
        gil_saturates_at: None,
        gil_saturates_at_interval: None,
        because: diagnosis.because,
        sketch: sketches.iter().find(|sketch| sketch.step == 0).map(|sketch| sketch.lines.clone()).unwrap_or_default(),
        sketches,
        next_steps: diagnosis.next_steps.into_iter().map(|(step, _)| step).collect(),
    }
}

/// Share of the CPU time that must have been measured for each confidence.
const MOST: f64 = 0.9;
const HALF: f64 = 0.5;

/// Low for a short window, for much that was not measured or is unknown, and for a wide interval.
fn confidence(e: &ServiceFigures<'_>, diagnosis: &ServiceDiagnosis) -> Confidence {
    let seconds = e.times.seconds;
    let measured = e.tree.map_or(1.0, |tree| tree.measured_share());
    let width = diagnosis.gain.map_or(0.0, |gain| (gain.high - gain.low) / gain.estimate.max(0.1));
    let sum =
        |of: fn(&crate::sample::SampleCounts) -> u64| e.members.iter().map(|member| of(&member.profile.window.counts)).sum::<u64>() as f64;
    let (samples, lost) = (sum(|counts| counts.samples), sum(|counts| counts.missed + counts.failed));
    let sampled = samples / (samples + lost).max(1.0);
    if diagnosis.code == Code::Inconclusive || seconds < 1.0 || measured < HALF || sampled < 0.8 || width > 0.8 {
        Confidence::Low
    } else if seconds < 2.0 || measured < MOST || sampled < 0.95 || width > 0.45 {
        Confidence::Medium
    } else {
        Confidence::High
    }
}
