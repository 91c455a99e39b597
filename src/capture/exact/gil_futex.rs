//! The futexes of a GIL.

use crate::ids::GilId;

/// Which part of a GIL a futex lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GilFutex {
    /// `cond`: sleepers want the GIL.
    Cond,
    /// `mutex`: guards `cond`.
    Mutex,
    /// `switch_cond`: the sleeper was forced to let go, until the GIL is taken.
    SwitchCond,
    /// `switch_mutex`: guards `switch_cond`.
    SwitchMutex,
    /// glibc's own book-keeping in either condition variable: who signals waits here for those signalled before to be gone. A wake-up
    /// here comes from a waiter that leaves, and says nothing of the GIL.
    CondInternal,
}

/// What a thread did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FutexOp {
    /// Went to sleep.
    Sleep(GilId, GilFutex),
    /// Woke others.
    Wake(GilId, GilFutex),
    /// Runs again after a sleep.
    Return {
        /// Because the time was over.
        timed_out: bool,
    },
}
