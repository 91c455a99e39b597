//! Waits until a process is a Python whose interpreter can be read.
//!
//! A pid from `$!` may still be a shell, and a Python needs a moment to create its interpreter, so
//! [`attach`] retries while the process is young. A command that `run` started may be a shell or a
//! launcher that becomes Python later, by `exec` or by loading libpython, so [`attach_started`]
//! retries until the program ends. If the program starts Python as a child instead, the message
//! names that child, except for a frozen program, whose bootloader's child is measured.

use super::note;
use crate::capture::stop_detector;
use crate::error::{Error, Result};
use crate::ids::{Pid, Tid};
use crate::output::sanitize;
use crate::process::{proc_info, sys_linux};
use crate::python::attach::{self, Attached};
use crate::python::diagnose;
use crate::python::runtimes::RuntimeChoice;
use crate::python::starting::StartingProcess;
use crate::units::Nanos;
use std::sync::atomic::{AtomicBool, Ordering};

/// A process younger than this may be a shell or a launcher that is about to become Python.
const YOUNG: Nanos = Nanos::from_millis(1_000);
/// A Python younger than this may not have created its interpreter yet, on a slow day.
const NEW: Nanos = Nanos::from_millis(2_000);
/// An older Python may have been a shell until just now.
const GRACE: Nanos = Nanos::from_millis(300);
/// The period of attempts to attach to a running process.
const ATTACH_PERIOD: Nanos = Nanos::from_millis(10);

/// The period of attempts on a started program: short in its first second, longer after that, for a
/// shell that starts Python much later.
const FAST_PERIOD: Nanos = Nanos::from_micros(500);
const SLOW_PERIOD: Nanos = Nanos::from_millis(20);
const SLOW_AFTER: Nanos = Nanos::from_millis(1_000);
/// The period of searches for a Python child.
const CHILD_PERIOD: Nanos = Nanos::from_millis(10);
/// A child is reported once it is this old: scripts run short Python commands before the one that
/// matters.
const CHILD_SETTLED: Nanos = Nanos::from_millis(1_000);

