//! One sample as it was read: plain data, before anything is judged.
//!
//! `capture` reads it, and `estimate` turns it into [`StateSlice`](super::StateSlice)s.

use super::Stack;
use crate::ids::{Addr, GilId, ThreadId, Tid};
use crate::units::Nanos;
use serde::Serialize;
use std::sync::Arc;

/// One sample of a process.
#[derive(Clone, Debug, Default)]
pub struct RawSample {
    /// The time that the sample stands for.
    pub span: (Nanos, Nanos),
    /// The program as a whole was stopped.
    pub is_stopped: bool,
    /// The GILs.
    pub gils: Vec<RawGil>,
    /// The threads that the sample polled.
    pub threads: Vec<RawThread>,
}

/// One GIL in one sample.
#[derive(Clone, Debug)]
pub struct RawGil {
    /// Its id.
    pub id: GilId,
    /// When the sample began; `None` where it could not be read.
    pub reading: Option<GilReading>,
    /// The thread state that held it when the sample ended.
    pub holder_after: Option<Addr>,
    /// The thread that held it when the sample began, if it is known.
    pub holder: Option<RawHolder>,
    /// Whether the garbage collector runs; `None` where the version does not show it.
    pub collecting: Option<bool>,
}

/// The thread that holds a GIL.
#[derive(Clone, Debug)]
pub struct RawHolder {
    /// Its index in the table of threads.
    pub index: usize,
    /// Its id.
    pub id: ThreadId,
    /// Its stack.
    pub stack: Arc<Stack>,
}

/// One thread in one sample.
#[derive(Clone, Debug)]
pub struct RawThread {
    /// Its index in the table of threads.
    pub index: usize,
    /// The index of its GIL in the sample; `None` if it has none.
    pub gil: Option<usize>,
    /// Its thread state; null if it has none.
    pub tstate: Addr,
    /// What the kernel says.
    pub task: RawTask,
    /// 3.15: the thread state's `gil_requested` flag, set while the thread is in `take_gil`.
    pub requested: Option<bool>,
    /// The leaf frame's current instruction is a call of a C function.
    pub in_c_call: bool,
    /// Its drop-request bit; `None` where the version does not show one for each thread.
    pub drop_request: Option<bool>,
    /// Its Python stack.
    pub stack: Arc<Stack>,
}

impl RawThread {
    /// A thread of which nothing is known, with this stack.
    pub fn unread(stack: Arc<Stack>) -> RawThread {
        let (tstate, task) = (Addr(0), RawTask::default());
        RawThread { index: 0, gil: None, tstate, task, requested: None, in_c_call: false, drop_request: None, stack }
    }
}

/// The evidence for the state of a runnable thread: the best that is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolver {
    /// Its kernel stack.
    KernelStack,
    /// How often it was switched out, and why, by the kernel's counts.
    SwitchCounts,
    /// The CPU time that it used since the last sample.
    CpuTime,
    /// Kernel events tell all states.
    Events,
}

/// What the kernel says of a thread in one sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawTask {
    /// Where the thread is.
    pub task_state: TaskState,
    /// The kernel's counts; `None` where it keeps none.
    pub stat: Option<SchedStat>,
    /// Where a runnable thread is, by its kernel stack or its counts of switches; `None` where that
    /// was not read or is unknown.
    pub runnable_state: Option<RunnableState>,
    /// The same by its counts of switches alone, where all evidence is kept for a comparison.
    pub by_counts: Option<RunnableState>,
}

