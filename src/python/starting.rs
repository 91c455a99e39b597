//! A process that may become Python: a shell or a launcher before its `exec`, a program that loads
//! libpython later, or a Python that has not created its interpreter yet.

use super::attach::{self, Attached, PythonProcess};
use super::runtimes::RuntimeChoice;
use crate::error::{Error, Result};
use crate::ids::Pid;
use crate::process::maps::Maps;

/// Such a process, polled until it can be read.
#[derive(Debug)]
pub struct StartingProcess {
    pid: Pid,
    images: Option<Vec<(u32, u32, u64)>>,
    python: Option<Box<PythonProcess>>,
}

impl StartingProcess {
    /// A process of which nothing is known.
    pub fn new(pid: Pid) -> StartingProcess {
        StartingProcess { pid, images: None, python: None }
    }

    /// The process.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether it is Python and only has to create its interpreter.
    pub fn is_python(&self) -> bool {
        self.python.is_some()
    }

    /// The Python once it is ready. An error if gilprof will not be able to read it.
    pub fn poll(&mut self, runtime: &RuntimeChoice) -> Result<Option<Attached>> {
        let mapped = images_of(self.pid);
        // While the same files are mapped, the answer cannot have changed: a Python that is not
        // ready yet, or not Python.
        if mapped.is_none() || mapped != self.images {
            (self.images, self.python) = (mapped, None);
            match attach::identify(self.pid, runtime) {
                Ok(Attached::Python(python)) => self.python = Some(python),
                Ok(legacy) => return Ok(Some(legacy)),
                Err(e @ (Error::UnsupportedVersion { .. } | Error::Permission { .. })) => return Err(e),
                // The runtime that was chosen may be loaded later.
                Err(Error::NotPython { .. } | Error::Usage(_)) => {}
                Err(_) => self.images = None,
            }
        }
        Ok(self.python.take_if(|python| python.ensure_ready().is_ok()).map(Attached::Python))
    }
}

/// A Python that was found, for processes that are copies of it: a child by `fork` has the same
/// files at the same addresses, and its interpreter need not be searched for.
#[derive(Debug)]
pub struct KnownPython {
    mapped: MappedCode,
    python: Box<PythonProcess>,
}

/// The files whose code a process has mapped, by address, device and inode.
pub type MappedCode = Vec<(u64, (u32, u32, u64))>;

impl KnownPython {
    /// What was found in a process.
    pub fn new(python: &PythonProcess) -> Option<KnownPython> {
        Some(KnownPython { mapped: mapped_code(python.pid)?, python: Box::new(python.clone()) })
    }

    /// The same in a process with this code; `None` if that is no copy, or not ready.
    pub fn in_copy(&self, pid: Pid, mapped: &MappedCode) -> Option<Attached> {
        if *mapped != self.mapped {
            return None;
        }
        let mut python = self.python.clone();
        python.pid = pid;
        python.ensure_ready().ok()?;
        Some(Attached::Python(python))
    }
}

/// The code of a process.
pub fn mapped_code(pid: Pid) -> Option<MappedCode> {
    let maps = Maps::from_pid(pid).ok()?;
    let code = maps.mappings.iter().filter(|m| m.executable && m.file().is_some());
    Some(code.map(|m| (m.start.0, (m.dev.major, m.dev.minor, m.inode))).collect())
}

/// The files whose code a process has mapped, by device and inode.
fn images_of(pid: Pid) -> Option<Vec<(u32, u32, u64)>> {
    let maps = Maps::from_pid(pid).ok()?;
    let code = maps.mappings.iter().filter(|m| m.executable && m.file().is_some());
    Some(code.map(|m| (m.dev.major, m.dev.minor, m.inode)).collect())
}
