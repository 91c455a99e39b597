//! The files of `-o`: opened before measuring, so that a path that cannot be written is found out first; written at the end.

use crate::error::{Error, Result};
use crate::output::{format_for_path, FileFormat};
use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

/// One file to be written.
#[derive(Debug)]
pub struct Sheet {
    /// What it is written as.
    pub format: FileFormat,
    path: PathBuf,
    file: File,
    /// It was not there before.
    fresh: bool,
    written: bool,
}

/// Opens every path, or none.
pub fn open_all(paths: &[PathBuf]) -> Result<Vec<Sheet>> {
    let formats = paths.iter().map(|p| format_for_path(p)).collect::<Result<Vec<_>>>()?;
    paths.iter().zip(formats).map(|(path, format)| Sheet::open(path, format)).collect()
}

impl Sheet {
    fn open(path: &Path, format: FileFormat) -> Result<Sheet> {
        let fresh = !path.exists();
        // What is there stays until there is something to put in its place.
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let file = opened.map_err(|source| Error::Output { path: path.into(), source })?;
        Ok(Sheet { format, path: path.into(), file, fresh, written: false })
    }

    /// Writes the contents. Says where they are.
    pub fn write(&mut self, contents: &str) -> Result<&Path> {
        let regular = self.file.metadata().is_ok_and(|m| m.is_file());
        let mut write = || {
            if regular {
                self.file.set_len(0)?;
                self.file.rewind()?;
            }
            self.file.write_all(contents.as_bytes())?;
            self.file.flush()
        };
        write().map_err(|source| Error::Output { path: self.path.clone(), source })?;
        self.written = true;
        Ok(&self.path)
    }
}

impl Drop for Sheet {
    /// A file that was made only to see whether it can be, and then not needed, goes again.
    fn drop(&mut self) {
        if self.fresh && !self.written {
            // Nothing is lost if it stays: it is empty.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_out_before_and_left_as_it_was() {
        let dir = std::env::temp_dir().join(format!("gilprof-files-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (old, new) = (dir.join("old.json"), dir.join("new.svg"));
        std::fs::write(&old, "before, and rather long").unwrap();
        assert!(matches!(open_all(&[new.clone(), dir.join("nowhere/x.svg")]), Err(Error::Output { .. })));
        assert!(!new.exists(), "made for nothing");
        assert!(matches!(open_all(&[dir.join("x.pdf")]), Err(Error::Usage(_))));
        drop(open_all(&[old.clone(), new.clone()]).unwrap());
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "before, and rather long");
        assert!(!new.exists());
        let mut sheets = open_all(&[old.clone(), new.clone()]).unwrap();
        for sheet in &mut sheets {
            sheet.write("after").unwrap();
        }
        drop(sheets);
        assert_eq!((std::fs::read_to_string(&old).unwrap(), std::fs::read_to_string(&new).unwrap()), ("after".into(), "after".into()));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
