//! The state machine of exact mode: futex calls in, waits and holds out. Pure.
//!
//! One `take_gil` that has to sleep makes many calls: each sleep on `cond` times out after a switch
//! interval, and the next follows at once. They are one wait. A thread that slept on `cond` or
//! `mutex` acquires the mutex as contended, and so releases it by a futex call (glibc's
//! `lll_cond_lock` and `lll_lock_wait` leave a 2 in it; seen on 2.36 and 2.43). Until that call,
//! however late the thread gets a CPU, it is inside `take_gil`.
//!
//! If `last_holder` is this thread at that call, it has taken the GIL. If not, it sleeps on `cond`
//! again: at once, unless the thread that it woke preempts it. Or it finds that it has been
//! signalled meanwhile, and may take the GIL without a call. It has not if `switch_number` is
//! unchanged when it sleeps again. Nor has it, if other threads took the GIL meanwhile, while at
//! all times a thread slept on `cond` or held the GIL without releasing it: its own release would
//! have been a futex call (`release_visibility`). Otherwise the time until its next sleep decides.
//!
//! A thread that wakes a sleeper on `cond` before it releases the mutex either left `cond` with a
//! signal meant for a later sleeper, and passes it on; or it slept on the mutex only, in
//! `drop_gil`, and releases the GIL. A thread that slept on the mutex and wakes no thread is in
//! `take_gil`.
//!
//! The sleep on `switch_cond`, a forced switch in `drop_gil`, is the beginning of the wait that
//! follows, or a [`IntervalKind::ForcedSwitch`] of its own if the thread then wants something else.
//! If another thread has taken the GIL before this one gets a CPU again, it skips that sleep and
//! requests the GIL at once. So a thread that was forced to release the GIL waits from the release
//! on. The release was forced if another thread's sleep on `cond` timed out before it without a GIL
//! switch: that is when `take_gil` sets the drop request.
//!
//! A hold is reported if both its ends are visible: it follows a wait, and another thread waited
//! when it ended.

use super::gil_futex::{FutexOp, GilFutex};
use super::release_visibility::ReleaseVisibility;
use crate::ids::{GilId, Tid};
use crate::process::futex_tracer::GilSnapshot;
use crate::sample::IntervalKind;
use crate::units::Nanos;
pub use open_wait::{unforced_begin, WaitStatus};
use open_wait::{OpenWait, Resumed};
use std::collections::HashMap;
use thread_wait::{stale, Phase, ThreadWaitState, WakeContext};

/// Longest time after a sleep for which the end of its wait may stay undecided.
const MAX_DOUBT: Nanos = Nanos::from_millis(250);
/// Longest time without a CPU between a forced release and the next request.
pub const MAX_FORCED_WAIT: Nanos = Nanos::from_millis(100);
/// Threads tracked at once; threads that do not wait are discarded first.
const MAX_THREADS: usize = 32_768;

/// An interval whose end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedInterval {
    /// The thread.
    pub tid: Tid,
    /// The GIL.
    pub gil: GilId,
    /// The kind of interval.
    pub kind: IntervalKind,
    /// Its begin.
    pub begin: Nanos,
    /// Its certain begin: the only evidence of waiting before this time is a forced switch.
    pub certain_begin: Nanos,
    /// Its end.
    pub end: Nanos,
}

/// The wait states of all threads.
#[derive(Debug, Default)]
pub struct Waits {
    threads: HashMap<Tid, ThreadWaitState>,
    /// When each GIL was last released while other threads waited.
    released_at: HashMap<GilId, Nanos>,
    /// The sleepers and the known holder of each GIL.
    visibility: HashMap<GilId, ReleaseVisibility>,
    /// The switch interval, once a sample has found it.
    pub interval: Option<Nanos>,
}

