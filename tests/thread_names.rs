//! Thread names and code objects of live interpreters, read from outside, against what each interpreter says of itself.
//!
//! Every interpreter that is found is asked: those that `scripts/setup-pythons` listed, else pyenv's. The target says where its `_PyRuntime` is and
//! what the answers are, in one line on its stdout, then waits for its stdin to close.

// Helpers of tests are not `#[test]` themselves, so the permission to unwrap does not reach them.
#![allow(clippy::unwrap_used)]

use gilprof::ids::{Addr, Pid};
use gilprof::process::live::LiveMemory;
use gilprof::process::memory::{Memory, ReadError};
use gilprof::python::code::{fingerprint_span, CodeCache};
use gilprof::python::layout::debug_offsets::{layout_from_target, READ_LEN};
use gilprof::python::layout::{for_version, Layout, Minor, Table};
use gilprof::python::objects::{read_bytes, read_str, read_type_name, read_u64_int};
use gilprof::python::thread_names;
use serde_json::Value;
use std::cell::Cell;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const TARGET: &str = include_str!("support/names_target.py");

struct Python {
    label: String,
    minor: Minor,
    root: Option<PathBuf>,
    path: PathBuf,
}

impl Python {
    /// A line of `interpreters.tsv`: label, version, kind, root or `-`, path.
    fn from_line(line: &str) -> Option<Python> {
        let words: Vec<&str> = line.split('\t').collect();
        let [label, version, _, root, path] = words[..] else { return None };
        let root = (root != "-").then(|| PathBuf::from(root));
        Some(Python { label: label.into(), minor: minor(version)?, root, path: path.into() })
    }

    fn command(&self) -> Command {
        let Some(root) = &self.root else { return Command::new(&self.path) };
        let mut command = Command::new("chroot");
        command.arg(root).arg(&self.path);
        command
    }
}

fn minor(version: &str) -> Option<Minor> {
    let mut numbers = version.split('.').map(|n| n.parse::<u8>());
    match (numbers.next()?, numbers.next()?) {
        (Ok(major), Ok(minor)) => Some(Minor(major, minor)),
        _ => None,
    }
}

fn pythons() -> Vec<Python> {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or(home.join(".cache"), PathBuf::from);
    let folder = std::env::var_os("GILPROF_PYTHONS").map_or(cache.join("gilprof/pythons"), PathBuf::from);
    let mut found: Vec<Python> = match std::fs::read_to_string(folder.join("interpreters.tsv")) {
        Ok(list) => list.lines().filter_map(Python::from_line).collect(),
        Err(_) => pyenv(&home.join(".pyenv/versions")),
    };
    found.retain(|python| for_version(python.minor).is_some());
    found
}

fn pyenv(versions: &std::path::Path) -> Vec<Python> {
    let entries = std::fs::read_dir(versions).into_iter().flatten().flatten();
    let python = |entry: std::fs::DirEntry| {
        let version = entry.file_name().into_string().ok()?;
        let path = entry.path().join("bin/python3");
        path.exists().then_some(())?;
        Some(Python { minor: minor(&version)?, label: version, root: None, path })
    };
    entries.filter_map(python).collect()
}

/// A target that has said that it is ready. It ends when its stdin is closed, or is killed here.
struct Target {
    child: Child,
    says: Value,
    layout: Layout,
    mem: LiveMemory,
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Target {
    /// `None` where a root cannot be entered (only root may).
    fn start(python: &Python) -> Option<Target> {
        let mut command = python.command();
        command.args(["-u", "-c", TARGET]).env("PYTHONIOENCODING", "utf-8").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() && python.root.is_some() {
            eprintln!("{}: skipped, chroot is refused", python.label);
            let _ = child.wait();
            return None;
        }
        let says: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{}: {e}: {line:?}", python.label));
        let mem = LiveMemory::new(Pid(child.id() as i32));
        let layout = layout(python, &mem, address(&says["runtime"]));
        Some(Target { child, says, layout, mem })
    }

    fn interpreter(&self) -> Addr {
        let head = self.layout.runtime.interpreters_head.offset() as u64;
        self.mem.read_ptr(address(&self.says["runtime"]).offset(head)).unwrap()
    }
}

fn layout(python: &Python, mem: &LiveMemory, runtime: Addr) -> Layout {
    match for_version(python.minor).unwrap() {
        Table::Whole(layout) => layout.clone(),
        Table::Rest { .. } => {
            let mut bytes = vec![0; READ_LEN];
            mem.read(runtime, &mut bytes).unwrap();
            layout_from_target(&bytes).unwrap().0
        }
    }
}

fn address(value: &Value) -> Addr {
    Addr(value.as_u64().unwrap())
}

/// Runs a check on every interpreter that can be started here.
fn on_each(check: impl Fn(&Python, &Target)) {
    let mut asked = Vec::new();
    for python in pythons() {
        if let Some(target) = Target::start(&python) {
            check(&python, &target);
            asked.push(python.label);
        }
    }
    eprintln!("asked: {}", asked.join(", "));
}

#[test]
fn names_of_all_threads() {
    on_each(|python, target| {
        let expected: HashMap<u64, String> =
            target.says["names"].as_array().unwrap().iter().map(|pair| (address(&pair[0]).0, pair[1].as_str().unwrap().into())).collect();
        assert_eq!(thread_names::read(&target.mem, &target.layout, target.interpreter()), expected, "{}", python.label);
        let nowhere = thread_names::read(&target.mem, &target.layout, Addr(8));
        assert!(nowhere.is_empty(), "{}", python.label);
    });
}

/// A live target whose memory now and then is not what it was: as if it moved under the reader, or was hostile.
struct Torn<'a> {
    mem: &'a LiveMemory,
    random: Cell<u64>,
}

