//! The cgroups of a process, and the number of CPUs that it can use: its affinity, or its cgroups'
//! quota if that is lower.

use super::procfs::{live_task, read_text, Status};
use crate::ids::Pid;

/// Levels of a cgroup's ancestry that are read; a quota set on any level applies.
const MAX_DEPTH: usize = 64;

/// The limits on the CPUs that a process can use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuLimits {
    /// CPUs in its affinity mask; if that is unknown, the CPUs available to gilprof itself.
    pub affinity: f64,
    /// The lowest quota of its cgroups, in CPUs.
    pub quota: Option<f64>,
    /// CPUs of the machine; `None` if unknown.
    pub machine: Option<f64>,
}

impl CpuLimits {
    /// Reads the limits of a process.
    pub fn from_pid(pid: Pid) -> CpuLimits {
        let affinity = Status::from_pid(live_task(pid)).ok().and_then(|status| cpu_count(status.text("Cpus_allowed_list")?));
        let affinity = affinity.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from) as u32);
        let machine = read_text("/sys/devices/system/cpu/online").ok().and_then(|list| cpu_count(list.trim()));
        CpuLimits { affinity: f64::from(affinity), quota: quota(pid), machine: machine.map(f64::from) }
    }

    /// The most CPUs that it can use; a quota may make the number fractional.
    pub fn cpus(&self) -> f64 {
        self.quota.map_or(self.affinity, |quota| quota.min(self.affinity))
    }
}

/// Counts the CPUs of a list: `0-3,8` is five.
pub fn cpu_count(list: &str) -> Option<u32> {
    let mut total = 0_u32;
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        total = total.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    (total > 0).then_some(total)
}

/// A cgroup of a process in one hierarchy, below a mount of that hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub is_v2: bool,
    /// Whether it is certain that the directory is this group's. The group may lie outside the part
    /// of the hierarchy that is mounted here.
    pub visible: bool,
    point: String,
    inside: String,
}

impl Group {
    fn new(is_v2: bool, path: &str, root: &str, point: String) -> Group {
        // From inside a container's cgroup namespace, the path of a group outside begins with
        // `/..`; its files are out of reach.
        let below = path.strip_prefix(root.trim_end_matches('/')).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let outside = path.split('/').any(|part| part == "..");
        let inside = if outside { "" } else { below.unwrap_or(path).trim_matches('/') };
        Group { is_v2, visible: below.is_some() && !outside, point, inside: inside.to_owned() }
    }

    /// Its directory.
    pub fn directory(&self) -> String {
        format!("{}/{}", self.point, self.inside).trim_end_matches('/').to_owned()
    }

    /// The group above it, as far as that is mounted.
    pub fn parent(&self) -> Option<Group> {
        let inside = (!self.inside.is_empty()).then(|| self.inside.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned())?;
        Some(Group { inside, ..self.clone() })
    }

    /// The group and the groups above it.
    pub fn ancestry(&self) -> impl Iterator<Item = Group> {
        std::iter::successors(Some(self.clone()), Group::parent).take(MAX_DEPTH)
    }
}

/// The groups of a process that a controller may limit: in version 2, and in the hierarchy of
/// version 1 that has the controller. Both may be mounted side by side. `groups` is the process's
/// `/proc/PID/cgroup`, `mounts` gilprof's own mountinfo.
pub(super) fn groups(groups: &str, mounts: &str, controller: &str) -> Vec<Group> {
    let group = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let is_v2 = controllers.is_empty();
        if !is_v2 && !controllers.split(',').any(|name| name == controller) {
            return None;
        }
        let places = || mounts.lines().filter_map(|line| mount(line, is_v2, controller));
        let mut groups = places().map(|(root, point)| Group::new(is_v2, path, &root, point));
        groups.clone().find(|group| group.visible).or_else(|| groups.next())
    };
    groups.lines().filter_map(group).collect()
}

