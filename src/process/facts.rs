//! What the kernel says of a process as a whole: its command, its parents and children, the CPUs it may use, its namespaces.
//!
//! Everything here is procfs and cgroupfs text, read once per window or less. What cannot be read is `None` or empty, never a guess.

use crate::ids::{Pid, Tid};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

pub use super::cgroup::cpus;

/// No procfs file that is read here is longer, except a hostile command line.
const MAX_TEXT: u64 = 1 << 20;
/// Threads of one process that are looked at.
const MAX_TASKS: usize = 1 << 16;
/// Processes that are looked at for children.
const MAX_PROCESSES: usize = 1 << 17;

/// When a process started, in clock ticks since boot. With the pid it names a process for good; the pid alone may be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StartTime(pub u64);

/// The beginning of a small file, as text.
pub(crate) fn read_text(path: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_TEXT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `/proc/PID/status`, by field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status(BTreeMap<String, String>);

impl Status {
    /// Of a process or thread.
    pub fn of(pid: Pid) -> io::Result<Status> {
        read_text(&format!("/proc/{pid}/status")).map(|text| Status::parse(&text))
    }

    /// Of gilprof itself.
    pub fn own() -> io::Result<Status> {
        read_text("/proc/self/status").map(|text| Status::parse(&text))
    }

    /// Understands the text of a status file.
    pub fn parse(text: &str) -> Status {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Status(fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    /// A field's text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A field's numbers: `Uid`, `NSpid`.
    pub fn numbers(&self, name: &str) -> Vec<i64> {
        self.text(name).map_or_else(Vec::new, |text| text.split_whitespace().map_while(|word| word.parse().ok()).collect())
    }

    /// A field's first number.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.numbers(name).first().copied()
    }

    /// A hexadecimal set of bits: `CapEff`.
    pub fn bits(&self, name: &str) -> Option<u64> {
        u64::from_str_radix(self.text(name)?, 16).ok()
    }

    /// The state letter: `R`, `S`, `Z` …
    pub fn state(&self) -> Option<char> {
        self.text("State")?.chars().next()
    }

    /// Whether it is a kernel thread; kernels before 6.8 do not say.
    pub fn kernel_thread(&self) -> Option<bool> {
        self.number("Kthread").map(|number| number != 0)
    }
}

/// The command line, word by word; the bare name in brackets, as `ps` has it, where there is none.
pub fn command(pid: Pid) -> Vec<String> {
    let words = read_text(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<String> = words.trim_end_matches('\0').split('\0').map(str::to_owned).collect();
    if words.iter().any(|word| !word.is_empty()) {
        return words;
    }
    comm(Tid(pid.0)).map(|name| format!("[{name}]")).into_iter().collect()
}

/// The executable's path, as the kernel shows it, without ` (deleted)`.
pub fn exe(pid: Pid) -> Option<String> {
    let path = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?.to_string_lossy().into_owned();
    Some(path.strip_suffix(" (deleted)").map(str::to_owned).unwrap_or(path))
}

/// The kernel's name of a thread, at most 15 bytes.
pub fn comm(tid: Tid) -> Option<String> {
    read_text(&format!("/proc/{tid}/comm")).ok().map(|name| name.trim_end_matches('\n').to_owned())
}

/// The process that a thread id belongs to. `/proc/TID` exists for every thread, so a thread id is easily taken for a process id.
pub fn process_of(tid: Tid) -> Option<Pid> {
    Status::of(Pid(tid.0)).ok()?.number("Tgid").and_then(|pid| i32::try_from(pid).ok()).map(Pid)
}

/// When the process started.
pub fn start_time(pid: Pid) -> Option<StartTime> {
    stat_field(&read_text(&format!("/proc/{pid}/stat")).ok()?, 22).map(StartTime)
}

/// A numbered field (from 1) of `/proc/PID/stat`. The name in parentheses may hold anything, so counting starts at the last one.
fn stat_field(text: &str, number: usize) -> Option<u64> {
    text.rsplit_once(')')?.1.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// The process's children.
pub fn children(pid: Pid) -> Vec<Pid> {
    let mut children = Vec::new();
    for task in numbers_in(&format!("/proc/{pid}/task"), MAX_TASKS) {
        match read_text(&format!("/proc/{pid}/task/{task}/children")) {
            Ok(text) => children.extend(text.split_whitespace().filter_map(|word| word.parse().ok()).map(Pid)),
            // CONFIG_PROC_CHILDREN is off: ask every process who its parent is.
            Err(_) => return children_by_parent(pid),
        }
    }
    children
}

fn children_by_parent(pid: Pid) -> Vec<Pid> {
    let parent = |child: i32| stat_field(&read_text(&format!("/proc/{child}/stat")).ok()?, 4);
    numbers_in("/proc", MAX_PROCESSES).into_iter().filter(|&child| parent(child) == Some(pid.0 as u64)).map(Pid).collect()
}

/// The numeric names in a directory of procfs.
fn numbers_in(directory: &str, bound: usize) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).take(bound).collect()
}

/// The thread's id in its own, innermost PID namespace: what `gettid()` gives there.
pub fn inner_tid(tid: Tid) -> Option<i32> {
    let status = Status::of(Pid(tid.0)).ok()?;
    let ids = status.numbers("NSpid");
    // Kernels before 4.1 have no NSpid.
    ids.last().copied().or_else(|| status.number("Pid")).and_then(|id| i32::try_from(id).ok())
}

/// Whether the process lives in a PID namespace below ours, so that its own idea of its thread ids is not ours.
pub fn inner_namespace(pid: Pid) -> Option<bool> {
    Some(Status::of(pid).ok()?.numbers("NSpid").len() > 1)
}

/// All threads of the process by their ids in its own PID namespace, which is what `native_thread_id` holds.
pub fn outer_tids(pid: Pid) -> BTreeMap<i32, Tid> {
    let tasks = numbers_in(&format!("/proc/{pid}/task"), MAX_TASKS);
    if inner_namespace(pid) == Some(false) {
        return tasks.into_iter().map(|tid| (tid, Tid(tid))).collect();
    }
    tasks.into_iter().filter_map(|tid| Some((inner_tid(Tid(tid))?, Tid(tid)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Pid {
        Pid(std::process::id() as i32)
    }

    #[test]
    fn a_name_cannot_break_stat() {
        let text = "7 (a) R 1 (b) S 42 7 7 0 -1 4194304 1 0 0 0 1 2 0 0 20 0 1 0 98765 1";
        assert_eq!(stat_field(text, 4), Some(42));
        assert_eq!(stat_field(text, 22), Some(98765));
        assert_eq!(stat_field("garbage", 4), None);
        assert_eq!(stat_field(text, 1), None);
    }

    #[test]
    fn own_facts() {
        assert!(command(me())[0].contains("gilprof"));
        assert_eq!(exe(me()), std::env::current_exe().ok().map(|p| p.to_string_lossy().into_owned()));
        assert_eq!(process_of(Tid(me().0)), Some(me()));
        assert!(start_time(me()) > Some(StartTime(0)));
        assert!(outer_tids(me()).values().any(|tid| tid.0 == me().0));
        assert_eq!(comm(Tid(-1)), None);
        assert!(cpus(me()) > 0.0);
    }

    #[test]
    fn children_are_found() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = Pid(child.id() as i32);
        assert!(children(me()).contains(&pid) && children_by_parent(me()).contains(&pid));
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn status_of_a_process_in_a_container() {
        let status =
            Status::parse("Name:\ta: b\nState:\tS (sleeping)\nNSpid:\t400\t7\nUid:\t1 2 3 4\nCapEff:\t0000000000080000\nKthread:\t0\n");
        assert_eq!((status.text("Name"), status.state()), (Some("a: b"), Some('S')));
        assert_eq!(status.numbers("NSpid"), [400, 7]);
        assert_eq!(status.bits("CapEff"), Some(1 << 19));
        assert_eq!((status.kernel_thread(), status.number("Missing")), (Some(false), None));
    }
}
