//! What the workers do: wait for their GILs, compute side by side, or sleep.

use super::{count, pids, ServiceDiagnosis, ServiceFigures, LIMITS, WORTH_IT};
use crate::analysis::phrases::{cores, gain, number, on_cores, percent, threads, verb};
use crate::analysis::report::Code;
use crate::analysis::service::figures::Slot;
use crate::analysis::service::prediction::{more_workers, Proposal};
use crate::analysis::shape::{Shape, Start, WebServer};

/// Lower end of a gain from which it matters where threads wait for certain.
const SOME_GAIN: f64 = 1.02;
/// Cores of one worker's work from which it computes.
const COMPUTES: f64 = 0.3;
/// Cores that nobody uses from which more workers have room.
const ROOM: f64 = 0.5;
/// Threads waiting on average, in all workers, below which nobody waits.
const NOBODY: f64 = 0.05;

/// The slots whose threads wait for their GIL, and what more workers would do.
fn contention<'f>(e: &'f ServiceFigures<'_>) -> Option<(Vec<&'f Slot>, Proposal)> {
    let contended: Vec<(usize, &Slot)> = e.workers().filter(|(_, slot)| slot.waiting >= LIMITS && slot.threads > 1).collect();
    let slots: Vec<usize> = contended.iter().map(|(n, _)| *n).collect();
    let proposal = more_workers(e, &slots)?;
    let gains = proposal.gain.low >= WORTH_IT || proposal.gain.estimate >= WORTH_IT && proposal.gain.low >= SOME_GAIN;
    gains.then(|| (contended.into_iter().map(|(_, slot)| slot).collect(), proposal))
}

/// Threads wait for the GIL of their worker, and in more workers they would not.
pub(in crate::analysis::service) fn contended(e: &ServiceFigures<'_>) -> Option<ServiceDiagnosis> {
    let (slots, proposal) = contention(e)?;
    let Proposal { today, workers, threads: each, gain: predicted } = proposal;
    let others = e.workers().filter(|(_, slot)| slot.active >= NOBODY).count().saturating_sub(slots.len());
    let of = if others > 0 { format!(" in place of {} of {}", slots.len(), slots.len() + others) } else { String::new() };
    let total = format!("{workers} workers of {}", threads(each));
    let mut diagnosis = ServiceDiagnosis::new(
        Code::SwitchToProcesses,
        format!("Switch to processes: {total}{of} would be about {} {}.", gain(&predicted), on_cores(e.cores())),
    )
    .with_gain(predicted)
    .because(waiting(e, &slots));
    if others > 0 {
        let rest: Vec<&Slot> =
            e.workers().map(|(_, slot)| slot).filter(|slot| !slots.iter().any(|known| known.member == slot.member)).collect();
        diagnosis = diagnosis.because(format!(
            "This is about {}. The other workers ({}) do something else and may stay as they are; the gain leaves them out.",
            pids(e, &slots),
            pids(e, &rest)
        ));
    }
    diagnosis = diagnosis.because(format!("The service uses {} of {}.", number(e.on_cpu.estimate), cores(e.cores())));
    let step = format!(
        "Start {total} in place of {} with {}{}; the gain does not count what moves between processes, and each process needs memory of its own.",
        count(e, &slots),
        threads(today.of_each()),
        if slots.len() > 1 { " each" } else { "" }
    );
    diagnosis.next_steps.push((step, sketch(e, &slots, workers, each)));
    Some(diagnosis)
}

