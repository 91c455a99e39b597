//! Small files of procfs and cgroupfs as text, with a length limit, and the fields of
//! `/proc/PID/status`.

use crate::ids::{Pid, Tid};
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
fn state_letter(stat: &File) -> Option<char> {
    let mut bytes = [0; STAT_START];
    let n = stat.read_at(&mut bytes, 0).ok()?;
    parse_state_letter(&bytes[..n])
}

/// As much of a `stat` file as is read for the letter of the state. The name before the letter is
/// the thread's own choice and may imitate the following fields, but it has at most 16 bytes.
pub(super) const STAT_START: usize = 64;

/// The letter of a thread's state in the first `STAT_START` bytes of its `stat` file.
pub fn parse_state_letter(stat: &[u8]) -> Option<char> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    stat.get(end + 2).map(|&byte| byte.into()).filter(char::is_ascii_alphabetic)
}

/// What a thread's `status` says about stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskStatus {
    /// The letter of its state: `T` for stopped by a signal, `t` for stopped by a tracer.
    pub letter: char,
    /// The thread that traces it; `None` also for a tracer in another PID namespace.
    pub tracer: Option<Tid>,
}

/// The two fields are among the first ten of a `status` file. The name before them has at most 16
/// bytes, each written as four at most.
const STATUS_START: usize = 512;

impl TaskStatus {
    /// Reads an open `status` file; `None` if the thread has exited.
    pub(super) fn read(status: &File) -> Option<TaskStatus> {
        let mut bytes = [0; STATUS_START];
        let n = status.read_at(&mut bytes, 0).ok()?;
        TaskStatus::parse(&bytes[..n])
    }

    /// Reads the status of a thread.
    pub fn of(tid: Tid) -> Option<TaskStatus> {
        TaskStatus::read(&File::open(format!("/proc/{tid}/status")).ok()?)
    }

    /// Parses the beginning of a `status` file.
    pub fn parse(text: &[u8]) -> Option<TaskStatus> {
        let field = |name: &str| {
            let value = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b":"))?;
            std::str::from_utf8(value).ok().map(str::trim)
        };
        let letter = field("State")?.chars().next().filter(char::is_ascii_alphabetic)?;
        let tracer = field("TracerPid").and_then(|pid| pid.parse().ok()).filter(|&pid: &i32| pid > 0).map(Tid);
        Some(TaskStatus { letter, tracer })
    }
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

    #[test]
    fn a_name_cannot_imitate_a_state() {
        assert_eq!(parse_state_letter(b"7 (a) t 1 (b)) S 42 7 7 0"), Some('S'));
        assert_eq!((parse_state_letter(b"7 (a) "), parse_state_letter(b"garbage")), (None, None));
        let status = |text: &str| TaskStatus::parse(text.as_bytes()).map(|s| (s.letter, s.tracer));
        let traced = "Name:\tState:\tT\\nTracerPid:\t3\nUmask:\t0022\nState:\tt (tracing stop)\nTgid:\t7\nTracerPid:\t42\n";
        assert_eq!(status(traced), Some(('t', Some(Tid(42)))));
        assert_eq!(status("State:\tS (sleeping)\nTracerPid:\t0\n"), Some(('S', None)));
        assert_eq!(status("State:\tT (stopped)\nTracerPid:\t-9\n"), Some(('T', None)));
        assert_eq!((status("TracerPid:\t1\n"), status("State:\n")), (None, None));
    }
}
