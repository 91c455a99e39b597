//! Waiting for a Python to be there: a pid from `$!` may still be a shell, and a Python needs a moment to create its interpreter.

use super::say;
use crate::error::{Error, Result};
use crate::ids::{Pid, Tid};
use crate::process::{facts, sys_linux};
use crate::python::attach::{self, Attached};
use crate::units::Nanos;
use std::sync::atomic::{AtomicBool, Ordering};

/// A process younger than this may be a shell or a launcher that is about to become Python.
const YOUNG: Nanos = Nanos::from_millis(1_000);
/// A Python younger than this may not have created its interpreter yet, on a slow day.
const NEW: Nanos = Nanos::from_millis(2_000);
/// An older one may have been a shell until just now.
const BRIEFLY: Nanos = Nanos::from_millis(300);
/// How often it is looked at meanwhile.
const POLL: Nanos = Nanos::from_millis(10);
/// The unit of the kernel's start times; 100 a second for programs on every Linux.
const TICK: Nanos = Nanos::from_millis(10);

/// Attaches, waiting a moment for an interpreter that is just being created. `None` when `stop` was set meanwhile.
pub fn attach(pid: Pid, stop: &AtomicBool) -> Result<Option<(Pid, Attached)>> {
    let pid = whole_process(pid);
    let began = sys_linux::monotonic();
    let mut said = false;
    loop {
        let failed = match attach::attach(pid) {
            Ok(target) => return Ok(Some((pid, target))),
            Err(e) => e,
        };
        let waited = sys_linux::monotonic().since(began);
        // Where the age is not known, what gilprof has waited itself is a floor.
        let age = age(pid).unwrap_or(waited);
        match failed {
            Error::NotReady { .. } if age < NEW || waited < BRIEFLY => {
                if !std::mem::replace(&mut said, true) {
                    say(&format!("{}; waiting a moment", failed.to_string().lines().next().unwrap_or_default()));
                }
            }
            Error::NotPython { .. } if age < YOUNG => {}
            _ => return Err(failed),
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        sys_linux::sleep_until(sys_linux::monotonic() + POLL);
    }
}

/// The process of a thread id, which `top -H` and `ps -L` show and `/proc` knows as if it were a process.
fn whole_process(pid: Pid) -> Pid {
    match facts::process_of(Tid(pid.0)) {
        Some(process) if process != pid => {
            say(&format!("{pid} is a thread of process {process}, which is looked at as a whole"));
            process
        }
        _ => pid,
    }
}

/// How long ago a process was started; `None` when that cannot be told.
fn age(pid: Pid) -> Option<Nanos> {
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let started = Nanos::from_nanos(facts::start_time(pid)?.0.checked_mul(TICK.as_nanos())?);
    Some(Nanos::from_secs_f64(uptime).since(started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_process_is_young_and_the_first_is_not() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(age(Pid(child.id() as i32)).unwrap() < Nanos::from_millis(60_000));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(age(Pid(1)).unwrap() > Nanos::ZERO);
        assert_eq!(age(Pid(-1)), None);
    }

    #[test]
    fn a_thread_id_stands_for_its_process() {
        let me = Pid(std::process::id() as i32);
        let (say, said) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            say.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
            let _ = ended.recv();
        });
        let tid = said.recv().unwrap().file_name().unwrap().to_str().unwrap().parse().unwrap();
        assert_eq!((whole_process(Pid(tid)), whole_process(me), whole_process(Pid(i32::MAX))), (me, me, Pid(i32::MAX)));
        drop(end);
        thread.join().unwrap();
    }
}
