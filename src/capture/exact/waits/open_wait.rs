//! A wait that is under way, and its thread that runs again and may still be in it.

use crate::capture::exact::gil_futex::GilFutex;
use crate::ids::GilId;
use crate::units::Nanos;

/// So long after it gave up the mutex, another sleep of one that was woken is the same wait, where nothing else tells. Most such sleeps come within
/// 10 us; two waits of threads that hand the GIL to and fro may be little more apart.
const REJOIN_AFTER_WAKE: Nanos = Nanos::from_micros(15);
/// And of one whose sleep had run out, which goes round the loop unless the GIL was let go of at that very moment.
const REJOIN_AFTER_TIMEOUT: Nanos = Nanos::from_micros(500);
/// So long after a forced switch is over its thread asks for the GIL.
const REJOIN_AFTER_SWITCH: Nanos = Nanos::from_micros(60);

/// A wait under way.
#[derive(Clone, Copy, Debug)]
pub struct OpenWait {
    pub gil: GilId,
    pub begin: Nanos,
    /// As in [`super::CompletedInterval`].
    pub certain_begin: Nanos,
    /// Whether `take_gil` slept.
    pub take_gil_slept: bool,
    /// Whether all sleeps were on the mutex, for which `drop_gil` sleeps too, or on `CondInternal`.
    pub mutex_only: bool,
    /// Whether the last one was, but for those on `CondInternal`.
    pub mutex_last: bool,
    /// When the last sleep began.
    pub slept: Nanos,
    /// What that was on.
    pub futex: GilFutex,
    /// If the last sleep was on `cond` and ran out: when `take_gil` had begun to count its switch interval.
    pub timed_out_since: Option<Nanos>,
    /// A call is to come by which it gives up the mutex.
    pub release_pending: bool,
    /// If the last sleep came after that call, and was on the mutex: when the call was. That sleep may be in the `drop_gil` that follows.
    pub mutex_released_at: Option<Nanos>,
}

impl OpenWait {
    pub fn new(gil: GilId, begin: Nanos, certain_begin: Nanos) -> OpenWait {
        let (take_gil_slept, mutex_only, mutex_last, release_pending) = (false, true, false, false);
        OpenWait {
            gil,
            begin,
            certain_begin,
            take_gil_slept,
            mutex_only,
            mutex_last,
            slept: certain_begin,
            futex: GilFutex::SwitchCond,
            timed_out_since: None,
            release_pending,
            mutex_released_at: None,
        }
    }

    /// So long after it was over, if it was, its thread's next sleep still belongs to it.
    pub fn rejoin_window(&self, back: &Resumed) -> Nanos {
        match (self.take_gil_slept, back.timed_out) {
            (false, _) => REJOIN_AFTER_SWITCH,
            (true, true) => REJOIN_AFTER_TIMEOUT,
            (true, false) => REJOIN_AFTER_WAKE,
        }
    }
}

/// Of a thread that runs again.
#[derive(Clone, Copy, Debug)]
pub struct Resumed {
    /// Since when.
    pub since: Nanos,
    /// Because the time was over.
    pub timed_out: bool,
    /// When it gave up the mutex, if it has.
    pub mutex_released_at: Option<Nanos>,
    /// `switch_number` then.
    pub switches: Option<u64>,
    /// The sum of [`super::ReleaseVisibility::unobserved`] then, or when it came back.
    pub unobserved: Nanos,
}

impl Resumed {
    /// When the wait was over, if it is.
    pub fn end(&self) -> Nanos {
        self.mutex_released_at.unwrap_or(self.since)
    }
}

/// Where a thread is, as far as events tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitStatus {
    /// In no wait.
    NotWaiting,
    /// In a wait since then.
    WaitingSince(Nanos),
    /// Was in one that began then, and runs again.
    Resumed {
        /// When the wait began.
        begin: Nanos,
        /// Up to when it waited for certain.
        since: Nanos,
        /// It has not come out of `take_gil`.
        in_take_gil: bool,
    },
    /// Was forced to let go then, and has not asked again: as far as events tell.
    ForcedSince(Nanos),
    /// Not told yet: only looks can say.
    Unknown,
}
