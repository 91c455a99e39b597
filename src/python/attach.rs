//! From a process id to an interpreter that can be read: where its runtime is, and by which layout.

use super::binary::{self, Located, LocatedPython};
use super::layout::debug_offsets::{layout_from_target, READ_LEN};
use super::layout::{for_release, Layout, LayoutTable, Minor};
use super::runtimes::{self, RuntimeChoice, StartedRuntime};
use crate::error::{Error, Result};
use crate::ids::{Addr, Pid};
use crate::process::c_library::Abi;
use crate::process::live::LiveMemory;
use crate::process::memory::Memory;

/// The newest version that gilprof knows, for messages.
const NEWEST: Minor = Minor(3, 15);

/// A Python process, ready to be read.
#[derive(Clone, Debug)]
pub struct PythonProcess {
    /// The process.
    pub pid: Pid,
    /// `_PyRuntime`.
    pub runtime: Addr,
    /// The machine and the C library that it was built for.
    pub abi: Abi,
    /// Such as `3.11.7`.
    pub version: String,
    /// Whether the build is free-threaded. Whether the GIL is off is in the GIL's own memory.
    pub free_threaded: bool,
    /// Where each field is.
    pub layout: Layout,
    /// The file that holds the interpreter, as the target names it; empty where it is not known.
    pub path: String,
    /// `PyType_Type`, where it was found.
    pub type_type: Option<Addr>,
    /// A sentence about the other runtimes in the process, if there are any.
    pub runtimes_warning: Option<String>,
}

/// What kind of process was found.
#[derive(Clone, Debug)]
pub enum Attached {
    /// 3.7 and later.
    Python(Box<PythonProcess>),
    /// 2.7 or 3.3 - 3.6, which only py-spy reads: the version.
    Legacy(String),
}

impl PythonProcess {
    /// Finds the interpreter of a process. [`Error::NotReady`] until it is initialised.
    pub fn open(pid: Pid) -> Result<PythonProcess> {
        match attach(pid, &RuntimeChoice::default())? {
            Attached::Python(python) => Ok(*python),
            Attached::Legacy(version) => Err(too_old(pid, version)),
        }
    }

    /// The same, for a process that was measured before: the runtime that has the file `path`, if
    /// it is still there.
    pub fn open_again(pid: Pid, path: &str) -> Result<PythonProcess> {
        match attach(pid, &RuntimeChoice::File(path.into())) {
            Ok(Attached::Python(python)) => Ok(*python),
            Ok(Attached::Legacy(version)) => Err(too_old(pid, version)),
            Err(Error::Usage(_)) => PythonProcess::open(pid),
            Err(error) => Err(error),
        }
    }

    /// The interpreter of this version, when the address of `_PyRuntime` is known.
    pub fn from_runtime(pid: Pid, mem: &dyn Memory, abi: Abi, minor: Minor, version: String, runtime: Addr) -> Result<PythonProcess> {
        let unsupported = |why: String| Error::UnsupportedVersion { pid, version: version.clone(), why };
        let (layout, free_threaded) = match for_release(minor, patch(&version)) {
            Some(LayoutTable::Complete(layout)) => (layout.clone(), false),
            Some(LayoutTable::Partial { .. }) => {
                let mut bytes = vec![0; READ_LEN];
                mem.read(runtime, &mut bytes)?;
                if bytes.iter().all(|&b| b == 0) {
                    return Err(Error::NotReady { pid, why: starting(pid) });
                }
                let (layout, build) = layout_from_target(&bytes).map_err(|e| unsupported(e.to_string()))?;
                (layout, build.free_threaded)
            }
            None => return Err(unsupported(format!("it knows 3.7 to {}.{}; check for a newer gilprof", NEWEST.0, NEWEST.1))),
        };
        let layout = layout.for_abi(abi);
        let (path, type_type, runtimes_warning) = (String::new(), None, None);
        Ok(PythonProcess { pid, runtime, abi, version, free_threaded, layout, path, type_type, runtimes_warning })
    }

