//! What the kernel tells of a watched thread: plain data, before anything is judged.
//!
//! The kernel engine's programs run at every switch of a watched thread, and at every tick of a
//! clock on each CPU. They run in the thread's own context, so the state of the GIL that comes with
//! an event is that of the same instant.

use crate::ids::{Addr, GilId};
use crate::units::Nanos;

/// The GILs of a process, at one instant in which one of its threads was on a CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GilView {
    /// The GIL that the thread itself held; `None`: it held none.
    pub holds: Option<GilId>,
    /// The thread's GIL: the one that it holds, that it sleeps on, or that it held last.
    pub gil: GilId,
    /// `locked`: some thread held that GIL.
    pub locked: bool,
    /// `last_holder`: the thread state that held it, or was the last to hold it. Null when it could
    /// not be read.
    pub last_holder: Addr,
    /// `switch_number`: how many times a thread got it that was not the last holder.
    pub switches: u64,
}

/// Why a thread lost its CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffCpu {
    /// It was preempted, and stays runnable.
    Preempted,
    /// It was preempted where it wakes another thread by a futex of a GIL: it has just released it.
    PreemptedInGilCall,
    /// It sleeps on a futex of a GIL, in `take_gil`, or is just about to, or has just been woken.
    GilFutex,
    /// It was forced to release a GIL, and sleeps until another thread has taken it.
    SwitchFutex,
    /// It has released a GIL, and sleeps until a thread that was woken before it has seen that.
    SignalFutex,
    /// It sleeps on another futex.
    OtherFutex,
    /// It sleeps in another system call.
    Syscall,
    /// It sleeps outside of any system call: a page fault.
    Fault,
    /// It was stopped by a signal or a tracer.
    Stopped,
    /// It ended.
    Exited,
}

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wakeup {
    /// When the thread became runnable.
    pub at: Nanos,
    /// A thread of its own process woke it, and not a timeout or a device.
    pub by_peer: bool,
}

/// A stretch of a thread on a CPU: how it began and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuRun {
    /// Counts the thread's runs. A gap: runs between were lost.
    pub number: u32,
    /// The wakeup before it; `None`: the thread was runnable all the time since it lost its CPU.
    pub wakeup: Option<Wakeup>,
    /// It got a CPU.
    pub begin: Nanos,
    /// It lost the CPU.
    pub end: Nanos,
    /// Why it lost it.
    pub off: OffCpu,
    /// The GIL at the end.
    pub view: GilView,
}

/// Where a watched thread is at the moment, by the kernel programs' own table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadNow {
    /// On a CPU since then, after this wakeup, in the run of this number.
    OnCpu {
        /// The number of the run.
        number: u32,
        /// As [`CpuRun::wakeup`].
        wakeup: Option<Wakeup>,
        /// As [`CpuRun::begin`].
        begin: Nanos,
    },
    /// Off the CPU since the run of this number ended.
    OffCpu {
        /// The number of the last run that ended.
        number: u32,
        /// It is runnable again since then.
        wakeup: Option<Wakeup>,
    },
}