/// What the estimator is given, in this order.
#[derive(Clone, Copy, Debug)]
pub enum RawEvent<'a> {
    /// A thread is added after all others. Its first slice begins at `at`.
    Start {
        /// Its id.
        id: ThreadId,
        /// Its kernel thread id.
        tid: Tid,
        /// The beginning of its first slice.
        at: Nanos,
        /// Its counts then.
        stat: Option<SchedStat>,
        /// It started then, so that all its counts belong to the history.
        just_started: bool,
    },
    /// A thread's history begins anew: the window begins.
    Restart {
        /// The thread's index.
        index: usize,
        /// The beginning of the window.
        at: Nanos,
        /// Its counts then.
        stat: Option<SchedStat>,
    },
    /// A sample.
    Sample(&'a RawSample),
    /// A thread that existed when a sample began is gone.
    Last {
        /// The thread's index.
        index: usize,
        /// The time that the sample stands for.
        span: (Nanos, Nanos),
        /// It held the GIL then.
        held: bool,
        /// Its leaf frame's current instruction was a call of a C function.
        in_c_call: bool,
    },
    /// A thread's time ends.
    Finish {
        /// The thread's index.
        index: usize,
        /// The end.
        at: Nanos,
        /// Its last counts.
        stat: Option<SchedStat>,
    },
    /// The threads at these ascending indices are removed.
    Remove(&'a [usize]),
}

/// One read of a GIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GilReading {
    /// Whether the GIL is on; false only on a free-threaded build.
    pub enabled: bool,
    /// The thread state that holds the GIL.
    pub holder: Option<Addr>,
    /// `last_holder`: the current or previous holder. Null before the first.
    pub last_holder: Addr,
    /// `switch_number`: the count of GIL switches.
    pub switches: u64,
    /// `interval`, in microseconds.
    pub interval_us: u64,
}

/// Where a thread is in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskState {
    /// Runnable, on a CPU or in the run queue.
    Runnable,
    /// Asleep on a futex inside a GIL: the thread wants that GIL.
    GilFutex,
    /// Asleep on any other futex.
    OtherFutex,
    /// Asleep in another system call.
    Syscall,
    /// Off the CPU outside a system call: a page fault, or frozen.
    OutsideSyscall,
    /// Off the CPU at the last sample, asleep or in the run queue after a sleep, and not run since,
    /// so its `/proc/PID/task/TID/syscall` was not read.
    NotRunSince,
    /// Waiting for the GIL at the last sample, and `switch_number` shows that only other threads
    /// can have had the GIL since. The thread is still in `take_gil`, so its `/proc` files were not
    /// read.
    StillWaiting,
    /// Stopped by a signal or a tracer, or frozen.
    Stopped,
    /// Could not be read.
    #[default]
    Unread,
}

/// Where a runnable thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunnableState {
    /// On a CPU.
    OnCpu,
    /// In the run queue since it was preempted outside of any system call.
    Preempted,
    /// In the run queue, preempted on its way out of a system call. That is where a thread is
    /// preempted by a thread that it has woken.
    LeavingSyscall,
    /// In the run queue: woken from a sleep in `futex(2)`, or just about to sleep there.
    WokenFromFutex,
    /// In the run queue within another system call: woken from a sleep there, or preempted there.
    InSystemCall,
    /// In the run queue, preempted; where is unknown. By switch counts only.
    PushedOff,
    /// In the run queue, woken from a sleep; from which is unknown. By switch counts only.
    Woken,
}

impl TaskState {
    /// All of them. The places are part of the form of kept samples: append only.
    pub const ALL: [TaskState; 9] = [
        TaskState::Unread,
        TaskState::Runnable,
        TaskState::GilFutex,
        TaskState::OtherFutex,
        TaskState::Syscall,
        TaskState::OutsideSyscall,
        TaskState::NotRunSince,
        TaskState::StillWaiting,
        TaskState::Stopped,
    ];
}

impl RunnableState {
    /// All of them. The places are part of the form of kept samples: append only.
    pub const ALL: [RunnableState; 7] = [
        RunnableState::OnCpu,
        RunnableState::Preempted,
        RunnableState::LeavingSyscall,
        RunnableState::WokenFromFutex,
        RunnableState::InSystemCall,
        RunnableState::PushedOff,
        RunnableState::Woken,
    ];

    /// Whether the thread may have slept a moment ago, and may sleep again.
    pub fn is_woken(self) -> bool {
        matches!(self, RunnableState::WokenFromFutex | RunnableState::InSystemCall | RunnableState::Woken)
    }
}

/// The contents of `/proc/PID/task/TID/schedstat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedStat {
    /// Time on a CPU. Updated at the scheduler's tick and when the thread is switched out.
    pub cpu: Nanos,
    /// Time runnable without a CPU. Updated when the thread gets one.
    pub run_queue: Nanos,
    /// Number of times that it got a CPU.
    pub runs: u64,
}
