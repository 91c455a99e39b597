//! The state machine of a thread, on samples of a simulated thread whose every microsecond is
//! known.
//!
//! The thread passes through intervals of random length. A sample is taken about every millisecond
//! and sees what gilprof would see: the task state a moment after the GIL was read; CPU time that
//! the kernel counts only at its tick and at a context switch; time in the run queue that the
//! kernel counts only when the thread gets a CPU. The reported states must be the actual ones,
//! within bounds that are narrower than those promised for live programs.

use gilprof::estimate::state_machine::{GilView, ThreadStateMachine};
use gilprof::process::runnable::{SwitchCounts, SwitchHistory};
use gilprof::sample::{RawTask, RawThread, RunnableState, SchedStat, Stack, State, StateTimes, TaskState};
use gilprof::units::Nanos;
use std::collections::VecDeque;
use std::sync::Arc;

/// What the thread actually does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Do {
    Hold,
    Native,
    /// In futex(2) on the GIL.
    Wait,
    /// Asleep in any other system call.
    Sleep,
}

/// An interval with a CPU, or in the run queue for one.
#[derive(Clone, Copy, Debug)]
struct Part {
    does: Do,
    queued: bool,
    micros: u64,
}

/// xorshift64*: the same thread in every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform around `mean`, from half to one and a half.
    fn about(&mut self, mean: f64) -> u64 {
        (mean * (0.5 + self.next())).max(1.0) as u64
    }

    /// Exponential: often short, sometimes long.
    fn exponential(&mut self, mean: f64) -> u64 {
        (-mean * (1.0 - self.next()).ln()).max(1.0) as u64
    }

    fn chance(&mut self, of: f64) -> bool {
        self.next() < of
    }
}

/// One round of a thread.
type Round = fn(&mut Dice, &mut Vec<Part>);

fn part(does: Do, micros: u64) -> Part {
    Part { does, queued: false, micros }
}

fn queued(does: Do, micros: u64) -> Part {
    Part { does, queued: true, micros }
}

/// Holds the GIL for a third of the time, about `hold` at a time. After a hold it is often
/// preempted by the next holder, and it is woken late.
fn pure(dice: &mut Dice, out: &mut Vec<Part>, hold: f64, late: f64) {
    let micros = dice.about(hold);
    out.push(part(Do::Hold, micros));
    out.push(part(Do::Native, 8));
    if dice.chance(0.5) {
        out.push(queued(Do::Wait, dice.exponential(late)));
    }
    let mut left = dice.about(2.0 * hold);
    while left > 0 {
        let nap = left.min(hold as u64);
        out.push(part(Do::Wait, nap));
        left -= nap;
        if dice.chance(0.5) {
            let late = dice.exponential(late);
            out.push(queued(Do::Wait, late));
            left = left.saturating_sub(late);
        }
        out.push(part(Do::Native, 5));
    }
}

/// Work that takes `micros` of CPU and shares the core: as much time in the run queue, in turns of
/// about 3 ms.
fn shared(dice: &mut Dice, out: &mut Vec<Part>, does: Do, mut micros: u64, load: bool) {
    while micros > 0 {
        let turn = micros.min(if load { dice.about(3000.0) } else { u64::MAX });
        out.push(part(does, turn));
        micros -= turn;
        if load && micros > 0 {
            out.push(queued(does, dice.about(3000.0)));
        }
    }
}

fn half(dice: &mut Dice, out: &mut Vec<Part>, load: bool) {
    let (hold, native) = (dice.about(4000.0), dice.about(4000.0));
    shared(dice, out, Do::Hold, hold, load);
    shared(dice, out, Do::Native, native, load);
    if dice.chance(0.6) {
        out.push(part(Do::Wait, dice.exponential(3000.0)));
        if load {
            out.push(queued(Do::Wait, dice.exponential(1500.0)));
        }
    }
}

