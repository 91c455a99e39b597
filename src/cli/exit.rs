//! The exit codes: one for each kind of error, so that scripts can distinguish them. docs/cli.md
//! has [`TABLE`].
//!
//! `run` and `record` end with the program's own code if the program fails, or with 128 plus the
//! signal's number if a signal ended the program, as a shell does. gilprof's own codes appear only
//! if the program was not started, or if it ended with 0 and could not be measured, or a file could
//! not be written.
//!
//! A window that Ctrl-C, SIGTERM or the target's end cuts short is a success: the report covers the
//! samples until then.

use crate::error::{Error, ReadError};

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The code.
    pub code: u8,
    /// The case in which gilprof ends with it.
    pub when: &'static str,
}

const fn exit(code: u8, when: &'static str) -> Exit {
    Exit { code, when }
}

const DONE: Exit = exit(0, "measured, also if Ctrl-C, SIGTERM or the program's end cut the window short");
const USAGE: Exit = exit(2, "invalid arguments: a rate, a duration, a file's ending");
const NO_SUCH_PROCESS: Exit = exit(3, "no process with this pid");
const NOT_PYTHON: Exit = exit(4, "the process is not a Python program; the message names its Python child, if it has one");
const NOT_READY: Exit = exit(5, "the process has no interpreter: not created yet, or already finalized");
const UNSUPPORTED: Exit = exit(6, "a Python that gilprof cannot read, such as a pre-release");
const PERMISSION: Exit = exit(7, "no permission; the message names the cause and the command that helps");
const GONE: Exit = exit(8, "the process ended before anything could be measured");
const GARBAGE: Exit = exit(9, "the interpreter's data are inconsistent");
const OUTPUT: Exit = exit(10, "a file of -o, or standard output, cannot be written");
const SYSTEM: Exit = exit(11, "a system call failed");
const RECORDING: Exit = exit(12, "a file is not a recording of gilprof, or a newer version wrote it");
const NOT_EXECUTABLE: Exit = exit(126, "run: the command cannot be executed");
const NOT_FOUND: Exit = exit(127, "run: the command was not found");
const WITHOUT_REPORT: Exit = exit(INTERRUPTED, "interrupted by Ctrl-C or SIGTERM before the first sample, or twice; there is no report");

/// The code after a signal that leaves no report.
pub const INTERRUPTED: u8 = 130;

/// Every code of gilprof's own, ascending.
pub const TABLE: [Exit; 15] = [
    DONE,
    USAGE,
    NO_SUCH_PROCESS,
    NOT_PYTHON,
    NOT_READY,
    UNSUPPORTED,
    PERMISSION,
    GONE,
    GARBAGE,
    OUTPUT,
    SYSTEM,
    RECORDING,
    NOT_EXECUTABLE,
    NOT_FOUND,
    WITHOUT_REPORT,
];

/// The exit code of an error.
pub fn code(error: &Error) -> u8 {
    let exit = match error {
        Error::Usage(_) => USAGE,
        Error::NoSuchProcess { .. } => NO_SUCH_PROCESS,
        Error::NotPython { .. } => NOT_PYTHON,
        Error::NotReady { .. } => NOT_READY,
        Error::UnsupportedVersion { .. } => UNSUPPORTED,
        Error::Permission { .. } => PERMISSION,
        Error::Gone { .. } => GONE,
        Error::Garbage { .. } => GARBAGE,
        Error::Output { .. } | Error::Write(_) | Error::NotRecorded { .. } => OUTPUT,
        Error::Recording { .. } => RECORDING,
        Error::Read(ReadError::Gone) => GONE,
        Error::Read(ReadError::Refused) => PERMISSION,
        Error::System { .. } | Error::Read(ReadError::Unmapped { .. }) => SYSTEM,
        Error::Launch { source, .. } if source.kind() == std::io::ErrorKind::NotFound => NOT_FOUND,
        Error::Launch { .. } => NOT_EXECUTABLE,
    };
    exit.code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Pid;
    use std::io;

    #[test]
    fn codes_ascend_and_differ() {
        assert!(TABLE.windows(2).all(|pair| pair[0].code < pair[1].code));
    }

    #[test]
    fn each_kind_of_error_has_a_code_of_its_own_in_the_table() {
        let (pid, text) = (Pid(7), String::new);
        let launch = |kind: io::ErrorKind| Error::Launch { command: text(), source: kind.into() };
        let all = [
            Error::Usage(text()),
            Error::NoSuchProcess { pid, help: text() },
            Error::NotPython { pid, what: text(), why: text() },
            Error::NotReady { pid, why: text() },
            Error::UnsupportedVersion { pid, version: text(), why: text() },
            Error::Permission { pid, why: text() },
            Error::Gone { pid, when: text() },
            Error::Garbage { pid, what: text() },
            Error::Output { path: "x".into(), source: io::ErrorKind::Other.into() },
            Error::Recording { path: "x".into(), why: text() },
            Error::System { what: text(), source: io::ErrorKind::Other.into() },
            launch(io::ErrorKind::PermissionDenied),
            launch(io::ErrorKind::NotFound),
        ];
        let mut codes: Vec<u8> = all.iter().map(code).collect();
        assert!(codes.iter().all(|code| TABLE.iter().any(|exit| exit.code == *code)), "{codes:?}");
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), all.len());
        assert_eq!(code(&Error::Read(ReadError::Gone)), GONE.code);
        let unwritten = [Error::Write(io::ErrorKind::Other.into()), Error::NotRecorded { what: "write a timeline" }];
        assert_eq!(unwritten.each_ref().map(code), [OUTPUT.code; 2]);
    }
}
