//! One OS thread, as `/proc/PID/task/TID` shows it: whether and where it sleeps, how much CPU time
//! it had, its name.
//!
//! Files are opened once per thread and read again with `pread`: the descriptor stays with that
//! thread even if its id is reused. A process may have more threads than gilprof may have
//! descriptors. Some are left for everything else; the threads beyond are unknown.

use crate::ids::{Addr, Pid, Tid};
use crate::process::kernel_stack;
use crate::process::procfs::{parse_state_letter, read_text, STAT_START};
use crate::process::runnable::SwitchCounts;
use crate::process::sys_linux::{nofile_limit, SYS_FUTEX, SYS_RESTART_SYSCALL};
use crate::sample::{RunnableState, SchedStat};
use crate::units::Nanos;
use std::cell::OnceCell;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// Longer than any text of `/proc/PID/task/TID/syscall`, which has nine numbers at most.
const SYSCALL_TEXT: usize = 256;
/// Longer than `status` is, but for a process with hundreds of groups.
const STATUS_TEXT: usize = 8192;

/// The system call state of a thread, according to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyscallState {
    /// On a CPU, or runnable: the kernel's file does not distinguish them.
    Runnable,
    /// Asleep in `futex(2)` on this address.
    Futex(Addr),
    /// Asleep in another system call.
    Syscall(i64),
    /// Asleep outside a system call (a page fault, stopped by a signal or a tracer).
    OutsideSyscall,
}

/// A file of a thread that samples read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskFile {
    /// `syscall`: where the thread sleeps.
    Syscall,
    /// `schedstat`: its CPU time.
    SchedStat,
    /// `stack`: its kernel stack.
    Stack,
    /// `stat`: the letter of its state.
    Stat,
    /// `status`: how often it was switched out.
    Status,
}

/// The source of the texts of one thread's files.
pub trait TaskFilesBackend: fmt::Debug {
    /// Reads as much of the text as fits. `Unsupported` if the file does not exist or may not be
    /// read; other errors mean that the thread has exited.
    fn read(&self, file: TaskFile, into: &mut [u8]) -> io::Result<usize>;

    /// Whether it is already proven that `stack` is current.
    fn is_proven(&self) -> bool {
        false
    }
}

/// The files of a live thread.
#[derive(Debug)]
struct LiveTaskFiles {
    syscall: File,
    schedstat: Option<File>,
    ids: (Pid, Tid),
    /// Opened on first use.
    stack: OnceCell<File>,
    /// Opened on first use: only threads that can be stopped need it.
    stat: OnceCell<File>,
    /// Opened on first use: not needed where kernel stacks may be read.
    status: OnceCell<File>,
}

impl LiveTaskFiles {
    /// The file `name`, opened on first use. A failure is not kept: there may be a descriptor next
    /// time.
    fn open_once<'a>(&self, cell: &'a OnceCell<File>, name: &str) -> Option<&'a File> {
        if cell.get().is_none() {
            let (pid, tid) = self.ids;
            let _ = cell.set(open_sparingly(&format!("/proc/{pid}/task/{tid}/{name}")).ok()?);
        }
        cell.get()
    }
}

/// Descriptors that the files of threads leave free.
const SPARE_DESCRIPTORS: u64 = 64;

/// Opens a thread's file, unless too few descriptors would be left. The kernel gives the lowest
/// free number, so the number tells how many are in use.
fn open_sparingly(path: &str) -> io::Result<File> {
    let file = File::open(path)?;
    if leaves_spare(file.as_raw_fd(), nofile_limit()) {
        Ok(file)
    } else {
        Err(io::Error::from_raw_os_error(libc::EMFILE))
    }
}

/// Whether enough descriptors are left below the limit after this one.
fn leaves_spare(descriptor: i32, limit: u64) -> bool {
    descriptor as u64 + SPARE_DESCRIPTORS < limit
}

