//! A measured window with its time buckets, which comparisons need. It comes from a recording's
//! file or from a window that was just measured.

use super::outputs::CaptureReport;
use crate::analysis::compare::ComparedWindow;
use crate::analysis::{self, report::Report};
use crate::error::{Error, Result};
use crate::profile::buckets::Buckets;
use crate::profile::file::Recording;
use crate::profile::{Profile, ProfileBuilder};
use std::path::Path;

/// One window.
#[derive(Debug)]
pub struct LoadedCapture {
    /// The figures.
    pub profile: Profile,
    /// The conclusions.
    pub report: Report,
    /// The times of its parts.
    pub buckets: Buckets,
}

impl LoadedCapture {
    /// Reads a recording of one process.
    pub fn read(path: &Path) -> Result<LoadedCapture> {
        LoadedCapture::of_recording(&Recording::open(path)?)
    }

    fn of_recording(recording: &Recording) -> Result<LoadedCapture> {
        let mut builder = ProfileBuilder::new();
        let replayed = recording.replay(&mut builder)?;
        let profile = builder.finish(replayed.target, replayed.window);
        let report = analysis::report(&profile);
        LoadedCapture::new(profile, report, recording)
    }

    /// The processes of a recording.
    pub fn read_all(path: &Path) -> Result<Vec<LoadedCapture>> {
        let all = Recording::open_all(path)?;
        all.iter().map(LoadedCapture::of_recording).collect()
    }

    /// From a window that was just measured and recorded.
    pub fn from_report(report: CaptureReport) -> Result<LoadedCapture> {
        match report.into_parts() {
            (profile, report, Some(recording)) => LoadedCapture::new(profile, report, &recording),
            _ => Err(Error::NotRecorded { what: "compare windows over time" }),
        }
    }

    fn new(profile: Profile, report: Report, recording: &Recording) -> Result<LoadedCapture> {
        let mut buckets = Buckets::new(profile.window.begin, profile.window.seconds);
        recording.replay(&mut buckets)?;
        Ok(LoadedCapture { profile, report, buckets })
    }

    /// One side of a comparison.
    pub fn side(&self) -> ComparedWindow<'_> {
        ComparedWindow { report: &self.report, buckets: &self.buckets }
    }
}
