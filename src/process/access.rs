//! Why the kernel refuses to let us read a process, and the command that helps.
//!
//! The rules are those of ptrace(2), "Ptrace access mode checking": same user or CAP_SYS_PTRACE, a target that is dumpable, then what
//! the security modules (Yama) add. Facts are collected once, from procfs; what follows from them is a pure function.

use super::procfs::{read_text, Status};
use crate::error::Error;
use crate::ids::Pid;
use std::os::unix::fs::MetadataExt;

/// The bit of CAP_SYS_PTRACE.
const CAP_SYS_PTRACE: u32 = 19;
/// Ancestors that are followed to tell whether the target is our descendant.
const MAX_ANCESTORS: usize = 256;

/// In what kind of container gilprof itself runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    None,
    /// Docker, Podman or another that takes `--cap-add`.
    Docker,
    Kubernetes,
}

/// What decides. `None` is unknown, and then no cause is claimed from it.
#[derive(Clone, Debug)]
struct Facts {
    errno: i32,
    my_uid: Option<u32>,
    /// Real, effective, saved.
    target_uids: Vec<u32>,
    have_cap: Option<bool>,
    same_user_namespace: Option<bool>,
    /// The value of `kernel.yama.ptrace_scope`; `None` where there is no Yama.
    yama: Option<u8>,
    descendant: Option<bool>,
    dumpable: Option<bool>,
    kernel_thread: bool,
    /// gilprof itself is under a seccomp filter.
    seccomp: bool,
    container: Container,
    /// gilprof's own command line, to be run again with more rights.
    again: String,
}

/// The error for a process that the kernel would not let us read with `errno` (EPERM and EACCES as a rule).
pub fn explain(pid: Pid, errno: i32) -> Error {
    Error::Permission { pid, why: why(pid, &Facts::of(pid, errno)) }
}

impl Facts {
    fn of(pid: Pid, errno: i32) -> Facts {
        let (mine, theirs) = (Status::own().unwrap_or_default(), Status::of(pid).unwrap_or_default());
        let uids = |status: &Status| -> Vec<u32> { status.numbers("Uid").iter().take(3).filter_map(|&uid| uid.try_into().ok()).collect() };
        let target_uids = uids(&theirs);
        // The kernel gives the files of a process that is not dumpable to root.
        let owner = std::fs::metadata(format!("/proc/{pid}")).ok().map(|meta| meta.uid());
        let dumpable = match (owner, target_uids.get(1)) {
            (Some(owner), Some(&uid)) if uid != 0 => Some(owner == uid),
            _ => None,
        };
        let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).ok();
        Facts {
            errno,
            my_uid: uids(&mine).get(1).copied(),
            target_uids,
            have_cap: mine.bits("CapEff").map(|bits| bits >> CAP_SYS_PTRACE & 1 == 1),
            same_user_namespace: link("self").zip(link(&pid.to_string())).map(|(mine, theirs)| mine == theirs),
            yama: read_text("/proc/sys/kernel/yama/ptrace_scope").ok().and_then(|text| text.trim().parse().ok()),
            descendant: descendant(pid),
            dumpable,
            kernel_thread: theirs.kernel_thread() == Some(true),
            seccomp: mine.number("Seccomp").is_some_and(|mode| mode != 0),
            container: container(),
            again: again(pid),
        }
    }
}

/// What stands in the way, and what helps: one cause, the first that is sure.
fn why(pid: Pid, facts: &Facts) -> String {
    let have_cap = facts.have_cap == Some(true);
    let Facts { again, .. } = facts;
    if facts.kernel_thread {
        return "it is a kernel thread, which has no memory of its own".to_owned();
    }
    if facts.errno == libc::ENOSYS {
        return format!("a seccomp filter or the kernel's configuration forbids process_vm_readv{}", help_privilege(facts));
    }
    if have_cap && facts.same_user_namespace == Some(false) {
        return format!(
            "it lives in another user namespace (a rootless container, perhaps), where our CAP_SYS_PTRACE does not count\n  \
             run gilprof in the initial namespace, as root of the host: sudo {again}"
        );
    }
    if facts.yama == Some(3) {
        return "kernel.yama.ptrace_scope is 3: nobody may read another process, root included, until the next boot\n  \
                set kernel.yama.ptrace_scope to 1 in /etc/sysctl.d and boot again, or let gilprof be the parent: gilprof run"
            .to_owned();
    }
    if !have_cap {
        if let Some(cause) = without_cap(pid, facts) {
            return cause;
        }
    }
    if facts.seccomp {
        return format!("gilprof runs under a seccomp filter, which seems to forbid process_vm_readv{}", help_privilege(facts));
    }
    if have_cap {
        return "gilprof has CAP_SYS_PTRACE, so a security module (SELinux, AppArmor) or a protected process is the likely reason\n  \
                see what it refused: sudo dmesg | grep -iE 'denied|apparmor|selinux'"
            .to_owned();
    }
    format!("the kernel says {}{}", std::io::Error::from_raw_os_error(facts.errno), help_privilege(facts))
}

