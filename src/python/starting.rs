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

/// The files whose code a process has mapped, by device and inode.
fn images_of(pid: Pid) -> Option<Vec<(u32, u32, u64)>> {
    let maps = Maps::from_pid(pid).ok()?;
    let code = maps.mappings.iter().filter(|m| m.executable && m.file().is_some());
    Some(code.map(|m| (m.dev.major, m.dev.minor, m.inode)).collect())
}
