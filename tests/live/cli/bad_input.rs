//! Bad input, and problems before the first sample: each has its message and exit code, and no file
//! is left behind.

use crate::harness::{newest, Suite};
use crate::support::{self, cli, compat};
use crate::{on, once};
use cli::{as_nobody, gilprof, quoted, until, without_ptrace, Held, Running};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use support::pipe::Pipe;
use support::{interpreters, legacy_interpreters, scratch, Folder, Interpreter, Target, PATIENCE};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    on!(suite, interpreters(), [a_python_that_has_ended_its_interpreter]);
    on!(suite, legacy_interpreters(), [an_old_python_that_has_ended_its_interpreter]);
    on!(
        suite,
        newest(interpreters()),
        [
            no_such_process,
            a_thread_stands_for_its_process,
            another_users_process,
            a_process_that_proc_does_not_show,
            a_stopped_process,
            root_without_the_capability,
            a_full_disk_is_reported_and_the_other_outputs_are_written,
            closed_streams_and_readers_that_leave_are_no_errors
        ]
    );
    once!(
        suite,
        [
            a_process_that_waits_to_be_collected,
            not_python,
            a_kernel_thread,
            a_program_that_talks_is_not_needed_to_know_that_it_is_not_python,
            an_own_process_that_is_not_dumpable
        ]
    );
    on!(suite, newest(cli::two_interpreters()), [a_shell_names_its_python_child]);
    on!(suite, interpreters(), [a_python_that_starts_is_waited_for]);
}

/// A program that is not Python. It ends with its stdin.
struct Other(Child);

impl Other {
    fn start(program: &str, args: &[&str]) -> Other {
        let mut command = Command::new(program);
        command.args(args);
        Other::spawn(command)
    }

