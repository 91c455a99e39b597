//! Whether the freezer of its cgroup has frozen a process, in either version of cgroups.
//!
//! `/proc/PID/stat` does not tell: it shows frozen tasks as asleep. If gilprof cannot see the
//! group's files, because it is in another cgroup or mount namespace, nothing is said.

use super::access::quoted;
use super::cgroup::{self, Group};
use super::procfs::{live_task, read_text};
use crate::ids::Pid;
use crate::sample::StopCause;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// As much of a state file as is read; the longest has two short lines.
const STATE_TEXT: usize = 128;

/// The files that tell whether one process is frozen, kept open.
#[derive(Debug, Default)]
pub(super) struct Freezer {
    /// `/proc/PID/cgroup` as of the last refresh.
    groups: String,
    files: Vec<StateFile>,
}

#[derive(Debug)]
struct StateFile {
    group: Group,
    file: File,
}

impl Freezer {
    /// Follows a process that was moved to another group.
    pub(super) fn refresh(&mut self, pid: Pid) {
        let groups = read_text(&format!("/proc/{pid}/task/{}/cgroup", live_task(pid))).unwrap_or_default();
        if groups != self.groups {
            let mounts = read_text("/proc/self/mountinfo").unwrap_or_default();
            self.files = visible(&groups, &mounts).filter_map(StateFile::open).collect();
            self.groups = groups;
        }
    }

    /// The cause, if the process is frozen now.
    pub(super) fn frozen(&self) -> Option<StopCause> {
        self.files.iter().find(|state| state.is_frozen()).map(StateFile::cause)
    }
}

impl StateFile {
    fn open(mut group: Group) -> Option<StateFile> {
        let read = |group: &Group, name: &str| read_text(&format!("{}/{name}", group.directory())).ok();
        // The threads of one process may be in several threaded groups, below one that has all.
        while group.is_v2 && read(&group, "cgroup.type").is_some_and(|kind| kind.trim() == "threaded") {
            group = group.parent()?;
        }
        let file = File::open(state_file(&group)).ok()?;
        Some(StateFile { group, file })
    }

    fn is_frozen(&self) -> bool {
        let mut bytes = [0; STATE_TEXT];
        let n = self.file.read_at(&mut bytes, 0).unwrap_or(0);
        is_frozen(&bytes[..n], self.group.is_v2)
    }

    /// The group is frozen by itself or by any of its ancestors.
    fn cause(&self) -> StopCause {
        let (name, frozen, thaw) =
            if self.group.is_v2 { ("cgroup.freeze", "cgroup.freeze", "0") } else { ("freezer.self_freezing", "freezer.state", "THAWED") };
        let freezes = |group: &Group| read_text(&format!("{}/{name}", group.directory())).is_ok_and(|text| text.trim() == "1");
        let group = self.group.ancestry().find(freezes).unwrap_or_else(|| self.group.clone());
        let directory = group.directory();
        StopCause::Cgroup { thaw: format!("echo {thaw} > {}", quoted(&format!("{directory}/{frozen}"))), directory }
    }
}

/// The process's groups that a freezer can freeze, as far as they are mounted here.
fn visible(groups: &str, mounts: &str) -> impl Iterator<Item = Group> {
    cgroup::groups(groups, mounts, "freezer").into_iter().filter(|group| group.visible)
}

fn state_file(group: &Group) -> String {
    format!("{}/{}", group.directory(), if group.is_v2 { "cgroup.events" } else { "freezer.state" })
}

/// The files that say whether a process is frozen, by its `/proc/PID/cgroup` and gilprof's own
/// mountinfo.
pub fn freezer_files(groups: &str, mounts: &str) -> Vec<String> {
    visible(groups, mounts).map(|group| state_file(&group)).collect()
}

/// Whether a group's state file (`cgroup.events`, in version 1 `freezer.state`) says that it is
/// frozen. A group of version 1 may be `FREEZING` for as long as one of its tasks cannot be frozen.
pub fn is_frozen(state: &[u8], is_v2: bool) -> bool {
    let lines = || state.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    if is_v2 {
        lines().any(|line| line == b"frozen 1")
    } else {
        lines().next().is_some_and(|line| line == b"FROZEN" || line == b"FREEZING")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_states_of_both_versions() {
        assert!(is_frozen(b"populated 1\nfrozen 1\n", true) && !is_frozen(b"populated 1\nfrozen 0\n", true));
        assert!(is_frozen(b"FROZEN\n", false) && is_frozen(b"FREEZING\n", false) && !is_frozen(b"THAWED\n", false));
        for garbage in [&b""[..], b"\xff", b"frozen 10", b"notfrozen 1", b"frozen"] {
            assert!(!is_frozen(garbage, true) && !is_frozen(garbage, false), "{garbage:?}");
        }
    }

    #[test]
    fn this_process_is_not_frozen() {
        let mut freezer = Freezer::default();
        freezer.refresh(Pid(std::process::id() as i32));
        assert_eq!(freezer.frozen(), None);
        freezer.refresh(Pid(-1));
        assert!(freezer.files.is_empty() && freezer.frozen().is_none());
    }
}