/// Characters of a container's id, and how many of them are usual to name it.
const ID_LENGTH: usize = 64;
const BRIEF_ID: usize = 12;

/// The id of the container that a process is in, shortened as `docker ps` does; `None` outside of
/// containers, and from inside one.
pub fn container(pid: Pid) -> Option<String> {
    container_in(&read_text(&format!("/proc/{}/cgroup", live_task(pid))).ok()?)
}

/// The innermost container of a `/proc/PID/cgroup`: Docker, Podman, containerd and CRI-O put the
/// id, 64 hexadecimal digits, into the name of the cgroup.
fn container_in(groups: &str) -> Option<String> {
    let mut words = groups.split(|c: char| !c.is_ascii_alphanumeric());
    let is_id = |word: &&str| word.len() == ID_LENGTH && word.chars().all(|c| c.is_ascii_hexdigit());
    words.rfind(is_id).map(|id| id[..BRIEF_ID].to_owned())
}

fn quota(pid: Pid) -> Option<f64> {
    // A main thread that has exited alone may have left its group.
    let groups = read_text(&format!("/proc/{}/cgroup", live_task(pid))).ok()?;
    let mounts = read_text("/proc/self/mountinfo").ok()?;
    quota_in(&groups, &mounts, &|path| read_text(path).ok())
}

/// The lowest quota of the process's CPU cgroups and all their ancestors, in CPUs.
pub fn quota_in(groups: &str, mounts: &str, read: &dyn Fn(&str) -> Option<String>) -> Option<f64> {
    let all = self::groups(groups, mounts, "cpu");
    all.iter().flat_map(Group::ancestry).filter_map(|group| limit(&group.directory(), group.is_v2, read)).reduce(f64::min)
}

/// The quota set on one group, in CPUs.
fn limit(directory: &str, is_v2: bool, read: &dyn Fn(&str) -> Option<String>) -> Option<f64> {
    // Whole microseconds; the kernel never writes a text such as `inf` or `1e308`.
    let number = |text: &str| text.trim().parse::<u64>().ok().filter(|number| *number > 0).map(|number| number as f64);
    let (quota, period) = if is_v2 {
        let text = read(&format!("{directory}/cpu.max"))?;
        let (quota, period) = text.trim().split_once(' ')?;
        (number(quota)?, number(period)?)
    } else {
        // -1 means no quota.
        (number(&read(&format!("{directory}/cpu.cfs_quota_us"))?)?, number(&read(&format!("{directory}/cpu.cfs_period_us"))?)?)
    };
    Some(quota / period)
}

