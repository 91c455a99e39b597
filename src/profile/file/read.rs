//! Reads a recording from a file, chunk by chunk. A recording may be replayed any number of times.

use super::bytes::Broken;
use super::chunk::{self, Header};
use super::decode::Decoder;
use super::VERSION;
use crate::error::{Error, Result};
use crate::sample::{CaptureStats, Sink, TargetInfo};
use rustc_hash::FxHashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest number of processes in a file that is read.
const MAX_PROCESSES: usize = 1 << 17;
/// The length of the file's header.
const HEADER: u64 = 12;

/// The recording of one process, in an open file.
#[derive(Clone, Debug)]
pub struct Recording {
    path: PathBuf,
    file: Arc<File>,
    version: u16,
    process: u32,
    /// Where its chunks begin.
    chunks: Arc<[u64]>,
    /// Processes of the file that cannot be read.
    left_out: usize,
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
    /// Opens a file that holds one process.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is no recording, or holds several processes.
    pub fn open(path: &Path) -> Result<Recording> {
        let mut all = Recording::open_all(path)?;
        match (all.pop(), all.len()) {
            (Some(one), 0) => Ok(one),
            (_, others) => {
                let why = format!("it holds {} processes, and one is wanted; gilprof report shows them all", others + 1);
                Err(Error::Recording { path: path.into(), why })
            }
        }
    }

    /// Opens a file, with the recordings of all its processes in the order in which they were met:
    /// at least one.
    pub fn open_all(path: &Path) -> Result<Vec<Recording>> {
        let failed = |source: io::Error| Error::Recording { path: path.into(), why: source.to_string() };
        // Checked before the file is opened, because opening a pipe blocks until there is a writer.
        let kind = std::fs::metadata(path).map_err(failed)?;
        if !kind.is_file() {
            let why = if kind.is_dir() { "it is a directory" } else { "it is no regular file, and a recording is read several times" };
            return Err(Error::Recording { path: path.into(), why: why.into() });
        }
        Recording::all_in_file(File::open(path).map_err(failed)?, path)
    }

    /// The recordings in an open file; `path` is for messages.
    pub fn all_in_file(file: File, path: &Path) -> Result<Vec<Recording>> {
        let refused = |why: String| Error::Recording { path: path.into(), why };
        let version = match chunk::read_header(&mut FileReader { file: &file, at: 0 }).map_err(|e| refused(e.to_string()))? {
            Header::Readable(version) => version,
            Header::Newer(version) => {
                return Err(refused(format!(
                    "a newer gilprof wrote it (format {version}; this one reads up to {VERSION}). Update gilprof: cargo install gilprof"
                )))
            }
            Header::Foreign => {
                return Err(refused("it is no recording of gilprof's. Make one with: gilprof record --pid PID -o run.gilprof".into()))
            }
        };
        let found = chunks_of_processes(&file, version).map_err(|e| refused(e.to_string()))?;
        let (path, file, count) = (PathBuf::from(path), Arc::new(file), found.len());
        let recording = |(process, chunks): (u32, Vec<u64>)| {
            let (path, file, chunks) = (path.clone(), Arc::clone(&file), chunks.into());
            Recording { path, file, version, process, chunks, left_out: 0 }
        };
        let mut all: Vec<Recording> = found.into_iter().map(recording).collect();
        if count > 1 {
            // A process whose first chunk was cut off, or is damaged, does not hide the others.
            let first = all[0].clone();
            all.retain(Recording::begins_well);
            let left_out = count - all.len();
            match all.first_mut() {
                Some(recording) => recording.left_out = left_out,
                // The error of one stands for all.
                None => all.push(first),
            }
        }
        Ok(all)
    }

    /// The recording in an open file that holds one process; `path` is for messages.
    pub fn from_file(file: File, path: &Path) -> Result<Recording> {
        let no_process = || Error::Recording { path: path.into(), why: "it holds no process".into() };
        Recording::all_in_file(file, path)?.into_iter().next().ok_or_else(no_process)
    }

    /// The path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of its process in the file.
    pub fn process(&self) -> u32 {
        self.process
    }

    /// The records of one of its chunks; `None` after the last one.
    fn chunk(&self, number: usize) -> io::Result<std::result::Result<Option<Vec<u8>>, Broken>> {
        let Some(&at) = self.chunks.get(number) else { return Ok(Ok(None)) };
        let from = &mut BufReader::with_capacity(1 << 16, FileReader { file: &self.file, at });
        let head = match chunk::read_head(from, self.version)? {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(Err(Broken("the file is truncated"))),
            Err(broken) => return Ok(Err(broken)),
        };
        Ok(head.read_payload(from)?.and_then(|payload| head.unpack(&payload).map(Some)))
    }

    fn begins_well(&self) -> bool {
        matches!(self.chunk(0), Ok(Ok(Some(_))))
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
        Ok(Playback { recording: self, next: 0, decoder: Decoder::default(), any: false, broken: None })
    }
}

/// A recording that is read a chunk at a time.
#[derive(Debug)]
pub struct Playback<'a> {
    recording: &'a Recording,
    /// The number of the next chunk.
    next: usize,
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
        let records = match self.recording.chunk(self.next).map_err(|e| self.refused(e.to_string()))? {
            Ok(Some(records)) => {
                self.next += 1;
                records
            }
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
        if self.recording.left_out > 0 {
            window.warnings.push(format!(
                "{} processes of the recording are damaged from their first chunk on, and left out",
                self.recording.left_out
            ));
        }
        Ok(ReplaySummary { target, window })
    }

    fn refused(&self, why: String) -> Error {
        Error::Recording { path: self.recording.path.clone(), why }
    }
}

/// Reads a file from a place, whatever else reads it.
#[derive(Debug)]
struct FileReader<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FileReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// The processes in a file, in the order of their first chunks, and where the chunks of each begin.
/// Reads the heads of the chunks up to the first invalid one, which is its process's last. Of an
/// empty file one process without chunks, which a replay refuses.
fn chunks_of_processes(file: &File, version: u16) -> io::Result<Vec<(u32, Vec<u64>)>> {
    let length = file.metadata()?.len();
    let (mut from, mut index, mut found) = (FileReader { file, at: HEADER }, FxHashMap::default(), Vec::<(u32, Vec<u64>)>::new());
    loop {
        let at = from.at;
        let head = match chunk::read_head(&mut from, version)? {
            Ok(Some(head)) => head,
            Ok(None) if at >= length => break,
            // What is broken here is said by the process before.
            Ok(None) | Err(_) => {
                if let Some((_, chunks)) = found.last_mut() {
                    chunks.push(at);
                }
                break;
            }
        };
        let number = *index.entry(head.process).or_insert(found.len());
        if number == found.len() && number < MAX_PROCESSES {
            found.push((head.process, Vec::new()));
        }
        if let Some((_, chunks)) = found.get_mut(number) {
            chunks.push(at);
        }
        from.at += head.packed as u64;
    }
    Ok(if found.is_empty() { vec![(0, if length > HEADER { vec![HEADER] } else { Vec::new() })] } else { found })
}