fn network(dice: &mut Dice, out: &mut Vec<Part>, nap: f64) {
    out.push(part(Do::Hold, dice.about(12.0)));
    out.push(part(Do::Native, dice.about(15.0)));
    if dice.chance(0.3) {
        out.push(queued(Do::Native, dice.exponential(20.0)));
    }
    out.push(part(Do::Sleep, dice.about(nap)));
    out.push(part(Do::Native, dice.about(10.0)));
    out.push(part(Do::Wait, dice.about(25.0)));
    out.push(queued(Do::Wait, dice.exponential(4.0)));
}

/// Name, a round, and the error allowed on waiting, holding, native and starved.
const THREADS: [(&str, Round, f64); 14] = [
    ("pure Python, 5 ms", |d, o| pure(d, o, 5000.0, 100.0), 0.01),
    ("pure Python, 5 ms, woken late", |d, o| pure(d, o, 5000.0, 600.0), 0.015),
    ("pure Python, 0.5 ms", |d, o| pure(d, o, 500.0, 120.0), 0.02),
    ("pure Python, 0.5 ms, woken late", |d, o| pure(d, o, 500.0, 300.0), 0.02),
    ("half released", |d, o| half(d, o, false), 0.02),
    ("half released, shared core", |d, o| half(d, o, true), 0.05),
    (
        "pure Python, shared core",
        |d, o| {
            let hold = d.about(5000.0);
            shared(d, o, Do::Hold, hold, true);
            o.push(queued(Do::Wait, d.exponential(2000.0)));
            o.push(part(Do::Wait, d.about(5000.0)));
            o.push(queued(Do::Wait, d.exponential(3000.0)));
        },
        0.03,
    ),
    (
        "released, mostly starved",
        |d, o| {
            let (hold, native) = (d.about(3000.0), d.about(3000.0));
            for (does, micros) in [(Do::Hold, hold), (Do::Native, native)] {
                o.push(part(does, micros / 2));
                o.push(queued(does, d.about(3500.0)));
                o.push(part(does, micros / 2));
                o.push(queued(does, d.about(3500.0)));
            }
            if d.chance(0.8) {
                o.push(part(Do::Wait, d.exponential(3000.0)));
                o.push(queued(Do::Wait, d.exponential(3000.0)));
            }
        },
        0.05,
    ),
    (
        "network thread on a shared core",
        |d, o| {
            o.push(part(Do::Hold, d.about(500.0)));
            o.push(part(Do::Native, d.about(60.0)));
            o.push(part(Do::Sleep, d.exponential(1500.0)));
            o.push(queued(Do::Native, d.exponential(1200.0)));
            o.push(part(Do::Native, d.about(60.0)));
            if d.chance(0.05) {
                o.push(part(Do::Wait, d.about(500.0)));
            }
        },
        0.05,
    ),
    (
        "hashing",
        |d, o| {
            o.push(part(Do::Hold, d.about(30.0)));
            o.push(part(Do::Native, d.about(600.0)));
            if d.chance(0.1) {
                o.push(part(Do::Wait, d.about(30.0)));
            }
        },
        0.015,
    ),
    ("busy network thread", |d, o| network(d, o, 25.0), 0.11),
    ("idle network thread", |d, o| network(d, o, 2000.0), 0.02),
    (
        "computes for long and seldom",
        |d, o| {
            for _ in 0..20 {
                pure(d, o, 5000.0, 300.0);
            }
            o.push(part(Do::Native, 60_000));
            o.push(part(Do::Wait, 3000));
        },
        0.015,
    ),
    (
        "victim of a hog",
        |d, o| {
            o.push(part(Do::Sleep, d.about(3000.0)));
            if d.chance(0.3) {
                o.push(queued(Do::Native, d.exponential(60.0)));
            }
            o.push(part(Do::Native, 15));
            o.push(part(Do::Wait, d.about(5000.0)));
            o.push(queued(Do::Wait, d.exponential(100.0)));
            o.push(part(Do::Hold, d.about(40.0)));
            o.push(part(Do::Native, 10));
        },
        0.02,
    ),
];

