//! Classifies one sample of one thread: a pure decision table from an [`Observation`] to a state
//! and its evidence.
//!
//! The table does not guess. A runnable thread without the GIL may run native code, may be in the
//! run queue, or may have just been woken to take the GIL. Kernel stacks, where gilprof may read
//! them, or else counts of switches, decide most of these cases. The others become
//! one of the other classes of [`Classification`], whose time `cpu_attribution` divides by the CPU
//! time and run-queue time that the kernel counted.

use super::rules::{Rule, Rules};
use crate::sample::{Evidence, RunnableState, State, TaskState};

/// Whether a thread that has released the GIL can have got a drop request. In `take_gil`, a waiter
/// sends the holder a drop request after it has waited for a switch interval without a GIL switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DropRequest {
    /// It cannot. If the thread has released the GIL, it did so for a blocking call, or for the
    /// last time.
    No,
    /// Unknown.
    #[default]
    Unknown,
    /// It can, and very likely did: for at least a switch interval, samples have seen no other
    /// holder, and always a thread that may wait.
    Likely,
}

/// What one sample shows of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Where the thread is in the kernel.
    pub task_state: TaskState,
    /// Whether the GIL named the thread as its holder when the sample began.
    pub held_before: bool,
    /// Whether the GIL named the thread as its holder when the sample ended.
    pub held_after: bool,
    /// 3.15: the thread state's `gil_requested` flag, set while the thread is in `take_gil`.
    pub requested: Option<bool>,
    /// The leaf frame's current instruction is a call of a C function.
    pub in_c_call: bool,
    /// If the thread has released the GIL: whether it can have got a drop request.
    pub drop_request: DropRequest,
    /// The thread held the GIL at the last sample.
    pub held_last: bool,
    /// The thread's state at the last sample, if it was off the CPU then.
    pub off_cpu_state: Option<State>,
    /// The thread waited for the GIL at the last sample, or was [`Classification::NearWait`].
    pub near_wait: bool,
    /// The last futex sleep in which a sample found the thread was for the GIL.
    pub wants_gil: bool,
    /// Where the thread is now, within a call of a C function, its futex sleeps are often for a
    /// lock; and no sample has found it asleep since it held the GIL.
    pub sleeps_for_lock: bool,
    /// The same of its sleeps in any system call: for something other than the GIL.
    pub sleeps_for_other: bool,
    /// Where a runnable thread is, by its kernel stack or its counts of switches; `None` where that
    /// is unknown.
    pub runnable_state: Option<RunnableState>,
    /// Some sample said where the thread was while it was runnable.
    pub is_resolved: bool,
    /// Whether the thread got a CPU since the last sample; `None` where the kernel does not count.
    pub was_scheduled: Option<bool>,
}

/// The table's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Classification {
    /// This sample alone decides.
    Known(State, Evidence),
    /// Holds the GIL and is runnable: on a CPU, unless the run-queue time says otherwise.
    HoldingRunnable(State),
    /// Runnable without the GIL, and not next to a wait for it: native code, unless the run-queue
    /// time says otherwise.
    OffGil,
    /// Found in the run queue, without the GIL and without wanting it. gilprof's own sample needs a
    /// CPU and preempts the thread that it then finds in the run queue, so such time is starved
    /// only as far as the kernel has counted run-queue time.
    InRunQueue(Evidence),
    /// Runnable without the GIL, next to a wait for it; one sample cannot say more. The state is
    /// that of the time without a CPU.
    NearWait(State),
}

impl Classification {
    /// The same where the GIL is off, so that nobody waits for it.
    pub fn without_gil(self) -> Classification {
        match self {
            Classification::Known(State::Waiting, Evidence::GilFutex | Evidence::SameHolder) => {
                Classification::Known(State::Lock, Evidence::Syscall)
            }
            Classification::Known(State::Waiting, Evidence::SwitchCounts) => Classification::InRunQueue(Evidence::SwitchCounts),
            Classification::Known(State::Waiting, _) => Classification::InRunQueue(Evidence::KernelStack),
            Classification::NearWait(_) => Classification::OffGil,
            other => other,
        }
    }
}