    fn as_started(&self) -> StartedRuntime<'_> {
        StartedRuntime { version: &self.version, path: &self.path, at: self.runtime, layout: &self.layout }
    }

    /// Whether an interpreter exists: not before start-up, not after finalization.
    pub fn has_interpreter(&self, mem: &dyn Memory) -> bool {
        self.first_interpreter(mem).is_some()
    }

    fn first_interpreter(&self, mem: &dyn Memory) -> Option<Addr> {
        let head = self.runtime.offset(self.layout.runtime.interpreters_head.offset() as u64);
        // While a library is being mapped, its data pages still show other parts of the file, so
        // the address read there may be invalid.
        let is_readable = |at: &Addr| mem.read_ptr(at.offset(self.layout.interpreter.threads_head.offset() as u64)).is_ok();
        mem.read_ptr(head).ok().filter(|at| !at.is_null()).filter(is_readable)
    }

    /// Completes the layout by the size of the header that objects have in this build, from
    /// `PyType_Type` or, where its address is not known, from the dict of `sys.modules`.
    pub fn complete_layout(&mut self, mem: &dyn Memory) {
        let modules = || {
            let field = self.layout.interpreter.modules?;
            mem.read_ptr(self.first_interpreter(mem)?.offset(field.offset() as u64)).ok()
        };
        if let Some(at) = self.type_type {
            self.layout = self.layout.clone().with_object_header(mem, at);
        } else if let Some(modules) = modules() {
            self.layout = self.layout.clone().with_object_header_of(mem, modules);
        }
    }

    /// Completes the layout by what only a started interpreter shows. [`Error::NotReady`] when no
    /// interpreter exists; the message says whether one existed before.
    pub fn ensure_ready(&mut self) -> Result<()> {
        let (pid, mem) = (self.pid, LiveMemory::new(self.pid));
        if self.has_interpreter(&mem) {
            self.complete_layout(&mem);
            return Ok(());
        }
        Err(Error::NotReady { pid, why: if self.had_interpreter(&mem) { ending(pid) } else { starting(pid) } })
    }

    /// Whether an interpreter ever existed. In 3.7 - 3.15 `interpreters.next_id` follows
    /// `interpreters.main`: it is 0 or -1 before the first interpreter, counts up with each, and
    /// outlives finalization.
    fn had_interpreter(&self, mem: &dyn Memory) -> bool {
        let next_id = self.runtime.offset(self.layout.runtime.interpreters_main.offset() as u64 + 8);
        mem.read_u64(next_id).is_ok_and(|id| id.cast_signed() > 0)
    }
}

fn starting(pid: Pid) -> String {
    format!("it has not created its interpreter yet\n  see what it is doing: strace -fp {pid}")
}

fn ending(pid: Pid) -> String {
    format!(
        "it has ended its interpreter, but not itself: an exit handler or a library's thread keeps it running\n  see what it is doing: strace -fp {pid}"
    )
}

/// Identifies a process. A Python process without an interpreter is an error.
pub fn attach(pid: Pid, choice: &RuntimeChoice) -> Result<Attached> {
    let mut found = identify(pid, choice)?;
    if let Attached::Python(python) = &mut found {
        python.ensure_ready()?;
    }
    Ok(found)
}

/// Identifies a process, whether or not it has created its interpreter. Searching its files takes
/// milliseconds; [`PythonProcess::ensure_ready`] on the result takes microseconds.
pub fn identify(pid: Pid, choice: &RuntimeChoice) -> Result<Attached> {
    let mem = LiveMemory::new(pid);
    let located = binary::locate_all(pid, &mem)?;
    if let Some(Ok(Located::Legacy { version, .. })) = located.first() {
        return Ok(Attached::Legacy(version.clone()));
    }
    let open = |located: Result<Located>| match located? {
        Located::Python(found) => open_located(pid, &mem, found),
        Located::Legacy { version, .. } => Err(too_old(pid, version)),
    };
    let chosen = choose_readable(pid, located.into_iter().map(open), choice, &mem)?;
    Ok(Attached::Python(Box::new(chosen)))
}

