//! Recordings made by hand, for the tests of the gate.

use crate::support::gate::Folder;
use gilprof::ids::{GilId, ThreadId, Tid};
use gilprof::profile::file::Recorder;
use gilprof::sample::*;
use gilprof::units::Nanos;
use std::sync::Arc;

/// Length of the window.
const MILLISECONDS: u64 = 2000;

/// Two threads for two seconds, sampled at 1 kHz.
pub struct Scene {
    target: TargetInfo,
    window: CaptureStats,
    states: fn(u64) -> [State; 2],
    file: &'static str,
}

/// The threads take turns at the GIL, about every 5 ms, because a real program is not that regular.
/// In every tenth millisecond no thread waits.
fn turns(ms: u64) -> [State; 2] {
    match (ms + ms / 37 % 3) / 5 % 2 {
        _ if ms.is_multiple_of(10) => [State::Io, State::Io],
        0 => [State::HoldingPython, State::Waiting],
        _ => [State::Waiting, State::HoldingPython],
    }
}

/// The interpreter starts for 15 ms, and then the program sleeps.
pub fn only_start(ms: u64) -> [State; 2] {
    [if ms <= 15 { State::HoldingPython } else { State::Io }, State::Io]
}

/// A thread works for a millisecond now and then, 80 ms in all.
pub fn now_and_then(ms: u64) -> [State; 2] {
    [if ms.is_multiple_of(25) { State::HoldingPython } else { State::Io }, State::Io]
}

/// Both threads sleep.
pub fn sleep(_: u64) -> [State; 2] {
    [State::Io, State::Io]
}

/// Writes a recording into the folder: two threads that take turns at the GIL, both in `burn`.
pub fn golden(folder: &Folder) -> String {
    Scene::new().write(folder, "turns.gilprof")
}

impl Scene {
    /// Two threads that take turns at the GIL.
    pub fn new() -> Scene {
        let target = TargetInfo {
            pid: 4242,
            python: "3.11.7".into(),
            command: vec!["python3".into(), "app.py".into()],
            gil_enabled: true,
            interpreters: 1,
            cpus: 2.0,
            machine_cpus: Some(2.0),
            ..TargetInfo::default()
        };
        let begin = Nanos::from_millis(5_000);
        let window = CaptureStats {
            begin,
            seconds: 2.0,
            rate_hz: 1000.0,
            counts: SampleCounts { samples: MILLISECONDS, ..SampleCounts::default() },
            ..CaptureStats::default()
        };
        Scene { target, window, states: turns, file: "/srv/app.py" }
    }

    /// With other facts about the target or the window.
    pub fn with(mut self, change: impl FnOnce(&mut TargetInfo, &mut CaptureStats)) -> Scene {
        change(&mut self.target, &mut self.window);
        self
    }

    /// With these states of the two threads in each millisecond.
    pub fn in_states(self, states: fn(u64) -> [State; 2]) -> Scene {
        Scene { states, ..self }
    }

    /// With all time in a function of this file.
    pub fn in_file(self, file: &'static str) -> Scene {
        Scene { file, ..self }
    }

    /// Writes the recording and returns its path.
    pub fn write(self, folder: &Folder, name: &str) -> String {
        let path = folder.0.join(name);
        let mut recorder = Recorder::new(std::fs::File::create(&path).unwrap());
        for id in 0..2 {
            let (tid, name) = (Tid(100 + id as i32), format!("worker-{id}"));
            recorder.thread(&ThreadInfo { id: ThreadId(id), tid, name, python: true, main: false, gil: Some(GilId(0)) });
        }
        let function = Arc::new(Function { name: "burn".into(), file: self.file.into(), first_line: 1 });
        let stack = Arc::new(Stack { frames: vec![Frame { function, line: 3 }], status: StackStatus::Complete });
        (1..=MILLISECONDS).for_each(|ms| self.sample(&mut recorder, ms, &stack));
        // The end is a chunk of its own.
        recorder.checkpoint(&self.target, &self.window);
        for id in 0..2 {
            let (cpu, seen) = (Nanos::from_millis(900), Nanos::from_millis(MILLISECONDS));
            recorder.thread_end(ThreadId(id), ThreadTotals { cpu, run_queue: Nanos::ZERO, seen });
        }
        recorder.finish(&self.target, &self.window).unwrap();
        path.to_str().unwrap().into()
    }

    fn sample(&self, recorder: &mut Recorder, ms: u64, stack: &Arc<Stack>) {
        let (end, span) = (Nanos::from_millis(5_000 + ms), Nanos::from_millis(1));
        let states = (self.states)(ms);
        let holder = states.iter().position(|state| state.is_holding()).map(|id| ThreadId(id as u32));
        for (id, state) in (0..2).zip(states) {
            let behind = holder.filter(|_| state == State::Waiting).map(|holder| (holder, stack));
            let times = StateTimes::single(state, 1e6);
            recorder.slice(&StateSlice { thread: ThreadId(id), end, times, evidence: Evidence::GilHolder, stack, holder: behind });
        }
        let waiters = states.iter().filter(|state| **state == State::Waiting).count() as u32;
        let holder = holder.map_or(Holder::Nobody, Holder::Thread);
        recorder.gil(&GilSample { gil: GilId(0), at: end, span, holder, switches: Some(ms / 5), waiters, collecting: None });
    }
}
