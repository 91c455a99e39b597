//! Shared by the three test programs: interpreters, targets, gilprof itself, skips and locks.
//!
//! A test that cannot run here says so with [`skip`], and `scripts/test` counts it.
#![allow(dead_code)] // each test program uses a part of this module

pub mod checks;
pub mod cli;
pub mod compat;
pub mod documents;
pub mod gate;
mod interpreters;
pub mod layout_probe;
pub mod pipe;
pub mod recorded;
pub mod schema;
mod target;
pub mod viewers;

#[allow(unused_imports)] // as above
pub use interpreters::{free_threaded_interpreters, interpreters, legacy_interpreters, oldest_and_newest, with_musl, Interpreter};
pub use target::Target;

use pipe::Pipe;
use std::cell::RefCell;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The longest silence of a target or of gilprof that is no failure. Long, because the cores may be
/// shared with other programs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// `launcher`, extended by the arguments and the environment of `command`.
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

/// A new folder, removed with its content when dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// A folder in the scratch folder of this test process.
    pub fn new(name: &str) -> Folder {
        Folder::create(scratch(name))
    }

    pub fn create(path: PathBuf) -> Folder {
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

/// Whether the tests run as root.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Cargo's folder for the files of tests. It is created here again if somebody cleaned or moved the
/// target folder.
fn scratch_folder() -> &'static Path {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(folder).unwrap();
    folder
}

/// A new path for a file of a test.
pub fn scratch(name: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    scratch_folder().join(format!("{}-{number}-{name}", std::process::id()))
}

/// A command that runs the built gilprof with these arguments.
pub fn gilprof_command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gilprof"));
    command.args(args).env("NO_COLOR", "1");
    command
}

/// Runs the built gilprof to its end. Panics when it does not end within [`PATIENCE`].
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

/// Whether every test runs in its long form: `scripts/test --all`, or `GILPROF_TEST_ALL=1`.
/// tests/README.md lists the differences.
pub fn all() -> bool {
    std::env::var_os("GILPROF_TEST_ALL").is_some_and(|value| !value.is_empty() && value != "0")
}

/// The number of random inputs of a property test: `full` with `--all`, else a quarter.
pub fn cases(full: u32) -> u32 {
    if all() {
        full
    } else {
        full / 4
    }
}

/// The length of a live test's window in seconds: `full` with `--all`, else `brief`.
pub fn window(full: f64, brief: f64) -> f64 {
    if all() {
        full
    } else {
        brief
    }
}

thread_local! {
    /// The live case that this thread runs, and the reason why it was skipped.
    static CASE: RefCell<(String, Option<String>)> = const { RefCell::new((String::new(), None)) };
}

/// Assigns later skips of this thread to this case.
pub fn begin_case(name: &str) {
    CASE.with(|case| *case.borrow_mut() = (format!("live {name}"), None));
}

/// The first reason why the case of this thread was skipped.
pub fn skipped_here() -> Option<String> {
    CASE.with(|case| case.borrow().1.clone())
}

/// The name of the running test; empty while no test runs, as when the interpreters are listed.
fn test_name() -> String {
    let case = CASE.with(|case| case.borrow().0.clone());
    if !case.is_empty() || env!("CARGO_CRATE_NAME") == "live" {
        return case;
    }
    let thread = std::thread::current(); // libtest names it after its test
    std::env::var("NEXTEST_TEST_NAME").ok().or_else(|| thread.name().map(str::to_owned)).unwrap_or_default()
}

/// Reports that something was not tested, on stderr and to `scripts/test`. The test then counts as
/// skipped, not as passed.
pub fn skip(why: &str) {
    eprintln!("skipped: {why}");
    CASE.with(|case| _ = case.borrow_mut().1.get_or_insert_with(|| why.to_owned()));
    note("GILPROF_TEST_SKIPS", &format!("skipped: {}\t{}", one_line(why), test_name()));
}

/// Whether an interpreter lacks a module that the workload of a test imports. The test is then
/// skipped.
pub fn lacks(interpreter: &Interpreter, module: &str) -> bool {
    let out = interpreter.command().args(["-c", &format!("import {module}")]).output().unwrap();
    if !out.status.success() {
        let why = String::from_utf8_lossy(&out.stderr);
        skip(&format!("{}: it has no {module}: {}", interpreter.label, why.lines().last().unwrap_or_default()));
    }
    !out.status.success()
}

/// Reports that a part of a test was left out. The rest of the test counts.
pub fn leave_out(why: &str) {
    eprintln!("skipped: {why}");
    note("GILPROF_TEST_SKIPS", &format!("skipped: {}\t", one_line(why)));
}

/// A reason may be what a program printed; the file has a line for each skip.
fn one_line(why: &str) -> String {
    why.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Appends a line to the file that the environment variable names, if it is set. The line is a
/// single write, so that lines of two processes do not mix.
fn note(variable: &str, line: &str) {
    let Some(path) = std::env::var_os(variable) else { return };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Holds the lock of live tests. Two measuring tests at a time would starve each other of CPU, in
/// one process or in two.
#[must_use = "the other live tests run as soon as this is dropped"]
pub struct Guard(std::fs::File); // the lock goes with its descriptor

/// Waits until no other live test runs. A test that measures calls this once, at its beginning. The
/// harness of `live` does it for its cases.
pub fn serial_guard() -> Guard {
    locked(libc::LOCK_EX)
}

/// Waits until no other live test measures. Tests that hold this guard may run beside each other.
pub fn shared_guard() -> Guard {
    locked(libc::LOCK_SH)
}

fn locked(how: i32) -> Guard {
    // A lock belongs to the open file. Each call opens the file again, so the lock also separates
    // threads of one process.
    let file = std::fs::File::create(scratch_folder().join("live.lock")).unwrap();
    // SAFETY: flock takes a descriptor, which `file` keeps open, and touches no memory.
    let locked = unsafe { libc::flock(file.as_raw_fd(), how) };
    assert_eq!(locked, 0, "flock: {}", std::io::Error::last_os_error());
    Guard(file)
}