/// A row of the table, for a reader.
#[cfg(any(test, feature = "internals"))]
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// When it applies.
    pub when: &'static str,
    /// Its result, as code.
    pub result: &'static str,
    /// Why.
    pub because: &'static str,
}

/// Makes the table, as code and as [`ROWS`]: the first row whose condition holds gives the result.
macro_rules! table {
    ($observed:ident, $rules:ident, $($when:literal, $applies:expr => $result:expr, $because:literal;)*) => {
        /// The table's rows, in their order.
        #[cfg(any(test, feature = "internals"))]
        pub const ROWS: &[Row] = &[$(Row { when: $when, result: stringify!($result), because: $because }),*];

        /// Classifies one sample of one thread, by these rules. Returns the number of the row too.
        pub fn classify_by_row($observed: &Observation, $rules: Rules) -> (usize, Classification) {
            use Classification::{HoldingRunnable, InRunQueue, Known, NearWait, OffGil};
            use DropRequest::{Likely, Unknown};
            use RunnableState as R;
            use TaskState as T;
            let mut row = 0;
            $(
                if $applies {
                    return (row, $result);
                }
                row += 1;
            )*
            (row, Known(State::Unknown, Evidence::Unread))
        }
    };
}

table! { o, rules,
    "stopped", o.task_state == T::Stopped => Known(State::Unknown, Evidence::Stopped),
        "a stop shows only where the thread was stopped";
    "asleep, and held the GIL when the sample began but not when it ended",
        o.is_asleep() && o.held_before && !o.held_after => HoldingRunnable(o.holding()),
        "states are those of the sample's beginning";
    "asleep on a futex of the GIL", o.task_state == T::GilFutex => Known(State::Waiting, Evidence::GilFutex),
        "only take_gil and drop_gil sleep there";
    "waited at the last sample, and only others can have had the GIL since",
        o.task_state == T::StillWaiting => Known(State::Waiting, Evidence::SameHolder),
        "switch_number counts every other holder";
    "holds the GIL, off the CPU at the last sample and not run since", o.task_state == T::NotRunSince && o.held() =>
        Known(State::HoldingBlocked, Evidence::GilHolder), "it holds the GIL and has no CPU";
    "off the CPU at the last sample and not run since, in a state that is not known",
        o.task_state == T::NotRunSince && matches!(o.off_cpu_state, None | Some(State::HoldingBlocked)) =>
        Known(State::Unknown, Evidence::Unread), "it was said to hold the GIL then, and does not now";
    "off the CPU at the last sample and not run since", o.task_state == T::NotRunSince =>
        Known(o.off_cpu_state.unwrap_or(State::Unknown), Evidence::NotRunSince), "a thread that has not run is where it was";
    "holds the GIL, asleep on another futex", o.task_state == T::OtherFutex && o.held() =>
        Known(State::HoldingBlocked, Evidence::HolderLock), "a lock, or another thread";
    "holds the GIL, off the CPU outside a system call", o.task_state == T::OutsideSyscall && o.held() =>
        Known(State::HoldingBlocked, Evidence::HolderFault), "a page fault";
    "holds the GIL, asleep in a system call", o.task_state == T::Syscall && o.held() =>
        Known(State::HoldingBlocked, Evidence::GilHolder), "the call keeps the GIL";
    "asleep on another futex", o.task_state == T::OtherFutex => Known(State::Lock, Evidence::Syscall), "a lock, a queue, a join";
    "asleep elsewhere", o.is_asleep() => Known(State::Io, Evidence::Syscall), "network, disk, timer, page fault";
    "held the GIL when the sample began, runnable", o.task_state == T::Runnable && o.held_before => HoldingRunnable(o.holding()),
        "on a CPU, unless its time in the run queue says otherwise";
    "holds the GIL, not readable", o.task_state == T::Unread && o.held() => Known(o.holding(), Evidence::GilHolder),
        "the GIL names it";
    "runnable, requests the GIL, but was elsewhere a moment before",
        o.task_state == T::Runnable && o.requested == Some(true) && rules.has(Rule::RequestStarted) && o.request_started() => OffGil,
        "the request was made after the sample had begun";
    "requests the GIL", o.requested == Some(true) => Known(State::Waiting, Evidence::GilRequested),
        "the flag is set throughout take_gil (3.15)";
    "not readable", o.task_state != T::Runnable => Known(State::Unknown, Evidence::Unread), "no evidence is no state";
    "woken from a wait for the GIL, and not run since", o.is_woken() && o.off_cpu_state == Some(State::Waiting) =>
        Known(State::Waiting, Evidence::WokenNotRun), "it is still in take_gil";
    "woken from another sleep, and not run since", o.is_woken() => Known(State::Starved, Evidence::WokenNotRun),
        "it has no CPU and has not requested the GIL";
    "runnable after a hold or a wait, where is not known",
        o.runnable_state.is_none() && (o.near_wait || o.held_last && rules.has(Rule::AfterHold)) => NearWait(o.without_cpu()),
        "it waits, as far as it used no CPU";
    "runnable, where is not known", o.runnable_state.is_none() => OffGil, "native code, unless its time in the run queue says otherwise";
    "on a CPU, or preempted outside take_gil and drop_gil", o.at(R::OnCpu) || o.at(R::Preempted) || o.at(R::InSystemCall) => OffGil,
        "native code; in another system call it may have slept, or this sample has preempted it";
    "preempted as it left a system call, without a drop request",
        o.at(R::LeavingSyscall) && o.drop_request == DropRequest::No && rules.has(Rule::NoDropRequest) =>
        InRunQueue(Evidence::KernelStack), "it released the GIL for a call, or for the last time";
    "the same within a C call in which it sleeps for locks", o.at(R::LeavingSyscall) && o.sleeps_for_lock =>
        InRunQueue(Evidence::KernelStack), "samples have found it so";
    "preempted as it left a system call", o.at(R::LeavingSyscall) => Known(State::Waiting, Evidence::PushedOff),
        "the eval loop released the GIL on request, and the thread that it woke pushed it off";
    "pushed off after a hold with a drop request",
        o.at(R::PushedOff) && o.held_last && o.drop_request == Likely && rules.has(Rule::ForcedRelease) =>
        Known(State::Waiting, Evidence::PushedOff), "a forced release follows a wait of a switch interval";
    "pushed off after a hold, where a drop request is possible",
        o.at(R::PushedOff) && o.held_last && o.drop_request == Unknown && rules.has(Rule::UnknownDropRequest) => NearWait(State::Waiting),
        "it waits, as far as it used no CPU";
    "pushed off next to a wait, at no call",
        o.at(R::PushedOff) && o.near_wait && !o.in_c_call && rules.has(Rule::PushedOffNearWait) => NearWait(State::Waiting),
        "on its way into or out of the wait, or in native code that is no call";
    "pushed off", o.at(R::PushedOff) => OffGil, "in native code";
    "woken within a C call in which it sleeps for something else", o.at(R::Woken) && o.sleeps_for_other =>
        InRunQueue(Evidence::SwitchCounts), "samples have found it so";
    "woken within a C call, without a request or a drop request",
        o.at(R::Woken) && o.before_request() && o.drop_request == DropRequest::No && rules.has(Rule::BeforeRequest) =>
        InRunQueue(Evidence::SwitchCounts), "after a forced switch too there is no request, but a drop request";
    "woken, and wants the GIL", o.at(R::Woken) && o.wants_gil => Known(State::Waiting, Evidence::SwitchCounts),
        "its last futex sleep was for the GIL";
    "woken", o.at(R::Woken) => InRunQueue(Evidence::SwitchCounts), "its last sleep was for something else";
    "woken from a futex within a C call, without a request or a drop request",
        o.before_request() && o.drop_request == DropRequest::No && rules.has(Rule::BeforeRequest) =>
        InRunQueue(Evidence::KernelStack), "a lock; after a forced switch too there is no request, but a drop request";
    "woken from a futex within a C call in which it sleeps for locks", o.sleeps_for_lock =>
        InRunQueue(Evidence::KernelStack), "samples have found it so";
    "woken from a futex, and wants the GIL", o.wants_gil => Known(State::Waiting, Evidence::KernelStack),
        "its last futex sleep was for the GIL";
    "woken from a futex", true => InRunQueue(Evidence::KernelStack), "its last futex sleep was for something else";
}

