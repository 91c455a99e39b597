//! A wait for the GIL in progress, and the table that says how it went on after the thread had a
//! CPU again. Pure.
//!
//! A `take_gil` that must wait sleeps on the GIL's futexes in turns of a switch interval. A forced
//! switch in `drop_gil` sleeps there too, and then goes on with `take_gil`, or with the native code
//! or the system call for which the GIL was released. The futex shows which of the two it is.

use super::rules::{EventRule, EventRules};
use crate::ids::GilId;
use crate::sample::{Evidence, GilView, OffCpu};
use crate::units::Nanos;

/// A thread that is still in `take_gil` or `drop_gil` needs a few microseconds on a CPU from one
/// sleep to the next. One that ran for longer does something else.
pub(super) const MAX_TAKE_GIL_CPU: Nanos = Nanos::from_micros(100);

/// The same after a release that a drop request forced: then nothing else is likely, and the run
/// may have been interrupted.
const MAX_FORCED_CPU: Nanos = Nanos::from_micros(300);

/// A woken thread that finds the GIL taken sleeps again within this CPU time. To take it, release
/// it and ask for it again takes longer.
const MAX_RETRY_CPU: Nanos = Nanos::from_micros(15);

/// A thread that has just taken the GIL keeps it for longer than that, as a rule.
pub(super) const EARLY: Nanos = Nanos::from_micros(200);

/// A wait in progress: certain, or only possible.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenWait {
    pub gil: GilId,
    pub begin: Nanos,
    /// `switch_number` when it began, or when it was last certain that the thread had not taken the
    /// GIL.
    pub switches: u64,
    /// The thread has slept on the GIL.
    pub slept: bool,
    /// It is asleep, or was woken: not preempted since.
    pub is_asleep: bool,
    /// It was the last holder when it went to sleep.
    pub was_last_holder: bool,
    /// It sleeps in `drop_gil` to wake a waiter.
    pub signals: bool,
    /// It has slept in `take_gil`: the wait ends with the GIL.
    pub in_take_gil: bool,
    /// The thread was preempted in the call by which it released the GIL, or asked for it.
    pub in_gil_call: bool,
    /// It may have begun with the release of the GIL. The value of `switch_number` while the thread
    /// held it.
    pub released: Option<u64>,
    /// No event has decided it for long: the wait counts.
    pub is_assumed: bool,
    /// Since when the wait is only possible; `None` while it is certain.
    pub doubt_since: Option<Nanos>,
    /// CPU time since the last sleep.
    pub cpu: Nanos,
    /// The thread was stopped within it.
    pub is_stopped: bool,
}

/// Which thread a view names as the last holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastHolder {
    /// The thread itself.
    Itself,
    /// Another thread.
    Other,
    /// A thread state that is not known yet.
    Unmatched,
}

/// What the ticks of a run found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RunTicks {
    /// The first found the thread holding; `None`: there was none.
    pub first: Option<bool>,
    /// It came soon after the run's begin.
    pub is_early: bool,
    /// Some tick did.
    pub any: bool,
}

/// A run of a thread that may still wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resumed<'a> {
    pub off: OffCpu,
    pub view: &'a GilView,
    pub last_holder: LastHolder,
    /// `switch_number` as last known when the run began.
    pub switches_at_begin: Option<u64>,
    pub cpu: Nanos,
    pub by_peer: bool,
    /// A drop request forced the release with which the wait may have begun.
    pub is_forced: bool,
    pub ticks: RunTicks,
}

/// How a wait went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The thread took the GIL as the run began.
    Acquired,
    /// It did so as an earlier run began, and has released it since.
    AcquiredBefore,
    /// It still waits.
    StillWaits,
    /// It stopped to want the GIL as the run began, or never did.
    Left,
    /// Its next run decides.
    Undecided,
}

impl OpenWait {
    /// A wait that begins as a run ends.
    pub fn new(begin: Nanos, view: &GilView) -> OpenWait {
        OpenWait {
            gil: view.gil,
            begin,
            switches: view.switches,
            slept: false,
            is_asleep: false,
            was_last_holder: false,
            signals: false,
            in_take_gil: false,
            in_gil_call: false,
            released: None,
            is_assumed: false,
            doubt_since: None,
            cpu: Nanos::ZERO,
            is_stopped: false,
        }
    }

    /// The thread goes to sleep on the GIL.
    pub fn sleep(&mut self, off: OffCpu, view: &GilView, last_holder: LastHolder) {
        self.was_last_holder = last_holder == LastHolder::Itself;
        (self.slept, self.is_asleep) = (true, true);
        self.in_take_gil |= off == OffCpu::GilFutex;
        self.switches = view.switches;
        (self.doubt_since, self.cpu) = (None, Nanos::ZERO);
    }