impl TaskFilesBackend for LiveTaskFiles {
    fn read(&self, file: TaskFile, into: &mut [u8]) -> io::Result<usize> {
        let file = match file {
            TaskFile::Syscall => Some(&self.syscall),
            TaskFile::SchedStat => self.schedstat.as_ref(),
            TaskFile::Stack if kernel_stack::readable() => self.open_once(&self.stack, "stack"),
            TaskFile::Stack => None,
            TaskFile::Stat => self.open_once(&self.stat, "stat"),
            TaskFile::Status => self.open_once(&self.status, "status"),
        };
        file.ok_or(io::ErrorKind::Unsupported)?.read_at(into, 0)
    }
}

/// The texts of a thread's files at one point in time, for a memory dump.
#[derive(Clone, Debug, Default)]
pub struct TaskFileContents {
    /// `syscall`.
    pub syscall: Vec<u8>,
    /// `schedstat`, if the kernel has it.
    pub schedstat: Option<Vec<u8>>,
    /// `stack`, if it may be read.
    pub stack: Option<Vec<u8>>,
}

impl TaskFilesBackend for TaskFileContents {
    fn read(&self, file: TaskFile, into: &mut [u8]) -> io::Result<usize> {
        let text = match file {
            TaskFile::Syscall => Some(&self.syscall),
            TaskFile::SchedStat => self.schedstat.as_ref(),
            TaskFile::Stack => self.stack.as_ref(),
            TaskFile::Stat | TaskFile::Status => None,
        };
        let text = text.ok_or(io::ErrorKind::Unsupported)?;
        let n = text.len().min(into.len());
        into[..n].copy_from_slice(&text[..n]);
        Ok(n)
    }

    /// It was proven when the dump was recorded.
    fn is_proven(&self) -> bool {
        true
    }
}

/// The files of one thread.
#[derive(Debug)]
pub struct TaskFiles {
    backend: Box<dyn TaskFilesBackend>,
}

