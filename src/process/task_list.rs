//! The threads of a process: `/proc/PID/task`, kept open. The list takes two system calls, the
//! number of threads takes one.

use super::procfs::is_dead;
use super::sys_linux::read_directory;
use crate::ids::{Pid, Tid};
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

/// Most threads that are tracked; the kernel's own default limit is lower on most machines.
pub const MAX_THREADS: usize = 32_768;
/// Room for a few hundred entries at a time.
const BUFFER_LEN: usize = 16 << 10;

/// The list of one process's threads.
#[derive(Debug)]
pub struct TaskList {
    pid: Pid,
    directory: io::Result<File>,
    buffer: RefCell<Vec<u8>>,
}

impl TaskList {
    /// The list of this process. [`TaskList::read`] reports a process that does not exist.
    pub fn new(pid: Pid) -> TaskList {
        TaskList { pid, directory: File::open(format!("/proc/{pid}/task")), buffer: RefCell::new(vec![0; BUFFER_LEN]) }
    }

    /// The number of threads, including exited ones that have not been reaped; `None` if unknown.
    pub fn count(&self) -> Option<u64> {
        // The kernel shows each thread as a directory with a link to its parent
        // (proc_task_getattr).
        self.directory.as_ref().ok()?.metadata().ok()?.nlink().checked_sub(2)
    }

    /// Lists the ids of all live threads, at most [`MAX_THREADS`], the main thread's first and the
    /// others in the order of their creation. Ids start again from the bottom after
    /// `kernel.pid_max`, so a later id need not be larger. A main thread that exited before the
    /// others stays in the kernel's list; `check_leader` checks for that. An error if the process
    /// is gone.
    pub fn read(&self, into: &mut Vec<Tid>, check_leader: bool) -> io::Result<()> {
        into.clear();
        let directory = self.directory.as_ref().map_err(|e| io::Error::from(e.kind()))?;
        let mut buffer = self.buffer.borrow_mut();
        let mut first = true;
        while into.len() < MAX_THREADS {
            let n = read_directory(directory, first, &mut buffer)?;
            if n == 0 {
                break;
            }
            entry_names(&buffer[..n], |name| into.extend(name.parse().ok().map(Tid)));
            first = false;
        }
        into.truncate(MAX_THREADS);
        if check_leader && is_dead(self.pid, self.pid) {
            into.retain(|tid| tid.0 != self.pid.0);
        }
        Ok(())
    }
}

/// Parses the names in the output of getdents64(2): `struct linux_dirent64`, each with its length
/// at byte 16 and its name from byte 19 to a zero.
#[doc(hidden)]
pub fn entry_names(mut entries: &[u8], mut each: impl FnMut(&str)) {
    // A length that cuts off its own header, or reaches beyond the end, ends the list.
    while let Some(length) = entries.get(16..18).map(|b| usize::from(u16::from_ne_bytes([b[0], b[1]]))) {
        let Some(entry) = entries.get(19..length) else { break };
        let name = entry.split(|&byte| byte == 0).next().unwrap_or_default();
        if let Ok(name) = std::str::from_utf8(name) {
            each(name);
        }
        entries = &entries[length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Barrier;

    #[test]
    fn own_threads_are_listed_and_counted() {
        let pid = Pid(std::process::id() as i32);
        let list = TaskList::new(pid);
        let (go, end) = (Barrier::new(9), Barrier::new(9));
        let mut tids = Vec::new();
        let (count, read) = std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (go.wait(), end.wait()));
            }
            go.wait();
            let found = (list.count(), list.read(&mut tids, true));
            end.wait();
            found
        });
        read.unwrap();
        // Other tests have threads of their own.
        assert!(count.unwrap() > 8, "{count:?}");
        assert!(tids.len() > 8 && tids.contains(&Tid(pid.0)), "{tids:?}");
    }

    #[test]
    fn hundreds_of_threads_are_all_listed() {
        let list = TaskList::new(Pid(std::process::id() as i32));
        let end = Barrier::new(701);
        let mut tids = Vec::new();
        let read = std::thread::scope(|scope| {
            for _ in 0..700 {
                scope.spawn(|| end.wait());
            }
            let read = list.read(&mut tids, false);
            end.wait();
            read
        });
        read.unwrap();
        assert!(tids.len() > 700, "{}", tids.len());
    }

    #[test]
    fn a_missing_process_has_no_threads() {
        let list = TaskList::new(Pid(-1));
        assert_eq!(list.count(), None);
        assert_eq!(list.read(&mut Vec::new(), true).map_err(|e| e.kind()), Err(io::ErrorKind::NotFound));
    }

    proptest! {
        #[test]
        fn any_bytes_give_names_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut count = 0;
            entry_names(&bytes, |_| count += 1);
            prop_assert!(count <= bytes.len() / 19 + 1);
        }
    }
}
