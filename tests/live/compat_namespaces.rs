//! Programs behind the walls of containers: other namespaces of processes and files, other users;
//! and gilprof with fewer rights than it needs.

use crate::harness::Suite;
use crate::support::{self, checks, cli, compat};
use crate::{complaining, on, row};
use checks::{measure, measure_process, thread, Complaints};
use cli::{quoted, Finished, Running};
use compat::{home, in_this_root, named, not_computing, succeeds, summary, workload};
use serde_json::Value;
use std::os::unix::process::CommandExt;
use std::process::Command;
use support::{gilprof_command, interpreters, scratch, skip, under, window, Folder, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    complaining!(suite, interpreters(), [another_pid_namespace, another_users_program]);
    complaining!(suite, cli::two_interpreters(), [in_the_same_pid_namespace]);
    complaining!(suite, in_this_root(), [another_mount_namespace]);
    complaining!(suite, cli::two_interpreters(), [a_fork_by_c_code_in_another_pid_namespace]);
    on!(suite, cli::two_interpreters(), [a_seccomp_filter_around_gilprof]);
}

/// `unshare` with these namespaces; none and a skip where it is refused.
fn unshare(namespaces: &[&str]) -> Option<Command> {
    let command = || {
        let mut unshare = Command::new("unshare");
        unshare.args(namespaces);
        unshare
    };
    if !succeeds(command().arg("true")) {
        skip(&format!("unshare {}: not there, or refused", namespaces.join(" ")));
        return None;
    }
    Some(command())
}

fn child(pid: i32) -> i32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}

/// The report has the thread ids of this namespace, for the threads with the names of the workload
/// in the other one.
fn ids(report: &Value, target: &Target, pid: i32, complaints: &mut Complaints) {
    for (name, inner) in target.fact("tids").as_object().unwrap() {
        let tid = &thread(report, name)["tid"];
        let status = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).unwrap();
        let theirs = status.lines().find_map(|line| line.strip_prefix("NSpid:")).and_then(|ids| ids.split_whitespace().last());
        complaints.expect(theirs == Some(inner.to_string().as_str()), || format!("{name} is {inner} there, not {theirs:?}"));
    }
}

fn another_pid_namespace(interpreter: &Interpreter, complaints: &mut Complaints) {
    let Some(inside) = unshare(&["--pid", "--fork", "--mount-proc", "--kill-child"]) else { return };
    let target = Target::start_through(inside, interpreter, "cpu", &["--facts"]);
    let pid = child(target.pid());
    measure_process(interpreter, pid, window(0.8, 0.5), complaints, |measured, complaints| {
        let report = &measured.report;
        row!(interpreter.label, "another pid namespace: {}", summary(report));
        not_computing(report, 3).into_iter().for_each(|wrong| complaints.add(&wrong));
        complaints.expect(report["target"]["pid"] == pid, || report["target"].to_string());
        complaints.expect(named(report, "").iter().all(|t| t["python"] == true), || summary(report));
        ids(report, &target, pid, complaints);
    });
}

/// The thread states of the child have ids of the parent, and of its namespace.
fn a_fork_by_c_code_in_another_pid_namespace(interpreter: &Interpreter, complaints: &mut Complaints) {
    let Some(inside) = unshare(&["--pid", "--fork", "--mount-proc", "--kill-child"]) else { return };
    let target = Target::start_through(inside, interpreter, "c_fork", &[]);
    measure_process(interpreter, child(child(target.pid())), window(0.8, 0.5), complaints, |measured, complaints| {
        row!(interpreter.label, "forked in another pid namespace: {}", summary(&measured.report));
        compat::two_after_a_c_fork(&measured.report, "MainThread").into_iter().for_each(|wrong| complaints.add(&wrong));
    });
}

/// In the namespace of its target, gilprof sees the ids that the target sees.
fn in_the_same_pid_namespace(interpreter: &Interpreter, complaints: &mut Complaints) {
    let Some(inside) = unshare(&["--pid", "--fork", "--mount-proc", "--kill-child"]) else { return };
    let code = "import threading, time\ndef burn():\n    end = time.time() + 1.5\n    while time.time() < end: pass\n\
            some = [threading.Thread(target=burn, name='worker-%d' % n) for n in range(2)]\n[t.start() for t in some]\n[t.join() for t in some]";
    let file = scratch("inside.json");
    let mut run = gilprof_command(&["run", "-o", file.to_str().unwrap(), "--"]);
    run.arg(&interpreter.path).args(["-B", "-c", code]);
    let output = Running::spawn(under(inside, &run)).end();
    output.ended(0, &["wrote"]);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    std::fs::remove_file(file).unwrap();
    row!(interpreter.label, "gilprof inside: {}", summary(&report));
    complaints.expect(named(&report, "worker-").len() == 2 && report["target"]["pid"].as_i64().unwrap() < 20, || summary(&report));
}

