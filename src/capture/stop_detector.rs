//! Detects that the whole program is stopped: by a signal (SIGSTOP, Ctrl-Z), by a tracer, or by the
//! freezer of its cgroup.
//!
//! The `/proc` files of a stopped thread say where it was when it stopped. The holder would be
//! classified as asleep with the GIL, and its waiters as waiting for it, and the report would blame
//! the program for the stop.
//!
//! A tracer such as py-spy stops a program for some 100 us at a time, so the samples themselves
//! find such stops (`ThreadReader::poll`). Here the cause is found and the time is summed up.

use crate::ids::{Pid, Tid};
use crate::process::target::{LiveTarget, ProcessAccess};
use crate::process::{proc_info, sys_linux};
use crate::sample::{Stop, StopCause};
use crate::units::Nanos;

/// How often the process is checked when no sample gives a hint of a stop.
const CHECK_PERIOD: Nanos = Nanos::from_millis(100);
/// How often the process's cgroup is read at most, when samples give hints.
const REFRESH_PERIOD: Nanos = Nanos::from_millis(20);
/// A stop is lasting if so many checks, this far apart, all find it.
const LASTING_CHECKS: usize = 4;
const LASTING_PERIOD: Nanos = Nanos::from_millis(7);
/// The same, for a stop that the samples found.
const LASTING_SAMPLES: u64 = 4;
/// Causes that are kept apart; the time of others goes to the last.
const MAX_CAUSES: usize = 8;

/// What a sample shows that may be a stop.
#[derive(Clone, Copy, Debug, Default)]
pub struct StopHints {
    /// Some thread is off the CPU outside any system call, as a thread that was computing is when
    /// it has been frozen.
    pub outside_syscall: bool,
    /// A thread that is stopped by a signal or a tracer.
    pub stopped: Option<Tid>,
}

/// Checks for stops and sums up their time.
#[derive(Debug, Default)]
pub struct StopDetector {
    cause: Option<StopCause>,
    /// How many samples in a row have found the program as a whole stopped.
    samples: u64,
    is_traced: bool,
    /// The thread that last traced the program.
    tracer: Option<(Tid, StopCause)>,
    last_sample: Option<Nanos>,
    checked_at: Option<Nanos>,
    refreshed_at: Nanos,
    stops: Vec<(StopCause, Nanos)>,
}

impl StopDetector {
    /// What stops the program, or some of its threads, at this sample.
    pub fn detect(&mut self, source: &dyn ProcessAccess, at: Nanos, hints: StopHints) -> Option<&StopCause> {
        let is_due = self.checked_at.is_none_or(|checked_at| at.saturating_since(checked_at) >= CHECK_PERIOD);
        if is_due || self.cause.is_some() || hints.outside_syscall || hints.stopped.is_some() {
            let period = if is_due { Nanos::ZERO } else { REFRESH_PERIOD };
            let refresh = at.saturating_since(self.refreshed_at) >= period;
            self.checked_at = Some(at);
            self.cause = self.find(source, at, hints, refresh);
        }
        self.cause.as_ref()
    }

    fn find(&mut self, source: &dyn ProcessAccess, at: Nanos, hints: StopHints, refresh: bool) -> Option<StopCause> {
        // That a status cannot be read, for want of a descriptor, neither begins nor ends a stop.
        let Some(status) = source.status(hints.stopped) else { return self.cause.clone() };
        self.is_traced = status.tracer.is_some();
        match status.letter {
            'T' => Some(StopCause::Signal),
            't' => Some(self.tracer(status.tracer)),
            // The thread goes on by now. A tracer that is still attached has stopped it; otherwise
            // the cause cannot be known any more.
            _ if hints.stopped.is_some() => self.is_traced.then(|| self.tracer(status.tracer)),
            _ => {
                if refresh {
                    self.refreshed_at = at;
                }
                source.frozen(refresh)
            }
        }
    }