/// Root and mount point of a line of mountinfo that mounts cgroup v2, or v1 with the controller.
fn mount(line: &str, is_v2: bool, controller: &str) -> Option<(String, String)> {
    let (place, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let fits = match (kind.next()?, is_v2) {
        ("cgroup2", true) => true,
        ("cgroup", false) => kind.nth(1)?.split(',').any(|option| option == controller),
        _ => false,
    };
    let mut place = place.split(' ').skip(3).map(unescaped);
    fits.then(|| Some((place.next()?, place.next()?)))?
}

/// A path of mountinfo, in which the kernel writes white space and backslashes as `\040`.
fn unescaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut parts = path.split('\\');
    out.extend(parts.next());
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(u8::is_ascii);
        match code {
            Some(byte) => {
                out.push(byte.into());
                out.push_str(&part[3..]);
            }
            None => out.extend(["\\", part]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "30 20 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate";
    const V1: &str =
        "31 20 0:27 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n32 20 0:28 / /cg2 rw - cgroup2 none rw";

    fn files<'a>(files: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |path| files.iter().find(|file| file.0 == path).map(|file| file.1.to_owned())
    }

    #[test]
    fn containers_are_named_by_their_cgroup() {
        let id = "0123456789abcdef".repeat(4);
        for group in [format!("0::/system.slice/docker-{id}.scope"), format!("4:cpu:/docker/{id}\n0::/"), format!("0::/kubepods/pod1/{id}")]
        {
            assert_eq!(container_in(&group).as_deref(), Some("0123456789ab"), "{group}");
        }
        assert_eq!((container_in("0::/user.slice/user-0.slice"), container_in("")), (None, None));
    }

    #[test]
    fn cpu_lists() {
        assert_eq!(cpu_count("0-3,8"), Some(5));
        assert_eq!(cpu_count("1"), Some(1));
        for bad in ["", "3-1", "x", "0-4294967295", "0-4294967294,5"] {
            assert_eq!(cpu_count(bad), None, "{bad}");
        }
    }

    #[test]
    fn version_2_takes_the_lowest_of_the_ancestors() {
        let read = files(&[
            ("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("/sys/fs/cgroup/cpu.max", "400000 100000\n"),
        ]);
        assert_eq!(quota_in("0::/a/b\n", V2, &read), Some(1.5));
        assert_eq!(quota_in("0::/other\n", V2, &read), Some(4.0));
        assert_eq!(quota_in("0::/../../x\n", V2, &read), Some(4.0));
    }

    #[test]
    fn version_1_beside_an_empty_version_2() {
        let read = files(&[
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ]);
        let groups = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n";
        assert_eq!(quota_in(groups, V1, &read), Some(0.5));
        let none =
            files(&[("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"), ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")]);
        assert_eq!(quota_in(groups, V1, &none), None);
    }

    #[test]
    fn a_freezer_is_found_where_it_is_mounted_and_never_guessed() {
        let mounts = "31 20 0:27 / /cg/my\\040freezer rw - cgroup none rw,freezer\n30 20 0:26 /a /sys/a rw - cgroup2 none rw\n32 20 0:26 / /sys/fs/cgroup rw - cgroup2 none rw";
        let found = groups("5:freezer:/pod/x\n4:cpu:/y\n0::/b/c\n", mounts, "freezer");
        assert_eq!(found.iter().map(Group::directory).collect::<Vec<_>>(), ["/cg/my freezer/pod/x", "/sys/fs/cgroup/b/c"]);
        assert!(found.iter().all(|group| group.visible));
        let above: Vec<String> = found[1].ancestry().map(|group| group.directory()).collect();
        assert_eq!(above, ["/sys/fs/cgroup/b/c", "/sys/fs/cgroup/b", "/sys/fs/cgroup"]);
        let out_of_sight = |path: &str, mounts: &str| groups(path, mounts, "freezer").iter().all(|group| !group.visible);
        assert!(out_of_sight("0::/../../x", V2) && out_of_sight("5:freezer:/docker/xyz", &V1.replace("cpuacct", "freezer")));
        assert!(groups("5:freezer:/x\n", V2, "freezer").is_empty());
    }

    #[test]
    fn the_lowest_limit_applies() {
        let limits = |quota| CpuLimits { affinity: 2.0, quota, machine: Some(8.0) }.cpus();
        assert_eq!((limits(None), limits(Some(1.5)), limits(Some(4.0))), (2.0, 1.5, 2.0));
        let own = CpuLimits::from_pid(Pid(std::process::id() as i32));
        assert!(own.cpus() > 0.0 && own.machine.is_none_or(|all| all >= own.affinity));
    }

    #[test]
    fn malformed_text_is_no_quota() {
        let read = files(&[("/sys/fs/cgroup/cpu.max", "0 0")]);
        assert_eq!(quota_in("::\n:\n0::/\nx", V2, &read), None);
        assert_eq!(quota_in("0::/", "", &read), None);
        for endless in ["inf inf", "1e3085 1e3085", "1e308 1", "nan 1"] {
            assert_eq!(quota_in("0::/", V2, &files(&[("/sys/fs/cgroup/cpu.max", endless)])), None, "{endless}");
        }
    }
}