impl Waits {
    /// Handles the next event. The events of one thread must arrive in order of time.
    pub fn handle(&mut self, at: Nanos, tid: Tid, op: FutexOp, snapshot: Option<GilSnapshot>, emit: &mut dyn FnMut(CompletedInterval)) {
        if self.threads.len() >= MAX_THREADS && !self.threads.contains_key(&tid) {
            self.threads.retain(|_, t| !matches!(t.phase, Phase::NotWaiting));
            if self.threads.len() >= MAX_THREADS {
                return;
            }
        }
        if self.passes_signal_on(at, tid, op) {
            return;
        }
        let asleep = match self.threads.entry(tid).or_default().phase {
            Phase::Asleep(open) => Some(open),
            Phase::NotWaiting | Phase::Awake(..) | Phase::FoundAsleep(_) => None,
        };
        let gil = match op {
            FutexOp::Sleep(gil, _) | FutexOp::Wake(gil, _) => Some(gil),
            FutexOp::Return { .. } => asleep.map(|open| open.gil),
        };
        if let Some(gil) = gil {
            self.visibility.entry(gil).or_default().switches = snapshot.map(|t| t.switch_number);
        }
        if let Some(open) = asleep {
            // The thread runs now, even if its return event was lost.
            self.visibility.entry(open.gil).or_default().on_return(
                at,
                open.futex == GilFutex::Cond,
                op == FutexOp::Return { timed_out: true },
            );
        }
        match op {
            FutexOp::Sleep(gil, futex) => {
                let continues_wait = self.continues_wait(at, tid, gil, futex, snapshot);
                self.visibility.entry(gil).or_default().on_sleep(at, tid, futex);
                self.threads.entry(tid).or_default().sleep(at, tid, gil, futex, continues_wait, emit);
            }
            FutexOp::Wake(gil, futex) => {
                let forced = futex == GilFutex::Cond && self.was_forced(tid, gil);
                let visibility = self.visibility.entry(gil).or_default();
                let thread = self.threads.entry(tid).or_default();
                visibility.on_wake(at, tid, futex);
                thread.wake(at, tid, gil, futex, WakeContext { snapshot, forced, unobserved: visibility.unobserved(at) }, emit);
                if futex == GilFutex::Cond {
                    self.released_at.insert(gil, at);
                }
            }
            FutexOp::Return { timed_out } => {
                if let Some(open) = asleep {
                    let unobserved = self.visibility.entry(open.gil).or_default().unobserved(at);
                    let timed_out_since = self.interval_start(&open, at).filter(|_| timed_out);
                    let resumed = Resumed { since: at, timed_out, mutex_released_at: None, switches: None, unobserved };
                    self.threads.entry(tid).or_default().phase = Phase::Awake(OpenWait { timed_out_since, ..open }, resumed);
                }
            }
        }
    }

    /// When `take_gil` started the switch interval that has now expired. A sleep shorter than the
    /// interval is not the first of its round: glibc has gone back to sleep in between.
    fn interval_start(&self, open: &OpenWait, now: Nanos) -> Option<Nanos> {
        let first = self.interval.map_or(open.slept, |interval| open.slept.min(now - interval));
        Some(first).filter(|_| open.futex == GilFutex::Cond)
    }

    /// Whether a wakeup call passes on a signal meant for a later sleeper, and is no release.
    fn passes_signal_on(&self, at: Nanos, tid: Tid, op: FutexOp) -> bool {
        let phase = self.threads.get(&tid).map(|t| t.phase);
        matches!((op, phase), (FutexOp::Wake(gil, GilFutex::Cond), Some(Phase::Awake(open, resumed)))
            if open.gil == gil && open.futex == GilFutex::Cond && open.release_pending && at.saturating_since(resumed.since) <= MAX_DOUBT)
    }

    /// Whether a thread that goes to sleep now is still in the wait of its last sleep.
    fn continues_wait(&self, at: Nanos, tid: Tid, gil: GilId, futex: GilFutex, snapshot: Option<GilSnapshot>) -> bool {
        let Some(thread) = self.threads.get(&tid) else { return false };
        let Phase::Awake(open, resumed) = thread.phase else { return false };
        if open.gil != gil || open.take_gil_slept && futex == GilFutex::SwitchCond {
            return false;
        }
        if open.take_gil_slept && !open.release_pending && !matches!(futex, GilFutex::Cond | GilFutex::Mutex) {
            return false; // it signals `cond`, or waits for the signalled threads: it is in `drop_gil`
        }
        if open.release_pending || resumed.switches.is_some() && resumed.switches == snapshot.map(|t| t.switch_number) {
            return at.saturating_since(resumed.since) <= MAX_DOUBT;
        }
        if thread.was_last_holder(snapshot) {
            return false;
        }
        let rejoin_window = open.rejoin_window(&resumed);
        at.saturating_since(resumed.end()) <= rejoin_window
            || futex == GilFutex::Cond && open.take_gil_slept && self.unobserved(&open, &resumed, at) <= rejoin_window
    }

    /// For how long since its last sleep a thread could have released the GIL without an event.
    fn unobserved(&self, open: &OpenWait, resumed: &Resumed, now: Nanos) -> Nanos {
        self.visibility.get(&open.gil).map_or(Nanos::ZERO, |visibility| visibility.unobserved(now).saturating_since(resumed.unobserved))
    }

    /// Whether a drop request forced the release that the holder makes now.
    fn was_forced(&self, holder: Tid, gil: GilId) -> bool {
        let released_at = self.released_at.get(&gil).copied().unwrap_or(Nanos::ZERO);
        let requested = |open: &OpenWait| open.gil == gil && open.timed_out_since.is_some_and(|slept| slept >= released_at);
        let has_requested = |t: &ThreadWaitState| matches!(&t.phase, Phase::Asleep(open) | Phase::Awake(open, ..) if requested(open));
        self.threads.iter().any(|(other, t)| *other != holder && has_requested(t))
    }