    fn spawn(mut command: Command) -> Other {
        Other(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn attach(pid: &str) -> cli::Finished {
    gilprof(&["attach", "--pid", pid, "--duration", "300ms"])
}

fn no_such_process(interpreter: &Interpreter) {
    let mut target = Target::start(interpreter, "sleepers", &[]);
    let pid = target.pid().to_string();
    target.kill();
    for pid in [pid.as_str(), "2147483647"] {
        attach(pid).ended(3, &[&format!("error: no process with pid {pid}"), "pgrep -af python"]);
        gilprof(&["dump", "--pid", pid]).ended(3, &["error: no process with pid"]);
    }
}

fn a_process_that_waits_to_be_collected() {
    let mut child = Other::start("true", &[]);
    until("it has ended", || cli::state(child.0.id() as i32) == Some('Z'));
    attach(&child.pid()).ended(8, &["ended and waits for its parent"]);
    child.0.wait().unwrap();
}

fn not_python() {
    let cat = Other::start("cat", &[]);
    attach(&cat.pid()).ended(4, &[&format!("pid {} (cat) is not a Python process", cat.pid()), "pgrep -af python"]);
    gilprof(&["dump", "--pid", &cat.pid()]).ended(4, &["(cat) is not a Python process"]);
}

fn a_shell_names_its_python_child(interpreter: &Interpreter) {
    // The shell prints its child's pid. Both end with the shell's stdin, which a child in the
    // background has only as another descriptor.
    let python = quoted(interpreter.path.to_str().unwrap());
    let script = format!("exec 3<&0; {python} -c 'import os; print(os.getpid(), flush=True); os.read(3, 1)' & wait");
    let mut shell = Other::start("sh", &["-c", &script]);
    let output = Pipe::new(shell.0.stdout.take().unwrap());
    let child = output.line(PATIENCE).unwrap();
    attach(&shell.pid()).ended(4, &["it is a shell", &format!("its child {child} is Python"), &format!("gilprof attach --pid {child}")]);
}

fn a_kernel_thread() {
    if !std::fs::read_to_string("/proc/2/status").is_ok_and(|status| status.contains("Kthread:\t1")) || !support::is_root() {
        return support::skip("kernel threads: seen only by root outside containers, on Linux 6.8 and later");
    }
    attach("2").ended(4, &["pid 2 (kthreadd) is not a Python process", "it is a kernel thread"]);
}

fn a_thread_stands_for_its_process(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &["--facts"]);
    let tid = target.fact("tids")["worker-0"].to_string();
    let output = gilprof(&["dump", "--pid", &tid]);
    output
        .ended(0, &[&format!("{tid} is a thread of process {}", target.pid())])
        .printed(&[&format!("Process {}:", target.pid()), "worker-1"]);
}

fn a_python_that_starts_is_waited_for(interpreter: &Interpreter) {
    if interpreter.has_musl() {
        return support::skip(&format!("{}: its dynamic linker cannot be held back by a full pipe", interpreter.label));
    }
    let mut held = Held::start(interpreter, "import os; os.read(0, 1)");
    let pid = held.pid().to_string();
    gilprof(&["attach", "--pid", &pid]).ended(5, &["has not created its interpreter yet", "waiting a moment"]);
    let running = Running::start(&["dump", "--pid", &pid]);
    assert!(running.err_line().contains("waiting a moment"), "{}", interpreter.label);
    held.release();
    running.end().ended(0, &[]).printed(&[&format!("Process {pid}:"), &format!("Python {}", interpreter.version)]);
}

fn another_users_process(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let pid = target.pid().to_string();
    for args in [vec!["attach", "--pid", &pid, "--rate", "50"], vec!["dump", "--pid", &pid]] {
        let Some(command) = as_nobody(&args) else { return };
        let again = format!("gilprof {}", args.join(" "));
        Running::spawn(command).end().ended(7, &["it belongs to uid 0 and you are uid 65534", "sudo /", &again]);
    }
}

/// The kernel protects a process from its own user too: if its executable cannot be read, if it has
/// file capabilities, or if the process asks for it.
fn an_own_process_that_is_not_dumpable() {
    let Some(nobody) = as_nobody(&[]) else { return };
    // Not in the target folder, which nobody may not be able to enter.
    let folder = Folder::create(std::env::temp_dir().join(format!("gilprof-not-dumpable-{}", std::process::id())));
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let copy = |name: &str, mode: u32| {
        std::fs::copy("/bin/cat", path(name)).unwrap();
        std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(mode)).unwrap();
        vec![path(name)]
    };
    let mut programs = vec![copy("unreadable", 0o111), copy("capable", 0o755)];
    if !compat::succeeds(Command::new("setcap").args(["cap_net_bind_service+ep", &programs[1][0]])) {
        support::leave_out("file capabilities: setcap is not there, or the file system has none");
        programs.pop();
    }
    let of_nobody = |program: &[String]| {
        let mut command = Command::new(nobody.get_program());
        // setpriv itself still has root's capabilities when it starts a program, and may read any.
        command.args(nobody.get_args().take_while(|arg| !arg.to_string_lossy().ends_with("gilprof"))).arg("env").args(program);
        command
    };
    let protected =
        "import ctypes, sys; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); print(sys.stdin.readline(), end='', flush=True); sys.stdin.read()";
    let python = |i: &Interpreter| [i.path.to_str().unwrap(), "-c", protected].map(str::to_owned).to_vec();
    let here = interpreters().into_iter().filter(|i| i.root.is_none()).map(|i| python(&i));
    match here.rev().find(|python| compat::succeeds(&mut of_nobody(python))) {
        Some(python) => programs.push(python),
        None => support::leave_out("PR_SET_DUMPABLE: no interpreter that every user may run"),
    }
    for program in programs {
        let mut target = Other::spawn(of_nobody(&program));
        target.0.stdin.as_mut().unwrap().write_all(b"there\n").unwrap();
        assert_eq!(Pipe::new(target.0.stdout.take().unwrap()).line(PATIENCE).as_deref(), Ok("there"));
        let Some(command) = as_nobody(&["dump", "--pid", &target.pid()]) else { return };
        Running::spawn(command).end().ended(7, &["it is not dumpable", "sudo /"]);
    }
}

fn a_process_that_proc_does_not_show(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let Some(own) = as_nobody(&["attach", "--pid", &target.pid().to_string()]) else { return };
    let mut hiding = Command::new("unshare");
    hiding.args(["-m", "sh", "-c", "mount -t proc -o hidepid=invisible proc /proc && exec \"$@\"", "sh"]);
    hiding.arg(own.get_program()).args(own.get_args()).env("NO_COLOR", "1");
    let output = Running::spawn(hiding).end();
    if output.err.contains("unshare: ") || output.err.contains("mount: ") {
        return support::skip("hidepid: a /proc of one's own cannot be mounted here");
    }
    output.ended(7, &["/proc shows you no processes of other users", "hidepid", "sudo "]);
}

fn a_stopped_process(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let words = format!("pid {} is stopped", target.pid());
    attach(&target.pid().to_string()).ended(0, &[]);
    cli::signal(target.pid(), libc::SIGSTOP);
    until("it has stopped", || cli::state(target.pid()) == Some('T'));
    attach(&target.pid().to_string()).ended(0, &[&words, &format!("kill -CONT {}", target.pid())]);
    cli::signal(target.pid(), libc::SIGCONT);
    until("it goes on", || cli::state(target.pid()) != Some('T'));
    let output = attach(&target.pid().to_string());
    assert!(!output.ended(0, &[]).err.contains("is stopped"), "{output:#?}");
}

fn root_without_the_capability(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let Some(command) = without_ptrace(&["dump", "--pid", &target.pid().to_string()]) else { return };
    Running::spawn(command).end().ended(7, &["CAP_SYS_PTRACE"]);
}

fn a_full_disk_is_reported_and_the_other_outputs_are_written(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let pid = target.pid().to_string();
    let (full, good) = (scratch("full.svg"), scratch("good.json"));
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    let args = ["attach", "--pid", &pid, "--duration", "300ms", "-o", full.to_str().unwrap(), "-o", good.to_str().unwrap()];
    gilprof(&args).ended(10, &["full.svg: No space left on device", "good.json"]).printed(&["gilprof  pid", "worker-0"]);
    assert!(std::fs::read_to_string(&good).unwrap().contains("gilprof.report/1"));
    std::fs::remove_file(&good).unwrap();

    let stdout = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let args = ["attach", "--pid", &pid, "--duration", "300ms", "-o", good.to_str().unwrap()];
    Running::spawn_to(support::gilprof_command(&args), stdout.into())
        .end()
        .ended(10, &["standard output: No space left on device", "wrote"]);
    assert!(std::fs::read_to_string(&good).unwrap().contains("gilprof.report/1"));
    for file in [full, good] {
        std::fs::remove_file(file).unwrap();
    }
}

fn closed_streams_and_readers_that_leave_are_no_errors(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let (pid, file) = (target.pid().to_string(), scratch("closed.json"));
    let args = ["attach", "--pid", &pid, "--duration", "300ms", "-o", file.to_str().unwrap()];
    let mut closed = Command::new("sh");
    closed.args(["-c", "exec \"$@\" <&- >&- 2>&-", "sh", env!("CARGO_BIN_EXE_gilprof")]).args(args);
    assert!(closed.status().unwrap().success());
    // No output of a closed stream is in the file, whose descriptor might have replaced the
    // stream's.
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(report["schema"], "gilprof.report/1");
    std::fs::remove_file(&file).unwrap();

    for command in ["attach", "dump"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let length: &[&str] = if command == "attach" { &["--duration", "300ms"] } else { &[] };
        let args = [&[command, "--pid", &pid][..], length].concat();
        Running::spawn_to(support::gilprof_command(&args), writer.into()).end().ended(0, &[]);
    }
}

fn a_program_that_talks_is_not_needed_to_know_that_it_is_not_python() {
    // A process that reads and writes all the time changes its maps. The result is the same, and
    // the process is not disturbed.
    let mut talker = Other::start("cat", &[]);
    let mut from = BufReader::new(talker.0.stdout.take().unwrap());
    let mut to = talker.0.stdin.take().unwrap();
    let running = Running::start(&["attach", "--pid", &talker.pid()]);
    let mut line = String::new();
    for _ in 0..100 {
        to.write_all(b"hello\n").unwrap();
        line.clear();
        from.read_line(&mut line).unwrap();
        assert_eq!(line, "hello\n");
    }
    running.end().ended(4, &["(cat) is not a Python process"]);
}

fn a_python_that_has_ended_its_interpreter(interpreter: &Interpreter) {
    hanging(interpreter, "it has ended its interpreter, but not itself");
}

fn an_old_python_that_has_ended_its_interpreter(interpreter: &Interpreter) {
    hanging(interpreter, "py-spy finds no interpreter in it");
}

fn hanging(interpreter: &Interpreter, words: &str) {
    if support::lacks(interpreter, "ctypes") {
        return;
    }
    let mut target = Target::start(interpreter, "steps", &[]);
    target.send("hang");
    assert_eq!(target.line(), "hanging");
    attach(&target.pid().to_string()).ended(5, &[words]);
}
