//! One file per format; each a pure function of a report or a profile.
//!
//! Nothing here measures, draws conclusions or opens files. Text from the target goes through
//! [`sanitize`] first, because the name of a thread may contain anything, escape sequences
//! included. Every figure goes through [`numbers`], every colour through [`palette`].

pub mod collapsed;
pub mod columns;
pub mod dump;
pub mod file_names;
pub mod firefox;
#[cfg(feature = "pictures")]
pub mod flamegraph;
#[cfg(feature = "pictures")]
pub mod html;
pub mod json;
pub mod numbers;
pub mod palette;
pub mod perfetto;
pub mod pprof;
pub mod repeated_names;
pub mod sanitize;
pub mod speedscope;
#[cfg(test)]
pub(crate) mod testing;
pub mod text;
pub mod thread_bar;
mod timeline;

use crate::analysis::report::Report;
use crate::error::{Error, Result};
use crate::profile::file::Recording;
use crate::profile::Profile;
use std::path::Path;

/// One measured process, for formats that show more than its report or its stacks.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The conclusions.
    pub report: &'a Report,
    /// The figures.
    pub profile: &'a Profile,
    /// All samples in order of time, if they were recorded.
    pub recording: Option<&'a Recording>,
}

impl<'a> Source<'a> {
    /// The recording; an error if there is none.
    pub fn timeline(&self) -> Result<&'a Recording> {
        self.recording.ok_or(Error::NotRecorded { what: "write a timeline" })
    }
}

/// The format of standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs, schema `gilprof.report/1` or `gilprof.dump/1`.
    Json,
}

/// The format of a file, which its ending selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// A flamegraph.
    Svg,
    /// The report as data.
    Json,
    /// Folded stacks, one a line.
    Folded,
    /// The recording, from which all others can be made.
    Recording,
    /// `profile.proto`, compressed by gzip.
    Pprof,
    /// speedscope's JSON.
    Speedscope,
    /// A Perfetto trace.
    Perfetto,
    /// The Firefox Profiler's processed profile.
    Firefox,
    /// The same, compressed by gzip.
    FirefoxPacked,
    /// A page for a browser with everything.
    Html,
}

impl FileFormat {
    /// Whether the format is a timeline, which is made from a recording.
    pub fn needs_recording(self) -> bool {
        match self {
            FileFormat::Perfetto | FileFormat::Firefox | FileFormat::FirefoxPacked | FileFormat::Html => true,
            FileFormat::Svg | FileFormat::Json | FileFormat::Folded | FileFormat::Recording => false,
            FileFormat::Pprof | FileFormat::Speedscope => false,
        }
    }
}

/// The known endings; the first of each format is the recommended one.
const ENDINGS: [(&str, FileFormat); 14] = [
    (".gilprof", FileFormat::Recording),
    (".html", FileFormat::Html),
    (".svg", FileFormat::Svg),
    // Before `.json`, with which they end too.
    (".speedscope.json", FileFormat::Speedscope),
    (".firefox.json", FileFormat::Firefox),
    (".json", FileFormat::Json),
    (".firefox.json.gz", FileFormat::FirefoxPacked),
    (".folded", FileFormat::Folded),
    (".folded.txt", FileFormat::Folded),
    (".collapsed", FileFormat::Folded),
    (".pb.gz", FileFormat::Pprof),
    (".pprof", FileFormat::Pprof),
    (".pftrace", FileFormat::Perfetto),
    (".perfetto-trace", FileFormat::Perfetto),
];

/// The longest slice that a timeline shows, in nanoseconds; a longer one is an error in the data.
const LONGEST_SLICE: f64 = 1e17;

/// The format that a path's ending selects, in upper or lower case.
pub fn format_for_path(path: &Path) -> Result<FileFormat> {
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    // A bare ".svg" is a hidden file without an ending.
    let found = ENDINGS.iter().find(|(ending, _)| name.len() > ending.len() && name.ends_with(ending));
    found.map(|&(_, format)| format).ok_or_else(|| {
        Error::Usage(format!(
            "cannot choose a format for the file {}: use an ending of .gilprof (recording), .html (page for a browser), \
             .svg (flamegraph), .json (report), .folded, .folded.txt or .collapsed (folded stacks), .pb.gz or .pprof (pprof), .speedscope.json, \
             .firefox.json or .firefox.json.gz (Firefox Profiler), .pftrace or .perfetto-trace (Perfetto)",
            sanitize::clean(&path.to_string_lossy())
        ))
    })
}