/// Attaches to a running process, waiting a moment for an interpreter that is just being created.
/// `None` when `stop` was set meanwhile.
pub fn attach(pid: Pid, runtime: &RuntimeChoice, stop: &AtomicBool) -> Result<Option<(Pid, Attached)>> {
    let pid = whole_process(pid);
    let began = sys_linux::monotonic();
    let mut reported = false;
    loop {
        let failed = match attach::attach(pid, runtime) {
            Ok(target) => {
                if let Some(cause) = stop_detector::lasting_cause(pid) {
                    note(&sanitize::clean(&format!("pid {pid} is {cause}; let it go on: {}", cause.remedy(pid.0))));
                }
                return Ok(Some((pid, target)));
            }
            Err(e) => e,
        };
        let waited = sys_linux::monotonic().saturating_since(began);
        // If the age is unknown, the time that gilprof has waited is a lower bound of it.
        let age = age(pid).unwrap_or(waited);
        match failed {
            Error::NotReady { .. } if age < NEW || waited < GRACE => {
                if !std::mem::replace(&mut reported, true) {
                    note(&format!("{}; waiting a moment", failed.to_string().lines().next().unwrap_or_default()));
                }
            }
            Error::NotPython { .. } if age < YOUNG => {}
            _ => return Err(failed),
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        sys_linux::sleep_until(sys_linux::monotonic() + ATTACH_PERIOD);
    }
}

/// Waits until a started program runs Python, and attaches to it. An error when the program ends
/// before that, or is a Python that gilprof will not be able to read. `name` is the command that
/// started it.
pub fn attach_started(pid: Pid, name: &str, runtime: &RuntimeChoice, ended: &AtomicBool) -> Result<(Pid, Attached)> {
    let began = sys_linux::monotonic();
    let mut started = StartingProcess::new(pid);
    let mut frozen: Option<StartingProcess> = None;
    let mut child = ChildWatch::new(name);
    loop {
        let now = sys_linux::monotonic();
        for process in std::iter::once(&mut started).chain(&mut frozen) {
            if let Some(target) = process.poll(runtime)? {
                if process.pid() != pid {
                    note(&format!("{} (pid {pid}) runs its Python program as process {}, which is measured", child.name, process.pid()));
                }
                return Ok((process.pid(), target));
            }
        }
        if ended.load(Ordering::Relaxed) {
            return Err(child.ended_without_python(pid));
        }
        if let Some(found) = child.poll(pid, now) {
            if frozen.as_ref().is_none_or(|process| process.pid() != found) {
                frozen = Some(StartingProcess::new(found));
            }
        }
        let now = sys_linux::monotonic();
        sys_linux::sleep_until(now + if now.saturating_since(began) < SLOW_AFTER { FAST_PERIOD } else { SLOW_PERIOD });
    }
}

/// The process of a thread id. `top -H` and `ps -L` show thread ids, and `/proc` has each of them
/// as if it were a process.
fn whole_process(pid: Pid) -> Pid {
    match proc_info::process_of(Tid(pid.0)) {
        Some(process) if process != pid => {
            note(&format!("{pid} is a thread of process {process}; all of that process is sampled"));
            process
        }
        _ => pid,
    }
}

/// The time since a process was started; `None` when `/proc` does not say.
fn age(pid: Pid) -> Option<Nanos> {
    let started = Nanos::from_nanos(proc_info::start_time(pid)?.0.checked_mul(proc_info::TICK.as_nanos())?);
    Some(proc_info::uptime()?.saturating_since(started))
}

/// Whether a child is the program that a frozen program's bootloader started. A bootloader
/// unpacks its archive, starts the program as a child, and waits for it. PyInstaller's runs its own
/// executable again; Nuitka's runs an unpacked one and gives it its pid.
fn is_frozen_program(bootloader: Pid, child: Pid) -> bool {
    let executable = proc_info::exe(bootloader);
    let nuitka = || Some(format!("NUITKA_ONEFILE_PARENT={}", proc_info::inner_tid(Tid(bootloader.0))?));
    executable.is_some() && executable == proc_info::exe(child)
        || nuitka().is_some_and(|variable| proc_info::started_with(child, &variable))
}

/// The Python that a shell or a launcher has started as a descendant.
struct ChildWatch {
    name: String,
    polled_at: Option<Nanos>,
    /// The child, its command, and when it was first seen.
    child: Option<(Pid, String, Nanos)>,
    reported: bool,
}

impl ChildWatch {
    fn new(name: &str) -> ChildWatch {
        ChildWatch { name: sanitize::clean(sanitize::basename(name)), polled_at: None, child: None, reported: false }
    }

    /// Searches for a Python child, and returns it if it is the program of a frozen program.
    fn poll(&mut self, pid: Pid, now: Nanos) -> Option<Pid> {
        if self.polled_at.is_some_and(|polled_at| now.saturating_since(polled_at) < CHILD_PERIOD) {
            return None;
        }
        self.polled_at = Some(now);
        let found = diagnose::python_descendants(pid).first().map(|(child, _)| *child)?;
        if is_frozen_program(pid, found) {
            return Some(found);
        }
        // The command is read once: a process has none any more when it ends.
        let known = self.child.take().filter(|(child, ..)| *child == found);
        let (_, command, since) = self.child.insert(known.unwrap_or_else(|| (found, diagnose::command(found), now)));
        if now.saturating_since(*since) >= CHILD_SETTLED && !std::mem::replace(&mut self.reported, true) {
            let name = &self.name;
            note(&format!(
                "{name} (pid {pid}) is not Python, but started it as process {found} ({command})\n  gilprof attach --pid {found}"
            ));
        }
        None
    }

    /// The error for a program that ended without becoming Python.
    fn ended_without_python(&self, pid: Pid) -> Error {
        let name = self.name.clone();
        match &self.child {
            None => Error::Gone { pid, when: format!(" before gilprof saw any Python in it ({name})") },
            Some((child, command, _)) => Error::NotPython {
                pid,
                what: name,
                why: format!(
                    "it started Python as process {child} ({command}), which was not measured\n  \
                     start Python itself: gilprof run -- {command}\n  \
                     or, in the script, put exec before it"
                ),
            },
        }
    }
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
        let (send, receive) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            send.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
            let _ = ended.recv();
        });
        let tid = receive.recv().unwrap().file_name().unwrap().to_str().unwrap().parse().unwrap();
        assert_eq!((whole_process(Pid(tid)), whole_process(me), whole_process(Pid(i32::MAX))), (me, me, Pid(i32::MAX)));
        drop(end);
        thread.join().unwrap();
    }
}