/// Classifies one sample of one thread, by these rules.
pub fn classify(observed: &Observation, rules: Rules) -> Classification {
    classify_by_row(observed, rules).1
}

impl Observation {
    fn held(&self) -> bool {
        self.held_before && self.held_after
    }

    fn holding(&self) -> State {
        if self.in_c_call {
            State::HoldingNative
        } else {
            State::HoldingPython
        }
    }

    fn is_asleep(&self) -> bool {
        matches!(self.task_state, TaskState::GilFutex | TaskState::OtherFutex | TaskState::Syscall | TaskState::OutsideSyscall)
    }

    /// Whether the thread was off the CPU at the last sample and has not run since.
    fn is_woken(&self) -> bool {
        self.was_scheduled == Some(false) && self.off_cpu_state.is_some()
    }

    /// The state of time next to a wait without a CPU. Where nothing ever says why the thread has
    /// no CPU, it may be starved as well.
    fn without_cpu(&self) -> State {
        if self.is_resolved {
            State::Waiting
        } else {
            State::Unknown
        }
    }

    fn at(&self, state: RunnableState) -> bool {
        self.runnable_state == Some(state)
    }

    /// Whether the thread is in a C call and does not request the GIL.
    fn before_request(&self) -> bool {
        self.requested == Some(false) && self.in_c_call
    }