/// The causes that CAP_SYS_PTRACE would remove.
fn without_cap(pid: Pid, facts: &Facts) -> Option<String> {
    let me = facts.my_uid?;
    if let Some(&other) = facts.target_uids.iter().find(|&&uid| uid != me) {
        return Some(match me {
            0 => format!("it belongs to uid {other}, and root here lacks CAP_SYS_PTRACE{}", help_privilege(facts)),
            _ => format!("it belongs to uid {other} and you are uid {me}{}", help_privilege(facts)),
        });
    }
    if facts.dumpable == Some(false) {
        return Some(format!(
            "it is not dumpable: it has changed its user or capabilities, or its executable cannot be read, and only CAP_SYS_PTRACE reads such a process{}",
            help_privilege(facts)
        ));
    }
    match facts.yama {
        Some(1) if facts.descendant != Some(true) => {
            let sysctl = match facts.container {
                Container::None => "\n  or, until the next boot, for all processes of one user: sudo sysctl kernel.yama.ptrace_scope=0",
                // The setting is the host's; a container cannot change it.
                _ => "",
            };
            Some(format!(
                "kernel.yama.ptrace_scope is 1, so only an ancestor of pid {pid} may read it{}{sysctl}\n  or let gilprof be the parent: gilprof run python …",
                help_privilege(facts)
            ))
        }
        Some(2) => Some(format!("kernel.yama.ptrace_scope is 2, so only CAP_SYS_PTRACE may read other processes{}", help_privilege(facts))),
        _ if facts.same_user_namespace == Some(false) => {
            Some(format!("it lives in another user namespace (a container){}", help_privilege(facts)))
        }
        _ if me == 0 => Some(format!("gilprof lacks CAP_SYS_PTRACE, although it runs as root{}", help_privilege(facts))),
        _ => None,
    }
}

/// How to come by CAP_SYS_PTRACE here, on lines of its own.
fn help_privilege(facts: &Facts) -> String {
    let again = &facts.again;
    match facts.container {
        Container::Kubernetes => "\n  give the container the capability: securityContext: {capabilities: {add: [\"SYS_PTRACE\"]}}\n  \
             or attach a debug container that has it: kubectl debug --profile=sysadmin -it POD --image=IMAGE --target=CONTAINER"
            .to_owned(),
        Container::Docker => {
            let root = if facts.my_uid == Some(0) {
                String::new()
            } else {
                format!("\n  become root in the container (docker exec -u 0): sudo {again}")
            };
            format!(
                "{root}\n  start the container with: docker run --cap-add SYS_PTRACE …\n  or run gilprof on the host, with the host's pid"
            )
        }
        Container::None => format!("\n  sudo {again}"),
    }
}

fn container() -> Container {
    let exists = |path: &str| std::path::Path::new(path).exists();
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() || exists("/var/run/secrets/kubernetes.io") {
        return Container::Kubernetes;
    }
    let groups = read_text("/proc/1/cgroup").unwrap_or_default();
    if groups.contains("kubepods") {
        return Container::Kubernetes;
    }
    let marks = ["docker", "containerd", "libpod", "lxc"];
    if exists("/.dockerenv") || exists("/run/.containerenv") || marks.iter().any(|mark| groups.contains(mark)) {
        return Container::Docker;
    }
    Container::None
}

/// Whether gilprof is an ancestor of the process. Unknown when the chain cannot be followed.
fn descendant(pid: Pid) -> Option<bool> {
    let me = i64::from(std::process::id());
    let mut at = i64::from(pid.0);
    for _ in 0..MAX_ANCESTORS {
        if at <= 1 {
            return Some(false);
        }
        if at == me {
            return Some(true);
        }
        at = Status::of(Pid(i32::try_from(at).ok()?)).ok()?.number("PPid")?;
    }
    None
}

