//! Makes a long recording of a short one, by telling it again and again, each time later: `longer IN.gilprof OUT.gilprof TIMES`.
//!
//! For measuring what an hour costs in space, memory and time without waiting for it. Prints its own peak memory as JSON.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use gilprof::ids::ThreadId;
use gilprof::profile::file::{Recorder, Recording};
use gilprof::sample::*;
use gilprof::units::Nanos;
use std::fs::File;
use std::path::Path;

/// Tells a recorder everything a fixed time later.
struct Later {
    recorder: Recorder,
    shift: Nanos,
    target: TargetFacts,
    window: WindowFacts,
    told: Nanos,
}

impl Sink for Later {
    fn thread(&mut self, facts: &ThreadFacts) {
        self.recorder.thread(facts);
    }
    fn slice(&mut self, slice: &Slice<'_>) {
        self.recorder.slice(&Slice { end: slice.end + self.shift, ..slice.clone() });
    }
    fn gil(&mut self, look: &GilLook) {
        let at = look.at + self.shift;
        self.recorder.gil(&GilLook { at, ..*look });
        if at.since(self.told) >= Nanos::from_millis(100) {
            self.told = at;
            self.window.seconds = at.since(self.window.begin).as_secs_f64();
            self.window.looks += 100;
            self.recorder.so_far(&self.target, &self.window);
        }
    }
    fn exact(&mut self, measured: &Exact) {
        self.recorder.exact(&Exact { begin: measured.begin + self.shift, end: measured.end + self.shift, ..*measured });
    }
    fn thread_end(&mut self, _: ThreadId, _: ThreadTotals) {}
}

/// Nothing but the facts is wanted.
struct Nowhere;

impl Sink for Nowhere {
    fn thread(&mut self, _: &ThreadFacts) {}
    fn slice(&mut self, _: &Slice<'_>) {}
    fn gil(&mut self, _: &GilLook) {}
    fn thread_end(&mut self, _: ThreadId, _: ThreadTotals) {}
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, times] = &words[..] else { panic!("longer IN.gilprof OUT.gilprof TIMES") };
    let (recording, times) = (Recording::open(Path::new(from)).unwrap(), times.parse::<u64>().unwrap());
    let facts = recording.replay(&mut Nowhere).unwrap();
    let length = Nanos::from_secs_f64(facts.window.seconds);
    let window = WindowFacts { looks: 0, ..facts.window.clone() };
    let recorder = Recorder::new(File::create(to).unwrap());
    let mut later = Later { recorder, shift: Nanos::ZERO, target: facts.target, window, told: Nanos::ZERO };
    for n in 0..times {
        later.shift = Nanos::from_nanos(length.as_nanos() * n);
        recording.replay(&mut later).unwrap();
    }
    later.window.seconds = facts.window.seconds * times as f64;
    later.window.looks = facts.window.looks * times;
    later.recorder.finish(&later.target, &later.window).unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB").trim();
    println!("{{\"peak_kb\": {peak}}}");
}
