//! What live tests stand on: the interpreters found, targets that are ready when they are given out, gilprof itself, and honest skips.
//!
//! Nothing sleeps and nothing waits without a bound: a target says `ready` on a pipe, and a pipe that stays silent past [`PATIENCE`] is a
//! failure. A target dies with its handle, and when the test process dies, because its stdin closes then.
#![allow(dead_code)] // each of the three test programs uses its own part of this

pub mod checks;
pub mod cli;
pub mod compat;
pub mod gate;
pub mod layout_probe;
pub mod pipe;
pub mod recorded;
pub mod viewers;

use pipe::Pipe;
use std::cell::RefCell;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;
use std::time::Duration;

/// How long a target or gilprof may stay silent; generous, for two cores that many share.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A CPython to test on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// What it is called in messages: `3.11-debian-bookworm`.
    pub label: String,
    /// `3.11.2`.
    pub version: String,
    /// `shared,unstripped` and the like.
    pub kind: String,
    /// The directory to chroot into, for those that live in another root.
    pub root: Option<PathBuf>,
    /// The executable, inside `root`.
    pub path: PathBuf,
}

impl Interpreter {
    /// (3, 11).
    pub fn minor(&self) -> (u32, u32) {
        let mut parts = self.version.split('.').map(|p| p.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// Whether it was built without the GIL in mind.
    pub fn free_threaded(&self) -> bool {
        self.kind.contains("free-threaded")
    }

    /// A line of interpreters.tsv: LABEL, VERSION, KIND, ROOT or `-`, PATH.
    pub fn parse(line: &str) -> Option<Interpreter> {
        let [label, version, kind, root, path] = line.split('\t').collect::<Vec<_>>().try_into().ok()?;
        let root = (root != "-").then(|| PathBuf::from(root));
        Some(Interpreter { label: label.into(), version: version.into(), kind: kind.into(), root, path: path.into() })
    }

    /// A command that runs this interpreter. `chroot` executes it, so that its pid is the interpreter's own.
    pub fn command(&self) -> Command {
        let mut command = match &self.root {
            None => Command::new(&self.path),
            Some(root) => {
                let mut chroot = Command::new("chroot");
                chroot.arg(root).arg(&self.path);
                chroot.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
                chroot
            }
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PYTHON")) {
            command.env_remove(name);
        }
        command.arg("-B"); // leaves no __pycache__ among the sources
        command
    }
}

/// Every CPython 3.7+ with a GIL, newest last. `GILPROF_TEST_ONLY=3.11,3.15-debian` leaves those whose label begins so.
pub fn interpreters() -> Vec<Interpreter> {
    found().iter().filter(|i| i.minor() >= (3, 7) && !i.free_threaded()).cloned().collect()
}

/// 2.7 and 3.3 - 3.6: holder and stacks only.
pub fn legacy_interpreters() -> Vec<Interpreter> {
    found().iter().filter(|i| i.minor() < (3, 7)).cloned().collect()
}

/// Free-threaded builds, whose GIL may be off.
pub fn free_threaded_interpreters() -> Vec<Interpreter> {
    found().iter().filter(|i| i.free_threaded()).cloned().collect()
}

fn found() -> &'static [Interpreter] {
    static FOUND: OnceLock<Vec<Interpreter>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let listed = std::fs::read_to_string(list_path()).unwrap_or_default();
        let mut all: Vec<Interpreter> = listed.lines().filter_map(Interpreter::parse).filter(usable).collect();
        if all.is_empty() {
            all.extend(on_path());
        }
        let only = std::env::var("GILPROF_TEST_ONLY").unwrap_or_default();
        all.retain(|i| only.split(',').any(|prefix| i.label.starts_with(prefix)));
        if all.is_empty() {
            skip("live tests: no interpreter found; scripts/setup-pythons finds them");
        }
        all
    })
}

/// Where scripts/setup-pythons leaves its list.
fn list_path() -> PathBuf {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = || var("XDG_CACHE_HOME").or_else(|| Some(var("HOME")?.join(".cache"))).unwrap_or_default().join("gilprof/pythons");
    var("GILPROF_PYTHONS").unwrap_or_else(cache).join("interpreters.tsv")
}

fn usable(interpreter: &Interpreter) -> bool {
    if interpreter.root.is_some() && !is_root() {
        skip(&format!("{}: chroot needs root", interpreter.label));
        return false;
    }
    let inside = interpreter.path.strip_prefix("/").unwrap_or(&interpreter.path);
    let there = interpreter.root.as_ref().map_or_else(|| interpreter.path.exists(), |root| root.join(inside).exists());
    if !there {
        skip(&format!("{}: listed, but gone", interpreter.label));
    }
    there
}

