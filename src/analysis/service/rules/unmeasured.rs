//! What was not measured: other times, other processes, other programs.

use super::{of_process, ServiceDiagnosis, ServiceFigures, LIMITS};
use crate::analysis::phrases::{cores, percent};
use crate::analysis::report::{Code, ProcessRole, Verdict};

/// Share of the CPU time below which the measured processes say nothing of the service.
const HALF: f64 = 0.5;
/// Share of the CPU time of other programs from which a sentence names them.
const NOTABLE: f64 = 0.05;
/// Cores below which a share of CPU time is a share of next to nothing.
const WORK: f64 = 0.05;

/// Recordings of different times do not add up to a service.
pub(in crate::analysis::service) fn different_times(e: &ServiceFigures<'_>) -> Option<ServiceDiagnosis> {
    (!e.are_of_one_time()).then(|| {
        ServiceDiagnosis::new(Code::Inconclusive, "Inconclusive: the processes were not measured at the same time.")
            .refused()
            .because("None of them was measured for most of the time between the first sample and the last.")
            .next_step(
                "Measure all processes of the service at once: gilprof attach --subprocesses --pid PID, with the pid of the first one.",
            )
    })
}

/// One process and its helpers are no service.
pub(in crate::analysis::service) fn one_process(e: &ServiceFigures<'_>) -> Option<ServiceDiagnosis> {
    let mut apart = (0..e.members.len()).filter(|n| e.members[*n].role != ProcessRole::Helper);
    let only = apart.next().filter(|_| apart.next().is_none())?;
    Some(of_process(
        e,
        only,
        format!("Of the measured processes only {} is not one of multiprocessing's helpers.", e.members[only].report.target.pid),
    ))
}

/// Most of the CPU time is that of processes that were not measured.
pub(in crate::analysis::service) fn elsewhere(e: &ServiceFigures<'_>) -> Option<ServiceDiagnosis> {
    let tree = e.tree.filter(|tree| tree.measured_share() < HALF)?;
    let unmeasured = tree.unmeasured_python + tree.other + tree.unknown;
    if unmeasured < WORK {
        return None;
    }
    let share = percent(tree.measured_share());
    let measured = format!("The measured processes used {}, which is {share} of the CPU time of the service.", cores(tree.measured));
    if tree.other <= tree.unmeasured_python + tree.unknown {
        let of_python = if tree.unmeasured_python > tree.unknown { "Python processes" } else { "processes" };
        return Some(
            ServiceDiagnosis::new(Code::Inconclusive, format!("Inconclusive: most of the work is in {of_python} that were not measured."))
                .refused()
                .because(measured)
                .because(format!("Those that were not measured used {}.", cores(unmeasured)))
                .next_step(
                    "Measure them too, with gilprof attach --subprocesses; those that end within 30 ms of their start cannot be measured.",
                ),
        );
    }
    (e.waiting.estimate < LIMITS).then(|| {
        ServiceDiagnosis::new(Code::Idle, "Idle: the work is elsewhere, in child processes that are not Python.")
            .refused()
            .because(measured)
            .because(format!("Programs that are not Python used {}.", cores(tree.other)))
            .next_step("Do not expect the GIL to matter here: this service waits for other programs.")
    })
}

/// Every process that does something has too few samples.
pub(in crate::analysis::service) fn too_little(e: &ServiceFigures<'_>) -> Option<ServiceDiagnosis> {
    let busiest = e.slots.iter().max_by(|a, b| a.active.total_cmp(&b.active))?;
    let refuses = |verdict: &Verdict| verdict.code == Code::Inconclusive && verdict.speedup.processes.is_none();
    let known: f64 = e.slots.iter().filter(|slot| !refuses(&e.member(slot).report.verdict)).map(|slot| slot.active).sum();
    let all: f64 = e.slots.iter().map(|slot| slot.active).sum();
    (refuses(&e.member(busiest).report.verdict) && known < HALF * all)
        .then(|| of_process(e, busiest.member, "Too little is known of the processes that do most of the work.".into()))
}

/// The part of the service that was not measured, where the verdict does not say so itself.
pub(in crate::analysis::service) fn fact(e: &ServiceFigures<'_>, code: Code) -> Option<String> {
    let tree = e.tree.filter(|_| !matches!(code, Code::Idle | Code::Inconclusive))?;
    let (python, other) = (tree.unmeasured_python + tree.unknown, tree.other);
    if python + other < WORK || tree.measured_share() > 1.0 - NOTABLE {
        return None;
    }
    let share = percent(tree.measured_share());
    Some(format!(
        "The measured processes used {share} of the CPU time of the service; Python processes that were not measured used {}, other programs {}.",
        cores(python),
        cores(other)
    ))
}
