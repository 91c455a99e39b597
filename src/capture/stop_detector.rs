//! Detects that the whole program is stopped: by a signal (SIGSTOP, Ctrl-Z) or by a debugger.
//!
//! The `/proc` files of a stopped thread say where it was when it stopped. The holder would be
//! classified as asleep with the GIL, and its waiters as waiting for it, and the report would blame
//! the program for the stop.

use crate::process::target::Target;
use crate::units::Nanos;

/// How often the process is checked when no sample gives a hint of a stop.
const CHECK_PERIOD: Nanos = Nanos::from_millis(20);

/// Checks for stops and sums up their time.
#[derive(Debug, Default)]
pub struct StopDetector {
    stopped: bool,
    last_sample: Option<Nanos>,
    checked_at: Nanos,
    total: Nanos,
}

impl StopDetector {
    /// Whether the program is stopped at this sample, which stands for the time since the last one.
    /// `hint`: some thread is off the CPU outside any system call, as a thread that was computing
    /// is when it has been stopped.
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

    /// Whether the program was stopped at the last sample.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// How long the program has been stopped so far.
    pub fn total(&self) -> Nanos {
        self.total
    }
}

/// The report's warning about stops.
pub fn warning(stopped: Nanos) -> Option<String> {
    (stopped > Nanos::ZERO).then(|| {
        format!(
            "the program stood still for {:.2} s, stopped by a signal (SIGSTOP, Ctrl-Z) or a debugger; the states of its threads in that time are unknown",
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
    fn a_hint_detects_a_stop_at_once_and_sigcont_ends_it() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid(child.id() as i32);
        let (at, mut detector) = (|ms: u64| Nanos::from_millis(100 + ms), StopDetector::default());
        assert!(!detector.check(&LiveTarget::new(pid), at(0), false));
        kill(pid, libc::SIGSTOP).unwrap();
        while task_state(pid, pid) != Some('T') {
            std::thread::yield_now();
        }
        assert!(!detector.check(&LiveTarget::new(pid), at(1), false), "not every sample checks without a hint");
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
