//! A wait in progress, and the state of a thread that runs again and may still be in it.

use crate::capture::exact::gil_futex::GilFutex;
use crate::ids::GilId;
use crate::units::Nanos;

/// How long after a woken thread released the mutex its next sleep belongs to the same wait, if no
/// other evidence decides. Most such sleeps follow within 10 us; two waits of threads that pass the
/// GIL back and forth may be only slightly further apart.
const REJOIN_AFTER_WAKE: Nanos = Nanos::from_micros(15);
/// The same for a thread whose sleep timed out: it starts the next round unless the GIL was
/// released at that very moment.
const REJOIN_AFTER_TIMEOUT: Nanos = Nanos::from_micros(500);
/// How long after a forced switch its thread requests the GIL.
const REJOIN_AFTER_SWITCH: Nanos = Nanos::from_micros(60);

/// A wait in progress.
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
    /// Whether the last sleep was on the mutex, ignoring those on `CondInternal`.
    pub mutex_last: bool,
    /// When the last sleep began.
    pub slept: Nanos,
    /// The futex of the last sleep.
    pub futex: GilFutex,
    /// When `take_gil` started its switch interval, if the last sleep was on `cond` and timed out.
    pub timed_out_since: Option<Nanos>,
    /// A futex call that releases the mutex is still to come.
    pub release_pending: bool,
    /// Time of that call, if the last sleep came after it and was on the mutex. That sleep may be
    /// in the `drop_gil` that follows.
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

    /// How long after its end, if it has ended, the thread's next sleep still belongs to this wait.
    pub fn rejoin_window(&self, resumed: &Resumed) -> Nanos {
        match (self.take_gil_slept, resumed.timed_out) {
            (false, _) => REJOIN_AFTER_SWITCH,
            (true, true) => REJOIN_AFTER_TIMEOUT,
            (true, false) => REJOIN_AFTER_WAKE,
        }
    }
}

/// The begin of a wait, after a sample at `at` has disproved the wait since a forced switch.
pub fn unforced_begin((begin, certain_begin): (Nanos, Nanos), at: Nanos) -> Nanos {
    if begin < at && at <= certain_begin {
        certain_begin
    } else {
        begin
    }
}

/// State of a thread that runs again.
#[derive(Clone, Copy, Debug)]
pub struct Resumed {
    /// Since when.
    pub since: Nanos,
    /// Whether the sleep timed out.
    pub timed_out: bool,
    /// When it released the mutex, if it has.
    pub mutex_released_at: Option<Nanos>,
    /// `switch_number` at that time.
    pub switches: Option<u64>,
    /// The sum of [`super::ReleaseVisibility::unobserved`] at that time, or when the thread
    /// returned.
    pub unobserved: Nanos,
}

impl Resumed {
    /// When the wait ended, if it has.
    pub fn end(&self) -> Nanos {
        self.mutex_released_at.unwrap_or(self.since)
    }
}

/// The wait status of a thread, as far as events show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitStatus {
    /// It does not wait.
    NotWaiting,
    /// It waits since then.
    WaitingSince(Nanos),
    /// It was in a wait and runs again.
    Resumed {
        /// When the wait began.
        begin: Nanos,
        /// Until when it certainly waited.
        since: Nanos,
        /// It has not returned from `take_gil`.
        in_take_gil: bool,
    },
    /// It was forced to release the GIL then, and no event shows a new request.
    ForcedSince(Nanos),
    /// Not known yet: only samples can tell.
    Unknown,
}
