//! Records the samples that are replayed, from every interpreter found, or from an emulated one:
//! see the ignored tests in `replayed.rs`.
//!
//! A recording must not identify the machine that it was made on. The targets run without an
//! environment. Every path of this machine is overwritten by one of the same length, in the memory
//! and in the text, so that lengths and places of strings stay.

use crate::support::recorded::{folder, Emitted, Replay};
use crate::support::{interpreters, repository, Target};
use gilprof::capture::recorded_sample;
use gilprof::capture::sampler::SampleOutcome;
use gilprof::ids::{Addr, Pid};
use gilprof::process::c_library::{Abi, CLibrary};
use gilprof::process::elf::{Depth, Image};
use gilprof::process::live::LiveMemory;
use gilprof::process::maps::Maps;
use gilprof::process::memory_dump::MemoryDump;
use gilprof::python::attach::PythonProcess;
use gilprof::python::version::Version;
use gilprof::sample::{StackStatus, State, ThreadSnapshot};
use std::path::Path;
use std::process::Command;

/// The largest file.
const LARGEST: usize = 64 << 10;
/// Samples taken until one fits. In most samples of threads that take turns, all are asleep or on
/// the GIL.
const TRIES: usize = 300;
/// Parts of paths that may stand at the edge of a range, where the rest of the path is cut off.
const TRACES: [&str; 7] = ["/root", "/home", "root/", "pyenv", "yenv/", "/versions/", "gilprof"];

/// Records both workloads of every interpreter.
pub fn all() {
    let interpreters = interpreters();
    forget_the_environment();
    for interpreter in &interpreters {
        let start = |workload: &str| Target::start(interpreter, workload, &[]);
        let places = places(start("resting").source(), &interpreter.path);
        both(&interpreter.label, start, |pid| PythonProcess::open(pid).unwrap(), &places);
    }
}

/// Records both workloads of an aarch64 interpreter that `qemu-aarch64` emulates, from an unpacked
/// root (`debootstrap --foreign --arch=arm64`). Its code is mapped as data, so
/// [`PythonProcess::open`] does not recognise it as a program, and it is opened here from the
/// address of `_PyRuntime`.
pub fn emulated(root: &Path, minor: u8) {
    forget_the_environment();
    let program = root.join(format!("usr/bin/python3.{minor}"));
    let run = |args: &[&str]| {
        let mut command = Command::new("qemu-aarch64");
        command.arg("-L").arg(root).arg(&program).args(args);
        command
    };
    let printed = run(&["-c", "import platform; print(platform.python_version())"]).output().unwrap();
    let version = String::from_utf8(printed.stdout).unwrap().trim().to_owned();
    let open = |pid: Pid| {
        let image = Image::from_file(std::fs::File::open(&program).unwrap()).unwrap();
        let runtime = image.symbols(&["_PyRuntime"], Depth::Exported)[0].unwrap();
        let maps = Maps::from_pid(pid).unwrap();
        let mappings: Vec<_> = maps.mappings.iter().filter(|mapping| mapping.path.as_deref() == program.to_str()).collect();
        let at = Addr(image.biases(&mappings)[0].wrapping_add(runtime.vaddr));
        let abi = Abi { machine: image.machine().unwrap(), c_library: CLibrary::Glibc };
        let minor = Version::from_text(&version).unwrap().minor;
        PythonProcess::from_runtime(pid, &LiveMemory::new(pid), abi, minor, version.clone(), at).unwrap()
    };
    // From a copy in the root, so that only the name of the root must be overwritten.
    let copies = root.join("workloads");
    let made = Command::new("cp").arg("-rT").arg(repository().join("tests/workloads")).arg(&copies).status().unwrap();
    assert!(made.success());
    let start = |workload: &str| Target::start_command(run(&["-B", copies.join(workload).with_extension("py").to_str().unwrap()]));
    let places = [copies.clone(), root.to_path_buf()].map(|place| place.to_string_lossy().into_owned());
    both(&format!("3.{minor}-aarch64"), start, open, &places);
}

/// Only the list of interpreters needed the environment. The memory of the targets must not contain
/// it.
fn forget_the_environment() {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name != "PATH") {
        std::env::remove_var(name);
    }
}

fn both(label: &str, start: impl Fn(&str) -> Target, open: impl Fn(Pid) -> PythonProcess, places: &[String]) {
    let one = |workload: &str, good: &dyn Fn(&Replay) -> bool| {
        let target = start(workload);
        one(&format!("{label}-{workload}"), || open(Pid(target.pid())), good, places);
    };
    one("cpu", &|replay| replay.count(State::is_holding) == 1 && replay.count(|s| s == State::Waiting) == 2);
    one("resting", &|replay| replay.count(|s| s == State::Io) == 2);
}

fn one(name: &str, open: impl Fn() -> PythonProcess, good: &dyn Fn(&Replay) -> bool, places: &[String]) {
    for _ in 0..TRIES {
        let mut emitted = Emitted::default();
        let (mut recording, sampler) = recorded_sample::record(&open(), &mut emitted).unwrap();
        let live = Replay::of(SampleOutcome::Complete, &sampler, emitted);
        let known = |view: &ThreadSnapshot| {
            view.stack.status == StackStatus::Complete && view.state != State::Unknown && !view.stack.frames.is_empty()
        };
        // The holder runs while it is sampled. A sample that does not replay to the same text is
        // dropped.
        let whole = live.views.iter().filter(|view| view.python).all(known);
        if !whole || !good(&live) || Replay::new(&recording).text() != live.text() {
            continue;
        }
        let mut text = live.text().into_bytes();
        clean(&mut text, places);
        recording.ranges.iter_mut().for_each(|(_, bytes)| clean(bytes, places));
        return write(name, &recording, &text);
    }
    panic!("{name}: no sample fits");
}

fn write(name: &str, recording: &MemoryDump, text: &[u8]) {
    let bytes = recording.to_bytes().unwrap();
    assert!(bytes.len() <= LARGEST, "{name}: {} bytes", bytes.len());
    std::fs::write(folder().join(format!("{name}.sample")), &bytes).unwrap();
    std::fs::write(folder().join(format!("{name}.txt")), text).unwrap();
    eprintln!("{name}: {} bytes in {} ranges", bytes.len(), recording.ranges.len());
}

/// Folders of this machine that the target knows: longest first, so that none is part of a later
/// one.
fn places(source: &str, interpreter: &Path) -> Vec<String> {
    let parent = |path: &Path| path.parent().unwrap().to_string_lossy().into_owned();
    let mut places = vec![parent(source.as_ref()), repository().to_string_lossy().into_owned()];
    if interpreter.to_string_lossy().contains("/versions/") {
        places.push(parent(interpreter.parent().unwrap()));
    }
    places.sort_by_key(|place| std::cmp::Reverse(place.len()));
    places
}

fn clean(bytes: &mut [u8], places: &[String]) {
    for place in places.iter().map(String::as_str).chain(TRACES) {
        let neutral: Vec<u8> = b"/opt/".iter().copied().chain(std::iter::repeat(b'x')).take(place.len()).collect();
        while let Some(at) = bytes.windows(place.len()).position(|window| window == place.as_bytes()) {
            bytes[at..at + place.len()].copy_from_slice(&neutral);
        }
    }
}