    /// The wait status of a thread.
    pub fn status(&self, tid: Tid) -> WaitStatus {
        let Some(thread) = self.threads.get(&tid) else { return WaitStatus::NotWaiting };
        match thread.phase {
            Phase::NotWaiting => {
                thread.released.filter(|(_, forced)| *forced).map_or(WaitStatus::NotWaiting, |(at, _)| WaitStatus::ForcedSince(at))
            }
            Phase::Asleep(open) => WaitStatus::WaitingSince(open.begin),
            Phase::Awake(open, resumed) => {
                WaitStatus::Resumed { begin: open.begin, since: resumed.end(), in_take_gil: open.release_pending }
            }
            Phase::FoundAsleep(_) => WaitStatus::Unknown,
        }
    }

    /// The threads that currently sleep for a GIL.
    pub fn asleep(&self) -> impl Iterator<Item = Tid> + '_ {
        self.threads.iter().filter(|(_, t)| matches!(t.phase, Phase::Asleep(_))).map(|(tid, _)| *tid)
    }

    /// A sample found the thread busy elsewhere at `at`: it had released the GIL without an event.
    pub fn forget_hold(&mut self, tid: Tid, at: Nanos) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.held_since = thread.held_since.filter(|&held| held >= at);
        }
    }

    /// A sample at `at` found the thread holding the GIL, or asleep for something else. If it had
    /// been forced to release the GIL, it held it again without an event, because the GIL was free;
    /// or the release was voluntary and coincided with the drop request. Slices arrive late: it may
    /// have requested the GIL again since. Returns when it was forced, if it was.
    pub fn forget_forced_switch(&mut self, tid: Tid, at: Nanos) -> Option<Nanos> {
        let thread = self.threads.get_mut(&tid)?;
        let waits = thread.released.take_if(|(time, _)| *time < at).filter(|(_, forced)| *forced).map(|(time, _)| time);
        let (Phase::Asleep(open) | Phase::Awake(open, ..)) = &mut thread.phase else { return waits };
        let before = open.begin;
        open.begin = unforced_begin((before, open.certain_begin), at);
        waits.or((open.begin != before).then_some(before))
    }

    /// A sample found the thread asleep on a GIL as tracing began; its next event shows if it
    /// waits.
    pub fn found_asleep(&mut self, tid: Tid, gil: GilId, begin: Nanos) {
        if self.threads.len() < MAX_THREADS {
            let thread = self.threads.entry(tid).or_default();
            if matches!(thread.phase, Phase::NotWaiting) {
                thread.phase = Phase::FoundAsleep(OpenWait {
                    take_gil_slept: true,
                    mutex_only: false,
                    futex: GilFutex::Cond,
                    release_pending: true,
                    ..OpenWait::new(gil, begin, begin)
                });
            }
        }
    }

    /// Forgets a thread that has exited. A thread in a wait stays: it is another one that has the
    /// same id by now.
    pub fn forget_exited(&mut self, tid: Tid) {
        if self.threads.get(&tid).is_some_and(|thread| matches!(thread.phase, Phase::NotWaiting)) {
            self.threads.remove(&tid);
        }
    }

    /// Forgets the GILs that are no longer there.
    pub fn retain_gils(&mut self, exists: impl Fn(GilId) -> bool) {
        self.released_at.retain(|gil, _| exists(*gil));
        self.visibility.retain(|gil, _| exists(*gil));
    }

    /// Emits the waits that ended so long before `now` that no later event can extend them.
    pub fn close_stale(&mut self, now: Nanos, emit: &mut dyn FnMut(CompletedInterval)) {
        let stale: Vec<_> = self.threads.iter().filter_map(|(tid, thread)| stale(*tid, thread, now)).collect();
        for (tid, open, resumed) in stale {
            let switches = self.visibility.get(&open.gil).and_then(|visibility| visibility.switches);
            let taken = resumed.switches.is_none() || resumed.switches != switches;
            let over = now.saturating_since(resumed.since) > MAX_DOUBT
                || taken && self.unobserved(&open, &resumed, now) > open.rejoin_window(&resumed);
            if let Some(thread) = self.threads.get_mut(&tid).filter(|_| over) {
                thread.close(tid, open, resumed.end(), emit);
            }
        }
    }

    /// Ends the window: intervals in progress end at `now`.
    pub fn finish(&mut self, now: Nanos, emit: &mut dyn FnMut(CompletedInterval)) {
        for (tid, thread) in &mut self.threads {
            match thread.phase {
                Phase::Asleep(open) | Phase::Awake(open, ..) if open.begin >= now => {}
                Phase::NotWaiting | Phase::FoundAsleep(_) => {}
                Phase::Asleep(open) => thread.close(*tid, open, now, emit),
                Phase::Awake(open, resumed) => {
                    thread.close(*tid, open, if open.release_pending { now } else { resumed.end().min(now) }, emit)
                }
            }
        }
        self.threads.clear();
        self.visibility.clear();
        self.released_at.clear();
    }
}

mod open_wait;
#[cfg(test)]
mod tests;
mod thread_wait;
