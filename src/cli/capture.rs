//! A measured window with its course: what is compared, stretch by stretch. From a recording's file, or from one that was just made.

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
    /// Its figures.
    pub profile: Profile,
    /// What is said of it.
    pub report: Report,
    /// Its course.
    pub stretches: Buckets,
}

impl LoadedCapture {
    /// From a file.
    pub fn read(path: &Path) -> Result<LoadedCapture> {
        let recording = Recording::open(path)?;
        let mut builder = ProfileBuilder::new();
        let replayed = recording.replay(&mut builder)?;
        let profile = builder.finish(replayed.target, replayed.window);
        let report = analysis::report(&profile);
        LoadedCapture::new(profile, report, &recording)
    }

    /// Of a window that was measured and kept just now.
    pub fn from_report(measured: CaptureReport) -> Result<LoadedCapture> {
        match measured.into_parts() {
            (profile, report, Some(recording)) => LoadedCapture::new(profile, report, &recording),
            _ => Err(Error::NotRecorded { what: "compare windows over time" }),
        }
    }

    fn new(profile: Profile, report: Report, recording: &Recording) -> Result<LoadedCapture> {
        let mut stretches = Buckets::new(profile.window.begin, profile.window.seconds);
        recording.replay(&mut stretches)?;
        Ok(LoadedCapture { profile, report, stretches })
    }

    /// As one side of a comparison.
    pub fn side(&self) -> ComparedWindow<'_> {
        ComparedWindow { report: &self.report, buckets: &self.stretches }
    }
}
