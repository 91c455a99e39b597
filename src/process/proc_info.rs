//! The kernel's data of a process as a whole: its command, its parents and children, the CPUs it
//! may use, its namespaces.
//!
//! All of it is text of procfs and cgroupfs, read seldom: none of it in every sample. Unreadable
//! data are `None` or empty, never a guess.

use super::procfs::read_text;
use crate::ids::{Pid, Tid};
use crate::sample::Tracer;
use crate::units::Nanos;
use rustc_hash::FxHashMap;
use std::io;
use std::path::Path;

pub use super::cgroup::{container, CpuLimits};
// Pure parsers of foreign text, for tests/hermetic/fuzz.
#[cfg(feature = "internals")]
pub use super::cgroup::{cpu_count, quota_in};
#[cfg(feature = "internals")]
pub use super::freezer::{freezer_files, is_frozen};
pub use super::procfs::{live_task, Status, TaskStatus};
#[cfg(feature = "internals")]
pub use super::procfs::{parse_state_letter as state_letter, task_state};

/// Threads of one process that are read.
const MAX_TASKS: usize = 1 << 16;
/// Processes above one that are read.
const MAX_DEPTH: usize = 64;
/// Processes that are searched for children.
const MAX_PROCESSES: usize = 1 << 17;

/// The unit of the kernel's start and CPU times of processes; 100 a second for programs on every
/// Linux.
pub const TICK: Nanos = Nanos::from_millis(10);

/// When a process started, in clock ticks since boot. The pid and the start time identify a process
/// permanently; the pid alone may be reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StartTime(pub u64);

/// The arguments of the command line; if there is none, the bare name in brackets, like `ps`.
pub fn command(pid: Pid) -> Vec<String> {
    let args = read_text(&format!("/proc/{}/cmdline", live_task(pid))).unwrap_or_default();
    let args: Vec<String> = args.trim_end_matches('\0').split('\0').map(str::to_owned).collect();
    if args.iter().any(|arg| !arg.is_empty()) {
        return args;
    }
    comm(Tid(pid.0)).map(|name| format!("[{name}]")).into_iter().collect()
}

/// The executable's path as the kernel shows it, without ` (deleted)`.
pub fn exe(pid: Pid) -> Option<String> {
    let path = std::fs::read_link(format!("/proc/{}/exe", live_task(pid))).ok()?.to_string_lossy().into_owned();
    Some(path.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or(path))
}

/// Whether the process was started with this variable, `NAME=VALUE`, in its environment. False
/// where that may not be read.
pub fn started_with(pid: Pid, variable: &str) -> bool {
    let environment = read_text(&format!("/proc/{}/environ", live_task(pid))).unwrap_or_default();
    environment.split('\0').any(|one| one == variable)
}

/// The kernel's name of a thread, at most 15 bytes.
pub fn comm(tid: Tid) -> Option<String> {
    read_text(&format!("/proc/{tid}/comm")).ok().map(|name| name.trim_end_matches('\n').to_owned())
}

/// The process that a tracing thread belongs to.
pub fn tracer(thread: Tid) -> Tracer {
    let pid = process_of(thread).unwrap_or(Pid(thread.0));
    Tracer { pid: pid.0, name: comm(Tid(pid.0)).unwrap_or_else(|| "a process".into()) }
}

/// The process of a thread id. `/proc/TID` exists for every thread, so a thread id is easily
/// mistaken for a process id.
pub fn process_of(tid: Tid) -> Option<Pid> {
    Status::from_pid(Pid(tid.0)).ok()?.number("Tgid").and_then(|pid| i32::try_from(pid).ok()).map(Pid)
}

/// When the process started.
pub fn start_time(pid: Pid) -> Option<StartTime> {
    stat_field(&read_text(&format!("/proc/{pid}/stat")).ok()?, 22).map(StartTime)
}

/// The CPU time of a process, in clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTicks {
    /// When the process started.
    pub start: StartTime,
    /// Its parent, which will wait for it.
    pub parent: Pid,
    /// Of all its threads, those that have ended included.
    pub own: u64,
    /// Of its children that it has waited for, their own such children included.
    pub reaped: u64,
}

