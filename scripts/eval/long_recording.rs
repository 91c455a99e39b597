//! Makes a long recording of a short one by writing it several times, each time later:
//! `long_recording IN.gilprof OUT.gilprof TIMES`.
//!
//! `scripts/eval recording` measures with it what an hour costs in space, memory and time. Prints
//! its own peak memory as JSON.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use gilprof::ids::ThreadId;
use gilprof::profile::file::{Recorder, Recording};
use gilprof::sample::*;
use gilprof::units::Nanos;
use std::fs::File;
use std::path::Path;

/// Passes everything to a recorder, shifted by a fixed time.
struct Later {
    recorder: Recorder,
    shift: Nanos,
    target: TargetInfo,
    window: CaptureStats,
    progress_at: Nanos,
}

impl Sink for Later {
    fn thread(&mut self, info: &ThreadInfo) {
        self.recorder.thread(info);
    }
    fn slice(&mut self, slice: &StateSlice<'_>) {
        self.recorder.slice(&StateSlice { end: slice.end + self.shift, ..slice.clone() });
    }
    fn gil(&mut self, sample: &GilSample) {
        let at = sample.at + self.shift;
        self.recorder.gil(&GilSample { at, ..*sample });
        if at.saturating_since(self.progress_at) >= Nanos::from_millis(100) {
            self.progress_at = at;
            self.window.seconds = at.saturating_since(self.window.begin).as_secs_f64();
            self.window.counts.samples += 100;
            self.recorder.checkpoint(&self.target, &self.window);
        }
    }
    fn interval(&mut self, measured: &MeasuredInterval) {
        self.recorder.interval(&MeasuredInterval { begin: measured.begin + self.shift, end: measured.end + self.shift, ..*measured });
    }
    fn thread_end(&mut self, _: ThreadId, _: ThreadTotals) {}
}

/// Discards everything: the first replay is for the window alone.
struct Discard;

impl Sink for Discard {
    fn thread(&mut self, _: &ThreadInfo) {}
    fn slice(&mut self, _: &StateSlice<'_>) {}
    fn gil(&mut self, _: &GilSample) {}
    fn thread_end(&mut self, _: ThreadId, _: ThreadTotals) {}
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, times] = &args[..] else { panic!("long_recording IN.gilprof OUT.gilprof TIMES") };
    let (recording, times) = (Recording::open(Path::new(from)).unwrap(), times.parse::<u64>().unwrap());
    let replayed = recording.replay(&mut Discard).unwrap();
    let length = Nanos::from_secs_f64(replayed.window.seconds);
    let window = CaptureStats { counts: SampleCounts::default(), ..replayed.window.clone() };
    let recorder = Recorder::new(File::create(to).unwrap());
    let mut later = Later { recorder, shift: Nanos::ZERO, target: replayed.target, window, progress_at: Nanos::ZERO };
    for n in 0..times {
        later.shift = Nanos::from_nanos(length.as_nanos() * n);
        recording.replay(&mut later).unwrap();
    }
    later.window.seconds = replayed.window.seconds * times as f64;
    later.window.counts.samples = replayed.window.counts.samples * times;
    later.recorder.finish(&later.target, &later.window).unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB").trim();
    println!("{{\"peak_kb\": {peak}}}");
}
