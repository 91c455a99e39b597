//! Diagnoses of single processes that are those of the service.

use super::{of_process, pids, ServiceDiagnosis, ServiceFigures, LIMITS};
use crate::analysis::phrases::percent;
use crate::analysis::report::Code;
use crate::analysis::service::figures::Slot;

/// Thread-seconds per second without sleep, of all processes, below which the service is idle.
const ACTIVE: f64 = 0.02;
/// Share of the waiting, or of the work, that a diagnosis must account for.
const MOST: f64 = 0.5;

fn is(e: &ServiceFigures<'_>, slot: &Slot, codes: &[Code]) -> bool {
    codes.contains(&e.member(slot).report.verdict.code)
}

/// The slots with one of these verdicts, if most of a figure is theirs; that with the most first.
fn with_most<'f>(e: &'f ServiceFigures<'_>, codes: &[Code], figure: fn(&Slot) -> f64) -> Option<Vec<&'f Slot>> {
    let mut those: Vec<&Slot> = e.slots.iter().filter(|slot| is(e, slot, codes)).collect();
    let (part, all): (f64, f64) = (those.iter().map(|slot| figure(slot)).sum(), e.slots.iter().map(figure).sum());
    those.sort_by(|a, b| figure(b).total_cmp(&figure(a)));
    (!those.is_empty() && part >= MOST * all).then_some(those)
}

/// No process has a GIL to wait for.
pub(in crate::analysis::service) fn without_gil(e: &ServiceFigures<'_>) -> Option<ServiceDiagnosis> {
    let those = with_most(e, &[Code::GilDisabled], |slot| slot.active)?;
    Some(of_process(e, those[0].member, "The processes that do the work run without a GIL.".into()))
}

/// Nothing runs in any process.
pub(in crate::analysis::service) fn idle(e: &ServiceFigures<'_>) -> Option<ServiceDiagnosis> {
    let active: f64 = e.slots.iter().map(|slot| slot.active).sum();
    let unknown: f64 = e.whole.iter().map(|times| times.get(crate::sample::State::Unknown)).sum();
    (active < ACTIVE * e.slots.len() as f64 && unknown < ACTIVE).then(|| {
        ServiceDiagnosis::new(Code::Idle, "Idle: nothing ran in any of the processes.")
            .refused()
            .because(format!("All processes together ran for {} of the time.", percent(active)))
            .next_step("Measure while the service is under load.")
    })
}

/// Threads sleep with the GIL in the processes in which most of the waiting is.
pub(in crate::analysis::service) fn blocked(e: &ServiceFigures<'_>) -> Option<ServiceDiagnosis> {
    let those = with_most(e, &[Code::BlockedHoldingGil], |slot| slot.waiting).filter(|_| e.waiting.estimate >= LIMITS)?;
    Some(of_process(e, those[0].member, format!("Threads wait for a GIL whose holder sleeps, in {}.", pids(e, &those))))
}

/// Locks, or short tasks behind a busy thread, in the processes that do the work.
pub(in crate::analysis::service) fn lock_or_latency(e: &ServiceFigures<'_>) -> Option<ServiceDiagnosis> {
    let those = with_most(e, &[Code::LockBound, Code::LatencyVictims], |slot| slot.active)?;
    Some(of_process(e, those[0].member, format!("This is the verdict on {}, where most of the work is.", pids(e, &those))))
}

/// The verdict on the process that does the most.
pub(in crate::analysis::service) fn busiest(e: &ServiceFigures<'_>) -> ServiceDiagnosis {
    match e.slots.iter().max_by(|a, b| a.active.total_cmp(&b.active)) {
        Some(most) => of_process(e, most.member, format!("This is the verdict on process {}, which does most of the work.", e.pid(most))),
        None => ServiceDiagnosis::new(Code::Inconclusive, "Inconclusive: no process was measured.").refused(),
    }
}
