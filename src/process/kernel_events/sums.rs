//! What the programs add up for each thread, without records: for readers that want totals of many
//! processes at a low cost.
//!
//! A thread is known from its first switch or tick on. Of one that slept all the time since its
//! process was watched there are no sums.
//!
//! The scheduler counts the time of each thread in the run queue itself (`CONFIG_SCHED_INFO`), once
//! the thread runs. So no program runs at wakeups. Until a woken thread has left its CPU again, its
//! time in the run queue is part of the sleep before it.

use super::KernelEvents;
use crate::ids::{GilId, Pid, Tid};
use crate::sample::{OffCpu, ThreadNow};
use crate::units::Nanos;
use std::collections::BTreeMap;

/// Whether the scheduler counts that time: if not, the sums in this file are zeros.
const SCHEDSTAT: &str = "/proc/self/schedstat";
/// The words of `struct sums`, of `struct gil_sums` and of `struct process`.
pub(super) const WORDS: usize = 8;
const GIL_WORDS: usize = 4;
pub(super) const PROCESS_WORDS: usize = WORDS + super::config::MAX_GILS * GIL_WORDS;

/// What one thread, or several, did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// On a CPU.
    pub on_cpu: Nanos,
    /// Asleep for a GIL.
    pub waiting: Nanos,
    /// In the run queue, woken or preempted while it waited for a GIL.
    pub queued_after_wait: Nanos,
    /// In the run queue otherwise.
    pub queued: Nanos,
    /// Asleep for anything else, or stopped.
    pub asleep: Nanos,
    /// The number of waits for a GIL in which it slept.
    pub waits: u64,
    /// The ticks of the clock that found it on a CPU.
    pub ticks: u64,
    /// Those of them at which it held a GIL.
    pub ticks_with_gil: u64,
}

/// What threads waited for one GIL, and how often it was found held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GilSums {
    /// Asleep for it, in thread-seconds.
    pub waiting: Nanos,
    /// In the run queue after that.
    pub queued_after_wait: Nanos,
    /// The number of waits in which a thread slept.
    pub waits: u64,
    /// Ticks that found a thread on a CPU with this GIL.
    pub ticks_with_gil: u64,
}

/// The sums of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadSums {
    /// The thread.
    pub tid: Tid,
    /// Up to now.
    pub sums: Sums,
}

/// The sums of a process since it was watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessSums {
    /// Of threads that live.
    pub threads: Vec<ThreadSums>,
    /// Of threads that have ended, together.
    pub ended: Sums,
    /// Of each GIL, up to the last switch of each thread.
    pub gils: Vec<(GilId, GilSums)>,
}

impl Sums {
    pub(super) fn parse(words: &[u64; WORDS]) -> Sums {
        let [on_cpu, waiting, queued_after_wait, queued, asleep, waits, ticks, ticks_with_gil] = *words;
        let time = Nanos::from_nanos;
        Sums {
            on_cpu: time(on_cpu),
            waiting: time(waiting),
            queued_after_wait: time(queued_after_wait),
            queued: time(queued),
            asleep: time(asleep),
            waits,
            ticks,
            ticks_with_gil,
        }
    }

    /// The waits beyond those of a `struct gil_waits`.
    pub(super) fn waits_beyond(&self, added: &[u64]) -> GilSums {
        let added = GilSums::parse(added.first_chunk().unwrap_or(&[0; GIL_WORDS]));
        GilSums {
            waiting: self.waiting.saturating_since(added.waiting),
            queued_after_wait: self.queued_after_wait.saturating_since(added.queued_after_wait),
            waits: self.waits.saturating_sub(added.waits),
            ticks_with_gil: 0,
        }
    }

    /// Adds what a thread has done since the end of its last run.
    fn up_to(mut self, now: Nanos, place: ThreadNow, left: Option<(OffCpu, Nanos)>) -> Sums {
        let (woken, until) = match place {
            ThreadNow::OnCpu { wakeup, begin, .. } => (wakeup, begin.min(now)),
            ThreadNow::OffCpu { wakeup, .. } => (wakeup, now),
        };
        if let ThreadNow::OnCpu { .. } = place {
            self.on_cpu += now.saturating_since(until);
        }
        let Some((off, end)) = left else { return self };
        let preempted = matches!(off, OffCpu::Preempted | OffCpu::PreemptedInGilCall);
        let woken = if preempted { end } else { woken.map_or(until, |wakeup| wakeup.at).min(until) };
        let (asleep, queued) = (woken.saturating_since(end), until.saturating_since(woken));
        if matches!(off, OffCpu::GilFutex | OffCpu::SwitchFutex | OffCpu::SignalFutex | OffCpu::PreemptedInGilCall) {
            self.waiting += asleep;
            self.queued_after_wait += queued;
        } else {
            self.asleep += asleep;
            self.queued += queued;
        }
        self
    }