const TICK: u64 = 4_000;
/// Microseconds from the read of the GIL to that of the task state; and the least remainder of a
/// sleep that the kernel still shows as a sleep.
const LATER: u64 = 12;
const STILL: u64 = 4;

/// The history of the thread, available in order of time.
struct Life {
    parts: VecDeque<(u64, Part)>,
    make: Round,
    dice: Dice,
    end: u64,
    /// Exact, at `at`.
    at: u64,
    cpu: u64,
    seen_cpu: u64,
    queue: u64,
    seen_queue: u64,
    runs: u64,
    switches: SwitchCounts,
}

impl Life {
    fn new(make: Round) -> Life {
        let dice = Dice(0x9E37_79B9_7F4A_7C15);
        Life {
            parts: VecDeque::new(),
            make,
            dice,
            end: 0,
            at: 0,
            cpu: 0,
            seen_cpu: 0,
            queue: 0,
            seen_queue: 0,
            runs: 1,
            switches: SwitchCounts::default(),
        }
    }

    /// The part at a time, and the rest of it. Earlier parts are dropped.
    fn part(&mut self, time: u64) -> (Part, u64) {
        while self.end <= time + LATER + STILL {
            let mut more = Vec::new();
            (self.make)(&mut self.dice, &mut more);
            for part in more {
                self.end += part.micros;
                self.parts.push_back((self.end, part));
            }
        }
        let (end, part) = *self.parts.iter().find(|(end, _)| *end > time).unwrap();
        (part, end - time)
    }

    /// Advances the time.
    fn go(&mut self, to: u64, truth: &mut StateTimes) {
        while self.at < to {
            let (part, left) = self.part(self.at);
            let tick = TICK - self.at % TICK;
            let step = left.min(to - self.at).min(tick);
            let on = !part.queued && matches!(part.does, Do::Hold | Do::Native);
            let state = match part.does {
                Do::Hold => State::HoldingPython,
                Do::Native if part.queued => State::Starved,
                Do::Native => State::Native,
                Do::Wait => State::Waiting,
                Do::Sleep => State::Io,
            };
            truth.add(state, step as f64);
            self.at += step;
            self.cpu += if on { step } else { 0 };
            self.queue += if part.queued { step } else { 0 };
            if on && step == tick {
                self.seen_cpu = self.cpu;
            }
            if step == left {
                self.parts.pop_front();
                let (next, _) = self.part(self.at);
                let next_on = !next.queued && matches!(next.does, Do::Hold | Do::Native);
                // From the run queue to a sleep it has a CPU for a moment.
                let ran = on || part.queued && !next_on && !next.queued;
                if ran && !next_on {
                    self.seen_cpu = self.cpu;
                    self.runs += u64::from(!on);
                    let count = if next.queued { &mut self.switches.involuntary } else { &mut self.switches.voluntary };
                    *count += 1;
                }
                if !on && next_on {
                    self.seen_queue = self.queue;
                    self.runs += 1;
                }
            }
        }
    }

    fn stat(&self) -> SchedStat {
        SchedStat { cpu: Nanos::from_micros(self.seen_cpu), run_queue: Nanos::from_micros(self.seen_queue), runs: self.runs }
    }
}

/// What the kernel stack shows of a thread that is not asleep.
fn runnable_state(part: &Part) -> RunnableState {
    match (part.queued, part.does) {
        (false, _) => RunnableState::OnCpu,
        (true, Do::Wait) => RunnableState::WokenFromFutex,
        (true, _) => RunnableState::Preempted,
    }
}