/// Chooses among the runtimes that could be opened; the first error if none could.
fn choose_readable(
    pid: Pid,
    opened: impl Iterator<Item = Result<PythonProcess>>,
    choice: &RuntimeChoice,
    mem: &dyn Memory,
) -> Result<PythonProcess> {
    let (mut all, mut errors) = (Vec::new(), Vec::new());
    for python in opened {
        match python {
            Ok(python) => all.push(python),
            Err(error) => errors.push(error),
        }
    }
    if all.is_empty() {
        return Err(errors.into_iter().next().unwrap_or_else(|| Error::NotReady { pid, why: starting(pid) }));
    }
    // A runtime that has ended its interpreters has no threads to measure.
    if all.iter().any(|python| python.has_interpreter(mem)) {
        all.retain(|python| python.has_interpreter(mem));
    }
    let started: Vec<StartedRuntime<'_>> = all.iter().map(PythonProcess::as_started).collect();
    let (index, warning) = runtimes::choose(&started, choice, mem)?;
    let sentences: Vec<String> = warning.into_iter().chain(errors.iter().filter_map(unreadable)).collect();
    let runtimes_warning = (!sentences.is_empty()).then(|| sentences.join("; "));
    Ok(PythonProcess { runtimes_warning, ..all.swap_remove(index) })
}

/// A sentence about a runtime that cannot be read. A runtime that is only starting needs none.
fn unreadable(error: &Error) -> Option<String> {
    match error {
        Error::UnsupportedVersion { version, why, .. } => {
            Some(format!("the process also has Python {version}, which gilprof cannot read: {why}"))
        }
        _ => None,
    }
}

fn open_located(pid: Pid, mem: &dyn Memory, found: LocatedPython) -> Result<PythonProcess> {
    let python = PythonProcess::from_runtime(pid, mem, found.abi, found.minor, found.version, found.runtime)?;
    Ok(PythonProcess { path: found.path, type_type: found.type_type, ..python })
}

/// The patch level of a version, or `u8::MAX` where it cannot be read, which selects the table of
/// the later releases.
fn patch(version: &str) -> u8 {
    let digits = version.split('.').nth(2).map(|p| p.chars().take_while(char::is_ascii_digit).collect::<String>());
    digits.and_then(|d| d.parse().ok()).unwrap_or(u8::MAX)
}

fn too_old(pid: Pid, version: String) -> Error {
    Error::UnsupportedVersion { pid, version, why: "gilprof can read only its GIL holder and stacks, through py-spy".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::replay::ReplayMemory;

    #[test]
    fn an_invalid_pointer_is_not_an_interpreter() {
        let (runtime, interpreter) = (Addr(0x10_000), Addr(0x20_000));
        let mut mem = ReplayMemory::new();
        mem.map(runtime, vec![0; 0x1000]);
        let python = PythonProcess::from_runtime(Pid(1), &mem, Abi::default(), Minor(3, 9), "3.9.18".into(), runtime).unwrap();
        assert!(!python.has_interpreter(&mem));
        let head = runtime.offset(python.layout.runtime.interpreters_head.offset() as u64);
        assert!(mem.poke_u64(head, interpreter.0) && !python.has_interpreter(&mem));
        mem.map(interpreter, vec![0; 0x1000]);
        assert!(python.has_interpreter(&mem));
    }

    #[test]
    fn a_runtime_that_cannot_be_read_does_not_block_another() {
        let runtime = Addr(0x10_000);
        let mut mem = ReplayMemory::new();
        mem.map(runtime, vec![0; 0x1000]);
        let open =
            |minor, version: &str| PythonProcess::from_runtime(Pid(1), &mem, Abi::default(), Minor(3, minor), version.into(), runtime);
        let chosen = |opened: Vec<Result<PythonProcess>>, choice| choose_readable(Pid(1), opened.into_iter(), &choice, &mem);
        for choice in [RuntimeChoice::Busiest, RuntimeChoice::Number(1)] {
            let python = chosen(vec![open(99, "3.99.1"), open(9, "3.9.18")], choice).unwrap();
            let warning = python.runtimes_warning.unwrap();
            assert_eq!(python.version, "3.9.18");
            assert!(warning.contains("also has Python 3.99.1, which gilprof cannot read: it knows 3.7 to"), "{warning}");
        }
        assert_eq!(chosen(vec![open(9, "3.9.18")], RuntimeChoice::Busiest).unwrap().runtimes_warning, None);
        let error = chosen(vec![open(99, "3.99.1"), open(98, "3.98.1")], RuntimeChoice::Busiest).unwrap_err();
        assert!(error.to_string().contains("3.99.1"), "the first of several: {error}");
    }
}