impl Torn<'_> {
    /// Xorshift; one read in sixteen is spoilt.
    fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        x
    }
}

impl Memory for Torn<'_> {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        self.mem.read(at, into)?;
        if self.random().is_multiple_of(16) && !into.is_empty() {
            let place = self.random() as usize % into.len();
            into[place] ^= self.random() as u8;
        }
        Ok(())
    }
}

#[test]
fn torn_reads_are_survived() {
    on_each(|python, target| {
        let count = target.says["names"].as_array().unwrap().len();
        let mut complete = 0;
        for seed in 1..400 {
            let mem = Torn { mem: &target.mem, random: Cell::new(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed)) };
            let names = thread_names::read(&mem, &target.layout, target.interpreter());
            assert!(names.len() <= count, "{}", python.label);
            complete += usize::from(names.len() == count);
            for said in target.says["codes"].as_array().unwrap() {
                let _ = CodeCache::new().get(&mem, &target.layout, address(&said["at"]), None);
            }
        }
        assert!(complete < 399, "{}: nothing was spoilt", python.label);
    });
}

#[test]
fn code_objects() {
    on_each(|python, target| {
        let (mem, layout, label) = (&target.mem, &target.layout, &python.label);
        let mut cache = CodeCache::new();
        for said in target.says["codes"].as_array().unwrap() {
            let at = address(&said["at"]);
            let span = fingerprint_span(layout);
            let mut fingerprint = vec![0; span.len as usize];
            mem.read(at.offset(u64::from(span.offset)), &mut fingerprint).unwrap();
            let info = cache.get(mem, layout, at, Some(&fingerprint)).unwrap();
            assert_eq!(info.function.name, said["name"], "{label}");
            assert_eq!(info.function.file, said["file"], "{label}");
            assert_eq!(info.first_line as i64, said["first_line"].as_i64().unwrap(), "{label}");
            for instruction in said["instructions"].as_array().unwrap() {
                let offset = instruction[0].as_i64().unwrap();
                assert_eq!(info.line_at_offset(offset).map(u64::from), instruction[1].as_u64(), "{label} {said} {offset}");
                let call = instruction[2].as_bool().unwrap();
                assert_eq!(info.is_call_at(mem, layout, offset), Some(call), "{label} {said} {offset}");
            }
            let again = cache.get(mem, layout, at, None).unwrap();
            assert!(std::sync::Arc::ptr_eq(&info, &again), "{label}");
        }
        // What is not a code object is refused, with or without one known.
        let no_code = address(&target.says["objects"][0][0]);
        assert!(cache.get(mem, layout, no_code, None).is_err(), "{label}");
        assert!(CodeCache::new().get(mem, layout, no_code, None).is_err(), "{label}");
    });
}

#[test]
fn objects() {
    on_each(|python, target| {
        let (mem, layout, label) = (&target.mem, &target.layout, &python.label);
        for said in target.says["objects"].as_array().unwrap() {
            let (at, kind, value) = (address(&said[0]), said[1].as_str().unwrap(), &said[2]);
            assert_eq!(read_type_name(mem, layout, at).unwrap(), kind, "{label}");
            assert_eq!(read_str(mem, layout, at, 40).ok().as_deref(), value.as_str().filter(|_| kind != "bytes"), "{label} {said}");
            assert_eq!(read_u64_int(mem, layout, at).ok(), value.as_u64(), "{label} {said}");
            let bytes = read_bytes(mem, layout, at, 4).ok().map(|b| String::from_utf8(b).unwrap());
            assert_eq!(bytes.as_deref(), value.as_str().filter(|_| kind == "bytes"), "{label} {said}");
        }
    });
}
