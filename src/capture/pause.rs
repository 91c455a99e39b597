//! `--freeze-holder`: ptrace stops one thread while its stack is read.
//!
//! A thread that is frozen by its cgroup, or in an uninterruptible sleep, does not stop when it is
//! asked to, so every wait has a limit. The tracer is a thread of its own: when that exits, the
//! kernel takes back a request to stop that the other thread has not followed yet.

use super::sampler::ThreadPauser;
use crate::ids::Tid;
use crate::process::proc_info::{self, TaskStatus};
use crate::process::sys_linux::{self, ptrace};
use crate::sample::Tracer;
use crate::units::Nanos;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

/// Time in which a thread must stop.
const LIMIT: Nanos = Nanos::from_millis(20);
/// The same for a thread that is runnable: on a busy machine it has to wait for a CPU first.
const BUSY_LIMIT: Nanos = Nanos::from_millis(500);
/// The time between two checks of a thread that waits for a CPU.
const BUSY_PERIOD: Nanos = Nanos::from_millis(1);
/// The time between two checks whether it has stopped, which takes about 50 us.
const CHECK_PERIOD: Nanos = Nanos::from_micros(10);
/// After a thread did not stop, no thread is asked to for so long.
const REST: Nanos = Nanos::from_millis(100);
/// Time in which the tracing thread must answer. The kernel may make it sleep in a request.
const ANSWER_LIMIT: Duration = Duration::from_millis(600);
/// One failure in this many attempts deserves a warning.
const NOTABLE: u64 = 100;

enum Request {
    Pause(Tid),
    Resume,
}

enum Reply {
    Paused,
    Resumed,
    Refused(io::Error),
    /// The thread did not stop, or the worker did not answer.
    TimedOut,
    /// The thread was runnable and did not get a CPU.
    NoCpu,
}

/// The thread that traces.
struct Worker {
    requests: Sender<Request>,
    replies: Receiver<Reply>,
}

/// Pauses single threads of a process by ptrace.
#[derive(Default)]
pub struct PtracePauser {
    worker: RefCell<Option<Rc<Worker>>>,
    rest_until: Cell<Nanos>,
    attempts: Cell<u64>,
    timed_out: Cell<u64>,
    without_cpu: Cell<u64>,
    refused: Cell<u64>,
    /// Why the kernel refused last.
    refusal: RefCell<String>,
}

/// A paused thread, until this is dropped.
struct Paused(Rc<Worker>);

impl Drop for Paused {
    fn drop(&mut self) {
        // Waits for the answer, so that the sample does not find the thread stopped.
        if self.0.requests.send(Request::Resume).is_ok() {
            let _ = self.0.replies.recv_timeout(ANSWER_LIMIT);
        }
    }
}

impl ThreadPauser for PtracePauser {
    fn pause(&self, tid: Tid) -> Option<Box<dyn Any>> {
        if sys_linux::monotonic() < self.rest_until.get() {
            return None;
        }
        self.attempts.set(self.attempts.get() + 1);
        let worker = self.worker.take().map_or_else(Worker::start, Ok);
        let reply = worker.as_ref().map_err(|e| Reply::Refused(io::Error::from(e.kind()))).map(|worker| worker.ask(tid));
        let reply = reply.unwrap_or_else(|refused| refused);
        match reply {
            Reply::Paused => {
                let worker = worker.ok()?;
                self.worker.replace(Some(worker.clone()));
                return Some(Box::new(Paused(worker)));
            }
            Reply::Refused(error) => {
                self.worker.replace(worker.ok());
                self.note_refusal(tid, &error);
            }
            // The worker has ended, or will as soon as the kernel lets it.
            Reply::TimedOut | Reply::NoCpu | Reply::Resumed => {
                let count = if matches!(reply, Reply::NoCpu) { &self.without_cpu } else { &self.timed_out };
                count.set(count.get() + 1);
                self.rest_until.set(sys_linux::monotonic() + REST);
            }
        }
        None
    }

    fn warning(&self) -> Option<String> {
        let (attempts, timed_out, without_cpu) = (self.attempts.get(), self.timed_out.get(), self.without_cpu.get());
        let failed = timed_out + without_cpu + self.refused.get();
        if failed * NOTABLE < attempts.max(1) {
            return None;
        }
        let milliseconds = |limit: Nanos| limit.as_nanos() / 1_000_000;
        let why = if self.refused.get() >= timed_out.max(without_cpu) {
            self.refusal.borrow().clone()
        } else if without_cpu >= timed_out {
            format!("it got no CPU within {} ms: other programs use them", milliseconds(BUSY_LIMIT))
        } else {
            format!("it did not stop within {} ms: it is frozen, or in an uninterruptible sleep", milliseconds(LIMIT))
        };
        Some(format!("--freeze-holder could not stop the thread that holds the GIL in {failed} of {attempts} attempts: {why}"))
    }
}

