//! One exit code for each kind of error, so that scripts can tell them apart. The table stands in the README.

use crate::error::Error;

/// Wrong words; clap's own code for it.
pub const USAGE: u8 = 2;
/// A second Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// The exit code of an error.
pub fn code(error: &Error) -> u8 {
    match error {
        Error::Usage(_) => USAGE,
        Error::NoSuchProcess { .. } => 3,
        Error::NotPython { .. } => 4,
        Error::NotReady { .. } => 5,
        Error::UnsupportedVersion { .. } => 6,
        Error::Permission { .. } => 7,
        Error::Gone { .. } => 8,
        Error::Garbage { .. } => 9,
        Error::Output { .. } => 10,
        Error::System { .. } | Error::Read(_) => 11,
        // The shell's codes for a command that cannot be run, and one that is not there.
        Error::Launch { source, .. } if source.kind() == std::io::ErrorKind::NotFound => 127,
        Error::Launch { .. } => 126,
    }
}