impl CpuTicks {
    /// Reads the times of a process, which a zombie still has.
    pub fn from_pid(pid: Pid) -> Option<CpuTicks> {
        CpuTicks::parse(&read_text(&format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<CpuTicks> {
        let sum = |first: usize| stat_field(stat, first)?.checked_add(stat_field(stat, first + 1)?);
        let parent = Pid(i32::try_from(stat_field(stat, 4)?).ok()?);
        Some(CpuTicks { start: StartTime(stat_field(stat, 22)?), parent, own: sum(14)?, reaped: sum(16)? })
    }
}

/// The process that started it, or that adopted it since. A process that none in gilprof's PID
/// namespace started has no parent.
pub fn parent(pid: Pid) -> Option<Pid> {
    CpuTicks::from_pid(pid).map(|ticks| ticks.parent).filter(|parent| parent.0 > 0)
}

/// The time since boot, on the clock of [`StartTime`].
pub fn uptime() -> Option<Nanos> {
    let text = read_text("/proc/uptime").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Nanos::from_secs_f64)
}

/// A numbered field (from 1) of `/proc/PID/stat`. The name in parentheses may contain anything, so
/// counting starts after the last parenthesis.
#[doc(hidden)]
pub fn stat_field(text: &str, number: usize) -> Option<u64> {
    text.rsplit_once(')')?.1.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// Every process that gilprof sees.
pub fn pids() -> Vec<Pid> {
    numeric_entries("/proc", MAX_PROCESSES).into_iter().map(Pid).collect()
}

/// The id of the process's user.
pub fn user(pid: Pid) -> Option<u32> {
    Status::from_pid(pid).ok()?.number("Uid").and_then(|id| u32::try_from(id).ok())
}

/// The names of the users that the host knows, by id.
pub fn user_names() -> FxHashMap<u32, String> {
    names_of_users(&read_text("/etc/passwd").unwrap_or_default())
}

fn names_of_users(passwd: &str) -> FxHashMap<u32, String> {
    let name = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((fields.nth(1)?.parse().ok()?, name))
    };
    let mut names = FxHashMap::default();
    // The first name of an id is the one that other programs show.
    passwd.lines().filter_map(name).for_each(|(id, name)| _ = names.entry(id).or_insert(name));
    names
}

/// Whether a shell could resume this process after a stop: a process above it is of the same
/// session and of another job. The kernel ignores Ctrl-Z of a terminal without one.
pub fn has_shell() -> bool {
    let field = |pid: Pid, number| stat_field(&read_text(&format!("/proc/{pid}/stat")).ok()?, number);
    let own = Pid(std::process::id() as i32);
    let (Some(job), Some(session)) = (field(own, 5), field(own, 6)) else { return false };
    let above = std::iter::successors(parent(own), |pid| parent(*pid)).take(MAX_DEPTH);
    above.into_iter().find(|pid| field(*pid, 5) != Some(job)).is_some_and(|pid| field(pid, 6) == Some(session))
}

/// The id of the newest process or thread; `None` where `/proc` does not say. While it stays the
/// same, no process has started.
pub fn newest_pid() -> Option<u64> {
    newest_in(&read_text("/proc/loadavg").ok()?)
}

fn newest_in(loadavg: &str) -> Option<u64> {
    loadavg.split_whitespace().nth(4)?.parse().ok()
}

/// The process's children.
pub fn children(pid: Pid) -> Vec<Pid> {
    let tasks = numeric_entries(&format!("/proc/{pid}/task"), MAX_TASKS);
    let listed = listed_children(&tasks, |task| read_text(&format!("/proc/{pid}/task/{task}/children")));
    // Without CONFIG_PROC_CHILDREN, all processes are searched by their parent.
    listed.unwrap_or_else(|| if Path::new("/proc/thread-self/children").exists() { Vec::new() } else { children_by_parent(pid) })
}

/// The children that the files of a process's threads list. Threads may have exited meanwhile.
/// `None` if no file could be read.
fn listed_children(tasks: &[i32], read: impl Fn(i32) -> io::Result<String>) -> Option<Vec<Pid>> {
    let texts: Vec<String> = tasks.iter().filter_map(|&task| read(task).ok()).collect();
    let pids = || texts.iter().flat_map(|text| text.split_whitespace()).filter_map(|word| word.parse().ok());
    (!texts.is_empty()).then(|| pids().map(Pid).collect())
}

fn children_by_parent(pid: Pid) -> Vec<Pid> {
    let parent = |child: i32| stat_field(&read_text(&format!("/proc/{child}/stat")).ok()?, 4);
    numeric_entries("/proc", MAX_PROCESSES).into_iter().filter(|&child| parent(child) == Some(pid.0 as u64)).map(Pid).collect()
}

/// Whether the process exists and has not exited. A zombie has exited, unless only its main thread
/// has.
pub fn is_running(pid: Pid) -> bool {
    !matches!(Status::from_pid(live_task(pid)).ok().and_then(|status| status.state()), None | Some('Z' | 'X'))
}

/// The numeric names in a directory of procfs.
fn numeric_entries(directory: &str, bound: usize) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).take(bound).collect()
}

