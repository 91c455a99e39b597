//! What can go wrong, by kind. Every message finishes the sentence "failed to …" or states a fact, then says what helps.

use crate::ids::{Addr, Pid};
use std::path::PathBuf;

/// Shorthand for results of the library.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can stop gilprof from measuring. Each kind has its own exit code in the command line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No process with this id.
    #[error("no process with pid {pid}{help}")]
    NoSuchProcess {
        /// The pid that was asked for.
        pid: Pid,
        /// Where to look, beginning with a line break, or empty.
        help: String,
    },
    /// The process exists but is not a Python program.
    #[error("pid {pid} ({what}) is not a Python process: {why}")]
    NotPython {
        /// The process.
        pid: Pid,
        /// Its command.
        what: String,
        /// What was looked for and not found, and what helps.
        why: String,
    },
    /// A Python that has not created its runtime yet, or is tearing it down.
    #[error("the Python in pid {pid} is not ready: {why}")]
    NotReady {
        /// The process.
        pid: Pid,
        /// Which of the two, and what helps.
        why: String,
    },
    /// A Python of a version that cannot be read.
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
        /// Which of user, ptrace_scope, capability, container it is, and the command that helps.
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
    /// Data in the target that cannot be what it should be.
    #[error("the interpreter's data in pid {pid} make no sense: {what}")]
    Garbage {
        /// The process.
        pid: Pid,
        /// Which datum.
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
    /// A file that cannot be written, from where its path is not known.
    #[error("failed to write a file: {0}")]
    Write(std::io::Error),
    /// An output that shows the window over time, of a window that was not recorded.
    #[error("cannot {what} from a report; record with `-o run.gilprof` first")]
    NotRecorded {
        /// What was to be done.
        what: &'static str,
    },
    /// A file that is no recording, or not one that can be read.
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
    /// Words on the command line that do not fit together.
    #[error("{0}")]
    Usage(String),
    /// A system call that failed for a reason of its own.
    #[error("failed to {what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A read that failed where no more is known.
    #[error("failed to read the target's memory: {0}")]
    Read(#[from] ReadError),
}

/// A read that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The address is not mapped, or only part of the range is.
    #[error("{len} bytes at {at} are not readable")]
    Unmapped {
        /// Where.
        at: Addr,
        /// How many bytes were asked for.
        len: usize,
    },
    /// The process is gone.
    #[error("the process is gone")]
    Gone,
    /// The kernel refuses: a matter of permission.
    #[error("the kernel refuses to read the process's memory")]
    Refused,
}
