//! What a thread is doing, judged from one look: a pure decision table that returns the state and how it is known.
//!
//! What one look cannot tell it does not guess. A runnable thread that does not hold the GIL may run native code, may have no CPU, or may
//! just have been woken to take the GIL; it is handed on as [`Judgement::Undecided`], and the `ledger` splits it by the CPU time that the
//! kernel counted.

use crate::process::kernel_stack::Whereabouts;
use crate::process::threads::Kernel;
use crate::sample::{Evidence, State};

/// Where a thread sleeps, when it sleeps on a futex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Runnable: the kernel does not say whether it has a CPU.
    Runnable,
    /// On a futex inside a GIL: it wants that GIL.
    GilFutex,
    /// On any other futex.
    OtherFutex,
    /// In another system call.
    Syscall,
    /// Off the CPU outside a system call: a page fault, a stop.
    Elsewhere,
    /// It slept at the last look and has not run since, so it was not looked at again.
    NotRunSince,
    /// It waited for the GIL at the last look, and only others can have had it since: it cannot have left `take_gil`.
    StillWaiting,
    /// Stopped with the whole program, so that it does nothing.
    Stopped,
    /// Could not be read.
    Unread,
}

/// Whether a thread can have been told to let go of the GIL. A waiter tells the holder to once it has waited for a switch interval in which the
/// GIL did not change hands (`take_gil`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// It cannot: if it has let go, then for work of its own, or for good.
    No,
    /// Nothing tells.
    #[default]
    Unclear,
    /// It can, and will have been: it has held, and another has waited, for as long as that takes.
    Likely,
}

/// A thread as one look saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where the kernel says it is.
    pub place: Place,
    /// Whether the GIL named it as the holder when the look began.
    pub held_before: bool,
    /// Whether the GIL named it as the holder when the look ended.
    pub held_after: bool,
    /// 3.15: whether it has asked for the GIL and not got it.
    pub requested: Option<bool>,
    /// Its leaf instruction is a call of a C function.
    pub in_c_call: bool,
    /// If it has let go of the GIL: whether it can have been told to.
    pub asked: Asked,
    /// What it was doing at the last look, if that was off the CPU.
    pub slept: Option<State>,
    /// It waited for the GIL at the last look, or has been runnable without the GIL ever since it did.
    pub near_wait: bool,
    /// The GIL is what it last slept for on a futex, as far as looks have met it.
    pub wants_gil: bool,
    /// Where it is in the kernel, if it is runnable and that can be told.
    pub whereabouts: Option<Whereabouts>,
    /// Whether it got a CPU since the last look; `None` where the kernel does not count.
    pub ran: Option<bool>,
}

/// The table's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Told by this look alone.
    Told(State, Evidence),
    /// Owns the GIL and is runnable: on a CPU, unless the run queue says otherwise.
    HoldingOnCpu(State),
    /// Runnable without the GIL and without wanting it: native code, unless the run queue says otherwise.
    Released,
    /// Runnable without the GIL.
    Undecided {
        /// As [`Seen::near_wait`].
        near_wait: bool,
    },
}

