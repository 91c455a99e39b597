//! The cores are the limit: there are more workers than cores, or others take the cores.

use super::{ServiceDiagnosis, ServiceFigures, LIMITS};
use crate::analysis::phrases::{cores, number, on_cores, percent};
use crate::analysis::report::Code;
use crate::analysis::service::figures::Slot;

/// Share of the time in which threads could have run and had no core, from which cores are short.
const STARVED: f64 = 1.0 / 3.0;
/// Share of the threads' own time without a core below which something else dominates, such as I/O
/// with bursts of work between.
const DOMINATES: f64 = 0.3;
/// Share of the cores that the service uses itself, from which the load is its own.
const OWN: f64 = 0.75;
/// Share of the cores in use from which they are full.
const FULL: f64 = 0.85;
/// Work of a worker from which it wants a core for much of the time.
const BUSY: f64 = 0.1;
/// Cores used or wanted below which a lack of them is a matter of microseconds.
const MATTERS: f64 = 0.2;

pub(in crate::analysis::service) fn starved(e: &ServiceFigures<'_>) -> Option<ServiceDiagnosis> {
    let wanted = e.on_cpu.estimate / (1.0 - e.starvation.estimate).max(0.01);
    if e.starvation.low < STARVED || wanted < MATTERS || e.shortage.estimate < DOMINATES {
        return None;
    }
    let share = percent(e.starvation.estimate);
    let lacked = format!("Threads of all processes had no core in {share} of the time in which they could have run.");
    let busy: Vec<&Slot> = e.workers().map(|(_, slot)| slot).filter(|slot| slot.active >= BUSY).collect();
    let own = e.on_cpu.estimate >= OWN * e.cores();
    if own && busy.len() as f64 > e.cores() {
        let fewer = (e.cores().floor() as usize).max(1);
        let workers = if fewer == 1 { "1 worker".into() } else { format!("{fewer} workers") };
        return Some(
            ServiceDiagnosis::new(Code::CpuStarved, format!("Too many workers: {} want a core at the same time, and there are {}.", busy.len(), cores(e.cores())))
                .because(lacked)
                .because(format!("The service wants about {} and uses {} of {}.", cores(wanted), number(e.on_cpu.estimate), number(e.cores())))
                .next_step(format!(
                    "Start fewer workers: {workers} can use all of the {}, with less memory and without taking turns; or give the service more cores.",
                    cores(e.cores())
                )),
        );
    }
    if own {
        return None;
    }
    Some(
        ServiceDiagnosis::new(Code::CpuStarved, "Short of CPU: threads that are ready to run have no core to run on.")
            .refused()
            .because(lacked)
            .because(format!(
                "The service may use {}; its threads got {} on average, and other programs or a CPU limit took the rest.",
                cores(e.cores()),
                number(e.on_cpu.estimate)
            ))
            .next_step("Check the machine for other load, or raise the container's CPU quota; then measure again."),
    )
}

/// Threads wait for their GILs, but there is no core for more of them.
pub(in crate::analysis::service) fn full(e: &ServiceFigures<'_>) -> Option<ServiceDiagnosis> {
    let busy: Vec<&Slot> = e.workers().map(|(_, slot)| slot).filter(|slot| slot.active >= BUSY).collect();
    if e.waiting.estimate < LIMITS || busy.len() < 2 || e.on_cpu.estimate < FULL * e.cores() {
        return None;
    }
    let threads: usize = busy.iter().map(|slot| slot.threads).sum();
    Some(
        ServiceDiagnosis::new(
            Code::AlreadyParallel,
            format!(
                "Already parallel: {} workers use all cores; their threads wait for the GIL, but more workers would find no core.",
                busy.len()
            ),
        )
        .because(format!("The service uses {} of {}.", number(e.on_cpu.estimate), cores(e.cores())))
        .because(format!("Of {threads} threads that work, {} wait for a GIL on average.", number(e.waiting.estimate)))
        .next_step(format!(
            "Fewer threads in each worker would do the same work {}; for more work, give the service more cores.",
            on_cores(e.cores())
        )),
    )
}