/// Whether these tests run as root.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// The real executable behind `python3`: a wrapper script's pid may not be the interpreter's.
fn on_path() -> Option<Interpreter> {
    let ask = "import sys, os; print(sys.version.split()[0].rstrip('+') + '\\t' + os.path.realpath(sys.executable))";
    let out = Command::new("python3").args(["-c", ask]).output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8(out.stdout).ok()?;
    let (version, path) = text.trim_end().split_once('\t')?;
    Interpreter::parse(&format!("{version}-path\t{version}\tunknown\t-\t{path}"))
}

/// A running workload, at work when it is given out. Killed and reaped when dropped.
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

    /// Starts any script that keeps to the handshake. In another root it runs from a copy of its whole folder there.
    pub fn start_file(interpreter: &Interpreter, file: &Path, args: &[&str]) -> Target {
        Target::start_under(None, interpreter, file, args)
    }

    /// Starts a workload by another command: `unshare … python …`. The target's pid is that command's.
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

    /// Starts any program that keeps to the handshake and ends with its stdin: a shell, an interpreter's copy, a program that embeds one.
    pub fn start_command(command: Command) -> Target {
        let program = command.get_program().to_os_string();
        Target::spawn(command, PathBuf::from(&program), None, &program.to_string_lossy())
    }

    fn spawn(mut command: Command, source: PathBuf, copy: Option<Copy>, label: &str) -> Target {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{label}: {command:?}: {e}"));
        let (stdin, stdout) = (child.stdin.take(), Pipe::new(child.stdout.take().unwrap()));
        // Made before the handshake, so that a target that fails it is killed and reaped all the same.
        let mut target = Target { child, stdin, stdout, facts: Vec::new(), source, _copy: copy };
        loop {
            match target.stdout.line(PATIENCE) {
                Ok(line) if line == "ready" => return target,
                Ok(line) => target.facts.push(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{label}: {line:?}: {e}"))),
                Err(why) => panic!("{label}: {} never said `ready`: {why}", target.source.display()),
            }
        }
    }

    /// The interpreter's pid.
    pub fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    /// The script's path as the target's own code objects have it.
    pub fn source(&self) -> &str {
        self.source.to_str().unwrap()
    }

    /// The value of `key` among the facts that the target said before `ready`.
    pub fn fact(&self, key: &str) -> &serde_json::Value {
        let said = self.facts.iter().find_map(|f| f.get(key));
        said.unwrap_or_else(|| panic!("{} said nothing of {key:?}: {:?}", self.source(), self.facts))
    }

    /// Writes a line to the target's stdin, for workloads that do what they are told.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The next line of the target's stdout.
    pub fn line(&self) -> String {
        self.stdout.line(PATIENCE).unwrap_or_else(|why| panic!("{}: {why}", self.source()))
    }

    /// Closes the target's stdin, upon which it ends; gives what it said at the end (its `done` and `seconds`), if anything.
    pub fn finish(mut self) -> (ExitStatus, Option<serde_json::Value>) {
        drop(self.stdin.take());
        let last = self.stdout.line(PATIENCE).ok().map(|line| serde_json::from_str(&line).unwrap());
        self.stdout.end(PATIENCE).unwrap();
        (self.child.wait().unwrap(), last)
    }

    /// Ends the target at once, as a crash would. Its pid is free from then on.
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

/// A command that runs another one, in that one's environment.
pub fn under(mut launcher: Command, command: &Command) -> Command {
    launcher.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => launcher.env(name, value),
            None => launcher.env_remove(name),
        };
    }
    launcher
}

/// A fresh folder, gone with all it holds when dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// One that this test process can use.
    pub fn new(name: &str) -> Folder {
        Folder::make(scratch(name))
    }

    fn make(path: PathBuf) -> Folder {
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A folder of sources copied into another root, gone when dropped.
struct Copy {
    _outside: Folder,
    inside: PathBuf,
}

impl Copy {
    fn make(folder: &Path, root: &Path) -> Copy {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("tmp/gilprof-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let outside = Folder::make(root.join(&name));
        for entry in std::fs::read_dir(folder).unwrap() {
            let from = entry.unwrap().path();
            if from.extension().is_some_and(|e| e == "py") {
                std::fs::copy(&from, outside.path().join(from.file_name().unwrap())).unwrap();
            }
        }
        Copy { _outside: outside, inside: Path::new("/").join(&name) }
    }
}

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Cargo's own folder for what tests make. Made again, should a moved or cleaned target have lost it.
fn scratch_folder() -> &'static Path {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(folder).unwrap();
    folder
}

/// A fresh path for a file that a test makes.
pub fn scratch(name: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    scratch_folder().join(format!("{}-{number}-{name}", std::process::id()))
}

/// The built gilprof with these arguments, not started yet.
pub fn gilprof_command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gilprof"));
    command.args(args).env("NO_COLOR", "1");
    command
}

