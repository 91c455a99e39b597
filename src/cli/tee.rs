//! Writes the slices of a window to profiles and to recordings.

use super::output_file::{failed, OutputFile};
use crate::error::Result;
use crate::ids::ThreadId;
use crate::profile::file::{Recorder, RecordingWriter};
use crate::profile::{CoalescingSink, Profile, ProfileBuilder};
use crate::sample::{CaptureStats, GilSample, MeasuredInterval, Sink, StateSlice, TargetInfo, ThreadInfo, ThreadTotals};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

/// The recordings of a window, each in its file.
#[derive(Default)]
pub struct RecordingFiles {
    writers: Vec<(PathBuf, RecordingWriter)>,
    processes: u32,
}

/// The profile of one process that is being built, and its part of the recordings.
pub struct TeeSink {
    /// The number of the process in each file.
    pub process: u32,
    /// The profile.
    pub builder: ProfileBuilder,
    recorders: Vec<Recorder>,
}

/// The name of an unnamed recording in messages.
pub const UNNAMED: &str = "(temporary recording)";

/// An unlinked file, which disappears when it is closed; for formats that need a recording when
/// `-o` names none.
pub fn unnamed_file() -> Result<File> {
    let failed = |source| failed(Path::new(UNNAMED), source);
    let path = std::env::temp_dir().join(format!(".gilprof-{}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).map_err(failed)?;
    std::fs::remove_file(&path).map_err(failed)?;
    Ok(file)
}

impl RecordingFiles {
    /// Records to each of these files, and to `unnamed`.
    pub fn new<'a>(files: impl Iterator<Item = &'a OutputFile>, unnamed: Option<&File>) -> Result<RecordingFiles> {
        let writer = |file: &OutputFile| Ok((file.path().into(), RecordingWriter::new(file.take_writer()?)));
        let mut writers = files.map(writer).collect::<Result<Vec<_>>>()?;
        if let Some(file) = unnamed {
            let file = file.try_clone().map_err(|source| failed(Path::new(UNNAMED), source))?;
            writers.push((UNNAMED.into(), RecordingWriter::new(file)));
        }
        Ok(RecordingFiles { writers, processes: 0 })
    }

    /// The sink of another process. The first one has the number 0 in each file.
    pub fn sink(&mut self) -> CoalescingSink<TeeSink> {
        let recorders = self.writers.iter_mut().map(|(_, writer)| writer.recorder()).collect();
        self.processes += 1;
        CoalescingSink::new(TeeSink { process: self.processes - 1, builder: ProfileBuilder::new(), recorders })
    }

    /// Whether a recording cannot be written any more, and the window should end.
    pub fn failed(&self) -> bool {
        self.writers.iter().any(|(_, writer)| writer.failed())
    }

    /// Waits until all is written; all sinks have finished. Returns the first error.
    pub fn finish(self) -> Result<()> {
        let finished = self.writers.into_iter().map(|(path, writer)| writer.finish().map_err(|e| failed(&path, e)));
        // Collected first, so that an error does not keep the others from ending.
        let outcomes: Vec<Result<()>> = finished.collect();
        outcomes.into_iter().collect()
    }
}

impl TeeSink {
    /// Writes the state so far to the recordings.
    pub fn checkpoint(&mut self, target: &TargetInfo, window: &CaptureStats) {
        self.recorders.iter_mut().for_each(|recorder| recorder.checkpoint(target, window));
    }

    /// Ends this process's part of the recordings.
    pub fn finish(self, target: TargetInfo, window: CaptureStats) -> Profile {
        // An error of the file is `RecordingFiles`' to report.
        self.recorders.into_iter().for_each(|recorder| drop(recorder.finish(&target, &window)));
        self.builder.finish(target, window)
    }
}

impl Sink for TeeSink {
    fn thread(&mut self, info: &ThreadInfo) {
        self.builder.thread(info);
        self.recorders.iter_mut().for_each(|recorder| recorder.thread(info));
    }

    fn slice(&mut self, slice: &StateSlice<'_>) {
        self.builder.slice(slice);
        self.recorders.iter_mut().for_each(|recorder| recorder.slice(slice));
    }

    fn gil(&mut self, sample: &GilSample) {
        self.builder.gil(sample);
        self.recorders.iter_mut().for_each(|recorder| recorder.gil(sample));
    }

    fn interval(&mut self, measured: &MeasuredInterval) {
        self.builder.interval(measured);
        self.recorders.iter_mut().for_each(|recorder| recorder.interval(measured));
    }

    fn thread_end(&mut self, thread: ThreadId, totals: ThreadTotals) {
        self.builder.thread_end(thread, totals);
        self.recorders.iter_mut().for_each(|recorder| recorder.thread_end(thread, totals));
    }
}
