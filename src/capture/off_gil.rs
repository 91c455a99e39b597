//! What a thread does when it is runnable without the GIL, learnt over a second: mostly native code, or mostly the way into and out of waits.
//!
//! Next to a GIL wait a thread without a CPU is either still waiting (woken, or pushed off its core by the thread it has just woken), or in
//! native code and starved. A thread that uses CPU in that time does the latter. One stretch is too noisy to tell, and clamping the noise
//! of each would add it up; over a second the errors cancel.
//!
//! Where it was open for two looks and more without losing or getting a CPU, its CPU time in between says directly what it does there. Else
//! what is left for native code is `cpu - a * held`. `a`, the share of its holding for which the thread had a CPU, shows in the stretches
//! without any open look, where all CPU time was holding. Where there are few of these, `a` is supposed to be the share that the thread had
//! of all its runnable time.

use crate::sample::State;
use crate::units::Nanos;

/// How much runnable time a thread's habit is learnt from.
const WINDOW_NS: f64 = 1e9;
/// And how much time of holding.
const HELD_WINDOW_NS: f64 = 4e9;
/// So much holding without a CPU or with one must have been seen before it says how much of it has a CPU.
const HOLDING_PRIOR_NS: f64 = 10e6;
/// Before that much runnable time is known, a thread is supposed to do nothing next to its waits.
const PRIOR_NS: f64 = 50e6;
/// The same for time between two looks in a row, which says it directly.
const PAIR_PRIOR_NS: f64 = 5e6;
/// A thread that uses less than this share of its runnable time without the GIL is only on its way into and out of waits.
const MOSTLY_WAITING: f64 = 0.25;
/// One that uses more than this share runs native code there.
const MOSTLY_NATIVE: f64 = 0.5;

/// How a runnable look is used to learn a habit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RunMode {
    /// With the GIL.
    Holding,
    /// Without it.
    OffGil,
}

/// Sums over a stretch of time, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuSums {
    /// On a CPU, as the kernel counts.
    pub cpu: f64,
    /// In the run queue, as the kernel counts.
    pub queue: f64,
    /// Runnable and holding, by the looks.
    pub held: f64,
    /// Runnable without the GIL, by the looks.
    pub off_gil: f64,
}

/// One thread's habit.
#[derive(Debug, Default)]
pub struct OffGilEstimator {
    all: CpuSums,
    /// The stretches without open looks.
    holding_only: CpuSums,
    /// CPU time and time between looks in a row.
    off_gil_pairs: (f64, f64),
    held_pairs: (f64, f64),
    /// Asleep for the GIL, and for anything else.
    asleep: (f64, f64),
}

impl OffGilEstimator {
    /// Takes note of a settled stretch.
    pub fn add(&mut self, sums: CpuSums) {
        self.all.add(&sums);
        if sums.off_gil == 0.0 {
            self.holding_only.add(&sums);
        }
        if self.all.off_gil > WINDOW_NS || self.all.held > HELD_WINDOW_NS {
            self.all.halve();
            self.holding_only.halve();
            for pair in [&mut self.off_gil_pairs, &mut self.held_pairs, &mut self.asleep] {
                *pair = (pair.0 / 2.0, pair.1 / 2.0);
            }
        }
    }

    /// Takes note of two looks in a row that were alike: the CPU time between them, and how long that was.
    pub fn observe_pair(&mut self, mode: RunMode, cpu: Nanos, length: Nanos) {
        let sums = match mode {
            RunMode::Holding => &mut self.held_pairs,
            RunMode::OffGil => &mut self.off_gil_pairs,
        };
        *sums = (sums.0 + cpu.as_nanos() as f64, sums.1 + length.as_nanos() as f64);
    }

    /// Takes note of a slice that one look told.
    pub fn observe_sleep(&mut self, state: State, length: Nanos) {
        let sum = if state == State::Waiting { &mut self.asleep.0 } else { &mut self.asleep.1 };
        *sum += length.as_nanos() as f64;
    }

    /// Between two holds such a thread has most likely waited for the GIL; another may have slept for something else.
    pub fn mostly_sleeps_for_gil(&self) -> bool {
        self.asleep.0 > self.asleep.1
    }

    /// Which part of runnable time next to a wait is waiting. The rest is native code, with a CPU or without as the moment has it.
    pub fn waiting_fraction(&self) -> f64 {
        let native = self.native_fraction();
        ((MOSTLY_NATIVE - native) / (MOSTLY_NATIVE - MOSTLY_WAITING)).clamp(0.0, 1.0) * (1.0 - native)
    }

    /// How native it is: its share of CPU in open time, compared with that in holding, because native code gets a CPU as often as holding does.
    fn native_fraction(&self) -> f64 {
        let CpuSums { cpu, queue, held, off_gil } = self.all;
        let presumed = if cpu + queue > 0.0 { cpu / (cpu + queue) } else { 1.0 };
        let cleared = self.holding_only.cpu.min(self.holding_only.held);
        let on_cpu = ((cleared + presumed * HOLDING_PRIOR_NS) / (self.holding_only.held + HOLDING_PRIOR_NS)).clamp(0.0, 1.0);
        let ratio = |used: f64, had: f64| if had > 0.0 { (used / had).clamp(0.0, 1.0) } else { 1.0 };
        let indirect = ratio((cpu - on_cpu * held) / (off_gil + PRIOR_NS), on_cpu);
        let holding = (self.held_pairs.0 + PRIOR_NS * on_cpu) / (self.held_pairs.1 + PRIOR_NS);
        let direct = ratio(self.off_gil_pairs.0, self.off_gil_pairs.1 * holding.min(1.0));
        let weight = self.off_gil_pairs.1 / (self.off_gil_pairs.1 + PAIR_PRIOR_NS);
        direct * weight + indirect * (1.0 - weight)
    }
}

impl CpuSums {
    fn add(&mut self, more: &CpuSums) {
        self.cpu += more.cpu;
        self.queue += more.queue;
        self.held += more.held;
        self.off_gil += more.off_gil;
    }

    fn halve(&mut self) {
        for sum in [&mut self.cpu, &mut self.queue, &mut self.held, &mut self.off_gil] {
            *sum /= 2.0;
        }
    }
}
