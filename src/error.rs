//! The kinds of errors. Every message finishes the sentence "failed to …" or states a fact, then
//! the cause and a command that helps.

use crate::ids::{Addr, Pid};
use std::path::PathBuf;

/// Shorthand for results of the library.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can stop gilprof from profiling. Each kind has its own exit code in the command
/// line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no process with this id.
    #[error("no process with pid {pid}{help}")]
    NoSuchProcess {
        /// The requested pid.
        pid: Pid,
        /// A hint on how to find the process, beginning with a line break, or empty.
        help: String,
    },
    /// The process exists but is not a Python program.
    #[error("pid {pid} ({what}) is not a Python process: {why}")]
    NotPython {
        /// The process.
        pid: Pid,
        /// Its command.
        what: String,
        /// What is missing, and what helps.
        why: String,
    },
    /// The Python runtime is not initialized yet, or is finalizing.
    #[error("the Python in pid {pid} is not ready: {why}")]
    NotReady {
        /// The process.
        pid: Pid,
        /// Which of the two, and what helps.
        why: String,
    },
    /// A version of Python that gilprof cannot read.
    #[error("pid {pid} runs Python {version}, which gilprof cannot read: {why}")]
    UnsupportedVersion {
        /// The process.
        pid: Pid,
        /// Its version.
        version: String,
        /// What helps.
        why: String,
    },
    /// The kernel refuses access.
    #[error("no permission to read the memory of pid {pid}: {why}")]
    Permission {
        /// The process.
        pid: Pid,
        /// The cause (user, ptrace_scope, capability, container) and the command that helps.
        why: String,
    },
    /// The process ended.
    #[error("pid {pid} ended{when}")]
    Gone {
        /// The process.
        pid: Pid,
        /// When, beginning with a space, or empty.
        when: String,
    },
    /// Implausible data in the target.
    #[error("failed to read the interpreter's data in pid {pid}: {what}")]
    Garbage {
        /// The process.
        pid: Pid,
        /// Which data.
        what: String,
    },
    /// A file that cannot be written.
    #[error("failed to write {path}: {source}", path = .path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that cannot be written, where its path is unknown.
    #[error("failed to write a file: {0}")]
    Write(std::io::Error),
    /// A timeline was requested of a window that was not recorded.
    #[error("cannot {what} from a report; record with `-o run.gilprof` first")]
    NotRecorded {
        /// The requested output, as the verb and object of a sentence.
        what: &'static str,
    },
    /// A file that is no recording, or one that this version cannot read.
    #[error("failed to read the recording {path}: {why}", path = .path.display())]
    Recording {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what helps.
        why: String,
    },
    /// A program that cannot be started.
    #[error("failed to start {command}: {source}")]
    Launch {
        /// The command.
        command: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Arguments on the command line that do not fit together.
    #[error("{0}")]
    Usage(String),
    /// A failed system call that has no kind of its own.
    #[error("failed to {what}: {source}")]
    System {
        /// The action that failed.
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A failed read without further information.
    #[error("failed to read the target's memory: {0}")]
    Read(#[from] ReadError),
}

/// A read that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The address is not mapped, or only part of the range is.
    #[error("{len} bytes at {at} are not readable")]
    Unmapped {
        /// The address.
        at: Addr,
        /// The number of bytes requested.
        len: usize,
    },
    /// The process is gone.
    #[error("the process is gone")]
    Gone,
    /// The kernel refuses the read for lack of permission.
    #[error("the kernel refuses to read the process's memory")]
    Refused,
}
