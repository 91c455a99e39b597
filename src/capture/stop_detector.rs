//! Whether the program stands still as a whole: stopped by a signal (SIGSTOP, Ctrl-Z) or a debugger.
//!
//! A stopped thread's files say where it was when it was stopped, so that a holder would look asleep with the GIL, and its waiters would look
//! as if they waited for it. Both would blame the program for what was done to it.

use crate::process::target::Target;
use crate::units::Nanos;

/// How often it is asked for when nothing hints at it.
const CHECK_PERIOD: Nanos = Nanos::from_millis(20);

/// Watches for stops.
#[derive(Debug, Default)]
pub struct StopDetector {
    stopped: bool,
    last_sample: Option<Nanos>,
    checked_at: Nanos,
    total: Nanos,
}

impl StopDetector {
    /// Whether the program stands still at this look, which stands for the time since the last. `hint`: some thread is off the CPU outside of any system call,
    /// as one that computed is when it has been stopped.
    pub fn check(&mut self, source: &dyn Target, at: Nanos, hint: bool) -> bool {
        if self.stopped || hint || at.saturating_since(self.checked_at) >= CHECK_PERIOD {
            self.checked_at = at;
            self.stopped = source.stopped();
        }
        if self.stopped {
            self.total += at.saturating_since(self.last_sample.unwrap_or(at));
        }
        self.last_sample = Some(at);
        self.stopped
    }

    /// Whether it stood still at the last look.
    pub fn is_stopped(&self) -> bool {
        self.stopped
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Pid;
    use crate::process::proc_info::task_state;
    use crate::process::sys_linux::kill;
    use crate::process::target::LiveTarget;
    use std::process::{Command, Stdio};

    #[test]
    fn a_stop_is_seen_at_once_where_something_hints_at_it_and_ends() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid(child.id() as i32);
        let (at, mut detector) = (|ms: u64| Nanos::from_millis(100 + ms), StopDetector::default());
        assert!(!detector.check(&LiveTarget::new(pid), at(0), false));
        kill(pid, libc::SIGSTOP).unwrap();
        while task_state(pid, pid) != Some('T') {
            std::thread::yield_now();
        }
        assert!(!detector.check(&LiveTarget::new(pid), at(1), false), "it is not asked for at each look");
        assert!(
            detector.check(&LiveTarget::new(pid), at(2), true)
                && detector.check(&LiveTarget::new(pid), at(4), false)
                && detector.is_stopped()
        );
        assert_eq!(detector.total(), Nanos::from_millis(3));
        kill(pid, libc::SIGCONT).unwrap();
        while task_state(pid, pid) == Some('T') {
            std::thread::yield_now();
        }
        assert!(!detector.check(&LiveTarget::new(pid), at(5), false));
        assert!(warning(detector.total()).is_some_and(|text| text.contains("0.00 s")) && warning(Nanos::ZERO).is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
