//! Writes a window's slices to a profile and to recordings.

use super::output_file::{failed, OutputFile};
use crate::error::Result;
use crate::ids::ThreadId;
use crate::profile::file::Recorder;
use crate::profile::ProfileBuilder;
use crate::sample::{CaptureStats, GilSample, MeasuredInterval, Sink, StateSlice, TargetInfo, ThreadInfo, ThreadTotals};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

/// The profile that is being built, and the recordings of the same window.
pub struct TeeSink {
    /// The profile.
    pub builder: ProfileBuilder,
    recorders: Vec<(PathBuf, Recorder)>,
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

impl TeeSink {
    /// Records to each of these files, and to `unnamed`.
    pub fn new<'a>(files: impl Iterator<Item = &'a OutputFile>, unnamed: Option<&File>) -> Result<TeeSink> {
        let recorder = |file: &OutputFile| Ok((file.path().into(), Recorder::new(file.take_writer()?)));
        let mut recorders = files.map(recorder).collect::<Result<Vec<_>>>()?;
        if let Some(file) = unnamed {
            let file = file.try_clone().map_err(|source| failed(Path::new(UNNAMED), source))?;
            recorders.push((UNNAMED.into(), Recorder::new(file)));
        }
        Ok(TeeSink { builder: ProfileBuilder::new(), recorders })
    }

    /// Writes the state so far to the recordings. False if one cannot be written any more, and the
    /// window should end.
    pub fn checkpoint(&mut self, target: &TargetInfo, window: &CaptureStats) -> bool {
        self.recorders.iter_mut().for_each(|(_, recorder)| recorder.checkpoint(target, window));
        !self.recorders.iter().any(|(_, recorder)| recorder.failed())
    }

    /// Ends the recordings. Returns the profile's builder, and the first error of a recording.
    pub fn finish(self, target: &TargetInfo, window: &CaptureStats) -> (ProfileBuilder, Result<()>) {
        let finished = self.recorders.into_iter().map(|(path, recorder)| recorder.finish(target, window).map_err(|e| failed(&path, e)));
        // Collected first, so that an error does not keep the others from ending.
        let outcomes: Vec<Result<()>> = finished.collect();
        (self.builder, outcomes.into_iter().collect())
    }
}

impl Sink for TeeSink {
    fn thread(&mut self, info: &ThreadInfo) {
        self.builder.thread(info);
        self.recorders.iter_mut().for_each(|(_, recorder)| recorder.thread(info));
    }

    fn slice(&mut self, slice: &StateSlice<'_>) {
        self.builder.slice(slice);
        self.recorders.iter_mut().for_each(|(_, recorder)| recorder.slice(slice));
    }

    fn gil(&mut self, sample: &GilSample) {
        self.builder.gil(sample);
        self.recorders.iter_mut().for_each(|(_, recorder)| recorder.gil(sample));
    }

    fn interval(&mut self, measured: &MeasuredInterval) {
        self.builder.interval(measured);
        self.recorders.iter_mut().for_each(|(_, recorder)| recorder.interval(measured));
    }

    fn thread_end(&mut self, thread: ThreadId, totals: ThreadTotals) {
        self.builder.thread_end(thread, totals);
        self.recorders.iter_mut().for_each(|(_, recorder)| recorder.thread_end(thread, totals));
    }
}