    /// Whether the wait is known: the thread has slept on the GIL, and nothing says that it has
    /// left it since.
    pub fn is_certain(&self) -> bool {
        (self.slept || self.is_assumed) && self.doubt_since.is_none()
    }

    /// Whether it slept because it wanted the GIL, or was forced to release it.
    pub fn has_slept_for_it(&self) -> bool {
        self.slept && !self.signals
    }

    /// Whether a wait that no event decides is likely to be one. Most releases before which a
    /// thread is preempted, and nearly all forced switches, are followed by `take_gil`.
    pub fn is_likely(&self) -> bool {
        self.slept || self.in_gil_call
    }

    /// How it is known that the thread waits while it is off the CPU.
    pub fn evidence(&self) -> Evidence {
        if self.slept {
            Evidence::GilFutex
        } else {
            Evidence::PushedOff
        }
    }

    /// How the wait went on, by the thread's next run.
    pub fn outcome(&self, run: &Resumed<'_>, rules: EventRules) -> Outcome {
        let longest = if run.is_forced || self.slept && !self.in_take_gil { MAX_FORCED_CPU } else { MAX_TAKE_GIL_CPU };
        let is_short = self.cpu + run.cpu <= longest && rules.has(EventRule::ShortRun);
        if run.view.gil != self.gil {
            return if self.in_take_gil { Outcome::Acquired } else { Outcome::Left };
        }
        if run.view.holds == Some(self.gil) || run.ticks.any {
            return self.taken(run, is_short);
        }
        // Neither count sees a thread that takes the GIL again as its last holder.
        let takes_count = !(self.in_take_gil && self.was_last_holder);
        let switched = run.view.switches.wrapping_sub(self.switches);
        let known_at_begin = run.switches_at_begin.map_or(self.switches, |known| known.max(self.switches));
        let switched_in_run = run.view.switches.wrapping_sub(known_at_begin);
        if switched == 0 && self.slept && takes_count && rules.has(EventRule::SwitchNumber) && run.may_be_in_take_gil() {
            return Outcome::StillWaits;
        }
        if run.last_holder == LastHolder::Itself && switched > 0 {
            return Outcome::Acquired;
        }
        // In this run it cannot have taken the GIL and released it.
        let not_now = switched_in_run <= 1 && run.last_holder == LastHolder::Other && rules.has(EventRule::SwitchNumber);
        if !self.in_take_gil {
            return match run.off {
                OffCpu::GilFutex | OffCpu::SwitchFutex | OffCpu::SignalFutex if is_short => Outcome::StillWaits,
                _ if is_short && run.may_be_in_take_gil() => Outcome::Undecided,
                _ if run.is_forced && !not_now => Outcome::Acquired,
                _ => Outcome::Left,
            };
        }
        let was_before = self.doubt_since.is_some() && (not_now || run.ticks.first == Some(false));
        let is_over = if was_before { Outcome::AcquiredBefore } else { Outcome::Acquired };
        let is_retry = run.cpu <= MAX_RETRY_CPU;
        match run.off {
            _ if !run.may_be_in_take_gil() => is_over,
            // However long the run was: the kernel may have hidden its begin.
            _ if not_now && (is_short || self.doubt_since.is_none() && takes_count) => Outcome::StillWaits,
            OffCpu::GilFutex if is_retry || is_short && !run.by_peer => Outcome::StillWaits,
            OffCpu::GilFutex => is_over,
            _ if is_retry && is_short => Outcome::Undecided,
            _ => is_over,
        }
    }

    /// The thread held the GIL in the run. One that can have left `drop_gil` for native code, and
    /// ran for long, may have taken a free GIL later.
    fn taken(&self, run: &Resumed<'_>, is_short: bool) -> Outcome {
        let is_released = run.ticks.is_early && run.ticks.first == Some(false);
        if self.in_take_gil || is_short || run.is_forced && !is_released {
            return Outcome::Acquired;
        }
        match run.ticks.first {
            Some(true) => Outcome::Acquired,
            Some(false) => Outcome::Left,
            None if self.is_likely() => Outcome::Acquired,
            None => Outcome::Left,
        }
    }
}

impl Resumed<'_> {
    /// Whether `take_gil` and `drop_gil` can lose the CPU so.
    fn may_be_in_take_gil(&self) -> bool {
        use OffCpu::{GilFutex, Preempted, PreemptedInGilCall, Stopped, SwitchFutex};
        matches!(self.off, GilFutex | SwitchFutex | Preempted | PreemptedInGilCall | Stopped)
    }
}