    /// All of it together: the time since the thread is known.
    pub fn total(&self) -> Nanos {
        self.on_cpu + self.waiting + self.queued_after_wait + self.queued + self.asleep
    }
}

impl GilSums {
    fn parse(words: &[u64; GIL_WORDS]) -> GilSums {
        let [waiting, queued_after_wait, waits, ticks_with_gil] = *words;
        let time = Nanos::from_nanos;
        GilSums { waiting: time(waiting), queued_after_wait: time(queued_after_wait), waits, ticks_with_gil }
    }

    fn add(&mut self, other: &GilSums) {
        self.waiting += other.waiting;
        self.queued_after_wait += other.queued_after_wait;
        self.waits = self.waits.wrapping_add(other.waits);
    }
}

/// Whether the scheduler counts the time in the run queue.
pub(super) fn queue_is_counted() -> bool {
    std::fs::read_to_string(SCHEDSTAT).is_ok_and(|sums| !sums.starts_with("0 "))
}

impl KernelEvents {
    /// The sums of all watched processes up to `now`, on the clock of [`ThreadNow`].
    pub fn sums(&self, now: Nanos) -> BTreeMap<Pid, ProcessSums> {
        let mut found: BTreeMap<Pid, ProcessSums> = self.places.iter().map(|(pid, place)| (*pid, self.process_sums(*place))).collect();
        for (_, entry) in self.entries() {
            let Some(process) = found.get_mut(&entry.tgid) else { continue };
            process.threads.push(ThreadSums { tid: entry.tid, sums: entry.sums.up_to(now, entry.now, entry.left) });
            if let Some((_, gil)) = process.gils.get_mut(entry.of_gil.0) {
                gil.add(&entry.of_gil.1);
            }
        }
        found
    }

    /// Without the threads that live.
    fn process_sums(&self, place: u32) -> ProcessSums {
        let mut found = ProcessSums::default();
        let (Ok(words), Ok(target)) = (self.processes.get(&place, 0), self.targets.get(&place, 0)) else { return found };
        let (ended, gils) = words.split_at(WORDS);
        found.ended = Sums::parse(ended.first_chunk().unwrap_or(&[0; WORDS]));
        let gils = gils.chunks(GIL_WORDS).map(|words| GilSums::parse(words.first_chunk().unwrap_or(&[0; GIL_WORDS])));
        found.gils = super::config::gil_ids(&target).zip(gils).collect();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Wakeup;

    fn ms(ms: u64) -> Nanos {
        Nanos::from_millis(ms)
    }

    #[test]
    fn the_time_since_the_last_switch_is_added() {
        let sums = Sums::parse(&[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!((sums.on_cpu.as_nanos(), sums.asleep.as_nanos(), sums.waits, sums.ticks_with_gil), (1, 5, 6, 8));
        let off = |wakeup: Option<u64>| ThreadNow::OffCpu { number: 1, wakeup: wakeup.map(|at| Wakeup { at: ms(at), by_peer: false }) };
        let since = |place, left| Sums::default().up_to(ms(10), place, left);
        let on = ThreadNow::OnCpu { number: 1, wakeup: None, begin: ms(7) };
        assert_eq!(since(on, None), Sums { on_cpu: ms(3), ..Sums::default() });
        let left = |off| Some((off, ms(4)));
        assert_eq!(since(on, left(OffCpu::Syscall)), Sums { on_cpu: ms(3), asleep: ms(3), ..Sums::default() });
        assert_eq!(since(off(None), left(OffCpu::GilFutex)), Sums { waiting: ms(6), ..Sums::default() });
        let woken = Sums { waiting: ms(4), queued_after_wait: ms(2), ..Sums::default() };
        assert_eq!(since(off(Some(8)), left(OffCpu::SwitchFutex)), woken);
        assert_eq!(since(off(None), left(OffCpu::Preempted)), Sums { queued: ms(6), ..Sums::default() });
        assert_eq!(since(off(Some(8)), left(OffCpu::Syscall)), Sums { asleep: ms(4), queued: ms(2), ..Sums::default() });
        assert_eq!(since(off(Some(20)), left(OffCpu::Syscall)).total(), ms(6), "clocks may disagree");
        assert_eq!(since(off(None), None), Sums::default());
    }
}