    /// Whether a thread with a GIL request made the request after this sample had begun, while it
    /// ran on a CPU for something else.
    fn request_started(&self) -> bool {
        match self.runnable_state {
            Some(RunnableState::InSystemCall) => true,
            Some(RunnableState::OnCpu) => !self.near_wait,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every observation that there can be.
    fn each(mut check: impl FnMut(&Observation)) {
        let runnable_states: Vec<Option<RunnableState>> = std::iter::once(None).chain(RunnableState::ALL.into_iter().map(Some)).collect();
        let off_cpu_states: Vec<Option<State>> = std::iter::once(None).chain(State::ALL.into_iter().map(Some)).collect();
        let (drops, three) = ([DropRequest::No, DropRequest::Unknown, DropRequest::Likely], [None, Some(false), Some(true)]);
        for (task_state, runnable_state) in TaskState::ALL.iter().flat_map(|t| runnable_states.iter().map(move |r| (*t, *r))) {
            for (off_cpu_state, drop_request) in off_cpu_states.iter().flat_map(|o| drops.iter().map(move |d| (*o, *d))) {
                for (requested, was_scheduled) in three.iter().flat_map(|r| three.iter().map(move |w| (*r, *w))) {
                    for bits in 0..512u16 {
                        let bit = |n: u16| bits & 1 << n != 0;
                        check(&Observation {
                            task_state,
                            held_before: bit(0),
                            held_after: bit(1),
                            requested,
                            in_c_call: bit(2),
                            drop_request,
                            held_last: bit(3),
                            off_cpu_state,
                            near_wait: bit(4),
                            wants_gil: bit(5),
                            sleeps_for_lock: bit(6),
                            sleeps_for_other: bit(7),
                            is_resolved: bit(8),
                            runnable_state,
                            was_scheduled,
                        });
                    }
                }
            }
        }
    }

    #[test]
    fn every_row_is_reached_and_every_observation_has_a_plausible_result() {
        let mut reached = vec![0u32; ROWS.len() + 1];
        each(|observed| {
            let (row, result) = classify_by_row(observed, Rules::default());
            reached[row] += 1;
            let holds = match result {
                Classification::Known(state, _) => state.is_holding(),
                Classification::HoldingRunnable(state) => state.is_holding(),
                _ => false,
            };
            // A thread that has not run since keeps its state, and `is_still_asleep` keeps blocked
            // holders out of that.
            let kept = observed.task_state == TaskState::NotRunSince;
            assert!(!holds || kept || observed.held_before, "row {row}: {observed:?}");
            let stopped = observed.task_state == TaskState::Stopped;
            assert!(!stopped || result == Classification::Known(State::Unknown, Evidence::Stopped), "{observed:?}");
        });
        let unreached: Vec<&str> = ROWS.iter().zip(&reached).filter(|(_, count)| **count == 0).map(|(row, _)| row.when).collect();
        assert!(unreached.is_empty(), "{unreached:#?}");
        assert_eq!(reached[ROWS.len()], 0, "the last row takes what is left");
    }
}
