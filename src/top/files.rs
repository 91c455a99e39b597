//! The files that keys write: new ones in the current directory, never over an old one.

use crate::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::PathBuf;

/// Numbers that are tried for a name.
const MAX_NUMBER: u32 = 10_000;

/// Creates `gilprof-PID-N.ENDING`, with the first free number.
pub fn create(pid: i32, ending: &str) -> Result<(PathBuf, File)> {
    let folder = std::env::current_dir().unwrap_or_default();
    let mut failed = (folder.clone(), io::Error::from(ErrorKind::AlreadyExists));
    for number in 1..=MAX_NUMBER {
        let path = folder.join(format!("gilprof-{pid}-{number}.{ending}"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(source) if source.kind() == ErrorKind::AlreadyExists => failed = (path, source),
            Err(source) => return Err(Error::Output { path, source }),
        }
    }
    Err(Error::Output { path: failed.0, source: failed.1 })
}

/// A file without a name, which disappears when it is closed.
pub fn unnamed() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!(".gilprof-top-{}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