impl PtracePauser {
    fn note_refusal(&self, tid: Tid, error: &io::Error) {
        // A thread that has just exited is no refusal.
        if error.raw_os_error() == Some(libc::ESRCH) {
            return;
        }
        self.refused.set(self.refused.get() + 1);
        let tracer = TaskStatus::of(tid).and_then(|status| status.tracer).map(proc_info::tracer);
        self.refusal.replace(match tracer {
            Some(Tracer { pid, name }) => format!("another tracer, {name} (pid {pid}), traces it"),
            None => error.to_string(),
        });
    }
}

impl Worker {
    fn start() -> io::Result<Rc<Worker>> {
        let ((requests, asked), (answer, replies)) = (mpsc::channel(), mpsc::channel());
        std::thread::Builder::new().name("freeze-holder".into()).spawn(move || trace(&asked, &answer))?;
        Ok(Rc::new(Worker { requests, replies }))
    }

    fn ask(&self, tid: Tid) -> Reply {
        let sent = self.requests.send(Request::Pause(tid)).ok();
        sent.and_then(|()| self.replies.recv_timeout(ANSWER_LIMIT).ok()).unwrap_or(Reply::TimedOut)
    }
}

/// Serves requests until the other end of the channels is dropped, or until the kernel has to
/// detach a thread.
fn trace(asked: &Receiver<Request>, answer: &Sender<Reply>) {
    sys_linux::set_timer_slack();
    while let Ok(request) = asked.recv() {
        let Request::Pause(tid) = request else { continue };
        let reply = stop(tid).unwrap_or_else(Reply::Refused);
        let (paused, timed_out) = (matches!(reply, Reply::Paused), matches!(reply, Reply::TimedOut | Reply::NoCpu));
        if answer.send(reply).is_err() || timed_out {
            return;
        }
        if paused {
            let _ = asked.recv();
            let detached = ptrace::detach(tid);
            if answer.send(Reply::Resumed).is_err() || detached.is_err() {
                return;
            }
        }
    }
}

/// Seizes and stops a thread.
fn stop(tid: Tid) -> io::Result<Reply> {
    ptrace::seize(tid)?;
    if ptrace::interrupt(tid).is_err() {
        return Ok(Reply::TimedOut);
    }
    let start = sys_linux::monotonic();
    while !ptrace::is_stopped(tid) {
        let now = sys_linux::monotonic();
        let (waited, mut period) = (now.saturating_since(start), CHECK_PERIOD);
        if waited >= LIMIT {
            let is_runnable = TaskStatus::of(tid).is_some_and(|status| status.letter == 'R');
            if !is_runnable {
                return Ok(Reply::TimedOut);
            }
            if waited >= BUSY_LIMIT {
                return Ok(Reply::NoCpu);
            }
            period = BUSY_PERIOD;
        }
        sys_linux::sleep_until(now + period);
    }
    Ok(Reply::Paused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Pid;
    use crate::process::proc_info::task_state;
    use std::process::{Child, Command, Stdio};

    fn cat() -> (Child, Tid) {
        let child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let tid = Tid(child.id() as i32);
        (child, tid)
    }

    fn state(tid: Tid) -> Option<char> {
        task_state(Pid(tid.0), Pid(tid.0))
    }

    #[test]
    fn the_warning_names_the_most_frequent_cause() {
        let pauser = PtracePauser::default();
        pauser.attempts.set(10);
        pauser.without_cpu.set(2);
        pauser.timed_out.set(1);
        assert!(pauser.warning().is_some_and(|text| text.contains("3 of 10") && text.contains("no CPU within 500 ms")));
        pauser.timed_out.set(3);
        assert!(pauser.warning().is_some_and(|text| text.contains("5 of 10") && text.contains("within 20 ms")));
    }

    #[test]
    fn a_thread_is_paused_until_the_guard_is_dropped() {
        let (mut child, tid) = cat();
        let pauser = PtracePauser::default();
        for _ in 0..3 {
            let paused = pauser.pause(tid);
            if paused.is_none() {
                eprintln!("skipped: ptrace is not permitted: {:?}", pauser.warning());
                return;
            }
            assert_eq!(state(tid), Some('t'));
            // The second pauser is refused while the first traces, and says who does.
            let other = PtracePauser::default();
            assert!(other.pause(tid).is_none());
            assert!(other.warning().is_some_and(|text| text.contains("traces it") && text.contains("1 of 1")), "{:?}", other.warning());
            drop(paused);
            assert_ne!(state(tid), Some('t'));
        }
        assert_eq!(pauser.warning(), None);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(pauser.pause(tid).is_none());
    }
}
