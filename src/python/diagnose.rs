//! Why no interpreter was found, and where it may be instead: the process is gone, may not be read,
//! or is a launcher whose child is Python.

use crate::error::{Error, Result};
use crate::ids::{Pid, Tid};
use crate::process::maps::{Mapping, Maps};
use crate::process::memory::{Memory, ReadError};
use crate::process::{access, proc_info};
use std::io;

/// The largest number of descendants examined.
const MAX_DESCENDANTS: usize = 512;
/// The largest number of generations examined.
const MAX_DEPTH: usize = 8;
/// The largest number of Python descendants that a message names.
const MAX_NAMED: usize = 4;

/// The longest name or command in a message, in characters, and the longest path.
const MAX_CHARS: usize = 60;
const MAX_PATH_CHARS: usize = 400;

/// Programs that start others, so that a user may pass their pid instead of Python's.
const SHELLS: &[&str] = &["sh", "bash", "dash", "zsh", "fish", "ash", "ksh", "busybox"];
const LAUNCHERS: &[&str] = &[
    "uv",
    "uvx",
    "poetry",
    "pipenv",
    "pdm",
    "hatch",
    "rye",
    "conda",
    "mamba",
    "micromamba",
    "pixi",
    "docker",
    "podman",
    "containerd-shim",
    "kubectl",
    "sudo",
    "su",
    "env",
    "nice",
    "timeout",
    "time",
    "strace",
    "tini",
    "dumb-init",
    "catatonit",
    "s6-svscan",
    "runit",
    "supervisord",
    "systemd",
    "init",
    "watch",
    "make",
    "npm",
    "node",
    "tmux",
    "screen",
    "xargs",
    "parallel",
    "srun",
    "mpirun",
    "flock",
    "stdbuf",
    "setsid",
    "gunicorn",
];

/// Whether a file name is that of an interpreter or its library.
pub(super) fn is_python_name(name: &str) -> bool {
    name.starts_with("libpython") || name.starts_with("python")
}

/// The error for a process whose maps cannot be read.
pub(super) fn unreadable(pid: Pid, error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) if access::is_hidden(pid) => access::hidden(pid),
        Some(libc::ENOENT | libc::ESRCH) => Error::NoSuchProcess { pid, help: "\n  list running Pythons: pgrep -af python".to_owned() },
        Some(errno @ (libc::EPERM | libc::EACCES)) => access::denied(pid, errno),
        errno => Error::System {
            what: format!("read /proc/{pid}/maps"),
            source: errno.map_or_else(|| io::Error::from(error.kind()), io::Error::from_raw_os_error),
        },
    }
}

/// Tries to read the process's memory, so that a refused read is distinguished from a missing
/// interpreter.
pub(super) fn probe(pid: Pid, mem: &dyn Memory, maps: &Maps) -> Result<()> {
    let status = proc_info::Status::from_pid(proc_info::live_task(pid)).unwrap_or_default();
    if status.state() == Some('Z') || status.state() == Some('X') {
        return Err(Error::Gone { pid, when: " and waits for its parent to reap it".to_owned() });
    }
    let Some(first) = maps.mappings.iter().find(|mapping| mapping.readable && mapping.file().is_some()) else {
        return Ok(());
    };
    match mem.read_u64(first.start) {
        Err(ReadError::Refused) => Err(access::denied(pid, libc::EPERM)),
        Err(ReadError::Gone) => Err(Error::Gone { pid, when: String::new() }),
        _ => Ok(()),
    }
}

/// The error for a process without an interpreter. `foreign`: the process has images that are not
/// 64-bit.
pub(super) fn not_python(pid: Pid, maps: &Maps, foreign: bool) -> Error {
    let name = name(pid);
    let why = if maps.mappings.is_empty() {
        match proc_info::Status::from_pid(pid) {
            Err(_) => return Error::Gone { pid, when: " while gilprof examined it".to_owned() },
            Ok(status) if status.kernel_thread() == Some(true) || proc_info::exe(pid).is_none() => {
                "it is a kernel thread, which has no memory of its own".to_owned()
            }
            Ok(_) => "it has no memory mapped; it may be starting or ending".to_owned(),
        }
    } else if foreign {
        "it is a 32-bit or big-endian program, and gilprof reads only 64-bit little-endian ones".to_owned()
    } else if maps.mappings.iter().filter_map(Mapping::file_name).any(|file| file.contains("pypy")) {
        "it is PyPy, whose GIL and data are not CPython's".to_owned()
    } else {
        suggest_descendant(pid, &name)
    };
    Error::NotPython { pid, what: name, why }
}

