//! Whether the freezer of its cgroup has frozen a process, in either version of cgroups.
//!
//! `/proc/PID/stat` does not tell: it shows frozen tasks as asleep. If gilprof cannot see the
//! group's files, because it is in another cgroup or mount namespace, nothing is said. A file that
//! cannot be opened for want of descriptors changes nothing.
//!
//! In version 2 the threads of one process may be in several threaded groups, below one that has
//! all of them. Each of these groups can be frozen. The process is frozen if the group of all is,
//! or if one threaded group is that has all threads.

use super::access::quoted;
use super::cgroup::{self, Group};
use super::procfs::{live_task, read_text};
use super::task_list::TaskList;
use crate::ids::{Pid, Tid};
use crate::sample::StopCause;
use std::collections::HashSet;
use std::fs::File;
use std::io;
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
    /// Other threads of the process may be in other groups.
    is_threaded: bool,
}

impl Freezer {
    /// Follows a process that was moved to another group. On an error the files stay as they are.
    pub(super) fn refresh(&mut self, pid: Pid) -> io::Result<()> {
        let groups = read_text(&format!("/proc/{pid}/task/{}/cgroup", live_task(pid)))?;
        if groups != self.groups {
            let mounts = read_text("/proc/self/mountinfo")?;
            let files: io::Result<Vec<Vec<StateFile>>> = visible(&groups, &mounts).map(|group| StateFile::open_all(&group)).collect();
            self.files = files?.into_iter().flatten().collect();
            self.groups = groups;
        }
        Ok(())
    }

    /// The cause, if the process is frozen now.
    pub(super) fn frozen(&self, pid: Pid) -> Option<StopCause> {
        self.files.iter().find(|state| state.is_frozen() && (!state.is_threaded || state.has_all(pid))).map(StateFile::cause)
    }
}

impl StateFile {
    /// The files of a group and, if it is threaded, of the groups above it up to the one that has
    /// the whole process. The root has no such file.
    fn open_all(group: &Group) -> io::Result<Vec<StateFile>> {
        let mut files = Vec::new();
        for group in group.ancestry() {
            let kind = if group.is_v2 { if_exists(read_text(&format!("{}/cgroup.type", group.directory())))? } else { None };
            let is_threaded = kind.is_some_and(|kind| kind.trim() == "threaded");
            if let Some(file) = if_exists(File::open(state_file(&group)))? {
                files.push(StateFile { group, file, is_threaded });
            }
            if !is_threaded {
                break;
            }
        }
        Ok(files)
    }

    /// Whether all threads of the process are in this group itself.
    fn has_all(&self, pid: Pid) -> bool {
        let members = read_text(&format!("{}/cgroup.threads", self.group.directory())).unwrap_or_default();
        let mut tids = Vec::new();
        TaskList::new(pid).read(&mut tids, true).is_ok() && all_listed(&members, &tids)
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

/// Whether a group's `cgroup.threads` lists all of these threads.
fn all_listed(members: &str, tids: &[Tid]) -> bool {
    let members: HashSet<Tid> = members.lines().filter_map(|line| line.trim().parse().ok()).map(Tid).collect();
    !tids.is_empty() && tids.iter().all(|tid| members.contains(tid))
}

/// `None` for what does not exist or may not be read. Other errors say nothing of it.
fn if_exists<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(None),
        read => read.map(Some),
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
#[cfg(any(test, feature = "internals"))]
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
        let (mut freezer, own) = (Freezer::default(), Pid(std::process::id() as i32));
        freezer.refresh(own).unwrap();
        assert_eq!(freezer.frozen(own), None);
        let files = freezer.files.len();
        assert!(freezer.refresh(Pid(-1)).is_err(), "nothing is known of a process that is gone");
        assert_eq!((freezer.files.len(), freezer.frozen(Pid(-1))), (files, None));
    }

    #[test]
    fn only_what_does_not_exist_is_no_file() {
        let result = |kind: io::ErrorKind| if_exists::<()>(Err(kind.into())).map_err(|e| e.kind());
        assert_eq!((result(io::ErrorKind::NotFound), result(io::ErrorKind::PermissionDenied)), (Ok(None), Ok(None)));
        assert_eq!(result(io::ErrorKind::OutOfMemory), Err(io::ErrorKind::OutOfMemory));
        let exhausted: io::Result<Option<()>> = if_exists(Err(io::Error::from_raw_os_error(libc::EMFILE)));
        assert_eq!(exhausted.map_err(|e| e.raw_os_error()), Err(Some(libc::EMFILE)));
    }

    #[test]
    fn a_threaded_group_stops_the_process_only_with_all_its_threads() {
        assert!(all_listed("7\n9\n8\n", &[Tid(7), Tid(8)]));
        assert!(!all_listed("7\n9\n", &[Tid(7), Tid(8)]) && !all_listed("", &[Tid(7)]) && !all_listed("7", &[]));
    }
}