/// "4 workers, each with 4 threads that wait for the GIL 60 % of their time, 96 % of that while
/// burn (app.py:12) holds it."
fn waiting(e: &ServiceFigures<'_>, slots: &[&Slot]) -> String {
    let all: usize = slots.iter().map(|slot| slot.threads).sum();
    let share = slots.iter().map(|slot| slot.waiting_share * slot.threads as f64).sum::<f64>() / all.max(1) as f64;
    let (fewest, most) =
        (slots.iter().map(|slot| slot.threads).min().unwrap_or(0), slots.iter().map(|slot| slot.threads).max().unwrap_or(0));
    let of_each = if fewest == most { threads(most) } else { format!("{fewest} to {}", threads(most)) };
    let with = if slots.len() > 1 {
        format!("{}, each with {of_each}", count(e, slots))
    } else {
        format!("The {} has {of_each}", count(e, slots))
    };
    let behind = e
        .top(slots, |row| row.inflicted_wait)
        .map_or(String::new(), |(place, of)| format!(", {} of that while {} holds it", percent(of), e.place(&place)));
    format!("{with} that {} for the GIL {} of their time{behind}.", verb(most, "wait"), percent(share))
}

/// The server's option, where a server runs the workers.
fn sketch(e: &ServiceFigures<'_>, slots: &[&Slot], workers: usize, threads: usize) -> Vec<String> {
    let Some((slot, (place, _))) = slots.first().and_then(|slot| Some((slot, e.top(&[slot], |row| row.inflicted_wait)?))) else {
        return Vec::new();
    };
    match Shape::of(e.member(slot).profile, &place).start {
        Start::Web(WebServer::Gunicorn) => vec![format!("gunicorn --workers {workers} --threads {threads} …")],
        Start::Web(WebServer::Uwsgi) => vec![format!("uwsgi --processes {workers} --threads {threads} …")],
        Start::Web(WebServer::Uvicorn) => vec![format!("uvicorn --workers {workers} …")],
        Start::Web(WebServer::Hypercorn) => vec![format!("hypercorn --workers {workers} …")],
        _ => Vec::new(),
    }
}

/// The workers compute side by side, and nobody waits.
pub(in crate::analysis::service) fn parallel(e: &ServiceFigures<'_>) -> Option<ServiceDiagnosis> {
    let computing: Vec<&Slot> = e.workers().map(|(_, slot)| slot).filter(|slot| slot.work >= COMPUTES).collect();
    if computing.len() < 2 {
        return None;
    }
    let waiting: f64 = e.workers().map(|(_, slot)| slot.waiting).sum();
    let waits = if waiting < NOBODY { "nobody waits".into() } else { format!("{} threads wait on average", number(waiting)) };
    let diagnosis =
        ServiceDiagnosis::new(Code::AlreadyParallel, format!("Already parallel: it runs in processes already and that pays: {waits}."))
            .because(format!(
                "{} workers ({}) compute; the service uses {} of {}.",
                computing.len(),
                pids(e, &computing),
                number(e.on_cpu.estimate),
                cores(e.cores())
            ));
    let idle = e.program.idle.unwrap_or_else(|| (e.cores() - e.on_cpu.estimate).max(0.0));
    Some(if idle >= ROOM {
        diagnosis.next_step(format!(
            "Leave it as it is. About {} cores are free: with more work to do, more workers could use them.",
            number(idle)
        ))
    } else {
        diagnosis.next_step("Leave it as it is: the cores are the limit now, and more workers would only share them.")
    })
}

/// The workers mostly sleep: what they wait for is not the GIL.
pub(in crate::analysis::service) fn mostly_asleep(e: &ServiceFigures<'_>) -> Option<ServiceDiagnosis> {
    let workers: Vec<&Slot> = e.workers().map(|(_, slot)| slot).collect();
    let asleep = workers.len() > 1 && workers.iter().all(|slot| slot.work < COMPUTES && slot.waiting < LIMITS);
    let waiting: f64 = workers.iter().map(|slot| slot.waiting).sum();
    asleep.then(|| {
        ServiceDiagnosis::new(Code::KeepThreads, format!("Keep threads: the {} workers mostly wait for the outside world, not for the GIL.", workers.len()))
            .because(format!(
                "They use {} of {} together; {} of their threads wait for a GIL on average.",
                number(e.on_cpu.estimate),
                cores(e.cores()),
                number(waiting)
            ))
            .next_step("Leave workers and threads as they are. If there is more to wait for at the same time, more threads do more, and cost less memory than workers.")
    })
}
