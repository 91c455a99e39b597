//! When nobody can have let go of a GIL unseen. Pure: events in, one sum out.
//!
//! `drop_gil` wakes a sleeper on `cond`, by a call that is seen; where nobody sleeps there, glibc makes no call. So while somebody sleeps there
//! whom nobody has woken yet, whoever lets go is seen to. And while one thread has the GIL no other can let go of it: it has it from its
//! call that wakes the one on `switch_cond`, who then comes to sleep on `cond`.

use super::gil_futex::GilFutex;
use crate::ids::Tid;
use crate::units::Nanos;

/// So long after one has taken the GIL it is believed to have it, if nothing is heard of it: the one that it woke needs a moment to come to `cond`.
/// Not for longer, because where that one wants something else, letting go is not seen.
const HOLDER_TIMEOUT: Nanos = Nanos::from_micros(250);

/// Of one GIL.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReleaseVisibility {
    /// Threads that sleep on `cond`.
    sleepers: u32,
    /// Of those, how many have been woken and do not run yet.
    woken: u32,
    /// Who has taken the GIL, as a call told, and until when that is believed.
    holder: Option<(Tid, Nanos)>,
    /// All time up to `at` in which somebody may have let go unseen.
    unobserved: Nanos,
    at: Nanos,
    /// `switch_number` at the last call.
    pub switches: Option<u64>,
}

impl ReleaseVisibility {
    /// All time so far in which somebody may have let go unseen. Only differences mean something.
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
