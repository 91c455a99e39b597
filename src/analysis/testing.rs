//! Programs in short notation, run through the builder: one sample per millisecond, one string per
//! thread and sample.
//!
//! `"P burn"` is a thread that holds the GIL in Python code of `burn` in app.py, `"L
//! wait@threading.py"` a thread that waits for a lock in that file. The first thread is the main
//! thread. `>` separates frames, the innermost last; `»` is a `>` in a name. P python, C in a C
//! call, B blocked (F in a page fault, J by another thread), X starved (all six holding) · W
//! waiting · w waiting again after it has run · N native · S starved · L lock · I io · U unknown ·
//! T stopped.

use super::rule_input::RuleInput;
use super::rules::{Rule, RuleResult};
use super::{contention, functions, shares};
use crate::ids::{GilId, ThreadId, Tid};
use crate::profile::{Profile, ProfileBuilder};
use crate::sample::{
    CaptureStats, Descendant, DescendantCpu, Evidence, Frame, Function, GilSample, Holder, ProcessKind, Sink, Stack, StackStatus, State,
    StateSlice, StateTimes, Stop, StopCause, TargetInfo, ThreadInfo,
};
use crate::units::Nanos;
use std::collections::HashMap;
use std::sync::Arc;

/// Whether a rule is undetermined.
pub(super) fn is_undetermined(rule: Rule, profile: &Profile) -> bool {
    undetermined(rule, profile).is_some()
}

/// The reason of a rule that is undetermined.
pub(super) fn undetermined(rule: Rule, profile: &Profile) -> Option<String> {
    let (gils, threads, functions) = (contention::gils(profile), shares::threads(profile), functions::rows(profile));
    let gil = contention::most_contended(&gils);
    match rule(&RuleInput::new(profile, &gil, &threads, &functions)) {
        RuleResult::Undetermined(why) => Some(why),
        RuleResult::Applies(_) | RuleResult::DoesNotApply => None,
    }
}

/// The CPU time in milliseconds of the target, and of processes below it: pid, kind, time, whether
/// it ended.
pub(super) fn children(own: u64, processes: &[(i32, ProcessKind, u64, bool)]) -> DescendantCpu {
    let of = |kind| processes.iter().filter(move |process| process.1 == kind);
    let sum = |kind| of(kind).fold(Nanos::ZERO, |sum, process| sum + Nanos::from_millis(process.2));
    let one = |&(pid, kind, cpu, ended): &(i32, ProcessKind, u64, bool)| {
        let command = if kind == ProcessKind::Python { "python worker.py" } else { "cc1" };
        Descendant { pid, command: command.into(), kind, cpu: Nanos::from_millis(cpu), ended }
    };
    DescendantCpu {
        own: Nanos::from_millis(own),
        python: sum(ProcessKind::Python),
        other: sum(ProcessKind::Other),
        unknown: sum(ProcessKind::Unknown),
        python_processes: of(ProcessKind::Python).count() as u32,
        other_processes: of(ProcessKind::Other).count() as u32,
        largest: processes.iter().map(one).collect(),
    }
}

/// A program to run.
pub(super) struct Scene {
    target: TargetInfo,
    window: CaptureStats,
    /// GIL switches in five samples.
    switches: u64,
    collecting: fn(u64) -> bool,
    /// The thread that has no Python.
    native: Option<u32>,
    /// The function below all others, if there is one.
    root: Option<&'static str>,
    /// What the names of the threads but the first begin with.
    workers: &'static str,
}

impl Scene {
    /// On this number of cores.
    pub(super) fn new(cpus: f64) -> Scene {
        let target =
            TargetInfo { cpus, gil_enabled: true, python: "3.11.7".into(), switch_interval_us: Some(5000), ..TargetInfo::default() };
        Scene {
            target,
            window: CaptureStats::default(),
            switches: 1,
            collecting: |_| false,
            native: None,
            root: Some("main"),
            workers: "worker-",
        }
    }

    /// With other facts about the target or the window.
    pub(super) fn with(mut self, change: impl FnOnce(&mut TargetInfo, &mut CaptureStats)) -> Scene {
        change(&mut self.target, &mut self.window);
        self
    }

    /// Stopped by this cause for so many seconds.
    pub(super) fn stopped(self, cause: StopCause, seconds: f64) -> Scene {
        self.with(|_, window| window.stops.push(Stop { cause, seconds }))
    }

    /// With this number of GIL switches per sample.
    pub(super) fn switching(self, switches: u64) -> Scene {
        Scene { switches: switches * 5, ..self }
    }

    /// With garbage collection in these samples.
    pub(super) fn collecting(self, collecting: fn(u64) -> bool) -> Scene {
        Scene { collecting, ..self }
    }

