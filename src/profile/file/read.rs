//! A recording from a file: replayed as often as one likes, a chunk at a time.

use super::chunk::{self, Header};
use super::decode::Decoder;
use super::VERSION;
use crate::error::{Error, Result};
use crate::sample::{CaptureStats, Sink, TargetInfo};
use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::path::{Path, PathBuf};

/// A file that is a recording.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    file: File,
}

/// What a replay says of the whole.
#[derive(Clone, Debug)]
pub struct ReplaySummary {
    /// The process.
    pub target: TargetInfo,
    /// The measuring; where the recording broke off, as far as it goes, with a warning.
    pub window: CaptureStats,
}

impl Recording {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Recording> {
        let failed = |source: io::Error| Error::Recording { path: path.into(), why: source.to_string() };
        // Asked before it is opened: to open a pipe is to wait for one who writes.
        let kind = std::fs::metadata(path).map_err(failed)?;
        if !kind.is_file() {
            let why = if kind.is_dir() { "it is a directory" } else { "it is no regular file, and a recording is read several times" };
            return Err(Error::Recording { path: path.into(), why: why.into() });
        }
        Recording::from_file(File::open(path).map_err(failed)?, path)
    }

    /// An open file; `path` is for messages.
    pub fn from_file(mut file: File, path: &Path) -> Result<Recording> {
        let refused = |why: String| Error::Recording { path: path.into(), why };
        file.rewind().map_err(|e| refused(e.to_string()))?;
        match chunk::read_header(&mut file).map_err(|e| refused(e.to_string()))? {
            Header::Readable => Ok(Recording { path: path.into(), file }),
            Header::Newer(version) => Err(refused(format!(
                "a newer gilprof wrote it (format {version}; this one reads up to {VERSION}). Update gilprof: cargo install gilprof"
            ))),
            Header::Foreign => {
                Err(refused("it is no recording of gilprof's. Make one with: gilprof record --pid PID -o run.gilprof".into()))
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells `sink` all that was recorded, in the order in which it was. What is behind the first broken chunk is left out, with a warning.
    pub fn replay(&self, sink: &mut dyn Sink) -> Result<ReplaySummary> {
        let refused = |why: String| Error::Recording { path: self.path.clone(), why };
        let mut file = &self.file;
        file.rewind().map_err(|e| refused(e.to_string()))?;
        let mut from = BufReader::with_capacity(1 << 16, file);
        chunk::read_header(&mut from).map_err(|e| refused(e.to_string()))?;
        let mut decoder = Decoder::default();
        let mut any = false;
        let broken = loop {
            let records = match chunk::unpack(&mut from).map_err(|e| refused(e.to_string()))? {
                Ok(Some(records)) => records,
                Ok(None) => break None,
                Err(broken) => break Some(broken),
            };
            if let Err(broken) = decoder.chunk(&records, sink) {
                break Some(broken);
            }
            any = true;
        };
        if !any {
            return Err(refused(match broken {
                None => "nothing was recorded in it: gilprof was ended before it had begun to measure".into(),
                Some(broken) => format!("its first chunk is damaged ({}), and what follows cannot be read without it", broken.0),
            }));
        }
        let last = decoder.last;
        let (target, mut window, end) = decoder.capture_info();
        if !last || broken.is_some() {
            window.seconds = window.seconds.max(end.saturating_since(window.begin).as_secs_f64());
            let why = broken.map_or("gilprof was killed, or the disk was full", |broken| broken.0);
            window.warnings.push(format!("the recording breaks off ({why}); the report covers what is there"));
        }
        Ok(ReplaySummary { target, window })
    }
}
