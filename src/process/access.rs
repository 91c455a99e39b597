//! Explains why the kernel refuses to let gilprof read a process, and names the command that helps.
//!
//! The rules are those of ptrace(2), "Ptrace access mode checking": same user or CAP_SYS_PTRACE, a
//! target that is dumpable, then the rules of the security modules (Yama). The facts are collected
//! once, from procfs; the cause is a pure function of the facts.

use super::procfs::{live_task, read_text, Status};
use super::sys_linux;
use crate::error::Error;
use crate::ids::Pid;
use std::os::unix::fs::MetadataExt;

/// The bit of CAP_SYS_PTRACE.
const CAP_SYS_PTRACE: u32 = 19;
/// Ancestors that are followed to find out whether the target is a descendant of gilprof.
const MAX_ANCESTORS: usize = 256;

/// The kind of container that gilprof itself runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    None,
    /// Docker, Podman or another that takes `--cap-add`.
    Docker,
    Kubernetes,
}

/// The facts that decide. `None` means unknown; no cause is derived from it.
#[derive(Clone, Debug)]
struct AccessContext {
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
    /// gilprof's own command line, for a second run with more privileges.
    rerun_command: String,
}

/// The error for a process that the kernel refused to let gilprof read, with `errno` (EPERM and
/// EACCES as a rule).
pub fn denied(pid: Pid, errno: i32) -> Error {
    Error::Permission { pid, why: cause(pid, &AccessContext::from_pid(pid, errno)) }
}

/// Whether a process exists but is missing from `/proc`, which is mounted with `hidepid`.
pub fn is_hidden(pid: Pid) -> bool {
    // In this order, so that a process that exits in between is not taken for a hidden one.
    !std::fs::exists(format!("/proc/{pid}")).unwrap_or(true) && sys_linux::exists(pid)
}

/// The error for a hidden process.
pub fn hidden(pid: Pid) -> Error {
    let why = format!("/proc shows you no processes of other users (it is mounted with hidepid)\n  sudo {}", rerun_command(pid));
    Error::Permission { pid, why }
}

impl AccessContext {
    fn from_pid(pid: Pid, errno: i32) -> AccessContext {
        let (mine, theirs) = (Status::own().unwrap_or_default(), Status::from_pid(pid).unwrap_or_default());
        let uids = |status: &Status| -> Vec<u32> { status.numbers("Uid").iter().take(3).filter_map(|&uid| uid.try_into().ok()).collect() };
        let target_uids = uids(&theirs);
        // The kernel gives the files of a process that is not dumpable to root, but not its
        // directories. A main thread that has exited has no memory, and its files are root's too.
        let owner = std::fs::metadata(format!("/proc/{}/status", live_task(pid))).ok().map(|meta| meta.uid());
        let dumpable = match (owner, target_uids.get(1)) {
            (Some(owner), Some(&uid)) if uid != 0 => Some(owner == uid),
            _ => None,
        };
        let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).ok();
        AccessContext {
            errno,
            my_uid: uids(&mine).get(1).copied(),
            target_uids,
            have_cap: mine.bits("CapEff").map(|bits| bits >> CAP_SYS_PTRACE & 1 == 1),
            same_user_namespace: link("self").zip(link(&pid.to_string())).map(|(mine, theirs)| mine == theirs),
            yama: read_text("/proc/sys/kernel/yama/ptrace_scope").ok().and_then(|text| text.trim().parse().ok()),
            descendant: is_descendant(pid),
            dumpable,
            kernel_thread: theirs.kernel_thread() == Some(true),
            seccomp: mine.number("Seccomp").is_some_and(|mode| mode != 0),
            container: container(),
            rerun_command: rerun_command(pid),
        }
    }
}