/// The role of the process, and the descendant that is probably the Python meant.
fn suggest_descendant(pid: Pid, name: &str) -> String {
    let role = if SHELLS.contains(&name) {
        "it is a shell"
    } else if LAUNCHERS.contains(&name) {
        "it is a launcher"
    } else {
        "neither its executable nor a library in it has CPython's _PyRuntime"
    };
    let found = python_descendants(pid);
    let Some(&(first, is_child)) = found.first() else {
        return format!("{role}, and no process under it is Python\n  list running Pythons: pgrep -af python");
    };
    let relation = if is_child { "child" } else { "descendant" };
    let mut text = format!("{role}, but its {relation} {first} is Python ({})\n  gilprof attach --pid {first}", command(first));
    for &(other, _) in found.iter().skip(1).take(MAX_NAMED - 1) {
        text.push_str(&format!("\n  gilprof attach --pid {other}   ({})", command(other)));
    }
    if found.len() > MAX_NAMED {
        text.push_str(&format!("\n  and {} more", found.len() - MAX_NAMED));
    }
    text
}

/// Python processes below this one, nearest first, each with whether it is a direct child.
pub fn python_descendants(pid: Pid) -> Vec<(Pid, bool)> {
    let (mut found, mut generation, mut seen) = (Vec::new(), vec![pid], 0);
    for depth in 0..MAX_DEPTH {
        let mut next = Vec::new();
        for child in generation.into_iter().flat_map(proc_info::children) {
            seen += 1;
            if seen > MAX_DESCENDANTS {
                return found;
            }
            if is_python(child) == Some(true) {
                found.push((child, depth == 0));
            }
            next.push(child);
        }
        generation = next;
    }
    found
}

/// Whether a process is Python, by the files that it has mapped: an interpreter, its library, or an
/// extension module. `None` where they cannot be read.
pub fn is_python(pid: Pid) -> Option<bool> {
    let maps = Maps::from_pid(pid).ok().filter(|maps| !maps.mappings.is_empty())?;
    let is_named = |name: &str| is_python_name(name) || name.contains(".cpython-") || name.ends_with(".abi3.so");
    Some(maps.mappings.iter().filter(|mapping| mapping.executable).filter_map(Mapping::file_name).any(is_named))
}

/// The executable's name, or the kernel's name of the main thread.
fn name(pid: Pid) -> String {
    let exe = proc_info::exe(pid).and_then(|path| path.rsplit('/').next().map(str::to_owned));
    shortened(&exe.or_else(|| proc_info::comm(Tid(pid.0))).unwrap_or_else(|| "unknown".to_owned()))
}

/// Text from the target, shortened for a message and without control characters.
fn shortened(text: &str) -> String {
    shortened_to(text, MAX_CHARS)
}

/// A path from the target, in the same way.
pub(super) fn printable_path(path: &str) -> String {
    shortened_to(path, MAX_PATH_CHARS)
}

fn shortened_to(text: &str, max: usize) -> String {
    let start: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(max).collect();
    if text.chars().count() > max {
        format!("{start}…")
    } else {
        start
    }
}

/// The command line, shortened for a message.
pub fn command(pid: Pid) -> String {
    shortened(&proc_info::command(pid).join(" "))
}

/// The same without the directories of the program, so that more of the arguments fits.
pub fn brief_command(pid: Pid) -> String {
    let mut arguments = proc_info::command(pid);
    if let Some(program) = arguments.first_mut() {
        *program = program.rsplit('/').next().unwrap_or_default().to_owned();
    }
    shortened(&arguments.join(" "))
}
