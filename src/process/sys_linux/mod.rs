//! The few system calls that std does not offer: clocks, a sleep to an absolute time, this
//! process's own CPU time and limits. In its own file: ptrace.
//!
//! With its files, this is one of the three places that may be `unsafe`.

pub mod ptrace;
pub mod terminal;

use crate::units::Nanos;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The number of `futex(2)` on this machine, as `/proc/PID/task/TID/syscall` prints it.
pub const SYS_FUTEX: i64 = libc::SYS_futex;
/// The number that a system call with a timeout has after a stop interrupted it.
pub const SYS_RESTART_SYSCALL: i64 = libc::SYS_restart_syscall;

fn clock(id: libc::clockid_t) -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec; the clock ids used here exist on every Linux, so the call
    // cannot fail.
    unsafe { libc::clock_gettime(id, &mut time) };
    Nanos::from_nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// The monotonic clock.
pub fn monotonic() -> Nanos {
    clock(libc::CLOCK_MONOTONIC)
}

/// CPU time used by all threads of gilprof itself.
pub fn process_cpu_time() -> Nanos {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU time used by all threads of a process, those that have ended included; `None` if there is no
/// such process. Of a thread that is running, the kernel adds it at each timer tick only.
pub fn cpu_time_of(pid: crate::ids::Pid) -> Option<Nanos> {
    // CPUCLOCK_SCHED of a process, which clock_getcpuclockid(3) makes of its id.
    let id: libc::clockid_t = !pid.0 << 3 | 2;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec; the kernel refuses the id of a process that has ended.
    let result = unsafe { libc::clock_gettime(id, &mut time) };
    (pid.0 > 0 && result == 0).then(|| Nanos::from_nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64))
}

/// CPU time used by the calling thread.
pub fn thread_cpu_time() -> Nanos {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Sleeps until `deadline` on the monotonic clock, or until a signal arrives.
pub fn sleep_until(deadline: Nanos) {
    let n = deadline.as_nanos();
    let time = libc::timespec { tv_sec: (n / 1_000_000_000) as _, tv_nsec: (n % 1_000_000_000) as _ };
    // SAFETY: `time` is a live timespec; a sleep to an absolute time returns no remainder.
    unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &time, std::ptr::null_mut()) };
}

/// Requests precise timers for the calling thread: the default slack of 50 us is a twentieth of a 1
/// kHz period.
pub fn set_timer_slack() {
    // SAFETY: PR_SET_TIMERSLACK takes a plain number and concerns only the calling thread.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong, 0, 0, 0) };
}

/// `struct sched_attr` of sched_setattr(2), first version.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// The nice value that the calling thread requests where it may (root, CAP_SYS_NICE): samples that
/// come late on a crowded machine are missed samples.
const NICE: i32 = -15;

/// Asks the scheduler to run the calling thread soon after it wakes: requests the shortest time
/// slice (Linux 6.12+, EEVDF; needs no privilege) and the nice value -15 (needs root or
/// CAP_SYS_NICE). The thread runs for microseconds at a time and sleeps. A refusal is no error.
/// (Seen on 2 cores with a load of 8: 25 - 45 % of samples missed at 1 kHz without the nice value,
/// 4 - 7 % with it.)
pub fn request_short_timeslice() {
    // SAFETY: getpriority takes two plain numbers; 0 is the calling thread. sched_setattr would
    // otherwise reset the nice value.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    if !set_sched_attr(nice.min(NICE)) {
        set_sched_attr(nice);
    }
}

fn set_sched_attr(nice: i32) -> bool {
    let attr = SchedAttr {
        size: std::mem::size_of::<SchedAttr>() as u32,
        policy: libc::SCHED_OTHER as u32,
        flags: 0,
        nice,
        priority: 0,
        runtime: 100_000,
        deadline: 0,
        period: 0,
    };
    // SAFETY: `attr` is a live sched_attr of the size it names; thread 0 is the calling one.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attr as *const SchedAttr, 0) == 0 }
}

/// Raises the soft limit of open files to the hard limit: up to four files are kept open for every
/// thread of the target.
pub fn raise_nofile_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live rlimit; both calls concern only this process.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// The soft limit of open files; as good as none where it cannot be read.
pub fn nofile_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live rlimit; the call concerns only this process.
    let read = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 };
    if read {
        limit.rlim_cur
    } else {
        u64::MAX
    }
}

/// Reads entries of an open directory, `struct linux_dirent64` each: from the first entry if
/// `rewind`, otherwise from where the last call ended. Returns 0 at the end.
pub fn read_directory(directory: &File, rewind: bool, into: &mut [u8]) -> io::Result<usize> {
    let fd = directory.as_raw_fd();
    // SAFETY: both calls take a live descriptor, the second a live buffer with its length.
    let n = unsafe {
        if rewind && libc::lseek(fd, 0, libc::SEEK_SET) < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::syscall(libc::SYS_getdents64, fd, into.as_mut_ptr(), into.len())
    };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Words of the largest mask of CPUs that is read.
const AFFINITY_WORDS: usize = 128;

/// The mask of the CPUs that a thread may use; `None` if it has exited.
pub fn affinity(tid: crate::ids::Tid) -> Option<Vec<u64>> {
    // 0 would be the calling thread.
    if tid.0 <= 0 {
        return None;
    }
    let mut words = vec![0_u64; AFFINITY_WORDS];
    // SAFETY: the buffer is live and has the length that is passed. The kernel writes whole words
    // and returns how many bytes it wrote.
    let n = unsafe { libc::syscall(libc::SYS_sched_getaffinity, tid.0, AFFINITY_WORDS * 8, words.as_mut_ptr()) };
    words.truncate(usize::try_from(n).ok()? / 8);
    Some(words)
}

/// Sends a signal to a process.
pub fn kill(pid: crate::ids::Pid, signal: i32) -> io::Result<()> {
    // SAFETY: kill(2) takes two plain numbers.
    match unsafe { libc::kill(pid.0, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a process with this id exists (it may be a zombie).
pub fn exists(pid: crate::ids::Pid) -> bool {
    kill(pid, 0).map_or_else(|e| e.raw_os_error() == Some(libc::EPERM), |()| true)
}
