//! A wait that is under way, and its thread that runs again and may still be in it.

use crate::capture::exact::spot::Spot;
use crate::ids::GilId;
use crate::units::Nanos;

/// So long after it gave up the mutex, another sleep of one that was woken is the same wait, where nothing else tells. Most such sleeps come within
/// 10 us; two waits of threads that hand the GIL to and fro may be little more apart.
const AFTER_WAKE: Nanos = Nanos::from_micros(15);
/// And of one whose sleep had run out, which goes round the loop unless the GIL was let go of at that very moment.
const AFTER_TIME_OUT: Nanos = Nanos::from_micros(500);
/// So long after a forced switch is over its thread asks for the GIL.
const AFTER_SWITCH: Nanos = Nanos::from_micros(60);

/// A wait under way.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    pub gil: GilId,
    pub begin: Nanos,
    /// As in [`super::Told`].
    pub sure: Nanos,
    /// Whether `take_gil` slept.
    pub take: bool,
    /// Whether all sleeps were on the mutex, for which `drop_gil` sleeps too, or on `Groups`.
    pub mutex_only: bool,
    /// Whether the last one was, but for those on `Groups`.
    pub mutex_last: bool,
    /// When the last sleep began.
    pub slept: Nanos,
    /// What that was on.
    pub spot: Spot,
    /// If the last sleep was on `cond` and ran out: when `take_gil` had begun to count its switch interval.
    pub ran_out: Option<Nanos>,
    /// A call is to come by which it gives up the mutex.
    pub due: bool,
    /// If the last sleep came after that call, and was on the mutex: when the call was. That sleep may be in the `drop_gil` that follows.
    pub gave_up: Option<Nanos>,
}

impl Open {
    pub fn new(gil: GilId, begin: Nanos, sure: Nanos) -> Open {
        let (take, mutex_only, mutex_last, due) = (false, true, false, false);
        Open { gil, begin, sure, take, mutex_only, mutex_last, slept: sure, spot: Spot::SwitchCond, ran_out: None, due, gave_up: None }
    }

    /// So long after it was over, if it was, its thread's next sleep still belongs to it.
    pub fn patience(&self, back: &Back) -> Nanos {
        match (self.take, back.timed_out) {
            (false, _) => AFTER_SWITCH,
            (true, true) => AFTER_TIME_OUT,
            (true, false) => AFTER_WAKE,
        }
    }
}

/// Of a thread that runs again.
#[derive(Clone, Copy, Debug)]
pub struct Back {
    /// Since when.
    pub since: Nanos,
    /// Because the time was over.
    pub timed_out: bool,
    /// When it gave up the mutex, if it has.
    pub gave_up: Option<Nanos>,
    /// `switch_number` then.
    pub switches: Option<u64>,
    /// The sum of [`super::Cover::bare`] then, or when it came back.
    pub bare: Nanos,
}

impl Back {
    /// When the wait was over, if it is.
    pub fn end(&self) -> Nanos {
        self.gave_up.unwrap_or(self.since)
    }
}
