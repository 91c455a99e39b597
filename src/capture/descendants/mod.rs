//! Polls the processes below the target for their CPU time, on a thread of its own, because a poll
//! of many processes takes longer than the time between two samples.

mod tracker;

use crate::ids::Pid;
use crate::process::sys_linux;
use crate::sample::DescendantCpu;
use crate::units::Nanos;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracker::{DescendantTracker, LiveProcesses};

/// The period of polls while there are descendants: short, so that few processes live between two
/// polls.
const PERIOD: Nanos = Nanos::from_millis(20);
/// The period while there are none.
const QUIET_PERIOD: Nanos = Nanos::from_millis(100);
/// The shortest rest after a poll, as a multiple of what the poll took: at most 0.5 % of a core.
const REST: u64 = 200;
/// How long the end of a window waits for the last poll. The poll may be stuck in the kernel.
const LAST_POLL: Duration = Duration::from_millis(1_000);

/// The polls of one window.
#[derive(Debug)]
pub struct DescendantMonitor {
    latest: Arc<Mutex<Option<DescendantCpu>>>,
    /// Closed to ask for the last poll.
    stop: Option<Sender<()>>,
    /// Closed by the thread after the last poll.
    stopped: Receiver<()>,
}

impl DescendantMonitor {
    /// Starts to poll. Without a thread there are no figures.
    pub fn start(pid: Pid) -> DescendantMonitor {
        let latest = Arc::new(Mutex::new(None));
        let (stop, asked) = mpsc::channel::<()>();
        let (running, stopped) = mpsc::channel::<()>();
        let published = Arc::clone(&latest);
        let poll = move || {
            run(pid, &asked, &published);
            drop(running);
        };
        // The handle is not joined: see `LAST_POLL`.
        let _ = std::thread::Builder::new().name("descendants".into()).spawn(poll);
        DescendantMonitor { latest, stop: Some(stop), stopped }
    }

    /// The times of the latest poll.
    pub fn latest(&self) -> Option<DescendantCpu> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the last poll: the window ends.
    pub fn finish(&mut self) {
        self.stop = None;
        // Nothing is ever sent: the end of the thread closes the channel.
        let _ = self.stopped.recv_timeout(LAST_POLL);
    }
}

fn run(pid: Pid, asked: &Receiver<()>, published: &Mutex<Option<DescendantCpu>>) {
    let mut tracker = DescendantTracker::new(pid, LiveProcesses);
    loop {
        let began = sys_linux::monotonic();
        let active = tracker.poll();
        *published.lock().unwrap_or_else(PoisonError::into_inner) = tracker.cpu();
        let took = sys_linux::monotonic().saturating_since(began).as_nanos();
        let period = if active { PERIOD } else { QUIET_PERIOD };
        let rest = period.as_nanos().max(took.saturating_mul(REST));
        if asked.recv_timeout(Duration::from_nanos(rest)) != Err(RecvTimeoutError::Timeout) {
            break;
        }
    }
    tracker.poll();
    *published.lock().unwrap_or_else(PoisonError::into_inner) = tracker.cpu();
}