/// gilprof's own command line with its full path, because root's PATH seldom has it.
fn again(pid: Pid) -> String {
    let exe = std::env::current_exe().ok();
    let own = exe.as_deref().and_then(|path| path.file_name()).is_some_and(|name| name == "gilprof");
    if !own {
        return format!("gilprof attach --pid {pid}");
    }
    let program = exe.map(|path| path.to_string_lossy().into_owned());
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    program.into_iter().chain(words).map(|word| quoted(&word)).collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUDO: &str = "sudo gilprof attach --pid 7";

    /// An ordinary user's own process on a host without Yama: nothing stands in the way.
    fn plain() -> Facts {
        Facts {
            errno: libc::EPERM,
            my_uid: Some(1000),
            target_uids: vec![1000; 3],
            have_cap: Some(false),
            same_user_namespace: Some(true),
            yama: None,
            descendant: Some(false),
            dumpable: Some(true),
            kernel_thread: false,
            seccomp: false,
            container: Container::None,
            again: "gilprof attach --pid 7".to_owned(),
        }
    }

    #[test]
    fn every_cause_has_its_words_and_its_command() {
        let root = || Facts { my_uid: Some(0), target_uids: vec![0; 3], ..plain() };
        let table: Vec<(&str, Facts, &[&str])> = vec![
            ("kernel thread", Facts { kernel_thread: true, ..plain() }, &["kernel thread"]),
            ("other user", Facts { target_uids: vec![33; 3], ..plain() }, &["uid 33", "you are uid 1000", SUDO]),
            ("a setuid program", Facts { target_uids: vec![1000, 0, 0], ..plain() }, &["uid 0", SUDO]),
            (
                "yama 1",
                Facts { yama: Some(1), ..plain() },
                &["ptrace_scope is 1", SUDO, "sysctl kernel.yama.ptrace_scope=0", "gilprof run"],
            ),
            ("yama 1, own child", Facts { yama: Some(1), descendant: Some(true), ..plain() }, &["Operation not permitted", SUDO]),
            ("yama 2", Facts { yama: Some(2), ..plain() }, &["ptrace_scope is 2", SUDO]),
            ("yama 3, root", Facts { yama: Some(3), have_cap: Some(true), ..root() }, &["ptrace_scope is 3", "boot"]),
            ("not dumpable", Facts { dumpable: Some(false), ..plain() }, &["not dumpable", SUDO]),
            (
                "root in docker",
                Facts { container: Container::Docker, ..root() },
                &["lacks CAP_SYS_PTRACE", "docker run --cap-add SYS_PTRACE"],
            ),
            (
                "user in docker",
                Facts { container: Container::Docker, target_uids: vec![0; 3], ..plain() },
                &["you are uid 1000", SUDO, "docker exec -u 0", "--cap-add"],
            ),
            (
                "root in docker, other uid",
                Facts { container: Container::Docker, target_uids: vec![33; 3], ..root() },
                &["root here lacks CAP_SYS_PTRACE", "--cap-add"],
            ),
            ("pod", Facts { container: Container::Kubernetes, ..root() }, &["securityContext", "SYS_PTRACE", "kubectl debug"]),
            ("rootless container", Facts { have_cap: Some(true), same_user_namespace: Some(false), ..root() }, &["user namespace", SUDO]),
            ("user namespace", Facts { same_user_namespace: Some(false), ..plain() }, &["user namespace", SUDO]),
            ("seccomp", Facts { errno: libc::ENOSYS, container: Container::Docker, ..root() }, &["seccomp", "--cap-add"]),
            ("seccomp with EPERM", Facts { have_cap: Some(true), seccomp: true, ..root() }, &["seccomp", "process_vm_readv"]),
            ("selinux", Facts { have_cap: Some(true), ..root() }, &["security module", "dmesg"]),
            (
                "nothing known",
                Facts { my_uid: None, target_uids: vec![], have_cap: None, dumpable: None, ..plain() },
                &["not permitted", SUDO],
            ),
        ];
        for (name, facts, expected) in table {
            let text = why(Pid(7), &facts);
            for words in expected {
                assert!(text.contains(words), "{name}: {words:?} is not in {text:?}");
            }
        }
    }

    #[test]
    fn yama_in_a_container_is_not_ours_to_change() {
        let text = why(Pid(7), &Facts { yama: Some(1), container: Container::Docker, ..plain() });
        assert!(!text.contains("sysctl") && text.contains("--cap-add"), "{text}");
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(
            (quoted("--pid=7"), quoted("a b"), quoted("it's"), quoted("")),
            ("--pid=7".into(), "'a b'".into(), "'it'\\''s'".into(), "''".into())
        );
    }

    #[test]
    fn ancestors() {
        assert_eq!(descendant(Pid(std::process::id() as i32)), Some(true));
        assert_eq!(descendant(Pid(1)), Some(false));
    }
}
