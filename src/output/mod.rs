//! One file per format; each a pure function of a report or a profile.
//!
//! Nothing here measures, judges or writes files. Whatever came from the target goes through [`sanitize`] first, because a
//! thread may be called anything, escape sequences included; every figure goes through [`numbers`], every colour through [`palette`].

pub mod collapsed;
pub mod columns;
pub mod dump;
pub mod firefox;
pub mod flamegraph;
pub mod html;
pub mod json;
pub mod numbers;
pub mod palette;
pub mod perfetto;
pub mod pprof;
pub mod sanitize;
pub mod speedscope;
#[cfg(test)]
mod testing;
pub mod text;
mod timeline;

use crate::analysis::report::Report;
use crate::error::{Error, Result};
use crate::profile::file::Recording;
use crate::profile::Profile;
use std::path::Path;

/// One measured process, for formats that show more than its report or its stacks.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// What is said of it.
    pub report: &'a Report,
    /// Its figures.
    pub profile: &'a Profile,
    /// All that was seen of it, in order of time.
    pub recording: Option<&'a Recording>,
}

impl<'a> Source<'a> {
    /// All that was seen of it; an error where nobody kept that.
    pub fn timeline(&self) -> Result<&'a Recording> {
        self.recording.ok_or(Error::NotRecorded { what: "write a timeline" })
    }
}

/// What goes to the terminal or a pipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people, 80 columns.
    #[default]
    Text,
    /// For programs, schema `gilprof.report/1` or `gilprof.dump/1`.
    Json,
}

/// What a file is written as; its ending says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// A flamegraph.
    Svg,
    /// The report as data.
    Json,
    /// Folded stacks, a line each.
    Folded,
    /// The recording, from which all others can be made.
    Recording,
    /// `profile.proto`, packed.
    Pprof,
    /// speedscope's JSON.
    Speedscope,
    /// A Perfetto trace.
    Perfetto,
    /// The Firefox Profiler's processed profile.
    Firefox,
    /// The same, packed.
    FirefoxPacked,
    /// A page for a browser that shows everything.
    Html,
}

impl FileFormat {
    /// Whether it shows the course of time, so that it is made from a recording.
    pub fn needs_recording(self) -> bool {
        match self {
            FileFormat::Perfetto | FileFormat::Firefox | FileFormat::FirefoxPacked | FileFormat::Html => true,
            FileFormat::Svg | FileFormat::Json | FileFormat::Folded | FileFormat::Recording => false,
            FileFormat::Pprof | FileFormat::Speedscope => false,
        }
    }
}

/// The endings that are known, the first of each format being the one to advise.
const ENDINGS: [(&str, FileFormat); 14] = [
    (".gilprof", FileFormat::Recording),
    (".html", FileFormat::Html),
    (".svg", FileFormat::Svg),
    // Before the shorter ending that they have too.
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

/// The longest slice that pictures show, in nanoseconds; more is a mistake.
const LONGEST_SLICE: f64 = 1e17;

/// The format that a path's ending asks for, in either case of letters.
pub fn format_for_path(path: &Path) -> Result<FileFormat> {
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    // A bare ".svg" is a hidden file without an ending.
    let found = ENDINGS.iter().find(|(ending, _)| name.len() > ending.len() && name.ends_with(ending));
    found.map(|&(_, format)| format).ok_or_else(|| {
        Error::Usage(format!(
            "failed to tell a format from the file name {}: use an ending of .gilprof (recording), .html (page for a browser), \
             .svg (flamegraph), .json (report), .folded, .folded.txt or .collapsed (folded stacks), .pb.gz or .pprof (pprof), .speedscope.json, \
             .firefox.json (Firefox Profiler), .pftrace or .perfetto-trace (Perfetto)",
            sanitize::clean(&path.to_string_lossy())
        ))
    })
}