    fn tracer(&mut self, thread: Option<Tid>) -> StopCause {
        let Some(thread) = thread else { return StopCause::Tracer(None) };
        let known = self.tracer.take().filter(|(known, _)| *known == thread);
        let (_, cause) = self.tracer.insert(known.unwrap_or_else(|| (thread, StopCause::Tracer(Some(proc_info::tracer(thread))))));
        cause.clone()
    }

    /// Counts the time since the last sample. `is_whole`: the program as a whole stands still.
    pub fn count(&mut self, at: Nanos, is_whole: bool) {
        self.samples = if is_whole { self.samples + 1 } else { 0 };
        let last_sample = self.last_sample.replace(at).unwrap_or(at);
        let Some(cause) = &self.cause else { return };
        let is_known = self.stops.iter().any(|(known, _)| known == cause);
        if !is_known && self.stops.len() < MAX_CAUSES {
            self.stops.push((cause.clone(), Nanos::ZERO));
        }
        let index = self.stops.iter().position(|(known, _)| known == cause).unwrap_or(MAX_CAUSES - 1);
        if is_whole {
            self.stops[index].1 += at.saturating_since(last_sample);
        }
    }

    /// Whether the program as a whole was stopped at the last sample.
    pub fn is_stopped(&self) -> bool {
        self.samples > 0
    }

    /// Whether so many samples have found it stopped that the stop most likely goes on.
    pub fn is_lasting(&self) -> bool {
        self.samples >= LASTING_SAMPLES
    }

    /// Whether a tracer was attached at the last check.
    pub fn is_traced(&self) -> bool {
        self.is_traced
    }

    /// What has stopped the program so far.
    pub fn stops(&self) -> impl Iterator<Item = Stop> + '_ {
        self.stops.iter().map(|(cause, length)| Stop { cause: cause.clone(), seconds: length.as_secs_f64() })
    }
}

/// What stops a process now, and not just for a moment as py-spy does.
pub fn lasting_cause(pid: Pid) -> Option<StopCause> {
    let (target, mut detector) = (LiveTarget::new(pid), StopDetector::default());
    for _ in 0..LASTING_CHECKS {
        detector.detect(&target, sys_linux::monotonic(), StopHints::default())?;
        sys_linux::sleep_until(sys_linux::monotonic() + LASTING_PERIOD);
    }
    detector.cause
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::proc_info::task_state;
    use crate::process::sys_linux::kill;
    use std::process::{Command, Stdio};

    /// Whether a sample at this time finds the program stopped.
    fn check(detector: &mut StopDetector, target: &LiveTarget, ms: u64, stopped: Option<Tid>) -> bool {
        let (at, hints) = (Nanos::from_millis(100 + ms), StopHints { outside_syscall: false, stopped });
        let found = detector.detect(target, at, hints).is_some();
        detector.count(at, found);
        detector.is_stopped()
    }

    #[test]
    fn a_hint_detects_a_stop_at_once_and_sigcont_ends_it() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid(child.id() as i32);
        let (target, mut detector, hint) = (LiveTarget::new(pid), StopDetector::default(), Some(Tid(pid.0)));
        assert!(!check(&mut detector, &target, 0, None));
        kill(pid, libc::SIGSTOP).unwrap();
        while task_state(pid, pid) != Some('T') {
            std::thread::yield_now();
        }
        assert!(!check(&mut detector, &target, 1, None), "not every sample checks without a hint");
        assert!(check(&mut detector, &target, 2, hint) && check(&mut detector, &target, 4, None));
        assert_eq!(detector.stops().collect::<Vec<_>>(), [Stop { cause: StopCause::Signal, seconds: 0.003 }]);
        assert!(check(&mut detector, &target, 4, Some(Tid(-1))), "a status that cannot be read ends no stop");
        kill(pid, libc::SIGCONT).unwrap();
        while task_state(pid, pid) == Some('T') {
            std::thread::yield_now();
        }
        assert!(!check(&mut detector, &target, 5, None) && !detector.is_traced());
        assert!(!check(&mut detector, &target, 6, hint), "a stop that is over has no known cause");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
