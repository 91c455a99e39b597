//! Small files of procfs and cgroupfs as text, with a length limit, and the fields of
//! `/proc/PID/status`.

use crate::ids::Pid;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// Threads of one process that are read.
const MAX_TASKS: usize = 1 << 16;
/// No file read here is longer, except a hostile command line.
const MAX_TEXT: u64 = 1 << 20;

/// The beginning of a small file, as text.
pub(crate) fn read_text(path: &str) -> io::Result<String> {
    // The files do not report their length; a buffer for all of the text saves the reads that would
    // probe for it.
    let mut bytes = Vec::with_capacity(4096);
    File::open(path)?.take(MAX_TEXT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The thread through which a process's memory, maps and executable are visible: the main thread as
/// a rule. After that has exited alone (by `pthread_exit`), the kernel shows the process as a
/// zombie without any of them while its other threads run on.
pub fn live_task(pid: Pid) -> Pid {
    if !is_dead(pid, pid) {
        return pid;
    }
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().take(MAX_TASKS);
    let mut others = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok().map(Pid));
    others.find(|&task| task != pid && !is_dead(pid, task)).unwrap_or(pid)
}

/// Whether a thread is listed and has exited. Only a main thread stays listed while others run.
pub(super) fn is_dead(pid: Pid, task: Pid) -> bool {
    matches!(task_state(pid, task), Some('Z' | 'X'))
}

/// The letter of a thread's state; `None` if it has exited.
pub fn task_state(pid: Pid, task: Pid) -> Option<char> {
    state_letter(&File::open(format!("/proc/{pid}/task/{task}/stat")).ok()?)
}

/// The letter in a thread's open `stat` file; `None` if the thread has exited.
pub(super) fn state_letter(stat: &File) -> Option<char> {
    // The name before the letter is the thread's own choice and may imitate the following fields,
    // but it has at most 16 bytes.
    let mut bytes = [0; 64];
    let n = stat.read_at(&mut bytes, 0).ok()?;
    let end = bytes[..n].iter().rposition(|&byte| byte == b')')?;
    bytes.get(end + 2).map(|&byte| byte.into()).filter(char::is_ascii_alphabetic)
}

/// The fields of `/proc/PID/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status(BTreeMap<String, String>);

impl Status {
    /// Reads the status of a process or thread.
    pub fn from_pid(pid: Pid) -> io::Result<Status> {
        read_text(&format!("/proc/{pid}/status")).map(|text| Status::parse(&text))
    }

    /// Reads the status of gilprof itself.
    pub fn own() -> io::Result<Status> {
        read_text("/proc/self/status").map(|text| Status::parse(&text))
    }

    /// Parses the text of a status file.
    pub fn parse(text: &str) -> Status {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Status(fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    /// A field's text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A field's numbers, for example of `Uid` and `NSpid`.
    pub fn numbers(&self, name: &str) -> Vec<i64> {
        self.text(name).map_or_else(Vec::new, |text| text.split_whitespace().map_while(|word| word.parse().ok()).collect())
    }

    /// A field's first number.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.numbers(name).first().copied()
    }

    /// A hexadecimal set of bits, for example `CapEff`.
    pub fn bits(&self, name: &str) -> Option<u64> {
        u64::from_str_radix(self.text(name)?, 16).ok()
    }

    /// The state letter: `R`, `S`, `Z` …
    pub fn state(&self) -> Option<char> {
        self.text("State")?.chars().next()
    }

    /// Whether it is a kernel thread; `None` on kernels before 6.8, which lack the field.
    pub fn kernel_thread(&self) -> Option<bool> {
        self.number("Kthread").map(|number| number != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
