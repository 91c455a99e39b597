//! The recorded samples of `tests/dumps/samples`, and the replay of one as text that a person can
//! read and compare.

use gilprof::capture::recorded_sample;
use gilprof::capture::sampler::{SampleOutcome, Sampler};
use gilprof::error::Error;
use gilprof::process::memory_dump::MemoryDump;
use gilprof::process::replay::ReplayTarget;
use gilprof::process::target::ProcessAccess;
use gilprof::sample::{GilSample, Holder, Sink, State, StateSlice, ThreadInfo, ThreadSnapshot, ThreadTotals};
use std::path::{Path, PathBuf};

/// The folder of the recordings.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dumps/samples")
}

/// A recording of that folder, and the expected text.
pub struct Recorded {
    /// `3.11-pyenv-cpu`.
    pub name: String,
    pub recording: MemoryDump,
    pub expected: String,
}

/// All recordings, by name.
pub fn recorded() -> Vec<Recorded> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "sample"));
    files.sort();
    assert!(files.len() >= 18, "{} is nearly empty", folder().display());
    let read = |file: PathBuf| Recorded {
        name: file.file_stem().unwrap().to_string_lossy().into_owned(),
        recording: MemoryDump::parse(&std::fs::read(&file).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", file.display())),
        expected: std::fs::read_to_string(file.with_extension("txt")).unwrap(),
    };
    files.into_iter().map(read).collect()
}

/// The GILs and threads that a sample reported.
#[derive(Default)]
pub struct Emitted {
    pub gils: Vec<GilSample>,
    pub threads: Vec<ThreadInfo>,
}

impl Sink for Emitted {
    fn thread(&mut self, info: &ThreadInfo) {
        self.threads.retain(|known| known.id != info.id);
        self.threads.push(info.clone());
    }
    fn slice(&mut self, _: &StateSlice<'_>) {}
    fn gil(&mut self, sample: &GilSample) {
        self.gils.push(*sample);
    }
    fn thread_end(&mut self, _: gilprof::ids::ThreadId, _: ThreadTotals) {}
}

/// A replayed sample.
pub struct Replay {
    pub outcome: SampleOutcome,
    pub gils: Vec<GilSample>,
    pub threads: Vec<ThreadInfo>,
    /// In order of their ids.
    pub views: Vec<ThreadSnapshot>,
}

impl Replay {
    /// From a sampler that has just taken a sample.
    pub fn of(outcome: SampleOutcome, sampler: &Sampler, emitted: Emitted) -> Replay {
        let mut views: Vec<ThreadSnapshot> = sampler.snapshots().into_iter().map(|(_, view)| view).collect();
        views.sort_by_key(|view| view.tid);
        Replay { outcome, gils: emitted.gils, threads: emitted.threads, views }
    }

    /// A replay on any target.
    pub fn by(recording: &MemoryDump, source: Box<dyn ProcessAccess>) -> Result<Replay, Error> {
        let mut emitted = Emitted::default();
        let (outcome, sampler) = recorded_sample::replay(recording, source, &mut emitted)?;
        Ok(Replay::of(outcome, &sampler, emitted))
    }

    /// A replay of the unchanged recording.
    pub fn new(recording: &MemoryDump) -> Replay {
        Replay::by(recording, Box::new(ReplayTarget::from_dump(recording))).unwrap()
    }

    /// As text: the GILs, then every thread with its stack, leaf first.
    pub fn text(&self) -> String {
        let mut text = format!("{:?}\n", self.outcome);
        for gil in &self.gils {
            let holder = match gil.holder {
                Holder::Thread(id) => self.threads.iter().find(|t| t.id == id).map_or("?".into(), |t| t.tid.to_string()),
                other => format!("{other:?}").to_lowercase(),
            };
            text += &format!("gil {}: holder {holder}, {} switches, {} waiting\n", gil.gil.0, gil.switches.unwrap(), gil.waiters);
        }
        for view in &self.views {
            let kind = if view.python { "" } else { ", no thread state" };
            text += &format!("{} {}: {} by {:?}, {:?}{kind}\n", view.tid, view.name, view.state.label(), view.evidence, view.stack.status);
            for frame in view.stack.frames.iter().rev() {
                let function = &frame.function;
                text += &format!("    {} {}:{} (from {})\n", function.name, function.file, frame.line, function.first_line);
            }
        }
        text
    }

    /// The number of threads in this state.
    pub fn count(&self, is: impl Fn(State) -> bool) -> usize {
        self.views.iter().filter(|view| is(view.state)).count()
    }
}
