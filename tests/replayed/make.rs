//! Records the looks anew, from every interpreter found: see the ignored test in `replayed.rs`.
//!
//! What is kept must say nothing of the machine that it was made on. The targets run without an environment, and every trace of a path of this
//! machine is written over by one of the same length, in the memory as in the text; lengths and places of strings stay.

use super::looks::{folder, Again, Heard};
use super::support::{interpreters, repository, Interpreter, Target};
use gilprof::capture::observe::Looked;
use gilprof::capture::record;
use gilprof::ids::Pid;
use gilprof::process::recording::Recording;
use gilprof::python::attach::Python;
use gilprof::sample::{State, Trust};

/// The largest file that is kept.
const LARGEST: usize = 64 << 10;
/// Looks made until one is as it should be. Threads that take turns are all asleep or on the GIL in most looks.
const TRIES: usize = 300;
/// Pieces of paths that may stand at the edge of a range, where the whole path is cut off.
const TRACES: [&str; 7] = ["/root", "/home", "root/", "pyenv", "yenv/", "/versions/", "gilprof"];

/// Records both workloads of every interpreter.
pub fn all() {
    let interpreters = interpreters();
    // The list above was the last thing that needed it; the targets' memory must not hold it.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name != "PATH") {
        std::env::remove_var(name);
    }
    for interpreter in &interpreters {
        one(interpreter, "cpu", |again| again.count(State::is_holding) == 1 && again.count(|s| s == State::Waiting) == 2);
        one(interpreter, "resting", |again| again.count(|s| s == State::Io) == 2);
    }
}

fn one(interpreter: &Interpreter, workload: &str, good: impl Fn(&Again) -> bool) {
    let name = format!("{}-{workload}", interpreter.label);
    let target = Target::start(interpreter, workload, &[]);
    for _ in 0..TRIES {
        let python = Python::open(Pid(target.pid())).unwrap();
        let mut heard = Heard::default();
        let (mut recording, observer) = record::record(&python, &mut heard).unwrap();
        let live = Again::of(Looked::Fully, &observer, heard);
        let whole =
            live.views.iter().all(|view| view.stack.trust == Trust::Whole && view.state != State::Unknown && !view.stack.frames.is_empty());
        // The holder goes on while it is read; a look that cannot be made again as it was is not kept.
        if !whole || !good(&live) || Again::new(&recording).text() != live.text() {
            continue;
        }
        let mut text = live.text().into_bytes();
        let places = places(interpreter, target.source());
        clean(&mut text, &places);
        recording.ranges.iter_mut().for_each(|(_, bytes)| clean(bytes, &places));
        return keep(&name, &recording, &text);
    }
    panic!("{name}: no look was as it should be");
}

fn keep(name: &str, recording: &Recording, text: &[u8]) {
    let bytes = recording.to_bytes().unwrap();
    assert!(bytes.len() <= LARGEST, "{name}: {} bytes", bytes.len());
    std::fs::write(folder().join(format!("{name}.look")), &bytes).unwrap();
    std::fs::write(folder().join(format!("{name}.txt")), text).unwrap();
    eprintln!("{name}: {} bytes in {} ranges", bytes.len(), recording.ranges.len());
}

/// Folders of this machine that the target knows: longest first, so that none is part of a later one.
fn places(interpreter: &Interpreter, source: &str) -> Vec<String> {
    let parent = |path: &std::path::Path| path.parent().unwrap().to_string_lossy().into_owned();
    let mut places = vec![parent(source.as_ref()), repository().to_string_lossy().into_owned()];
    if interpreter.path.to_string_lossy().contains("/versions/") {
        places.push(parent(interpreter.path.parent().unwrap()));
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