/// Five seconds: the reported states and the actual ones. `root`: kernel stacks can be read, else
/// counts of switches.
fn play(make: Round, root: bool) -> (StateTimes, StateTimes) {
    let mut history = SwitchHistory::default();
    let (mut life, mut when) = (Life::new(make), Dice(77));
    let (mut truth, mut reported) = (StateTimes::default(), StateTimes::default());
    let stack = Arc::new(Stack::empty());
    let mut machine = ThreadStateMachine::new(Nanos::ZERO, Some(life.stat()), false);
    let mut forgotten = StateTimes::default();
    for n in 1..=5000u64 {
        let at = n * 1000 + (when.next() * 20.0) as u64;
        life.go(at, &mut truth);
        let (first, left) = life.part(at);
        let held = first.does == Do::Hold;
        let (second, left) = if left > LATER { (first, left - LATER) } else { life.part(at + LATER) };
        // The kernel's counters are read together with the task state. Here they are those of the
        // sample's beginning, which makes no difference.
        let stat = life.stat();
        let asleep = !second.queued && matches!(second.does, Do::Wait | Do::Sleep) && left > STILL;
        let place = match second.does {
            _ if machine.is_still_asleep(Some(stat)) => TaskState::NotRunSince,
            Do::Wait if asleep => TaskState::GilFutex,
            Do::Sleep if asleep => TaskState::Syscall,
            _ => TaskState::Runnable,
        };
        let claims = GilView { held_before: held, held_after: second.does == Do::Hold, ..GilView::default() };
        // The counts are of the sample's beginning.
        if asleep && !first.queued && first.does == second.does {
            history.observe_asleep(life.switches, stat.runs);
        }
        let wanted = place == TaskState::Runnable && !held && !machine.not_run_since_wakeup(Some(stat));
        // A thread whose sleep ends during the sample has a CPU, or is in the run queue, when its
        // stack is read.
        let ends = matches!(second.does, Do::Wait | Do::Sleep) && !second.queued;
        let third = if ends { life.part(at + LATER + left + 1).0 } else { second };
        let now = RawTask {
            task_state: place,
            stat: Some(stat),
            runnable_state: match wanted {
                true if root => Some(runnable_state(&third)),
                true => history.observe_runnable(life.switches, stat.runs),
                false => None,
            },
            by_counts: None,
        };
        // Native code and other sleeps are within calls of C functions.
        let in_c_call = matches!(second.does, Do::Native | Do::Sleep);
        let classification = machine.classify(&RawThread { task: now, in_c_call, ..RawThread::unread(stack.clone()) }, &claims);
        machine.attribute(Nanos::from_micros(at), &now, classification, &stack, None, &mut |_, part, _| reported.merge(&part));
    }
    machine.finish(Nanos::from_millis(5000), None, &stack, &mut |_, part, _| reported.merge(&part));
    life.go(life.at, &mut forgotten);
    (reported, truth)
}

#[test]
fn reported_states_are_the_actual_ones() {
    let mut wrong = Vec::new();
    for ((name, make, most), root) in THREADS.iter().flat_map(|thread| [(*thread, false), (*thread, true)]) {
        let (reported, truth) = play(make, root);
        let share = |times: &StateTimes, states: &[State]| states.iter().map(|s| times.get(*s)).sum::<f64>() / times.total();
        let mut line = format!("{name:<34}{}", if root { "root" } else { "user" });
        for (label, states) in [
            ("waiting", &[State::Waiting][..]),
            ("holding", &[State::HoldingPython, State::HoldingBlocked, State::HoldingStarved, State::HoldingNative]),
            ("native", &[State::Native]),
            ("starved", &[State::Starved]),
            ("unknown", &[State::Unknown]),
        ] {
            let (reported, truth) = (share(&reported, states), share(&truth, states));
            line += &format!("  {label} {reported:.3} {truth:.3} {:+.3}", reported - truth);
            if (reported - truth).abs() > most {
                wrong.push(format!("{name}: {label} {reported:.3}, actual {truth:.3}"));
            }
        }
        println!("{line}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
