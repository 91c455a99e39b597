//! Writes a recording while it is measured: records are gathered on the sampling thread, packed and written on another.

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

/// A chunk is written after so many seconds, or so many bytes of records.
const CHUNK_PERIOD_S: f64 = 0.4;
const MAX_BYTES: usize = 1 << 20;
/// Chunks that may wait for a slow disk. Then looks wait, and are counted as missed.
const QUEUED_CHUNKS: usize = 32;

/// A recording being made.
#[derive(Debug)]
pub struct Recorder {
    encoder: Encoder,
    written_s: f64,
    latest: Option<(TargetInfo, CaptureStats)>,
    /// `None` once it cannot be written any more.
    send: Option<SyncSender<Vec<u8>>>,
    writer: JoinHandle<io::Result<()>>,
    failed: Arc<AtomicBool>,
}

impl Recorder {
    /// To this file, from its beginning; what is there goes.
    pub fn new(file: File) -> Recorder {
        let (send, receive) = sync_channel(QUEUED_CHUNKS);
        let failed = Arc::new(AtomicBool::new(false));
        let has_failed = Arc::clone(&failed);
        let write = move || {
            let written = write(file, &receive);
            has_failed.store(written.is_err(), Ordering::Relaxed);
            written
        };
        let writer = std::thread::spawn(write);
        Recorder { encoder: Encoder::default(), written_s: 0.0, latest: None, send: Some(send), writer, failed }
    }

    /// Whether it cannot be written any more; [`finish`](Self::finish) says why.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// How things stand; to be said some ten times a second.
    pub fn checkpoint(&mut self, target: &TargetInfo, window: &CaptureStats) {
        self.latest = Some((target.clone(), window.clone()));
        if window.seconds - self.written_s >= CHUNK_PERIOD_S || self.written_s == 0.0 {
            self.written_s = window.seconds.max(f64::MIN_POSITIVE);
            self.flush();
        }
    }

    /// The window is over.
    pub fn finish(mut self, target: &TargetInfo, window: &CaptureStats) -> io::Result<()> {
        self.latest = Some((target.clone(), window.clone()));
        self.encoder.last();
        self.flush();
        drop(self.send.take());
        self.writer.join().unwrap_or_else(|_| Err(io::Error::other("the writing thread panicked")))
    }

    fn flush(&mut self) {
        if let Some((target, window)) = &self.latest {
            self.encoder.capture_info(target, window);
        }
        let records = self.encoder.take();
        if self.send.as_ref().is_some_and(|send| send.send(records).is_err()) {
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
fn write(mut file: File, chunks: &Receiver<Vec<u8>>) -> io::Result<()> {
    // A pipe or a terminal cannot be cut or brought to a disk.
    let regular = file.metadata()?.is_file();
    if regular {
        file.set_len(0)?;
        file.rewind()?;
    }
    file.write_all(&chunk::header())?;
    for records in chunks {
        let whole = if regular { file.stream_position()? } else { 0 };
        let written =
            chunk::pack(&records).and_then(|chunk| file.write_all(&chunk)).and_then(|()| if regular { file.sync_data() } else { Ok(()) });
        if let Err(e) = written {
            if regular {
                // What is cut off cannot be read; that it stays would be no worse.
                let _ = file.set_len(whole);
            }
            return Err(e);
        }
    }
    file.flush()
}