/// Runs the built gilprof to its end. Panics when it is not done within [`PATIENCE`].
pub fn gilprof(args: &[&str]) -> Output {
    let mut child = gilprof_command(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (stdout, stderr) = (Pipe::new(child.stdout.take().unwrap()), Pipe::new(child.stderr.take().unwrap()));
    let (out, err) = (stdout.end(PATIENCE), stderr.end(PATIENCE));
    if out.is_err() || err.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().unwrap();
    let whole = |pipe: Result<Vec<u8>, String>| pipe.unwrap_or_else(|why| panic!("gilprof {args:?} did not end: {why}"));
    Output { status, stdout: whole(out), stderr: whole(err) }
}

/// The report of `gilprof ARGS --format json`, which must succeed.
pub fn report(args: &[&str]) -> serde_json::Value {
    let out = gilprof(&[args, &["--format", "json"]].concat());
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "gilprof {args:?}: {}\n{stderr}", out.status);
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("gilprof {args:?} wrote no JSON: {e}\n{stderr}"))
}

/// Whether the long form of every test was asked for: `scripts/test --all`, or `GILPROF_TEST_ALL=1`. tests/README.md lists what it adds.
pub fn all() -> bool {
    std::env::var_os("GILPROF_TEST_ALL").is_some_and(|value| !value.is_empty() && value != "0")
}

/// How many random inputs a property is tried on: a quarter of `full` unless all was asked for.
pub fn cases(full: u32) -> u32 {
    if all() {
        full
    } else {
        full / 4
    }
}

/// The length of a live test's window in seconds: `full` where all was asked for.
pub fn window(full: f64, brief: f64) -> f64 {
    if all() {
        full
    } else {
        brief
    }
}

thread_local! {
    /// The live case that this thread runs, and why it was skipped.
    static CASE: RefCell<(String, Option<String>)> = const { RefCell::new((String::new(), None)) };
}

/// What this thread skips from now on belongs to this case.
pub fn begin_case(name: &str) {
    CASE.with(|case| *case.borrow_mut() = (format!("live {name}"), None));
}

/// Why the case of this thread was skipped, the first reason.
pub fn skipped_here() -> Option<String> {
    CASE.with(|case| case.borrow().1.clone())
}

/// The running test; empty outside of one, where the interpreters are listed.
fn test_name() -> String {
    let case = CASE.with(|case| case.borrow().0.clone());
    if !case.is_empty() || env!("CARGO_CRATE_NAME") == "live" {
        return case;
    }
    let thread = std::thread::current(); // libtest names it after its test
    std::env::var("NEXTEST_TEST_NAME").ok().or_else(|| thread.name().map(str::to_owned)).unwrap_or_default()
}

/// Says that something was not tested, where people and scripts/test will see it. A test that says so counts as skipped, not as passed.
pub fn skip(why: &str) {
    eprintln!("skipped: {why}");
    CASE.with(|case| _ = case.borrow_mut().1.get_or_insert_with(|| why.to_owned()));
    note("GILPROF_TEST_SKIPS", &format!("skipped: {why}\t{}", test_name()));
}

/// Says that a part of a test was left out; the rest of it counts.
pub fn leave_out(why: &str) {
    eprintln!("skipped: {why}");
    note("GILPROF_TEST_SKIPS", &format!("skipped: {why}\t"));
}

/// Adds a line to the file that the environment variable names, if it names one. One write, so that lines do not mix.
fn note(variable: &str, line: &str) {
    let Some(path) = std::env::var_os(variable) else { return };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Proof that no other live test measures, in this process or another: two at a time would starve each other of CPU.
#[must_use = "the other live tests run as soon as this is dropped"]
pub struct Guard(std::fs::File); // the lock goes with its descriptor

/// Waits until no other live test runs. Every test that measures calls this once, first; the harness of `live` does it for its cases.
pub fn serial_guard() -> Guard {
    locked(libc::LOCK_EX)
}

/// Waits until no other live test measures. What holds this may run beside others that hold it.
pub fn shared_guard() -> Guard {
    locked(libc::LOCK_SH)
}

fn locked(how: i32) -> Guard {
    // Opened anew each time: a lock belongs to the open file, so this also keeps threads of one process apart.
    let file = std::fs::File::create(scratch_folder().join("live.lock")).unwrap();
    // SAFETY: flock takes a descriptor, which `file` keeps open, and touches no memory.
    let locked = unsafe { libc::flock(file.as_raw_fd(), how) };
    assert_eq!(locked, 0, "flock: {}", std::io::Error::last_os_error());
    Guard(file)
}
