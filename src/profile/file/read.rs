//! Reads a recording from a file, chunk by chunk. A recording may be replayed any number of times.

use super::bytes::Broken;
use super::chunk::{self, Header};
use super::decode::Decoder;
use super::VERSION;
use crate::error::{Error, Result};
use crate::sample::{CaptureStats, Sink, TargetInfo};
use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::path::{Path, PathBuf};

/// An open file whose header is a recording's.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    file: File,
}

/// The facts of a replayed recording.
#[derive(Clone, Debug)]
pub struct ReplaySummary {
    /// The process.
    pub target: TargetInfo,
    /// The capture statistics. Those of a truncated recording cover what is there, with a warning.
    pub window: CaptureStats,
}

impl Recording {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Recording> {
        let failed = |source: io::Error| Error::Recording { path: path.into(), why: source.to_string() };
        // Checked before the file is opened, because opening a pipe blocks until there is a writer.
        let kind = std::fs::metadata(path).map_err(failed)?;
        if !kind.is_file() {
            let why = if kind.is_dir() { "it is a directory" } else { "it is no regular file, and a recording is read several times" };
            return Err(Error::Recording { path: path.into(), why: why.into() });
        }
        Recording::from_file(File::open(path).map_err(failed)?, path)
    }

    /// A recording in an open file; `path` is for messages.
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

    /// The path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sends all that was recorded to `sink`, in the order of the capture. The first broken chunk
    /// and everything after it are left out, with a warning.
    pub fn replay(&self, sink: &mut dyn Sink) -> Result<ReplaySummary> {
        let mut playback = self.playback()?;
        while playback.chunk(sink)?.is_some() {}
        playback.finish()
    }

    /// Starts to read the recording a chunk at a time.
    pub fn playback(&self) -> Result<Playback<'_>> {
        let refused = |why: String| Error::Recording { path: self.path.clone(), why };
        let mut file = &self.file;
        file.rewind().map_err(|e| refused(e.to_string()))?;
        let mut from = BufReader::with_capacity(1 << 16, file);
        chunk::read_header(&mut from).map_err(|e| refused(e.to_string()))?;
        Ok(Playback { path: &self.path, from, decoder: Decoder::default(), any: false, broken: None })
    }
}

/// A recording that is read a chunk at a time. A second one of the same recording would move its
/// place in the file.
#[derive(Debug)]
pub struct Playback<'a> {
    path: &'a Path,
    from: BufReader<&'a File>,
    decoder: Decoder,
    any: bool,
    broken: Option<Broken>,
}

impl Playback<'_> {
    /// Sends the next chunk's records to `sink`. Returns the target and the statistics as they were
    /// at the chunk's end; `None` after the last chunk, and from a broken one on.
    pub fn chunk(&mut self, sink: &mut dyn Sink) -> Result<Option<(&TargetInfo, &CaptureStats)>> {
        if self.broken.is_some() {
            return Ok(None);
        }
        let records = match chunk::unpack(&mut self.from).map_err(|e| self.refused(e.to_string()))? {
            Ok(Some(records)) => records,
            Ok(None) => return Ok(None),
            Err(broken) => {
                self.broken = Some(broken);
                return Ok(None);
            }
        };
        if let Err(broken) = self.decoder.chunk(&records, sink) {
            self.broken = Some(broken);
            return Ok(None);
        }
        self.any = true;
        Ok(Some(self.decoder.latest_info()))
    }

    /// The facts of what was read, after the last chunk.
    pub fn finish(self) -> Result<ReplaySummary> {
        if !self.any {
            return Err(self.refused(match self.broken {
                None => "nothing was recorded: gilprof ended before the capture began".into(),
                Some(broken) => format!("its first chunk is damaged ({}), and the chunks after it depend on it", broken.0),
            }));
        }
        let last = self.decoder.last;
        let (target, mut window, end) = self.decoder.capture_info();
        if !last || self.broken.is_some() {
            window.seconds = window.seconds.max(end.saturating_since(window.begin).as_secs_f64());
            let why = self.broken.map_or("gilprof was killed, or the disk was full", |broken| broken.0);
            window.cut_short = Some(format!("the recording breaks off ({why})"));
            window.warnings.push(format!("the recording breaks off ({why}); the report covers the part before"));
        }
        Ok(ReplaySummary { target, window })
    }

    fn refused(&self, why: String) -> Error {
        Error::Recording { path: self.path.into(), why }
    }
}