impl TaskFiles {
    /// Opens the files and keeps them open. `NotFound` if the thread has exited. A kernel without
    /// per-task schedstat is no error: [`TaskFiles::schedstat`] then returns `None`.
    pub fn open(pid: Pid, tid: Tid) -> io::Result<TaskFiles> {
        let syscall = open_sparingly(&format!("/proc/{pid}/task/{tid}/syscall"))?;
        let schedstat = match open_sparingly(&format!("/proc/{pid}/task/{tid}/schedstat")) {
            Ok(file) => Some(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        Ok(TaskFiles::from_backend(LiveTaskFiles {
            schedstat,
            syscall,
            ids: (pid, tid),
            stack: OnceCell::new(),
            stat: OnceCell::new(),
            status: OnceCell::new(),
        }))
    }

    /// Files with their texts from `backend`.
    pub fn from_backend(backend: impl TaskFilesBackend + 'static) -> TaskFiles {
        TaskFiles { backend: Box::new(backend) }
    }

    /// Like [`TaskFilesBackend::read`].
    pub fn read(&self, file: TaskFile, into: &mut [u8]) -> io::Result<usize> {
        self.backend.read(file, into)
    }

    /// The present texts of the files.
    pub fn contents(&self) -> io::Result<TaskFileContents> {
        let text = |file| -> io::Result<Vec<u8>> {
            let mut buffer = [0; kernel_stack::TEXT_LEN];
            let n = self.read(file, &mut buffer)?;
            Ok(buffer[..n].to_vec())
        };
        let schedstat = if_supported(text(TaskFile::SchedStat))?;
        let stack = if kernel_stack::proven() { text(TaskFile::Stack).ok() } else { None };
        Ok(TaskFileContents { syscall: text(TaskFile::Syscall)?, schedstat, stack })
    }

    /// Where a thread is that is [`SyscallState::Runnable`]; `None` if that is unknown.
    pub fn kernel_stack_state(&self) -> Option<RunnableState> {
        let mut buffer = [0; kernel_stack::TEXT_LEN];
        let n = self.read(TaskFile::Stack, &mut buffer).ok()?;
        let state = kernel_stack::parse(&buffer[..n])?;
        if self.backend.is_proven() {
            return Some(state);
        }
        kernel_stack::once_proven(state)
    }

    /// How often the thread was switched out; `None` if that is unknown.
    pub fn switch_counts(&self) -> Option<SwitchCounts> {
        let mut buffer = [0; STATUS_TEXT];
        let n = self.read(TaskFile::Status, &mut buffer).ok()?;
        SwitchCounts::parse(&buffer[..n])
    }

    /// The letter of the thread's state: `T` for stopped by a signal, `t` for stopped by a tracer.
    /// `None` if that is unknown.
    pub fn state_letter(&self) -> Option<char> {
        let mut buffer = [0; STAT_START];
        let n = self.read(TaskFile::Stat, &mut buffer).ok()?;
        parse_state_letter(&buffer[..n])
    }

    /// CPU time, run-queue time, number of runs; `None` if the kernel lacks them. An error if the
    /// thread has exited.
    pub fn schedstat(&self) -> io::Result<Option<SchedStat>> {
        let mut buffer = [0; 96];
        let n = if_supported(self.read(TaskFile::SchedStat, &mut buffer))?;
        Ok(n.and_then(|n| parse_schedstat(&buffer[..n])))
    }

    /// Where the thread is. An error if the thread has exited or the kernel refuses.
    pub fn syscall_state(&self) -> io::Result<SyscallState> {
        let mut buffer = [0; SYSCALL_TEXT];
        let n = self.read(TaskFile::Syscall, &mut buffer)?;
        parse_syscall(&buffer[..n]).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

/// Whether this kernel's counts are as `runnable` describes them, by those of the calling thread,
/// which is on a CPU.
pub fn switch_counts_are_usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| {
        let runs = || Some(parse_schedstat(read_text("/proc/thread-self/schedstat").ok()?.as_bytes())?.runs);
        let read = || {
            let before = runs()?;
            let counts = SwitchCounts::parse(read_text("/proc/thread-self/status").ok()?.as_bytes())?;
            Some((before, counts.sum(), runs()?))
        };
        // A thread that is switched out between the reads tries again.
        let settled = (0..8).filter_map(|_| read()).find(|(before, _, after)| before == after);
        settled.is_some_and(|(runs, switches, _)| runs == switches.wrapping_add(1))
    })
}

/// `None` if the file does not exist.
fn if_supported<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(None),
        read => read.map(Some),
    }
}

/// Parses `cpu run_queue runs`, three decimal numbers.
pub fn parse_schedstat(text: &[u8]) -> Option<SchedStat> {
    let mut numbers = std::str::from_utf8(text).ok()?.split_ascii_whitespace().map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    Some(SchedStat { cpu: Nanos::from_nanos(next()?), run_queue: Nanos::from_nanos(next()?), runs: next()? })
}

/// Parses `running`, `-1 SP PC` or `NR ARG0 … SP PC`. `None` for an empty file, and for a thread
/// that has exited.
pub fn parse_syscall(text: &[u8]) -> Option<SyscallState> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = text.split_ascii_whitespace();
    let first = words.next()?;
    if first == "running" {
        return Some(SyscallState::Runnable);
    }
    match first.parse::<i64>().ok()? {
        // The kernel prints zeros for a thread that no longer has a stack.
        -1 if words.next() == Some("0x0") && words.next() == Some("0x0") => None,
        -1 => Some(SyscallState::OutsideSyscall),
        number => {
            let mut argument = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
            match number {
                SYS_FUTEX => Some(SyscallState::Futex(Addr(argument()?))),
                SYS_RESTART_SYSCALL => {
                    let (address, operation) = (argument()?, argument()?);
                    let state = if is_private_wait(operation) { SyscallState::Futex(Addr(address)) } else { SyscallState::Syscall(number) };
                    Some(state)
                }
                number => Some(SyscallState::Syscall(number)),
            }
        }
    }
}

