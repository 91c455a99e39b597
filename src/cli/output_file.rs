//! The files of `-o`: opened before measuring, so that a path that cannot be written is an error
//! before the window begins, and written at the end.

use crate::error::{Error, Result};
use crate::output::{format_for_path, FileFormat};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// One file to be written.
#[derive(Debug)]
pub struct OutputFile<F = FileFormat> {
    /// The format.
    pub format: F,
    path: PathBuf,
    file: File,
    placeholders: Placeholders,
}

/// Files that gilprof created to check that it can, and that are still empty. They are removed if
/// gilprof ends without writing them.
#[derive(Clone, Debug, Default)]
pub struct Placeholders(Arc<Mutex<Vec<PathBuf>>>);

impl Placeholders {
    /// Removes the files that are still empty.
    pub fn remove(&self) {
        for path in self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // An empty file that stays does no harm.
            let _ = std::fs::remove_file(path);
        }
    }

    fn add(&self, path: &Path) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(path.into());
    }

    fn keep(&self, path: &Path) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|placeholder| placeholder != path);
    }
}

/// Opens every path, or none.
pub fn open_all(paths: &[PathBuf]) -> Result<(Vec<OutputFile>, Placeholders)> {
    open_each(paths.iter().map(|path| Ok((path.clone(), format_for_path(path)?))).collect::<Result<Vec<_>>>()?)
}

/// Opens every path, or none, each with its format.
pub fn open_each<F>(paths: Vec<(PathBuf, F)>) -> Result<(Vec<OutputFile<F>>, Placeholders)> {
    let placeholders = Placeholders::default();
    let opened = paths.into_iter().map(|(path, format)| OutputFile::open(&path, format, &placeholders)).collect::<Result<Vec<_>>>();
    match opened {
        Ok(files) => Ok((files, placeholders)),
        Err(e) => {
            placeholders.remove();
            Err(e)
        }
    }
}

impl<F> OutputFile<F> {
    fn open(path: &Path, format: F, placeholders: &Placeholders) -> Result<OutputFile<F>> {
        let created = OpenOptions::new().read(true).write(true).create_new(true).open(path);
        if created.is_ok() {
            placeholders.add(path);
        }
        let opened = match created {
            // The contents stay until new ones replace them. If the path is a dangling symbolic
            // link, this creates the file that the link names.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => OpenOptions::new().write(true).create(true).truncate(false).open(path),
            other => other,
        };
        let file = opened.map_err(|source| failed(path, source))?;
        Ok(OutputFile { format, path: path.into(), file, placeholders: placeholders.clone() })
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file, for a recorder that writes it while the window runs.
    pub fn take_writer(&self) -> Result<File> {
        let file = self.file.try_clone().map_err(|source| failed(&self.path, source))?;
        self.placeholders.keep(&self.path);
        Ok(file)
    }

    /// Writes the contents, which `write` produces.
    pub fn write(&mut self, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        let refused = |source| failed(&self.path, source);
        // A pipe or a terminal has no old contents.
        if self.file.metadata().is_ok_and(|m| m.is_file()) {
            self.file.set_len(0).map_err(refused)?;
            self.file.rewind().map_err(refused)?;
        }
        let mut out = BufWriter::new(&self.file);
        match write(&mut out).and_then(|()| out.flush().map_err(Error::Write)) {
            Err(Error::Write(source)) => return Err(refused(source)),
            other => other?,
        }
        self.placeholders.keep(&self.path);
        Ok(())
    }
}

/// The error of a file that cannot be written.
pub fn failed(path: &Path, source: io::Error) -> Error {
    Error::Output { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_path_is_found_first_and_changes_no_file() {
        let dir = std::env::temp_dir().join(format!("gilprof-files-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (old, new) = (dir.join("old.json"), dir.join("new.svg"));
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        std::fs::write(&old, "before, and rather long").unwrap();
        assert!(matches!(open_all(&[new.clone(), dir.join("nowhere/x.svg")]), Err(Error::Output { .. })));
        assert!(!new.exists(), "created although another path is bad");
        assert!(matches!(open_all(&[dir.join("x.pdf")]), Err(Error::Usage(_))));
        let (_, placeholders) = open_all(&[old.clone(), new.clone()]).unwrap();
        assert_eq!((read(&old).as_str(), read(&new).as_str()), ("before, and rather long", ""));
        placeholders.remove();
        assert!(!new.exists() && old.exists());
        let (mut files, placeholders) = open_all(&[old.clone(), new.clone()]).unwrap();
        for file in &mut files {
            file.write(|out| out.write_all(b"after").map_err(Error::Write)).unwrap();
        }
        placeholders.remove();
        assert_eq!((read(&old), read(&new)), ("after".into(), "after".into()));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_dangling_link_creates_its_target() {
        let dir = std::env::temp_dir().join(format!("gilprof-links-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (link, target) = (dir.join("link.svg"), dir.join("target"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let (mut files, placeholders) = open_all(std::slice::from_ref(&link)).unwrap();
        files[0].write(|out| out.write_all(b"after").map_err(Error::Write)).unwrap();
        placeholders.remove();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "after");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