/// The cause of the refusal and the remedy: the first cause that is certain.
fn cause(pid: Pid, context: &AccessContext) -> String {
    let have_cap = context.have_cap == Some(true);
    let AccessContext { rerun_command, .. } = context;
    if context.kernel_thread {
        return "it is a kernel thread, which has no memory of its own".to_owned();
    }
    if context.errno == libc::ENOSYS {
        return format!("a seccomp filter or the kernel's configuration forbids process_vm_readv{}", help_privilege(context));
    }
    if have_cap && context.same_user_namespace == Some(false) {
        return format!(
            "it runs in another user namespace (a rootless container, perhaps), where the CAP_SYS_PTRACE of gilprof has no effect\n  \
             run gilprof in the initial namespace, as root of the host: sudo {rerun_command}"
        );
    }
    if context.yama == Some(3) {
        return "kernel.yama.ptrace_scope is 3: no process may read another, not even as root, until the next boot\n  \
                set kernel.yama.ptrace_scope to 1 in /etc/sysctl.d and reboot, or let gilprof be the parent: gilprof run"
            .to_owned();
    }
    if !have_cap {
        if let Some(cause) = cause_without_cap(pid, context) {
            return cause;
        }
    }
    if context.seccomp {
        return format!("gilprof runs under a seccomp filter, which seems to forbid process_vm_readv{}", help_privilege(context));
    }
    if have_cap {
        return "gilprof has CAP_SYS_PTRACE, so a security module (SELinux, AppArmor) or a protected process is the likely reason\n  \
                see what it refused: sudo dmesg | grep -iE 'denied|apparmor|selinux'"
            .to_owned();
    }
    format!("the kernel reports: {}{}", std::io::Error::from_raw_os_error(context.errno), help_privilege(context))
}

/// The causes that CAP_SYS_PTRACE would remove.
fn cause_without_cap(pid: Pid, context: &AccessContext) -> Option<String> {
    let me = context.my_uid?;
    if let Some(&other) = context.target_uids.iter().find(|&&uid| uid != me) {
        return Some(match me {
            0 => format!("it belongs to uid {other}, and root here lacks CAP_SYS_PTRACE{}", help_privilege(context)),
            _ => format!("it belongs to uid {other} and you are uid {me}{}", help_privilege(context)),
        });
    }
    if context.dumpable == Some(false) {
        return Some(format!(
            "it is not dumpable: it has changed its user or capabilities (file capabilities count), its executable cannot be read, or it forbids this itself (PR_SET_DUMPABLE), and only CAP_SYS_PTRACE reads such a process{}",
            help_privilege(context)
        ));
    }
    match context.yama {
        Some(1) if context.descendant != Some(true) => {
            let sysctl = match context.container {
                Container::None => "\n  or, until the next boot, for all processes of one user: sudo sysctl kernel.yama.ptrace_scope=0",
                // The setting is the host's; a container cannot change it.
                _ => "",
            };
            Some(format!(
                "kernel.yama.ptrace_scope is 1, so only an ancestor of pid {pid} may read it{}{sysctl}\n  or let gilprof be the parent: gilprof run python …",
                help_privilege(context)
            ))
        }
        Some(2) => {
            Some(format!("kernel.yama.ptrace_scope is 2, so only CAP_SYS_PTRACE may read other processes{}", help_privilege(context)))
        }
        _ if context.same_user_namespace == Some(false) => {
            Some(format!("it runs in another user namespace (a container){}", help_privilege(context)))
        }
        _ if me == 0 => Some(format!("gilprof lacks CAP_SYS_PTRACE, although it runs as root{}", help_privilege(context))),
        _ => None,
    }
}