/// The thread's id in its own, innermost PID namespace: what `gettid()` gives there.
pub fn inner_tid(tid: Tid) -> Option<i32> {
    let status = Status::from_pid(Pid(tid.0)).ok()?;
    let ids = status.numbers("NSpid");
    // Kernels before 4.1 have no NSpid.
    ids.last().copied().or_else(|| status.number("Pid")).and_then(|id| i32::try_from(id).ok())
}

/// Whether the process is in a PID namespace below gilprof's, so that its own thread ids differ
/// from gilprof's.
pub fn is_in_inner_namespace(pid: Pid) -> Option<bool> {
    Some(Status::from_pid(pid).ok()?.numbers("NSpid").len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Pid {
        Pid(std::process::id() as i32)
    }

    #[test]
    fn the_newest_process_is_the_last_number() {
        assert_eq!(newest_in("0.64 0.38 0.29 3/98 28071\n"), Some(28071));
        assert_eq!(newest_in("0.64 0.38 0.29 3/98"), None);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let newest = newest_pid().unwrap();
        assert!(newest >= u64::from(child.id()), "{newest} after {}", child.id());
        child.wait().unwrap();
    }

    #[test]
    fn a_name_cannot_break_stat() {
        let text = "7 (a) R 1 (b) S 42 7 7 0 -1 4194304 1 0 0 0 1 2 0 0 20 0 1 0 98765 1";
        assert_eq!(stat_field(text, 4), Some(42));
        assert_eq!(stat_field(text, 22), Some(98765));
        assert_eq!(stat_field("garbage", 4), None);
        assert_eq!(stat_field(text, 1), None);
        assert_eq!(CpuTicks::parse(text), Some(CpuTicks { start: StartTime(98765), parent: Pid(42), own: 3, reaped: 0 }));
        assert_eq!(CpuTicks::parse("7 (a) R 1 2 3"), None);
    }

    #[test]
    fn users_are_named_by_their_first_name() {
        let names = names_of_users("root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:\nbad\nx:y:z\nweb:x:33:33::/:\n");
        assert_eq!((names.get(&0).map(String::as_str), names.get(&33).map(String::as_str), names.len()), (Some("root"), Some("web"), 2));
        assert!(user(me()).is_some() && pids().contains(&me()));
    }

    #[test]
    fn own_process() {
        assert!(command(me())[0].contains("gilprof"));
        assert_eq!(exe(me()), std::env::current_exe().ok().map(|p| p.to_string_lossy().into_owned()));
        assert_eq!(process_of(Tid(me().0)), Some(me()));
        assert!(start_time(me()) > Some(StartTime(0)));
        assert_eq!((is_in_inner_namespace(me()), inner_tid(Tid(me().0))), (Some(false), Some(me().0)));
        assert_eq!(comm(Tid(-1)), None);
    }

    #[test]
    fn a_thread_that_has_exited_hides_no_children() {
        let read = |task: i32| if task == 2 { Err(io::ErrorKind::NotFound.into()) } else { Ok(format!("{task}0 {task}1 ")) };
        assert_eq!(listed_children(&[1, 2, 3], read), Some([10, 11, 30, 31].map(Pid).to_vec()));
        assert_eq!((listed_children(&[2], read), listed_children(&[], read)), (None, None));
    }

    #[test]
    fn children_are_found() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = Pid(child.id() as i32);
        assert!(children(me()).contains(&pid) && children_by_parent(me()).contains(&pid));
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