    /// With a thread that has no Python.
    pub(super) fn native(self, thread: u32) -> Scene {
        Scene { native: Some(thread), ..self }
    }

    /// With other names of the threads but the first.
    pub(super) fn workers(self, workers: &'static str) -> Scene {
        Scene { workers, ..self }
    }

    /// With no `main` below every stack.
    pub(super) fn without_main(self) -> Scene {
        Scene { root: None, ..self }
    }

    /// Runs for `samples` milliseconds.
    pub(super) fn run(self, samples: u64, program: impl Fn(u64) -> Vec<&'static str>) -> Profile {
        let mut builder = ProfileBuilder::new();
        let mut stacks = HashMap::new();
        for id in 0..program(0).len() as u32 {
            let name = if id == 0 { "MainThread".into() } else { format!("{}{id}", self.workers) };
            let (tid, main, gil) = (Tid(100 + id as i32), id == 0, Some(GilId(0)));
            let python = self.native != Some(id);
            builder.thread(&ThreadInfo { id: ThreadId(id), tid, name, python, main, gil });
        }
        for tick in 0..samples {
            self.step(&mut builder, &mut stacks, tick, &program(tick));
        }
        let mut window = self.window;
        window.seconds = samples as f64 / 1e3;
        window.rate_hz = 1e3;
        window.counts.samples = samples;
        builder.finish(self.target, window)
    }

    fn step(&self, builder: &mut ProfileBuilder, stacks: &mut HashMap<&'static str, Arc<Stack>>, tick: u64, threads: &[&'static str]) {
        let at = Nanos::from_millis(1_000 + tick + 1);
        let mut parse = |t: &&'static str| (state(t), Arc::clone(stacks.entry(&t[2..]).or_insert_with(|| stack(self.root, &t[2..]))));
        let parsed: Vec<(State, Arc<Stack>)> = threads.iter().map(&mut parse).collect();
        let holder = parsed.iter().position(|(s, _)| s.is_holding());
        if !threads.iter().all(|thread| thread.starts_with('T')) {
            self.gil_sample(builder, tick, &parsed);
        }
        for (id, (state, stack)) in parsed.iter().enumerate() {
            let waited_on = holder.filter(|h| *h != id).map(|h| (ThreadId(h as u32), &parsed[h].1));
            let times = StateTimes::single(*state, 1e6);
            builder.slice(&StateSlice {
                thread: ThreadId(id as u32),
                end: at,
                times,
                evidence: evidence(threads[id]),
                stack,
                holder: waited_on,
            });
        }
    }

    fn gil_sample(&self, builder: &mut ProfileBuilder, tick: u64, threads: &[(State, Arc<Stack>)]) {
        let holder = threads.iter().position(|(s, _)| s.is_holding());
        builder.gil(&GilSample {
            gil: GilId(0),
            at: Nanos::from_millis(1_000 + tick + 1),
            span: Nanos::from_millis(1),
            holder: holder.map_or(Holder::Nobody, |h| Holder::Thread(ThreadId(h as u32))),
            switches: Some(tick * self.switches / 5),
            waiters: threads.iter().filter(|(s, _)| *s == State::Waiting).count() as u32,
            collecting: Some((self.collecting)(tick)),
        });
    }
}

fn evidence(word: &str) -> Evidence {
    match word.as_bytes()[0] {
        b'T' => Evidence::Stopped,
        b'w' => Evidence::GilFutex,
        b'F' => Evidence::HolderFault,
        b'J' => Evidence::HolderLock,
        _ => Evidence::Syscall,
    }
}

fn state(word: &str) -> State {
    match word.as_bytes()[0] {
        b'P' => State::HoldingPython,
        b'C' => State::HoldingNative,
        b'B' | b'F' | b'J' => State::HoldingBlocked,
        b'X' => State::HoldingStarved,
        b'W' | b'w' => State::Waiting,
        b'N' => State::Native,
        b'S' => State::Starved,
        b'L' => State::Lock,
        b'I' => State::Io,
        _ => State::Unknown,
    }
}

fn stack(root: Option<&str>, names: &str) -> Arc<Stack> {
    let function = |name: &str, file: &str| Arc::new(Function { name: name.into(), file: format!("/srv/{file}"), first_line: 12 });
    let frame = |name: &str| {
        let (name, file) = name.split_once('@').unwrap_or((name, "app.py"));
        Frame { function: function(&name.replace('»', ">"), file), line: 14 }
    };
    let below = root.map(|name| Frame { function: function(name, "app.py"), line: 99 });
    let frames = below.into_iter().chain(names.split('>').filter(|name| *name != "-").map(frame)).collect();
    Arc::new(Stack { frames, status: StackStatus::Complete })
}
