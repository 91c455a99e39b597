//! Workloads as running processes.
//!
//! Nothing sleeps, and every wait has a bound: a target prints `ready` on a pipe, and a pipe that
//! is silent for longer than [`PATIENCE`] is a failure. A target ends with its handle. It also ends
//! with the test process, because its stdin closes then.

use super::pipe::Pipe;
use super::{note, repository, under, Folder, Interpreter, PATIENCE};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A running workload that has printed `ready`. Killed and reaped when dropped.
pub struct Target {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Pipe,
    facts: Vec<serde_json::Value>,
    source: PathBuf,
    _copy: Option<Copy>,
}

impl Target {
    /// Starts `tests/workloads/NAME.py` and waits for its `ready`.
    pub fn start(interpreter: &Interpreter, workload: &str, args: &[&str]) -> Target {
        let file = repository().join("tests/workloads").join(workload).with_extension("py");
        Target::start_file(interpreter, &file, args)
    }

    /// Starts any script that prints `ready`. If the interpreter is in another root, the script
    /// runs from a copy of its folder there.
    pub fn start_file(interpreter: &Interpreter, file: &Path, args: &[&str]) -> Target {
        Target::start_under(None, interpreter, file, args)
    }

    /// Starts a workload by another command: `unshare … python …`. The target's pid is that of the
    /// other command.
    pub fn start_through(launcher: Command, interpreter: &Interpreter, workload: &str, args: &[&str]) -> Target {
        let file = repository().join("tests/workloads").join(workload).with_extension("py");
        Target::start_under(Some(launcher), interpreter, &file, args)
    }

    fn start_under(launcher: Option<Command>, interpreter: &Interpreter, file: &Path, args: &[&str]) -> Target {
        let copy = interpreter.root.as_ref().map(|root| Copy::make(file.parent().unwrap(), root));
        let source = copy.as_ref().map_or_else(|| file.to_path_buf(), |c| c.inside.join(file.file_name().unwrap()));
        let command = interpreter.command();
        let mut command = match launcher {
            Some(launcher) => under(launcher, &command),
            None => command,
        };
        command.arg(&source).args(args);
        note("GILPROF_TEST_RAN", &format!("{}\t{}\t{}", interpreter.label, interpreter.version, interpreter.kind));
        Target::spawn(command, source, copy, &interpreter.label)
    }

    /// Starts any program that prints `ready` and ends when its stdin closes: a shell, a copy of an
    /// interpreter, a program that embeds Python.
    pub fn start_command(command: Command) -> Target {
        let program = command.get_program().to_os_string();
        Target::spawn(command, PathBuf::from(&program), None, &program.to_string_lossy())
    }

    fn spawn(mut command: Command, source: PathBuf, copy: Option<Copy>, label: &str) -> Target {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{label}: {command:?}: {e}"));
        let (stdin, stdout) = (child.stdin.take(), Pipe::new(child.stdout.take().unwrap()));
        // Created before the handshake, so that a target without `ready` is killed and reaped too.
        let mut target = Target { child, stdin, stdout, facts: Vec::new(), source, _copy: copy };
        loop {
            match target.stdout.line(PATIENCE) {
                Ok(line) if line == "ready" => return target,
                Ok(line) => target.facts.push(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{label}: {line:?}: {e}"))),
                Err(why) => panic!("{label}: {} did not print `ready`: {why}", target.source.display()),
            }
        }
    }

    /// The interpreter's pid.
    pub fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    /// The path of the script in the target's code objects.
    pub fn source(&self) -> &str {
        self.source.to_str().unwrap()
    }

    /// The value of `key` among the JSON lines that the target printed before `ready`.
    pub fn fact(&self, key: &str) -> &serde_json::Value {
        let value = self.facts.iter().find_map(|f| f.get(key));
        value.unwrap_or_else(|| panic!("{} did not print {key:?}: {:?}", self.source(), self.facts))
    }

    /// Writes a line to the target's stdin, for workloads that take commands.
    pub fn send(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The next line of the target's stdout.
    pub fn line(&self) -> String {
        self.stdout.line(PATIENCE).unwrap_or_else(|why| panic!("{}: {why}", self.source()))
    }

    /// Closes the target's stdin, so that the target ends. Returns its last line (`done` and
    /// `seconds`), if it printed one.
    pub fn finish(mut self) -> (ExitStatus, Option<serde_json::Value>) {
        drop(self.stdin.take());
        let last = self.stdout.line(PATIENCE).ok().map(|line| serde_json::from_str(&line).unwrap());
        self.stdout.end(PATIENCE).unwrap();
        (self.child.wait().unwrap(), last)
    }

    /// Kills the target. Its pid may be reused from then on.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A folder of sources copied into another root, removed when dropped.
struct Copy {
    _outside: Folder,
    inside: PathBuf,
}

impl Copy {
    fn make(folder: &Path, root: &Path) -> Copy {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("tmp/gilprof-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let outside = Folder::create(root.join(&name));
        for entry in std::fs::read_dir(folder).unwrap() {
            let from = entry.unwrap().path();
            if from.extension().is_some_and(|e| e == "py") {
                std::fs::copy(&from, outside.path().join(from.file_name().unwrap())).unwrap();
            }
        }
        Copy { _outside: outside, inside: Path::new("/").join(&name) }
    }
}
