//! Shared by the tests of the command line: a running gilprof, gilprof with fewer rights, and
//! interpreters that are held back.

use crate::support::pipe::Pipe;
use crate::support::{self, Interpreter, Target, PATIENCE};
use std::io::{PipeReader, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// A running gilprof. Killed and reaped when dropped.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<Pipe>,
    stderr: Pipe,
}

/// A program started under nohup or with `&` ignores some signals, and its children inherit that.
/// The tests must not depend on how they were started.
fn with_default_signals(command: &mut Command) -> &mut Command {
    let default_signals = || {
        for number in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
            // SAFETY: signal(2) may be called between fork and exec, and touches no memory.
            unsafe { libc::signal(number, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: `default_signals` allocates nothing and takes no lock.
    unsafe { command.pre_exec(default_signals) }
}

impl Running {
    /// Starts gilprof with these arguments.
    pub fn start(args: &[&str]) -> Running {
        Running::spawn(support::gilprof_command(args))
    }

    /// Starts a prepared command with an empty stdin.
    pub fn spawn(mut command: Command) -> Running {
        Running::spawn_with(command.stdin(Stdio::null()))
    }

    /// Starts a prepared command with the stdin that it has.
    pub fn spawn_with(command: &mut Command) -> Running {
        let mut child = with_default_signals(command.stdout(Stdio::piped()).stderr(Stdio::piped())).spawn().unwrap();
        let stdout = child.stdout.take().map(Pipe::new);
        let stderr = Pipe::new(child.stderr.take().unwrap());
        Running { stdin: child.stdin.take(), child, stdout, stderr }
    }

    /// Starts a prepared command with this stdout.
    pub fn spawn_to(mut command: Command, stdout: Stdio) -> Running {
        let mut child = with_default_signals(command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped())).spawn().unwrap();
        let stderr = Pipe::new(child.stderr.take().unwrap());
        Running { child, stdin: None, stdout: None, stderr }
    }

    pub fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    pub fn signal(&self, number: i32) {
        signal(self.pid(), number);
    }

    /// Writes to the stdin, if that is a pipe.
    pub fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Closes the stdin.
    pub fn close(&mut self) {
        self.stdin = None;
    }

    /// The next line of the stdout.
    pub fn line(&self) -> String {
        self.stdout.as_ref().unwrap().line(PATIENCE).unwrap()
    }

    /// The next line of the stderr.
    pub fn err_line(&self) -> String {
        self.stderr.line(PATIENCE).unwrap()
    }

    /// Waits until gilprof samples this thread. It does not print that, but it keeps a file of each
    /// thread open.
    pub fn watches(&self, target: &Target, tid: i64) {
        until("gilprof samples the target", || watches(self.pid(), target, tid));
    }

    /// Waits until gilprof samples the target's main thread.
    pub fn measures(&self, target: &Target) {
        self.watches(target, target.pid().into());
    }

    /// Waits for the end.
    pub fn end(mut self) -> Finished {
        self.close();
        let out = self.stdout.take().map_or_else(Vec::new, |stdout| stdout.end(PATIENCE).unwrap());
        let err = self.stderr.end(PATIENCE).unwrap();
        let status = self.child.wait().unwrap();
        Finished::new(Output { status, stdout: out, stderr: err })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process keeps open the file by which gilprof samples this thread.
pub fn watches(pid: i32, target: &Target, tid: i64) -> bool {
    samples(pid, target.pid(), tid)
}

/// Whether gilprof samples the main thread of a process.
pub fn watches_main(pid: i32, process: i32) -> bool {
    samples(pid, process, process.into())
}

fn samples(pid: i32, process: i32, tid: i64) -> bool {
    let file = format!("/proc/{process}/task/{tid}/syscall");
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|open| open.to_str() == Some(&file))
}

/// The exit status and the output of gilprof.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Finished {
    pub fn new(output: Output) -> Finished {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Finished { status: output.status, out: text(output.stdout), err: text(output.stderr) }
    }

    /// Checks the exit code, and that the stderr contains these texts, also across line breaks.
    #[track_caller]
    pub fn ended(&self, code: i32, words: &[&str]) -> &Finished {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        for wanted in words {
            assert!(has(&self.err, wanted), "{wanted:?} is not in {self:#?}");
        }
        assert!(!self.err.contains("panicked"), "{self:#?}");
        self
    }

    /// Checks that the stdout contains these texts, also across line breaks.
    #[track_caller]
    pub fn printed(&self, words: &[&str]) -> &Finished {
        for wanted in words {
            assert!(has(&self.out, wanted), "{wanted:?} is not in {self:#?}");
        }
        self
    }

    /// The report on the stdout.
    #[track_caller]
    pub fn report(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }
}

/// Whether a text contains another one. A space of it may be a line break and an indentation.
fn has(text: &str, wanted: &str) -> bool {
    text.contains(wanted) || text.split_whitespace().collect::<Vec<_>>().join(" ").contains(wanted)
}

/// Runs gilprof to its end.
pub fn gilprof(args: &[&str]) -> Finished {
    Running::start(args).end()
}

/// The warnings of a report as one text.
pub fn warnings(report: &serde_json::Value) -> String {
    report["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

/// A share of a thread's states.
pub fn share(report: &serde_json::Value, thread: &str, state: &str) -> f64 {
    let threads = report["threads"].as_array().unwrap();
    let found = threads.iter().find(|t| t["name"] == thread).unwrap_or_else(|| panic!("no {thread} in {threads:#?}"));
    found["states"][state].as_f64().unwrap()
}

pub fn signal(pid: i32, number: i32) {
    // SAFETY: kill takes two plain numbers.
    let sent = unsafe { libc::kill(pid, number) };
    assert_eq!(sent, 0, "kill {number} {pid}: {}", std::io::Error::last_os_error());
}

/// Waits for a condition without a handshake.
#[track_caller]
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        // A poll without a pause would take a core from the program that it waits for.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// CPU time of a process so far, in the kernel's ticks (10 ms).
pub fn cpu_ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2).map(|w| w.parse::<u64>().unwrap()).sum()
}

/// The letter of a process's state; `None` if the process does not exist.
pub fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// A word, quoted for a shell.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Makes a pipe's buffer as small as possible.
pub fn shrink(pipe: RawFd) {
    // SAFETY: fcntl takes plain numbers here; the caller holds the descriptor.
    let size = unsafe { libc::fcntl(pipe, libc::F_SETPIPE_SZ, 4096) };
    assert!(size > 0, "F_SETPIPE_SZ: {}", std::io::Error::last_os_error());
}

/// A Python that stops before it creates its interpreter: the dynamic linker prints its bindings to
/// a full pipe.
pub struct Held {
    child: Child,
    bindings: Option<PipeReader>,
}

impl Held {
    /// Starts `python -c CODE` and returns when its linker is at work.
    pub fn start(interpreter: &Interpreter, code: &str) -> Held {
        let mut command = match &interpreter.root {
            None => interpreter.command(),
            Some(root) => {
                // Only the interpreter's linker prints bindings, not that of chroot.
                let mut chroot = Command::new("chroot");
                chroot.arg(root).args(["/usr/bin/env", "LD_DEBUG=bindings"]).arg(&interpreter.path);
                chroot.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
                chroot
            }
        };
        if interpreter.root.is_none() {
            command.env("LD_DEBUG", "bindings");
        }
        command.args(["-c", code]).stdin(Stdio::piped()).stdout(Stdio::null());
        let (mut bindings, to) = std::io::pipe().unwrap();
        shrink(to.as_raw_fd());
        let child = command.stderr(to).spawn().unwrap();
        drop(command); // this process must not keep the writing end open
        bindings.read_exact(&mut [0]).unwrap();
        Held { child, bindings: Some(bindings) }
    }

    pub fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    /// Lets the interpreter continue.
    pub fn release(&mut self) {
        let mut bindings = self.bindings.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut bindings, &mut std::io::sink()));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// gilprof as a user without rights; `None` and a skip where that is not possible.
pub fn as_nobody(args: &[&str]) -> Option<Command> {
    with_setpriv(&["--reuid=65534", "--regid=65534", "--clear-groups"], args)
}

/// gilprof as root without CAP_SYS_PTRACE; `None` and a skip where that is not possible.
pub fn without_ptrace(args: &[&str]) -> Option<Command> {
    with_setpriv(&["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"], args)
}

/// gilprof as root without the capabilities for kernel events; `None` and a skip where that is not
/// possible.
pub fn without_bpf(args: &[&str]) -> Option<Command> {
    with_setpriv(&["--bounding-set=-bpf,-perfmon,-sys_admin", "--inh-caps=-bpf,-perfmon,-sys_admin"], args)
}

fn with_setpriv(how: &[&str], args: &[&str]) -> Option<Command> {
    let setpriv = |program: &str| {
        let mut command = Command::new("setpriv");
        command.args(how).arg(program);
        command
    };
    let program = env!("CARGO_BIN_EXE_gilprof");
    if !setpriv(program).arg("--version").output().is_ok_and(|out| out.status.success()) {
        support::skip(&format!("gilprof under setpriv {}: needs root, setpriv and a build that others may execute", how[0]));
        return None;
    }
    let mut command = setpriv(program);
    command.args(args).env("NO_COLOR", "1");
    Some(command)
}

/// The first and the last interpreter outside other roots: one without and one with published
/// offsets, if both are installed.
pub fn two_interpreters() -> Vec<Interpreter> {
    let here: Vec<Interpreter> = support::interpreters().into_iter().filter(|i| i.root.is_none()).collect();
    let mut two: Vec<Interpreter> = here.first().into_iter().chain(here.last()).cloned().collect();
    two.dedup();
    two
}
