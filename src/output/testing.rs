//! A made-up program with its report and recording, for the tests of formats.

use super::Source;
use crate::analysis::report::Report;
use crate::ids::{GilId, ThreadId, Tid};
use crate::profile::file::{Recorder, Recording};
use crate::profile::{Profile, ProfileBuilder};
use crate::sample::*;
use crate::units::Nanos;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

/// A name that does harm in each format that does not escape it.
pub const HOSTILE: &str = "\x1b[31m</script><img src=x onerror=alert(1)>\u{202e};\"'";

/// The program's figures.
pub struct MeasuredProgram {
    pub profile: Profile,
    pub report: Report,
    pub recording: Recording,
}

impl MeasuredProgram {
    pub fn source(&self) -> Source<'_> {
        Source { report: &self.report, profile: &self.profile, recording: Some(&self.recording) }
    }
}

fn stack(functions: &[(&str, u32)]) -> Arc<Stack> {
    let frame = |&(name, line): &(&str, u32)| {
        let function = Arc::new(Function { name: name.into(), file: "/srv/app.py".into(), first_line: 1 });
        Frame { function, line }
    };
    Arc::new(Stack { frames: functions.iter().map(frame).collect(), status: StackStatus::Complete })
}

/// A second in which two threads hold the GIL in turn for 5 ms each, a thread with a hostile name
/// hashes, and one sleeps.
pub fn measured() -> MeasuredProgram {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let path = std::env::temp_dir().join(format!("gilprof-out-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
    let file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let (mut builder, mut recorder) = (ProfileBuilder::new(), Recorder::new(file.try_clone().unwrap()));
    {
        let mut sinks: [&mut dyn Sink; 2] = [&mut builder, &mut recorder];
        for (id, name) in ["MainThread", "worker-1", "worker-2", HOSTILE].into_iter().enumerate() {
            let (tid, name, gil) = (Tid(100 + id as i32), name.to_string(), Some(GilId(0)));
            let info = ThreadInfo { id: ThreadId(id as u32), tid, name, python: true, main: id == 0, gil };
            sinks.iter_mut().for_each(|sink| sink.thread(&info));
        }
        let burns = [stack(&[("main", 9), ("burn", 3)]), stack(&[("main", 9), ("burn", 4)])];
        let (hash, wait) = (stack(&[("hash", 7)]), stack(&[("main", 12), (HOSTILE, 1)]));
        for ms in 1..=1000u64 {
            let at = Nanos::from_millis(5_000 + ms);
            let holder = 1 + (ms / 5 % 2) as u32;
            let sample = GilSample {
                gil: GilId(0),
                at,
                span: Nanos::from_millis(1),
                holder: Holder::Thread(ThreadId(holder)),
                switches: Some(ms / 5),
                waiters: 1,
                collecting: Some(ms < 100),
            };
            let burn = &burns[(ms % 2) as usize];
            let mut mixed = StateTimes::single(State::Native, 0.75e6);
            mixed.add(State::Starved, 0.25e6);
            let slices = [
                (0, StateTimes::single(State::Io, 1e6), &wait, Evidence::Syscall, None),
                (holder, StateTimes::single(State::HoldingPython, 1e6), burn, Evidence::GilHolder, None),
                (3 - holder, StateTimes::single(State::Waiting, 1e6), burn, Evidence::GilFutex, Some((ThreadId(holder), burn))),
                (3, mixed, &hash, Evidence::Conservation, None),
            ];
            for sink in &mut sinks {
                for (thread, times, stack, evidence, holder) in slices {
                    sink.slice(&StateSlice { thread: ThreadId(thread), end: at, times, evidence, stack, holder });
                }
                sink.gil(&sample);
            }
        }
        for (id, sink) in (0..4).flat_map(|id| [(id, 0), (id, 1)]) {
            let totals = ThreadTotals { cpu: Nanos::from_millis(500), run_queue: Nanos::ZERO, seen: Nanos::from_millis(1000) };
            sinks[sink].thread_end(ThreadId(id), totals);
        }
    }
    let target = TargetInfo {
        pid: 4242,
        python: "3.11.7".into(),
        executable: "/usr/bin/python3".into(),
        command: vec!["python3".into(), "app.py".into()],
        gil_enabled: true,
        interpreters: 1,
        cpus: 2.0,
        switch_interval_us: Some(5000),
        ..TargetInfo::default()
    };
    let begin = Nanos::from_millis(5_000);
    let window = CaptureStats {
        begin,
        seconds: 1.0,
        rate_hz: 1000.0,
        counts: SampleCounts { samples: 1000, ..SampleCounts::default() },
        ..CaptureStats::default()
    };
    recorder.finish(&target, &window).unwrap();
    let profile = builder.finish(target, window);
    let report = crate::analysis::report(&profile);
    MeasuredProgram { profile, report, recording: Recording::from_file(file, &path).unwrap() }
}
