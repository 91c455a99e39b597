//! The interpreters that live tests run on: those that `scripts/setup-pythons` listed, or the
//! `python3` on the PATH.

use super::{all, is_root, skip};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// A CPython to test on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// The name in messages and cases: `3.11-debian-bookworm`.
    pub label: String,
    /// `3.11.2`.
    pub version: String,
    /// `shared,unstripped` and the like.
    pub kind: String,
    /// The directory to chroot into, if the interpreter is installed in another root.
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

    /// Whether this is a free-threaded build.
    pub fn free_threaded(&self) -> bool {
        self.kind.contains("free-threaded")
    }

    /// Whether static functions of libpython have their own names in .symtab. The link-time
    /// optimisation of python-build-standalone adds a suffix: `take_gil.llvm.79…`.
    pub fn has_static_names(&self) -> bool {
        self.kind.contains("unstripped") && !self.label.ends_with("-pbs")
    }

    /// Whether it is built for musl.
    pub fn has_musl(&self) -> bool {
        self.kind.contains("musl")
    }

    /// A line of interpreters.tsv: LABEL, VERSION, KIND, ROOT or `-`, PATH.
    pub fn parse(line: &str) -> Option<Interpreter> {
        let [label, version, kind, root, path] = line.split('\t').collect::<Vec<_>>().try_into().ok()?;
        let root = (root != "-").then(|| PathBuf::from(root));
        Some(Interpreter { label: label.into(), version: version.into(), kind: kind.into(), root, path: path.into() })
    }

    /// A command that runs this interpreter. `chroot` replaces itself by the interpreter, so the
    /// command's pid is the interpreter's.
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

/// Every CPython 3.7 or later with a GIL, newest last; musl's only with `--all`.
/// `GILPROF_TEST_ONLY=3.11,3.15-debian` keeps only labels with one of these prefixes, whatever
/// their build.
pub fn interpreters() -> Vec<Interpreter> {
    let chosen = std::env::var_os("GILPROF_TEST_ONLY").is_some_and(|labels| !labels.is_empty());
    let wanted = |i: &&Interpreter| i.minor() >= (3, 7) && !i.free_threaded() && (all() || chosen || !i.has_musl());
    found().iter().filter(wanted).cloned().collect()
}

/// Those that are built for musl.
pub fn with_musl() -> Vec<Interpreter> {
    found().iter().filter(|i| i.has_musl()).cloned().collect()
}

/// All of them with `--all`, else the oldest and the newest: for checks in which releases hardly
/// differ.
pub fn oldest_and_newest(of: Vec<Interpreter>) -> Vec<Interpreter> {
    if all() || of.len() < 3 {
        return of;
    }
    let last = of.len() - 1;
    of.into_iter().enumerate().filter(|(n, _)| *n == 0 || *n == last).map(|(_, interpreter)| interpreter).collect()
}

/// 2.7 and 3.3 to 3.6, on which gilprof reports the holder and stacks only.
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

/// The list that `scripts/setup-pythons` writes.
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
        skip(&format!("{}: listed, but no longer installed", interpreter.label));
    }
    there
}

/// The executable that `python3` runs. The pid of a wrapper script may not be the interpreter's.
fn on_path() -> Option<Interpreter> {
    let script = "import sys, os; print(sys.version.split()[0].rstrip('+') + '\\t' + os.path.realpath(sys.executable))";
    let out = Command::new("python3").args(["-c", script]).output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8(out.stdout).ok()?;
    let (version, path) = text.trim_end().split_once('\t')?;
    Interpreter::parse(&format!("{version}-path\t{version}\tunknown\t-\t{path}"))
}
