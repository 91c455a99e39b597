//! Work that is not where it should be: in the master, or in one of several workers.

use super::{pids, ServiceDiagnosis, ServiceFigures, LIMITS};
use crate::analysis::phrases::{clean, cores, number, percent};
use crate::analysis::report::{Code, ProcessRole};
use crate::analysis::service::figures::Slot;
use crate::analysis::service::prediction::more_workers;

/// Share of the service's work from which the master does the work of the service.
const MASTERS: f64 = 0.5;
/// Cores used from which a process computes.
const COMPUTES: f64 = 0.3;
/// How many times as much as any other worker a hot one does.
const HOTTER: f64 = 3.0;
/// Share of the workers' work that a hot one does, at least.
const HOT: f64 = 0.6;
/// A hot worker uses about all that one GIL or one core allows.
const LIMITED: f64 = 0.7;
/// Share of the time that a worker runs, below which it has nothing to do.
const IDLES: f64 = 0.05;

/// The master does the work that its workers could do.
pub(in crate::analysis::service) fn computing_master(e: &ServiceFigures<'_>) -> Option<ServiceDiagnosis> {
    let masters: Vec<&Slot> = e.slots.iter().filter(|slot| slot.role == ProcessRole::Master).collect();
    let master = masters.iter().copied().max_by(|a, b| a.work.total_cmp(&b.work))?;
    if master.work < MASTERS * e.work() || master.work < COMPUTES {
        return None;
    }
    let (pid, share) = (e.pid(master), percent(master.work / e.work()));
    let top = e.top(&[master], |row| row.holding + row.native);
    let function = top.as_ref().map_or("its own code".into(), |(place, _)| e.place(place));
    let workers: Vec<&Slot> = e.workers().map(|(_, slot)| slot).collect();
    let (code, how) =
        if master.waiting >= LIMITS { (Code::SwitchToProcesses, "; its threads wait for its GIL meanwhile") } else { (Code::Serial, "") };
    let mut diagnosis =
        ServiceDiagnosis::new(code, format!("The master computes: process {pid} does {share} of the work, in {function}{how}."));
    diagnosis.because.extend(
        top.map(|(_, of)| format!("{function} is {} of what the master does; the master uses {}.", percent(of), cores(master.on_cpu))),
    );
    let used: f64 = workers.iter().map(|slot| slot.on_cpu).sum();
    if !workers.is_empty() {
        diagnosis = diagnosis.because(format!("Its {} use {} together, and mostly wait for work.", counted(workers.len()), cores(used)));
    }
    Some(diagnosis.next_step(format!("Give the workers what {function} does: the master should only distribute work and collect results.")))
}

fn counted(workers: usize) -> String {
    if workers == 1 {
        "worker".into()
    } else {
        format!("{workers} workers")
    }
}

/// One of several workers does nearly all the work and can do no more, while others of its kind
/// have little to do.
pub(in crate::analysis::service) fn hot_worker(e: &ServiceFigures<'_>) -> Option<ServiceDiagnosis> {
    let mut workers: Vec<(usize, &Slot)> = e.workers().collect();
    workers.sort_by(|a, b| b.1.work.total_cmp(&a.1.work));
    let [(at, hot), rest @ ..] = workers.as_slice() else { return None };
    let (next, all): (&Slot, f64) = (rest.first()?.1, workers.iter().map(|(_, slot)| slot.work).sum());
    let is_hot = hot.work >= HOT * all && hot.work >= HOTTER * next.work && hot.work + hot.waiting >= LIMITED;
    if !is_hot || !rest.iter().all(|(_, slot)| is_of_kind(e, hot, slot)) {
        return None;
    }
    let rest: Vec<&Slot> = rest.iter().map(|(_, slot)| *slot).collect();
    let (pid, share) = (e.pid(hot), percent(hot.work / all));
    let contended = more_workers(e, &[*at]).filter(|_| hot.waiting >= LIMITS);
    let code = if contended.is_some() { Code::SwitchToProcesses } else { Code::Serial };
    let mut diagnosis = ServiceDiagnosis::new(
        code,
        format!("One hot worker: process {pid} does {share} of the work of {} workers; the others have room.", workers.len()),
    );
    if let Some((place, of)) = e.top(&[hot], |row| row.holding + row.native) {
        diagnosis = diagnosis.because(format!("{} of what {pid} does is {}; it uses {}.", percent(of), e.place(&place), cores(hot.on_cpu)));
    }
    if hot.waiting >= LIMITS {
        diagnosis =
            diagnosis.because(format!("Its {} threads wait for its GIL {} of their time.", hot.threads, percent(hot.waiting_share)));
    }
    let active: f64 = rest.iter().map(|slot| slot.active).sum::<f64>() / rest.len() as f64;
    diagnosis = diagnosis.because(format!("The others ({}) run for {} of the time on average.", pids(e, &rest), percent(active)));
    diagnosis.gain = contended.map(|proposal| proposal.gain);
    if let Some(proposal) = contended {
        let gain = proposal.gain;
        diagnosis = diagnosis.because(format!(
            "Its {} threads in {} processes would do {} ({} - {}) times the work.",
            proposal.today.threads,
            proposal.workers,
            number(gain.estimate),
            number(gain.low),
            number(gain.high)
        ));
    }
    Some(diagnosis.next_step(format!(
        "Balance the workers: find out what sends the work to {pid}{}, such as long-lived connections, a queue of its own or a hash of the key.",
        command(e, hot)
    )))
}

/// The program of a worker, where its command line names one.
fn command(e: &ServiceFigures<'_>, slot: &Slot) -> String {
    let script = e.member(slot).report.target.command.get(1).filter(|word| !word.starts_with('-'));
    script.map_or(String::new(), |script| format!(" ({})", clean(script.rsplit('/').next().unwrap_or(script))))
}

/// Whether a worker does what the hot one does, or nothing. A worker with other work is no place to
/// balance with.
fn is_of_kind(e: &ServiceFigures<'_>, hot: &Slot, other: &Slot) -> bool {
    if other.active < IDLES {
        return true;
    }
    let own = |slot| e.top(&[slot], |row| row.holding + row.native).map(|(place, _)| place);
    own(hot) == own(other)
}