/// The ways to get CAP_SYS_PTRACE here, each on its own line.
fn help_privilege(context: &AccessContext) -> String {
    let rerun_command = &context.rerun_command;
    match context.container {
        Container::Kubernetes => "\n  give the container the capability: securityContext: {capabilities: {add: [\"SYS_PTRACE\"]}}\n  \
             or attach a debug container that has it: kubectl debug --profile=sysadmin -it POD --image=IMAGE --target=CONTAINER"
            .to_owned(),
        Container::Docker => {
            let root = if context.my_uid == Some(0) {
                String::new()
            } else {
                format!("\n  become root in the container (docker exec -u 0): sudo {rerun_command}")
            };
            format!(
                "{root}\n  start the container with: docker run --cap-add SYS_PTRACE …\n  or run gilprof on the host, with the host's pid"
            )
        }
        Container::None => format!("\n  sudo {rerun_command}"),
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
fn is_descendant(pid: Pid) -> Option<bool> {
    let me = i64::from(std::process::id());
    let mut at = i64::from(pid.0);
    for _ in 0..MAX_ANCESTORS {
        if at <= 1 {
            return Some(false);
        }
        if at == me {
            return Some(true);
        }
        at = Status::from_pid(Pid(i32::try_from(at).ok()?)).ok()?.number("PPid")?;
    }
    None
}

/// gilprof's own command line with its full path, because root's PATH rarely has it.
fn rerun_command(pid: Pid) -> String {
    let exe = std::env::current_exe().ok();
    let own = exe.as_deref().and_then(|path| path.file_name()).is_some_and(|name| name == "gilprof");
    if !own {
        return format!("gilprof attach --pid {pid}");
    }
    let program = exe.map(|path| path.to_string_lossy().into_owned());
    let args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    program.into_iter().chain(args).map(|arg| quoted(&arg)).collect::<Vec<_>>().join(" ")
}

/// Quotes an argument for a shell.
pub(super) fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) {
        return arg.to_owned();
    }
    format!("'{}'", arg.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUDO: &str = "sudo gilprof attach --pid 7";

    /// An ordinary user's own process on a host without Yama: nothing forbids the read.
    fn plain() -> AccessContext {
        AccessContext {
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
            rerun_command: "gilprof attach --pid 7".to_owned(),
        }
    }

    #[test]
    fn every_cause_has_its_message_and_its_command() {
        let root = || AccessContext { my_uid: Some(0), target_uids: vec![0; 3], ..plain() };
        let table: Vec<(&str, AccessContext, &[&str])> = vec![
            ("kernel thread", AccessContext { kernel_thread: true, ..plain() }, &["kernel thread"]),
            ("other user", AccessContext { target_uids: vec![33; 3], ..plain() }, &["uid 33", "you are uid 1000", SUDO]),
            ("a setuid program", AccessContext { target_uids: vec![1000, 0, 0], ..plain() }, &["uid 0", SUDO]),
            (
                "yama 1",
                AccessContext { yama: Some(1), ..plain() },
                &["ptrace_scope is 1", SUDO, "sysctl kernel.yama.ptrace_scope=0", "gilprof run"],
            ),
            ("yama 1, own child", AccessContext { yama: Some(1), descendant: Some(true), ..plain() }, &["Operation not permitted", SUDO]),
            ("yama 2", AccessContext { yama: Some(2), ..plain() }, &["ptrace_scope is 2", SUDO]),
            ("yama 3, root", AccessContext { yama: Some(3), have_cap: Some(true), ..root() }, &["ptrace_scope is 3", "boot"]),
            ("not dumpable", AccessContext { dumpable: Some(false), ..plain() }, &["not dumpable", SUDO]),
            (
                "root in docker",
                AccessContext { container: Container::Docker, ..root() },
                &["lacks CAP_SYS_PTRACE", "docker run --cap-add SYS_PTRACE"],
            ),
            (
                "user in docker",
                AccessContext { container: Container::Docker, target_uids: vec![0; 3], ..plain() },
                &["you are uid 1000", SUDO, "docker exec -u 0", "--cap-add"],
            ),
            (
                "root in docker, other uid",
                AccessContext { container: Container::Docker, target_uids: vec![33; 3], ..root() },
                &["root here lacks CAP_SYS_PTRACE", "--cap-add"],
            ),
            ("pod", AccessContext { container: Container::Kubernetes, ..root() }, &["securityContext", "SYS_PTRACE", "kubectl debug"]),
            (
                "rootless container",
                AccessContext { have_cap: Some(true), same_user_namespace: Some(false), ..root() },
                &["user namespace", SUDO],
            ),
            ("user namespace", AccessContext { same_user_namespace: Some(false), ..plain() }, &["user namespace", SUDO]),
            ("seccomp", AccessContext { errno: libc::ENOSYS, container: Container::Docker, ..root() }, &["seccomp", "--cap-add"]),
            ("seccomp with EPERM", AccessContext { have_cap: Some(true), seccomp: true, ..root() }, &["seccomp", "process_vm_readv"]),
            ("selinux", AccessContext { have_cap: Some(true), ..root() }, &["security module", "dmesg"]),
            (
                "nothing known",
                AccessContext { my_uid: None, target_uids: vec![], have_cap: None, dumpable: None, ..plain() },
                &["not permitted", SUDO],
            ),
        ];
        for (name, context, expected) in table {
            let text = cause(Pid(7), &context);
            for part in expected {
                assert!(text.contains(part), "{name}: {part:?} is not in {text:?}");
            }
        }
    }

    #[test]
    fn a_container_cannot_change_yama() {
        let text = cause(Pid(7), &AccessContext { yama: Some(1), container: Container::Docker, ..plain() });
        assert!(!text.contains("sysctl") && text.contains("--cap-add"), "{text}");
    }

    #[test]
    fn arguments_are_quoted_for_a_shell() {
        assert_eq!(
            (quoted("--pid=7"), quoted("a b"), quoted("it's"), quoted("")),
            ("--pid=7".into(), "'a b'".into(), "'it'\\''s'".into(), "''".into())
        );
    }

    #[test]
    fn ancestors() {
        assert_eq!(is_descendant(Pid(std::process::id() as i32)), Some(true));
        assert_eq!(is_descendant(Pid(1)), Some(false));
    }
}
