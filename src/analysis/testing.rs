//! Programs written as a few words, run through the builder: one look per millisecond, one word per thread and look.
//!
//! `"P burn"` is a thread holding the GIL in Python code of `burn` in app.py, `"L wait@threading.py"` one on a lock in that file. The first
//! thread is the main one. P python, C in a C call, B blocked, X starved (all four holding) · W waits · N native · S starved · L lock · I io · U unknown.

use crate::ids::{GilId, ThreadId, Tid};
use crate::profile::{Profile, ProfileBuilder};
use crate::sample::{
    Evidence, Frame, Function, GilLook, Holder, Sink, Slice, Split, Stack, State, TargetFacts, ThreadFacts, Trust, WindowFacts,
};
use crate::units::Nanos;
use std::collections::HashMap;
use std::sync::Arc;

/// A program to be.
pub(super) struct Scene {
    target: TargetFacts,
    window: WindowFacts,
}

impl Scene {
    /// On so many CPUs.
    pub(super) fn new(cpus: f64) -> Scene {
        let target =
            TargetFacts { cpus, gil_enabled: true, python: "3.11.7".into(), switch_interval_us: Some(5000), ..TargetFacts::default() };
        Scene { target, window: WindowFacts::default() }
    }

    /// With other facts of the target or the window.
    pub(super) fn with(mut self, change: impl FnOnce(&mut TargetFacts, &mut WindowFacts)) -> Scene {
        change(&mut self.target, &mut self.window);
        self
    }

    /// Run for `looks` milliseconds.
    pub(super) fn run(self, looks: u64, program: impl Fn(u64) -> Vec<&'static str>) -> Profile {
        let mut builder = ProfileBuilder::new();
        let mut stacks = HashMap::new();
        for id in 0..program(0).len() as u32 {
            let name = if id == 0 { "MainThread".into() } else { format!("worker-{id}") };
            let (tid, main, gil) = (Tid(100 + id as i32), id == 0, Some(GilId(0)));
            builder.thread(&ThreadFacts { id: ThreadId(id), tid, name, python: true, main, gil });
        }
        for tick in 0..looks {
            step(&mut builder, &mut stacks, tick, &program(tick));
        }
        let mut window = self.window;
        window.seconds = looks as f64 / 1e3;
        window.rate_hz = 1e3;
        window.looks = looks;
        builder.finish(self.target, window)
    }
}

fn step(builder: &mut ProfileBuilder, stacks: &mut HashMap<&'static str, Arc<Stack>>, tick: u64, threads: &[&'static str]) {
    let at = Nanos::from_millis(1_000 + tick + 1);
    let parsed: Vec<(State, Arc<Stack>)> =
        threads.iter().map(|t| (state(t), Arc::clone(stacks.entry(&t[2..]).or_insert_with(|| stack(&t[2..]))))).collect();
    let holder = parsed.iter().position(|(s, _)| s.is_holding());
    for (id, (state, stack)) in parsed.iter().enumerate() {
        let behind = holder.filter(|h| *h != id).map(|h| (ThreadId(h as u32), &parsed[h].1));
        let split = Split::whole(*state, 1e6);
        builder.slice(&Slice { thread: ThreadId(id as u32), end: at, split, evidence: Evidence::Syscall, stack, holder: behind });
    }
    builder.gil(&GilLook {
        gil: GilId(0),
        at,
        span: Nanos::from_millis(1),
        holder: holder.map_or(Holder::Nobody, |h| Holder::Thread(ThreadId(h as u32))),
        switches: Some(tick / 5),
        waiters: parsed.iter().filter(|(s, _)| *s == State::Waiting).count() as u32,
    });
}

fn state(word: &str) -> State {
    match word.as_bytes()[0] {
        b'P' => State::HoldingPython,
        b'C' => State::HoldingNative,
        b'B' => State::HoldingBlocked,
        b'X' => State::HoldingStarved,
        b'W' => State::Waiting,
        b'N' => State::Native,
        b'S' => State::Starved,
        b'L' => State::Lock,
        b'I' => State::Io,
        _ => State::Unknown,
    }
}

fn stack(name: &str) -> Arc<Stack> {
    let (name, file) = name.split_once('@').unwrap_or((name, "app.py"));
    let function = |name: &str, file: &str| Arc::new(Function { name: name.into(), file: format!("/srv/{file}"), first_line: 12 });
    let frames = vec![Frame { function: function("main", "app.py"), line: 99 }, Frame { function: function(name, file), line: 14 }];
    Arc::new(Stack { frames, trust: Trust::Whole })
}