/// The program's files are at paths that mean something else here: only the program has the mount.
fn another_mount_namespace(interpreter: &Interpreter, complaints: &mut Complaints) {
    let Some(mut inside) = unshare(&["--mount", "--propagation", "private"]) else { return };
    let folder = Folder::new("mounted");
    let there = |path: &std::path::Path| quoted(folder.path().join(path.strip_prefix(home(interpreter)).unwrap()).to_str().unwrap());
    let (major, minor) = interpreter.minor();
    let library = home(interpreter).join(format!("lib/libpython{major}.{minor}{}.so.1.0", if minor < 8 { "m" } else { "" }));
    // The library must also come from the mount, not from the place where the executable would
    // search for it.
    let preload = if library.exists() { format!("export LD_PRELOAD={};", there(&library)) } else { String::new() };
    let (from, to) = (quoted(home(interpreter).to_str().unwrap()), quoted(folder.path().to_str().unwrap()));
    let python = there(&interpreter.path);
    let file = quoted(workload("cpu").to_str().unwrap());
    inside.args(["sh", "-c", &format!("mount --bind {from} {to} && {preload} exec {python} -B {file}")]);
    let target = Target::start_command(inside);
    measure(interpreter, &target, window(0.8, 0.5), complaints, |measured, complaints| {
        let report = &measured.report;
        row!(interpreter.label, "another mount namespace: {}", summary(report));
        not_computing(report, 3).into_iter().for_each(|wrong| complaints.add(&wrong));
        let executable = report["target"]["executable"].as_str().unwrap();
        complaints.expect(executable.starts_with(folder.path().to_str().unwrap()), || executable.to_owned());
        complaints.expect(!std::path::Path::new(executable).exists(), || format!("{executable} is here too"));
    });
}

/// Root measures a program of another user.
fn another_users_program(interpreter: &Interpreter, complaints: &mut Complaints) {
    // Only root may be able to read the interpreters, and only root can use chroot.
    let caps = if interpreter.root.is_some() { "+dac_read_search,+sys_chroot" } else { "+dac_read_search" };
    let nobody = || {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        setpriv.args([format!("--inh-caps={caps}"), format!("--ambient-caps={caps}")]);
        setpriv
    };
    if !succeeds(under(nobody(), &interpreter.command()).args(["-c", ""])) {
        return skip(&format!("{}: another user's program: needs root and setpriv", interpreter.label));
    }
    let target = Target::start_through(nobody(), interpreter, "cpu", &[]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", target.pid())).unwrap();
    assert!(status.contains("Uid:\t65534"), "{status}");
    measure(interpreter, &target, window(0.8, 0.5), complaints, |measured, complaints| {
        row!(interpreter.label, "another user: {}", summary(&measured.report));
        not_computing(&measured.report, 3).into_iter().for_each(|wrong| complaints.add(&wrong));
    });
}

/// gilprof under a seccomp filter that fails process_vm_readv with this error, as filters of
/// container runtimes do.
fn filtered(args: &[&str], errno: i32) -> Finished {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let call = libc::SYS_process_vm_readv as u32;
    let filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // the number of the system call
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let mut command = gilprof_command(args);
    let install = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: prctl only reads `program` and the four instructions that it points to, which
        // `filter` holds.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
        };
        if done {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
    Running::spawn(command).end()
}

fn a_seccomp_filter_around_gilprof(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let pid = target.pid().to_string();
    for errno in [libc::EPERM, libc::ENOSYS] {
        for args in [vec!["attach", "--pid", &pid, "--duration", "300ms"], vec!["dump", "--pid", &pid]] {
            let output = filtered(&args, errno);
            eprintln!("{}", output.err);
            output.ended(7, &["no permission to read the memory", "seccomp", "process_vm_readv"]);
        }
    }
}
