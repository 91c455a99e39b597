//! Whether the program stands still as a whole: stopped by a signal (SIGSTOP, Ctrl-Z) or a debugger.
//!
//! A stopped thread's files say where it was when it was stopped, so that a holder would look asleep with the GIL, and its waiters would look
//! as if they waited for it. Both would blame the program for what was done to it.

use crate::ids::Pid;
use crate::process::facts::task_state;
use crate::units::Nanos;

/// How often it is asked for when nothing hints at it.
const ASK: Nanos = Nanos::from_millis(20);

/// Watches for stops.
#[derive(Debug, Default)]
pub struct Halt {
    now: bool,
    last: Option<Nanos>,
    asked: Nanos,
    total: Nanos,
}

impl Halt {
    /// Whether the program stands still at this look, which stands for the time since the last. `hint`: some thread is off the CPU outside of any system call,
    /// as one that computed is when it has been stopped.
    pub fn look(&mut self, pid: Pid, at: Nanos, hint: bool) -> bool {
        if self.now || hint || at.since(self.asked) >= ASK {
            self.asked = at;
            // All threads stop together, so that any of them tells; the main thread may have ended, and then another is asked.
            let any = crate::process::facts::carrier(pid);
            self.now = matches!(task_state(pid, any), Some('T' | 't'));
        }
        if self.now {
            self.total += at.since(self.last.unwrap_or(at));
        }
        self.last = Some(at);
        self.now
    }

    /// Whether it stood still at the last look.
    pub fn now(&self) -> bool {
        self.now
    }

    /// How long it stood still so far.
    pub fn total(&self) -> Nanos {
        self.total
    }
}

/// What the report says of a stop.
pub fn warning(stopped: Nanos) -> Option<String> {
    (stopped > Nanos::ZERO).then(|| {
        format!(
            "the program stood still for {:.2} s, stopped by a signal (SIGSTOP, Ctrl-Z) or a debugger; what its threads would have done in that time is unknown",
            stopped.as_secs_f64()
        )
    })
}
