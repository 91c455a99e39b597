//! The futexes of a GIL.

use crate::ids::GilId;

/// The field of a GIL that a futex belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GilFutex {
    /// `cond`: sleepers wait for the GIL.
    Cond,
    /// `mutex`: guards `cond`.
    Mutex,
    /// `switch_cond`: the sleeper was forced to release the GIL and waits until another thread
    /// takes it.
    SwitchCond,
    /// `switch_mutex`: guards `switch_cond`.
    SwitchMutex,
    /// glibc's own state in either condition variable: a thread that signals waits here until the
    /// threads that were signalled earlier have left. A wakeup here comes from a waiter that
    /// leaves, and carries no information about the GIL.
    CondInternal,
}

/// A futex operation of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FutexOp {
    /// The thread went to sleep.
    Sleep(GilId, GilFutex),
    /// The thread woke others.
    Wake(GilId, GilFutex),
    /// The thread runs again after a sleep.
    Return {
        /// Whether the sleep ended by its timeout.
        timed_out: bool,
    },
}
