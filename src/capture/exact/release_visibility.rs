//! Computes when a GIL may have been released without an event. Pure: events in, one sum out.
//!
//! `drop_gil` wakes a sleeper on `cond` by a futex call, which is an event; if no thread sleeps
//! there, glibc makes no call. So while a thread that has not been woken sleeps on `cond`, every
//! release is visible. And while one thread is known to hold the GIL, no other thread can release
//! it. A thread is known to hold the GIL from the call by which it wakes the thread on
//! `switch_cond`, which then goes to sleep on `cond`.

use super::gil_futex::GilFutex;
use crate::ids::Tid;
use crate::units::Nanos;

/// How long a thread that took the GIL is assumed to hold it if no further event follows: the
/// thread that it woke needs a moment to reach `cond`. The limit is short because a release is
/// invisible if that thread wants something else.
const HOLDER_TIMEOUT: Nanos = Nanos::from_micros(250);

/// State of one GIL.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReleaseVisibility {
    /// Threads that sleep on `cond`.
    sleepers: u32,
    /// How many of these have been woken and do not run yet.
    woken: u32,
    /// The thread that took the GIL according to an event, and how long that is assumed to hold.
    holder: Option<(Tid, Nanos)>,
    /// Total time up to `at` in which the GIL may have been released without an event.
    unobserved: Nanos,
    at: Nanos,
    /// `switch_number` at the last call.
    pub switches: Option<u64>,
}

impl ReleaseVisibility {
    /// Total time up to `now` in which the GIL may have been released without an event. Only
    /// differences of this sum are meaningful.
    pub fn unobserved(&self, now: Nanos) -> Nanos {
        if self.sleepers > self.woken {
            return self.unobserved;
        }
        self.unobserved + now.saturating_since(self.holder.map_or(self.at, |(_, until)| self.at.max(until)))
    }

    fn advance(&mut self, at: Nanos) {
        self.unobserved = self.unobserved(at);
        self.at = self.at.max(at);
    }

    /// A thread goes to sleep.
    pub fn on_sleep(&mut self, at: Nanos, tid: Tid, futex: GilFutex) {
        self.advance(at);
        self.sleepers = self.sleepers.saturating_add(u32::from(futex == GilFutex::Cond));
        if matches!(futex, GilFutex::Cond | GilFutex::SwitchCond) {
            self.holder = self.holder.filter(|(holder, _)| *holder != tid);
        }
    }

    /// A thread wakes others.
    pub fn on_wake(&mut self, at: Nanos, tid: Tid, futex: GilFutex) {
        self.advance(at);
        match futex {
            GilFutex::Cond => {
                self.holder = None;
                self.woken = self.woken.saturating_add(1).min(self.sleepers);
            }
            GilFutex::SwitchCond => self.holder = Some((tid, at + HOLDER_TIMEOUT)),
            GilFutex::Mutex | GilFutex::SwitchMutex | GilFutex::CondInternal => {}
        }
    }

    /// A sleeper runs again.
    pub fn on_return(&mut self, at: Nanos, on_cond: bool, timed_out: bool) {
        self.advance(at);
        if on_cond {
            self.sleepers = self.sleepers.saturating_sub(1);
            self.woken = self.woken.saturating_sub(u32::from(!timed_out)).min(self.sleepers);
        }
    }
}