/// Judges one look at one thread.
pub fn judge(seen: &Seen) -> Judgement {
    use Evidence as E;
    use Judgement::{HoldingOnCpu, Told};
    let held = seen.held_before && seen.held_after;
    let holding = if seen.in_c_call { State::HoldingNative } else { State::HoldingPython };
    match seen.place {
        Place::Stopped => Told(State::Unknown, E::Stopped),
        // The states of one look are those of its beginning: a holder that let go and went to sleep meanwhile was still the holder.
        Place::GilFutex | Place::OtherFutex | Place::Syscall | Place::Elsewhere if seen.held_before && !seen.held_after => {
            HoldingOnCpu(holding)
        }
        Place::GilFutex => Told(State::Waiting, E::GilFutex),
        Place::StillWaiting => Told(State::Waiting, E::SameHolder),
        Place::NotRunSince if held => Told(State::HoldingBlocked, E::GilHolder),
        Place::NotRunSince => match seen.slept {
            Some(State::HoldingBlocked) | None => Told(State::Unknown, E::Unread),
            Some(state) => Told(state, E::NotRunSince),
        },
        Place::OtherFutex | Place::Syscall | Place::Elsewhere if held => Told(State::HoldingBlocked, E::GilHolder),
        Place::OtherFutex => Told(State::Lock, E::Syscall),
        Place::Syscall | Place::Elsewhere => Told(State::Io, E::Syscall),
        Place::Runnable if seen.held_before => HoldingOnCpu(holding),
        Place::Unread if held => Told(holding, E::GilHolder),
        Place::Runnable if seen.requested == Some(true) && began_to_ask(seen) => Judgement::Released,
        Place::Runnable | Place::Unread if seen.requested == Some(true) => Told(State::Waiting, E::GilRequested),
        Place::Runnable => match (seen.slept, seen.ran) {
            (Some(State::Waiting), Some(false)) => Told(State::Waiting, E::WokenNotRun),
            (Some(_), Some(false)) => Told(State::Starved, E::WokenNotRun),
            _ => runnable(seen),
        },
        Place::Unread => Told(State::Unknown, E::Unread),
    }
}

/// Whether one that asks for the GIL has begun to since this look did, on a CPU that it had for something else.
fn began_to_ask(seen: &Seen) -> bool {
    match seen.whereabouts {
        Some(Whereabouts::InSystemCall) => true,
        Some(Whereabouts::OnCpu) => !seen.near_wait,
        _ => false,
    }
}

/// A thread that has had a CPU since the last look and is runnable without the GIL.
fn runnable(seen: &Seen) -> Judgement {
    use Evidence::{KernelStack, PushedOff};
    match seen.whereabouts {
        None => Judgement::Undecided { near_wait: seen.near_wait },
        // It has got the GIL since this look began, and then wanted it, or was about to.
        Some(Whereabouts::OnCpu) if seen.held_after => Judgement::Undecided { near_wait: seen.near_wait },
        // In another system call it may have slept, or worked there and been pushed off its CPU, by this very look perhaps.
        Some(Whereabouts::OnCpu | Whereabouts::Preempted | Whereabouts::InSystemCall) => Judgement::Released,
        Some(Whereabouts::Leaving) if seen.asked == Asked::No => Judgement::Told(State::Starved, KernelStack),
        // The eval loop lets go because it was told to, and asks again; a C function does so for work of its own. But a call that has just
        // returned, at whose end the eval loop looks whether it is told to, still is the instruction that the thread is at.
        Some(Whereabouts::Leaving) if seen.in_c_call && seen.asked == Asked::Unclear => Judgement::Undecided { near_wait: seen.near_wait },
        Some(Whereabouts::Leaving) => Judgement::Told(State::Waiting, PushedOff),
        // Woken from a lock, in the call that acquires it: it has not come to ask for the GIL. One that was forced to let go, by the eval loop or
        // at the end of a call, has not asked yet either while it waits for its taker (`switch_cond`).
        Some(Whereabouts::WokenFromFutex) if seen.requested == Some(false) && seen.in_c_call && seen.asked == Asked::No => {
            Judgement::Told(State::Starved, KernelStack)
        }
        Some(Whereabouts::WokenFromFutex) if seen.wants_gil => Judgement::Told(State::Waiting, KernelStack),
        Some(Whereabouts::WokenFromFutex) => Judgement::Told(State::Starved, KernelStack),
    }
}

/// Names the place from what the kernel says. `on_gil` tells whether a futex lies in a GIL; `None` where not every GIL's place is known.
pub fn place(kernel: Kernel, on_gil: impl Fn(crate::ids::Addr) -> Option<bool>) -> Place {
    match kernel {
        Kernel::Runnable => Place::Runnable,
        Kernel::Futex(at) => match on_gil(at) {
            Some(true) => Place::GilFutex,
            Some(false) => Place::OtherFutex,
            None => Place::Unread,
        },
        Kernel::Syscall(_) => Place::Syscall,
        Kernel::Elsewhere => Place::Elsewhere,
    }
}
