//! Reads where a thread is in the kernel.

use crate::ids::Addr;
use crate::process::threads::{SyscallState, TaskFiles};
use crate::python::gil_waits::FutexOwner;
use crate::sample::TaskState;
use std::io;

/// How often the thread's file is read while its futex is on no list of waiters.
const MAX_READS: usize = 4;

/// Reads the task state; `owner` says what a futex belongs to. A futex on no list of waiters
/// belongs to something else only if the thread still sleeps on it afterwards, twice: a waiter is
/// taken off the list before it is woken, and leaves it for a moment after each timeout.
pub fn read(files: &TaskFiles, mut owner: impl FnMut(Addr) -> FutexOwner) -> io::Result<TaskState> {
    let mut unlisted = None;
    for _ in 0..MAX_READS {
        let futex = match files.syscall_state()? {
            SyscallState::Runnable => return Ok(TaskState::Runnable),
            SyscallState::Syscall(_) => return Ok(TaskState::Syscall),
            SyscallState::OutsideSyscall => return Ok(TaskState::OutsideSyscall),
            SyscallState::Futex(at) => at,
        };
        match owner(futex) {
            FutexOwner::Gil(_) => return Ok(TaskState::GilFutex),
            FutexOwner::Other => return Ok(TaskState::OtherFutex),
            FutexOwner::Unknown => return Ok(TaskState::Unread),
            FutexOwner::Unlisted if unlisted == Some(futex) => return Ok(TaskState::OtherFutex),
            FutexOwner::Unlisted => unlisted = Some(futex),
        }
    }
    Ok(TaskState::Unread)
}

/// Whether the letter of a state is that of a stop by a signal or by a tracer.
pub fn is_stop(letter: char) -> bool {
    matches!(letter, 'T' | 't')
}

/// `state`, unless the thread is stopped. A thread that is stopped where it computes is outside any
/// system call, and seldom is another. A tracer stops threads in system calls too.
pub fn stopped_or(files: &TaskFiles, state: TaskState, traced: bool) -> TaskState {
    if state != TaskState::OutsideSyscall && !(traced && state != TaskState::Runnable) {
        return state;
    }
    match files.state_letter() {
        Some(letter) if is_stop(letter) => TaskState::Stopped,
        // The stop, or the page fault, ended between the two reads.
        Some('R') => TaskState::Runnable,
        _ => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::sys_linux::SYS_FUTEX;
    use crate::process::threads::{TaskFile, TaskFilesBackend};
    use std::cell::Cell;

    /// A thread that is seen at each of these places in turn; 0 stands for a CPU.
    #[derive(Debug)]
    struct Moving(Vec<u64>, Cell<usize>);

    impl TaskFilesBackend for Moving {
        fn read(&self, _: TaskFile, into: &mut [u8]) -> io::Result<usize> {
            let n = self.1.replace(self.1.get() + 1);
            let text = match self.0[n.min(self.0.len() - 1)] {
                0 => "running\n".to_owned(),
                at => format!("{SYS_FUTEX} {at:#x} 0x80 0x2 0x0 0x0 0x0 0x7ffd 0x7f00\n"),
            };
            into[..text.len()].copy_from_slice(text.as_bytes());
            Ok(text.len())
        }
    }

    #[test]
    fn an_unlisted_futex_counts_only_while_its_thread_sleeps_on_it() {
        let state = |places: &[u64], listed: &[u64]| {
            let files = TaskFiles::from_backend(Moving(places.to_vec(), Cell::new(0)));
            let owner = |at: Addr| if listed.contains(&at.0) { FutexOwner::Gil(Addr(1)) } else { FutexOwner::Unlisted };
            read(&files, owner).unwrap()
        };
        assert_eq!(state(&[8], &[8]), TaskState::GilFutex);
        assert_eq!(state(&[8], &[]), TaskState::OtherFutex);
        assert_eq!(state(&[8, 0], &[]), TaskState::Runnable, "taken off the list and woken");
        assert_eq!(state(&[8, 16], &[16]), TaskState::GilFutex);
        assert_eq!(state(&[8, 16], &[]), TaskState::OtherFutex);
        assert_eq!(state(&[8, 16, 24, 32], &[]), TaskState::Unread, "at another place each time");
    }

    #[test]
    fn a_waiter_that_was_off_its_list_for_a_moment_is_found() {
        let (files, asked) = (TaskFiles::from_backend(Moving(vec![8], Cell::new(0))), Cell::new(0));
        let owner = |_| if asked.replace(asked.get() + 1) == 0 { FutexOwner::Unlisted } else { FutexOwner::Gil(Addr(1)) };
        assert_eq!(read(&files, owner).unwrap(), TaskState::GilFutex);
        assert_eq!(read(&files, |_| FutexOwner::Unknown).unwrap(), TaskState::Unread);
        assert_eq!((read(&files, |_| FutexOwner::Other).unwrap(), asked.get()), (TaskState::OtherFutex, 2));
    }
}
