//! Generated recordings: of any length and number of threads, with hostile names, in a moment.

use gilprof::ids::{GilId, ThreadId, Tid};
use gilprof::profile::file::Recorder;
use gilprof::sample::*;
use gilprof::units::Nanos;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;

/// The name of a thread, a function and a file in a hostile program.
pub const HOSTILE: &str = "</script><img src=x onerror=alert(1)>";

/// The length, the number of threads, and the sampling rate.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    pub seconds: f64,
    pub threads: u32,
    pub rate_hz: f64,
    /// Samples until the next GIL switch.
    pub turn: u64,
}

fn stack(functions: &[(&str, u32)]) -> Arc<Stack> {
    let frame = |&(name, line): &(&str, u32)| {
        let function = Arc::new(Function { name: name.into(), file: "/srv/app.py".into(), first_line: line });
        Frame { function, line: line + 1 }
    };
    Arc::new(Stack { frames: functions.iter().map(frame).collect(), status: StackStatus::Complete })
}

/// Threads take turns at the GIL; the others wait, hash, or rest. The last one's name is hostile.
pub fn record(path: &Path, made: Made) {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).unwrap();
    let mut recorder = Recorder::new(file);
    for id in 0..made.threads {
        let name = if id + 1 == made.threads { HOSTILE.to_string() } else { format!("worker-{id}") };
        recorder.thread(&ThreadInfo {
            id: ThreadId(id),
            tid: Tid(1000 + id as i32),
            name,
            python: true,
            main: id == 0,
            gil: Some(GilId(0)),
        });
    }
    let stacks: Vec<Arc<Stack>> = (0..40)
        .map(|n| stack(&[("main", 1), ("serve", 10), (&format!("handle_{}", n % 8), 100), (&format!("step_{n}"), 200 + n)]))
        .collect();
    let (hash, rest) = (stack(&[("main", 1), ("hash", 300)]), stack(&[("main", 1), (HOSTILE, 400)]));
    let target = TargetInfo {
        pid: 4242,
        python: "3.11.7".into(),
        executable: "/usr/bin/python3".into(),
        command: vec!["python3".into(), "app.py".into(), HOSTILE.into()],
        gil_enabled: true,
        interpreters: 1,
        cpus: 2.0,
        switch_interval_us: Some(5000),
        ..TargetInfo::default()
    };
    let step = Nanos::from_secs_f64(1.0 / made.rate_hz);
    let begin = Nanos::from_millis(5_000);
    let samples = (made.seconds * made.rate_hz) as u64;
    let mut window = CaptureStats { begin, rate_hz: made.rate_hz, ..CaptureStats::default() };
    let nanos = step.as_nanos() as f64;
    for sample in 1..=samples {
        let at = begin + Nanos::from_nanos(step.as_nanos() * sample);
        let turn = sample / made.turn;
        // The others hash or rest.
        let contenders = (made.threads * 3 / 4).max(1);
        let holder = (turn.wrapping_mul(2_654_435_761) >> 7) as u32 % contenders;
        let held = &stacks[(turn as usize + holder as usize) % stacks.len()];
        for id in 0..made.threads {
            let behind = Some((ThreadId(holder), held));
            let (times, stack, evidence, holder) = if id == holder {
                (StateTimes::single(State::HoldingPython, nanos), held, Evidence::GilHolder, None)
            } else if id < contenders {
                (StateTimes::single(State::Waiting, nanos), &stacks[id as usize % stacks.len()], Evidence::GilFutex, behind)
            } else if id % 2 == 0 {
                let starved = if sample % 64 == 0 { nanos } else { 0.0 };
                let mut times = StateTimes::single(State::Native, nanos - starved);
                times.add(State::Starved, starved);
                (times, &hash, Evidence::Conservation, None)
            } else {
                (StateTimes::single(State::Io, nanos), &rest, Evidence::Syscall, None)
            };
            recorder.slice(&StateSlice { thread: ThreadId(id), end: at, times, evidence, stack, holder });
        }
        let waiters = contenders - 1;
        let (gil, holder) = (GilId(0), Holder::Thread(ThreadId(holder)));
        recorder.gil(&GilSample { gil, at, span: step, holder, switches: Some(turn), waiters, collecting: Some(false) });
        if sample % 100 == 0 {
            window.seconds = at.saturating_since(begin).as_secs_f64();
            window.counts.samples = sample;
            recorder.checkpoint(&target, &window);
        }
    }
    for id in 0..made.threads {
        let seen = Nanos::from_secs_f64(made.seconds);
        recorder.thread_end(ThreadId(id), ThreadTotals { cpu: Nanos::from_nanos(seen.as_nanos() / 3), run_queue: Nanos::ZERO, seen });
    }
    window.seconds = made.seconds;
    window.counts.samples = samples;
    recorder.finish(&target, &window).unwrap();
}
