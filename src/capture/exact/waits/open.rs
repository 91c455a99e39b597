//! A wait that is under way, and its thread that runs again and may still be in it.

use crate::capture::exact::spot::Spot;
use crate::ids::GilId;
use crate::units::Nanos;

/// So long after it gave up the mutex, another sleep of one that was woken is the same wait. Against uprobes on 3.8 and 3.13 that sleep came
/// later once in 700 times, and the first sleep of another wait earlier once in 180.
pub const AFTER_WAKE: Nanos = Nanos::from_micros(60);
/// And of one whose sleep had run out, which goes round the loop unless the GIL was let go of at that very moment.
const AFTER_TIME_OUT: Nanos = Nanos::from_micros(500);

/// A wait under way.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    pub gil: GilId,
    pub begin: Nanos,
    /// As in [`super::Told`].
    pub sure: Nanos,
    /// Whether `take_gil` slept.
    pub take: bool,
    /// Whether all sleeps were on the mutex, for which `drop_gil` sleeps too.
    pub mutex_only: bool,
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
        let (take, mutex_only, slept, spot) = (false, true, sure, Spot::SwitchCond);
        Open { gil, begin, sure, take, mutex_only, slept, spot, ran_out: None, due: false, gave_up: None }
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
    /// [`Cover::bare`] then, or when it came back.
    pub bare: Nanos,
}

impl Back {
    /// When the wait was over, if it is.
    pub fn end(&self) -> Nanos {
        self.gave_up.unwrap_or(self.since)
    }

    pub fn patience(&self) -> Nanos {
        if self.timed_out {
            AFTER_TIME_OUT
        } else {
            AFTER_WAKE
        }
    }
}
