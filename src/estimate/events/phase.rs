//! Where a thread is after its last event, and what the end of a run says of that. Pure.

use super::open_wait::{LastHolder, OpenWait};
use super::strata::RunEnd;
use crate::sample::{CpuRun, Evidence, GilView, OffCpu, State};
use crate::units::Nanos;

/// Where a thread is after its last event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    /// Not known.
    Unknown,
    /// Off the CPU: asleep in this state until it is woken, if it sleeps; then runnable.
    OffCpu { asleep: Option<(State, Evidence)>, runnable: (State, Evidence), holds: bool },
    /// It waits for the GIL, or may do so.
    Wants(OpenWait),
    /// On a CPU, in a run of which the begin is accounted for.
    OnCpu { holds: bool },
    /// It has ended.
    Ended,
}

impl Phase {
    /// In the run queue.
    pub fn queued(state: State, evidence: Evidence, holds: bool) -> Phase {
        Phase::OffCpu { asleep: None, runnable: (state, evidence), holds }
    }

    /// After a run ended at `at`. `released`: the thread was last known to hold the GIL, and does
    /// not now; as in [`OpenWait::released`].
    pub fn after(at: Nanos, off: OffCpu, view: &GilView, released: Option<u64>, last_holder: LastHolder) -> Phase {
        let holds = view.holds.is_some();
        let asleep = |without: State, state, evidence| {
            let (asleep, runnable) = if holds {
                ((state, evidence), (State::HoldingStarved, Evidence::GilHolder))
            } else {
                ((without, Evidence::Syscall), (State::Starved, Evidence::WokenNotRun))
            };
            Phase::OffCpu { asleep: Some(asleep), runnable, holds }
        };
        match off {
            OffCpu::Preempted | OffCpu::PreemptedInGilCall if holds => Phase::queued(State::HoldingStarved, Evidence::GilHolder, true),
            OffCpu::PreemptedInGilCall => Phase::Wants(OpenWait { in_gil_call: true, released, ..OpenWait::new(at, view) }),
            OffCpu::Preempted if released.is_some() => Phase::Wants(OpenWait { released, ..OpenWait::new(at, view) }),
            OffCpu::Preempted => Phase::queued(State::Starved, Evidence::Conservation, false),
            // A holder that sleeps on the GIL's mutex is about to release it.
            OffCpu::GilFutex | OffCpu::SwitchFutex if !holds => {
                let mut wait = OpenWait::new(at, view);
                wait.sleep(off, view, last_holder);
                Phase::Wants(wait)
            }
            OffCpu::SignalFutex => {
                Phase::Wants(OpenWait { slept: true, signals: true, in_gil_call: true, released, ..OpenWait::new(at, view) })
            }
            OffCpu::OtherFutex | OffCpu::GilFutex | OffCpu::SwitchFutex => asleep(State::Lock, State::HoldingBlocked, Evidence::HolderLock),
            OffCpu::Syscall => asleep(State::Io, State::HoldingBlocked, Evidence::GilHolder),
            OffCpu::Fault => asleep(State::Io, State::HoldingBlocked, Evidence::HolderFault),
            OffCpu::Stopped => {
                let stopped = (State::Unknown, Evidence::Stopped);
                Phase::OffCpu { asleep: Some(stopped), runnable: stopped, holds }
            }
            OffCpu::Exited => Phase::Ended,
        }
    }

    /// After a run in which the thread still waited.
    pub fn still_waits(mut wait: OpenWait, run: &CpuRun, last_holder: LastHolder) -> Phase {
        (wait.doubt_since, wait.is_asleep, wait.signals) = (None, false, false);
        match run.off {
            OffCpu::GilFutex | OffCpu::SwitchFutex => wait.sleep(run.off, &run.view, last_holder),
            OffCpu::SignalFutex => (wait.slept, wait.signals) = (true, true),
            OffCpu::Stopped => wait.is_stopped = true,
            _ => {
                wait.cpu += run.end - run.begin;
                if wait.in_take_gil {
                    wait.switches = run.view.switches;
                }
            }
        }
        Phase::Wants(wait)
    }

    /// After a run that leaves it open whether the thread waits.
    pub fn undecided(wait: OpenWait, run: &CpuRun) -> Phase {
        Phase::Wants(OpenWait {
            doubt_since: wait.doubt_since.or(Some(run.begin)),
            cpu: wait.cpu + (run.end - run.begin),
            is_stopped: run.off == OffCpu::Stopped,
            is_asleep: false,
            slept: wait.has_slept_for_it(),
            signals: false,
            ..wait
        })
    }
}

/// What the end of a run says of the GIL, for its stratum.
pub(super) fn run_end(run: &CpuRun, held_at_begin: bool, last_holder: LastHolder) -> RunEnd {
    let is_last = last_holder == LastHolder::Itself;
    match run.off {
        _ if run.view.holds.is_some() => RunEnd::Held,
        // Asleep in `drop_gil`: it held the GIL until now.
        OffCpu::SwitchFutex | OffCpu::SignalFutex if is_last && held_at_begin => RunEnd::Held,
        OffCpu::GilFutex | OffCpu::SwitchFutex | OffCpu::SignalFutex | OffCpu::PreemptedInGilCall => RunEnd::Wanted,
        _ if is_last => RunEnd::LastHolder,
        _ => RunEnd::Other,
    }
}