/// Whether the second argument of a system call that was restarted after a stop is that of a
/// `futex(2)` that waits with a timeout, as for the GIL. The kernel keeps the arguments, but not
/// the number of the call. (Others that are restarted pass a pointer or a count there.)
fn is_private_wait(operation: u64) -> bool {
    const CLOCK_REALTIME: u64 = libc::FUTEX_CLOCK_REALTIME as u64;
    const WAITS: [u64; 2] = [libc::FUTEX_WAIT as u64, libc::FUTEX_WAIT_BITSET as u64];
    operation & libc::FUTEX_PRIVATE_FLAG as u64 != 0 && WAITS.contains(&(operation & !(libc::FUTEX_PRIVATE_FLAG as u64 | CLOCK_REALTIME)))
}

/// The kernel's name of a thread.
pub fn comm(pid: Pid, tid: Tid) -> Option<String> {
    let text = read_text(&format!("/proc/{pid}/task/{tid}/comm")).ok()?;
    Some(text.trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_forms_of_the_syscall_file() {
        assert_eq!(parse_syscall(b"running\n"), Some(SyscallState::Runnable));
        assert_eq!(parse_syscall(b"-1 0x7ffc 0x7f00\n"), Some(SyscallState::OutsideSyscall));
        let futex = format!("{SYS_FUTEX} 0x7f13a0 0x89 0x0 0x7ffd 0x0 0xffffffff 0x7ffd 0x7f0a\n");
        assert_eq!(parse_syscall(futex.as_bytes()), Some(SyscallState::Futex(Addr(0x7f13a0))));
        assert_eq!(parse_syscall(b"7 0x1 0x2 0x3 0x0 0x0 0x0 0x7ffd 0x7f0a\n"), Some(SyscallState::Syscall(7)));
        let restarted =
            |arguments: &str| parse_syscall(format!("{SYS_RESTART_SYSCALL} {arguments} 0x0 0x7ffd 0x0 0xffffffff 0x1 0x2\n").as_bytes());
        for operation in ["0x80", "0x89", "0x189"] {
            assert_eq!(restarted(&format!("0x7f13a0 {operation}")), Some(SyscallState::Futex(Addr(0x7f13a0))));
        }
        for other in ["0x7f13a0 0x1", "0x7f13a0 0x81", "0x1 0x0", "0x7f13a0 0x7f13b0"] {
            assert_eq!(restarted(other), Some(SyscallState::Syscall(SYS_RESTART_SYSCALL)), "{other}");
        }
        assert_eq!(parse_syscall(b""), None);
        assert_eq!(parse_syscall(b"-1 0x0 0x0\n"), None);
    }

    #[test]
    fn the_form_of_schedstat() {
        let stat = parse_schedstat(b"1500 20 3\n").unwrap();
        assert_eq!((stat.cpu.as_nanos(), stat.run_queue.as_nanos(), stat.runs), (1500, 20, 3));
        assert_eq!(parse_schedstat(b"1500 20\n"), None);
    }

    #[test]
    fn the_last_descriptors_are_left_for_others() {
        assert!(leaves_spare(3, 1024) && leaves_spare(959, 1024) && leaves_spare(i32::MAX, u64::MAX));
        assert!(!leaves_spare(960, 1024) && !leaves_spare(1023, 1024) && !leaves_spare(3, 64));
    }

    #[test]
    fn own_files_are_read() {
        let pid = Pid(std::process::id() as i32);
        let files = TaskFiles::open(pid, Tid(pid.0)).unwrap();
        files.syscall_state().unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (parse_syscall(&bytes), parse_schedstat(&bytes));
        }
    }
}
