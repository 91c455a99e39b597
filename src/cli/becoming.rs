//! From the start of a program to its first Python: it may be a shell or a launcher that becomes Python later, by `exec` or by loading
//! libpython. It is asked again until it ends; where it stays what it is and starts Python as a child, that child is named.

use super::say;
use crate::error::{Error, Result};
use crate::ids::Pid;
use crate::output::plain;
use crate::process::maps::Maps;
use crate::process::sys_linux;
use crate::python::attach::{self, Attached};
use crate::python::explain;
use crate::units::Nanos;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often the program is asked; slower after the first second, for a shell that starts Python much later.
const POLL: Nanos = Nanos::from_micros(500);
const SLOW_POLL: Nanos = Nanos::from_millis(20);
const SLOW_AFTER: Nanos = Nanos::from_millis(1_000);
/// How often its children are looked at.
const CHILDREN: Nanos = Nanos::from_millis(10);
/// A child is spoken of when it has been there so long: scripts ask small Pythons small questions before they start the one that matters.
const SETTLED: Nanos = Nanos::from_millis(1_000);

/// Waits until the program runs Python; an error when it ends before, or is a Python that gilprof will not be able to read. `name` is
/// what it was started as.
pub fn python(pid: Pid, name: &str, ended: &AtomicBool) -> Result<Attached> {
    let began = sys_linux::monotonic();
    let (mut images, mut found) = (None, None);
    let mut child = ChildWatch::new(name);
    loop {
        let now = sys_linux::monotonic();
        let mapped = images_of(pid);
        // With the same files it is what it was: a Python that is not ready yet, or not Python.
        if mapped.is_none() || mapped != images {
            (images, found) = (mapped, None);
            match attach::find(pid) {
                Ok(Attached::Python(python)) => found = Some(python),
                Ok(legacy) => return Ok(legacy),
                Err(e @ (Error::UnsupportedVersion { .. } | Error::Permission { .. })) => return Err(e),
                Err(Error::NotPython { .. }) => {}
                Err(_) => images = None,
            }
        }
        if let Some(python) = found.take_if(|python| python.ready().is_ok()) {
            return Ok(Attached::Python(python));
        }
        if ended.load(Ordering::Relaxed) {
            return Err(child.never(pid));
        }
        child.look(pid, now);
        let now = sys_linux::monotonic();
        sys_linux::sleep_until(now + if now.since(began) < SLOW_AFTER { POLL } else { SLOW_POLL });
    }
}

/// The files whose code a process has mapped, by device and inode.
fn images_of(pid: Pid) -> Option<Vec<(u32, u32, u64)>> {
    let maps = Maps::of(pid).ok()?;
    let code = maps.mappings.iter().filter(|m| m.executable && m.file().is_some());
    Some(code.map(|m| (m.dev.major, m.dev.minor, m.inode)).collect())
}

/// The Python that a shell or a launcher has started below itself.
struct ChildWatch {
    name: String,
    looked: Option<Nanos>,
    /// The child, its command, since when it is there.
    child: Option<(Pid, String, Nanos)>,
    said: bool,
}

impl ChildWatch {
    fn new(name: &str) -> ChildWatch {
        ChildWatch { name: plain::clean(plain::basename(name)), looked: None, child: None, said: false }
    }

    fn look(&mut self, pid: Pid, now: Nanos) {
        if self.looked.is_some_and(|looked| now.since(looked) < CHILDREN) {
            return;
        }
        self.looked = Some(now);
        let Some(found) = explain::python_descendants(pid).first().map(|(child, _)| *child) else { return };
        let since = self.child.as_ref().filter(|(child, ..)| *child == found).map_or(now, |(_, _, since)| *since);
        self.child = Some((found, explain::command(found), since));
        if now.since(since) >= SETTLED && !std::mem::replace(&mut self.said, true) {
            let (name, command) = (&self.name, explain::command(found));
            say(&format!(
                "{name} (pid {pid}) is not Python, but started it as process {found} ({command})\n  gilprof attach --pid {found}"
            ));
        }
    }

    /// The error for a program that ended without becoming Python.
    fn never(&self, pid: Pid) -> Error {
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
