//! Measures a live process as `gilprof attach --format json` does, and keeps all that was read, so
//! that `replay` can judge it again. `scripts/eval accuracy --keep` runs it.
//!
//! ```text
//! cargo run --release --example raw_samples -- PID SECONDS RATE FILE
//! ```

#![allow(clippy::print_stdout)]

use flate2::write::GzEncoder;
use flate2::Compression;
use gilprof::analysis;
use gilprof::capture::session::CaptureConfig;
use gilprof::capture::target::Target;
use gilprof::estimate::raw_stream::RawWriter;
use gilprof::ids::ThreadId;
use gilprof::output::json;
use gilprof::profile::ProfileBuilder;
use gilprof::sample::{GilSample, RawEvent, Sink, StateSlice, ThreadInfo, ThreadTotals};
use gilprof::units::Nanos;
use std::fs::File;
use std::io::{self, Write};

type Failed = Box<dyn std::error::Error>;

const USAGE: &str = "usage: raw_samples PID SECONDS RATE FILE";

/// A profile, and the stream in memory: to compress it takes time, which a sample does not have.
struct Keeping {
    builder: ProfileBuilder,
    stream: RawWriter<Vec<u8>>,
    failed: Option<io::Error>,
}

impl Sink for Keeping {
    fn thread(&mut self, info: &ThreadInfo) {
        self.builder.thread(info);
    }
    fn slice(&mut self, slice: &StateSlice<'_>) {
        self.builder.slice(slice);
    }
    fn gil(&mut self, sample: &GilSample) {
        self.builder.gil(sample);
    }
    fn raw(&mut self, event: &RawEvent<'_>) {
        self.failed = self.failed.take().or(self.stream.event(event).err());
    }
    fn thread_end(&mut self, thread: ThreadId, totals: ThreadTotals) {
        self.builder.thread_end(thread, totals);
    }
}

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [pid, seconds, rate, path] = args.as_slice() else { return Err(USAGE.into()) };
    let duration = Nanos::from_nanos((seconds.parse::<f64>()? * 1e9) as u64);
    let config = CaptureConfig { rate_hz: rate.parse()?, duration: Some(duration), all_evidence: true, ..CaptureConfig::default() };
    let mut sink = Keeping { builder: ProfileBuilder::new(), stream: RawWriter::new(Vec::new())?, failed: None };
    let window = Target::attach(pid.parse()?)?.config(config).run(&mut sink)?;
    if let Some(error) = sink.failed {
        return Err(error.into());
    }
    let mut file = GzEncoder::new(File::create(path)?, Compression::best());
    file.write_all(&sink.stream.finish())?;
    file.finish()?;
    println!("{}", json::render(&analysis::report(&sink.builder.finish(window.target, window.stats)))?);
    Ok(())
}
