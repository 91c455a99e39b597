//! Opens the file behind a mapping of another process.
//!
//! The path in `/proc/PID/maps` is the target's: in another mount namespace, in a chroot or after
//! an upgrade it names another file or none. So the kernel's own links come first (`map_files`,
//! `exe`): they lead to the inode itself, deleted or not. A file found by a path is `same_inode`
//! only if the inode agrees; the caller compares the rest with the target's memory.

use super::maps::Mapping;
use super::procfs::live_task;
use crate::ids::Pid;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

/// The mapped file, or a candidate for it.
#[derive(Debug)]
pub struct MappedFile {
    /// Open for reading.
    pub file: File,
    /// Whether it is the mapped inode. Otherwise only the name agrees: on overlayfs, maps shows
    /// other inodes than `stat`.
    pub same_inode: bool,
}

/// The candidates for the file behind a mapping, best first; only one if it is certain. The error
/// is that of the last attempt.
pub fn open(pid: Pid, mapping: &Mapping) -> io::Result<Vec<MappedFile>> {
    let through = live_task(pid);
    let path = mapping.file().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let map_files = format!("/proc/{through}/map_files/{:x}-{:x}", mapping.start.0, mapping.end.0);
    if let Ok(file) = open_regular(&map_files) {
        return Ok(vec![MappedFile { file, same_inode: true }]);
    }
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    let mut found = Vec::new();
    if is_exe(pid, mapping) {
        match open_regular(&format!("/proc/{through}/exe")) {
            Ok(file) => return Ok(vec![MappedFile { file, same_inode: true }]),
            Err(error) => last = error,
        }
    }
    for path in [format!("/proc/{through}/root{path}"), path.to_owned()] {
        match open_regular(&path) {
            Ok(file) => {
                let same_inode = file.metadata().is_ok_and(|meta| meta.ino() == mapping.inode);
                if same_inode {
                    return Ok(vec![MappedFile { file, same_inode }]);
                }
                found.push(MappedFile { file, same_inode });
            }
            Err(error) => last = error,
        }
    }
    if found.is_empty() {
        return Err(last);
    }
    Ok(found)
}

/// Whether the mapping shows the process's executable: the inode agrees, or (overlayfs) the kernel
/// prints the same path for both.
pub fn is_exe(pid: Pid, mapping: &Mapping) -> bool {
    let link = format!("/proc/{}/exe", live_task(pid));
    let inode = std::fs::metadata(&link).is_ok_and(|meta| {
        let dev = meta.dev();
        meta.ino() == mapping.inode && (libc::major(dev), libc::minor(dev)) == (mapping.dev.major, mapping.dev.minor)
    });
    inode || std::fs::read_link(&link).is_ok_and(|target| printed_path(mapping).is_some_and(|path| target.as_os_str() == path.as_str()))
}

/// The path as the kernel prints it.
fn printed_path(mapping: &Mapping) -> Option<String> {
    let path = mapping.file()?;
    Some(if mapping.deleted { format!("{path} (deleted)") } else { path.to_owned() })
}

/// Opens a regular file. A device or a pipe in the file's place must neither block gilprof nor be
/// read.
fn open_regular(path: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::maps::Maps;

    #[test]
    fn own_executable_is_found() {
        let pid = Pid(std::process::id() as i32);
        let maps = Maps::from_pid(pid).unwrap();
        let mapping = maps.mappings.iter().find(|m| is_exe(pid, m)).unwrap();
        let found = open(pid, mapping).unwrap();
        assert!(found[0].same_inode);
        assert_eq!(found[0].file.metadata().unwrap().ino(), mapping.inode);
    }

    #[test]
    fn memory_without_a_file_is_not_found() {
        let pid = Pid(std::process::id() as i32);
        let maps = Maps::from_pid(pid).unwrap();
        let stack = maps.mappings.iter().find(|m| m.path.as_deref() == Some("[stack]")).unwrap();
        assert_eq!(open(pid, stack).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
