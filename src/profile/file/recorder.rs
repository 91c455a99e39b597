//! Writes a recording during the capture. The sampling thread collects the records of each process;
//! another thread compresses and writes them.

use super::chunk;
use super::encode::Encoder;
use crate::ids::ThreadId;
use crate::sample::{CaptureStats, GilSample, MeasuredInterval, Sink, StateSlice, TargetInfo, ThreadInfo, ThreadTotals};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::Arc;
use std::thread::JoinHandle;

/// A chunk is written after this many seconds, or this many bytes of records.
const CHUNK_PERIOD_S: f64 = 0.4;
const MAX_BYTES: usize = 1 << 20;
/// Chunks queued for a slow disk. When the queue is full the sampling thread blocks, and the
/// samples it skips are counted as missed.
const QUEUED_CHUNKS: usize = 32;

/// The number of a process, and a chunk's records.
type Chunk = (u32, Vec<u8>);

/// A file that is being recorded to, by any number of processes.
#[derive(Debug)]
pub struct RecordingWriter {
    send: SyncSender<Chunk>,
    writer: JoinHandle<io::Result<()>>,
    failed: Arc<AtomicBool>,
    processes: u32,
}

impl RecordingWriter {
    /// Overwrites this file.
    pub fn new(file: File) -> RecordingWriter {
        let (send, receive) = sync_channel(QUEUED_CHUNKS);
        let failed = Arc::new(AtomicBool::new(false));
        let has_failed = Arc::clone(&failed);
        let write = move || {
            let written = write(file, &receive);
            has_failed.store(written.is_err(), Ordering::Relaxed);
            written
        };
        let writer = std::thread::spawn(write);
        RecordingWriter { send, writer, failed, processes: 0 }
    }

    /// A recorder of another process. The first one has the number 0.
    pub fn recorder(&mut self) -> Recorder {
        self.processes += 1;
        let send = Some(self.send.clone());
        Recorder { process: self.processes - 1, encoder: Encoder::default(), written_s: 0.0, latest: None, send, writer: None }
    }

    /// Whether writing has failed; [`finish`](Self::finish) returns the cause.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Waits until everything is written. All recorders must have finished.
    pub fn finish(self) -> io::Result<()> {
        drop(self.send);
        self.writer.join().unwrap_or_else(|_| Err(io::Error::other("the writing thread panicked")))
    }
}

/// The recording of one process, in progress.
#[derive(Debug)]
pub struct Recorder {
    process: u32,
    encoder: Encoder,
    written_s: f64,
    latest: Option<(TargetInfo, CaptureStats)>,
    /// `None` once writing has failed.
    send: Option<SyncSender<Chunk>>,
    /// The file's, if it holds this process alone.
    writer: Option<RecordingWriter>,
}

impl Recorder {
    /// A recorder that overwrites this file, for one process.
    pub fn new(file: File) -> Recorder {
        let mut writer = RecordingWriter::new(file);
        let mut recorder = writer.recorder();
        recorder.writer = Some(writer);
        recorder
    }

    /// Whether the file of one process could not be written; [`finish`](Self::finish) returns the
    /// cause.
    pub fn failed(&self) -> bool {
        self.writer.as_ref().is_some_and(RecordingWriter::failed)
    }

    /// Updates the target and the statistics, and writes a chunk when one is due. To be called some
    /// ten times a second.
    pub fn checkpoint(&mut self, target: &TargetInfo, window: &CaptureStats) {
        self.latest = Some((target.clone(), window.clone()));
        if window.seconds - self.written_s >= CHUNK_PERIOD_S || self.written_s == 0.0 {
            self.written_s = window.seconds.max(f64::MIN_POSITIVE);
            self.flush();
        }
    }

    /// Writes the last chunk. Of a file with one process, waits until it is written; else
    /// [`RecordingWriter::finish`] says how that went.
    pub fn finish(mut self, target: &TargetInfo, window: &CaptureStats) -> io::Result<()> {
        self.latest = Some((target.clone(), window.clone()));
        self.encoder.last();
        self.flush();
        drop(self.send.take());
        self.writer.map_or(Ok(()), RecordingWriter::finish)
    }

    fn flush(&mut self) {
        if let Some((target, window)) = &self.latest {
            self.encoder.capture_info(target, window);
        }
        let records = self.encoder.take();
        if self.send.as_ref().is_some_and(|send| send.send((self.process, records)).is_err()) {
            self.send = None;
        }
    }

    fn flush_if_full(&mut self) {
        if self.encoder.len() >= MAX_BYTES {
            self.flush();
        }
    }
}

impl Sink for Recorder {
    fn thread(&mut self, info: &ThreadInfo) {
        self.encoder.thread(info);
    }

    fn slice(&mut self, slice: &StateSlice<'_>) {
        self.encoder.slice(slice);
        self.flush_if_full();
    }

    fn gil(&mut self, sample: &GilSample) {
        self.encoder.gil(sample);
        self.flush_if_full();
    }

    fn interval(&mut self, measured: &MeasuredInterval) {
        self.encoder.interval(measured);
        self.flush_if_full();
    }

    fn thread_end(&mut self, thread: ThreadId, totals: ThreadTotals) {
        self.encoder.thread_end(thread, totals);
    }
}

/// The writing thread.
fn write(mut file: File, chunks: &Receiver<Chunk>) -> io::Result<()> {
    // A pipe or a terminal cannot be truncated or synced.
    let regular = file.metadata()?.is_file();
    if regular {
        file.set_len(0)?;
        file.rewind()?;
    }
    file.write_all(&chunk::header())?;
    while let Ok(first) = chunks.recv() {
        // The chunks of many processes come together, and are synced together.
        for (process, records) in std::iter::once(first).chain(chunks.try_iter().take(QUEUED_CHUNKS)) {
            let whole = if regular { file.stream_position()? } else { 0 };
            if let Err(e) = chunk::pack(process, &records).and_then(|chunk| file.write_all(&chunk)) {
                if regular {
                    // A partial chunk cannot be read. If it stays, the reader reports a truncated
                    // file all the same.
                    let _ = file.set_len(whole);
                }
                return Err(e);
            }
        }
        if regular {
            file.sync_data()?;
        }
    }
    file.flush()
}
