//! The number of CPUs that a process can use: its affinity, or its cgroups' quota if that is lower.

use super::procfs::{read_text, Status};
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
        let affinity = Status::from_pid(pid).ok().and_then(|status| cpu_count(status.text("Cpus_allowed_list")?));
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

fn quota(pid: Pid) -> Option<f64> {
    let groups = read_text(&format!("/proc/{pid}/cgroup")).ok()?;
    let mounts = read_text("/proc/self/mountinfo").ok()?;
    quota_in(&groups, &mounts, &|path| read_text(path).ok())
}

/// The lowest quota of the process's CPU cgroups and all their ancestors, in CPUs. Versions 1 and 2
/// may be mounted side by side.
pub fn quota_in(groups: &str, mounts: &str, read: &dyn Fn(&str) -> Option<String>) -> Option<f64> {
    let mut lowest: Option<f64> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let is_v2 = controllers.is_empty();
        if !is_v2 && !controllers.split(',').any(|name| name == "cpu") {
            continue;
        }
        let Some((root, point)) = mounts.lines().find_map(|line| mount(line, is_v2)) else { continue };
        // From inside a container's cgroup namespace, the path of a group outside begins with
        // `/..`; its files are out of reach.
        let below = group.strip_prefix(root.trim_end_matches('/')).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let mut inside = below.unwrap_or(group).trim_matches('/');
        if inside.split('/').any(|part| part == "..") {
            inside = "";
        }
        for _ in 0..MAX_DEPTH {
            let limit = limit(format!("{point}/{inside}").trim_end_matches('/'), is_v2, read);
            lowest = limit.map_or(lowest, |limit| Some(lowest.map_or(limit, |lowest| lowest.min(limit))));
            if inside.is_empty() {
                break;
            }
            inside = inside.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
    }
    lowest
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

/// Root and mount point of a line of mountinfo that mounts cgroup v2, or v1 with the cpu
/// controller.
fn mount(line: &str, is_v2: bool) -> Option<(&str, &str)> {
    let (place, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let fits = match (kind.next()?, is_v2) {
        ("cgroup2", true) => true,
        ("cgroup", false) => kind.nth(1)?.split(',').any(|option| option == "cpu"),
        _ => false,
    };
    let mut place = place.split(' ').skip(3);
    fits.then(|| Some((place.next()?, place.next()?)))?
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
