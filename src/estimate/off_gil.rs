//! Estimates what one thread does when it is runnable without the GIL: run native code, or enter
//! and leave waits for the GIL.
//!
//! Next to a GIL wait, a thread without a CPU is either still waiting (woken, or preempted by the
//! thread that it has just woken) or starved within native code. A thread that uses CPU in such
//! time runs native code. One interval between two resolutions is too noisy to decide, and clamping
//! the noise of each interval would add it up. Over about a second the errors cancel.
//!
//! The estimate combines two ratios of CPU time to time runnable without the GIL:
//!
//! - Direct: two consecutive samples both found the thread runnable without the GIL, and its run
//!   count has not changed in between. The kernel's CPU time between them is what the thread used
//!   there.
//! - Indirect: `cpu - a * held` is what all CPU time leaves for native code. `a` is the fraction of
//!   holding time in which the thread has a CPU, measured over intervals without any ambiguous
//!   sample, where all CPU time is holding. Where such intervals are few, `a` is taken to be `cpu /
//!   (cpu + queue)` of all runnable time.

use super::rules::{Rule, Rules};
use crate::sample::State;
use crate::units::Nanos;

/// How much time runnable without the GIL the estimate covers; sums are halved beyond it.
const WINDOW_NS: f64 = 1e9;
/// How much holding time the estimate covers.
const HELD_WINDOW_NS: f64 = 4e9;
/// Weight of the prior for `a`, in holding time.
const HOLDING_PRIOR_NS: f64 = 10e6;
/// Weight of the priors, in runnable time: the thread only waits when it is runnable without the
/// GIL, and uses `a` of its holding time.
const PRIOR_NS: f64 = 50e6;
/// Time between consecutive samples at which the direct and the indirect ratio weigh the same.
const PAIR_PRIOR_NS: f64 = 5e6;
/// A thread that uses less than this fraction of its time runnable without the GIL only enters and
/// leaves waits.
const MOSTLY_WAITING: f64 = 0.25;
/// A thread that uses more than this fraction runs native code there.
const MOSTLY_NATIVE: f64 = 0.5;

/// What a runnable sample contributes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RunMode {
    /// The thread holds the GIL.
    Holding,
    /// The thread does not hold the GIL.
    OffGil,
}

/// Sums over an interval, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuSums {
    /// Time on a CPU, as the kernel counts.
    pub cpu: f64,
    /// Time in the run queue, as the kernel counts.
    pub queue: f64,
    /// Time runnable with the GIL, by the samples.
    pub held: f64,
    /// Time runnable without the GIL, by the samples.
    pub off_gil: f64,
}

/// The estimator of one thread.
#[derive(Debug, Default)]
pub struct OffGilEstimator {
    all: CpuSums,
    /// Sums over the intervals without ambiguous samples.
    holding_only: CpuSums,
    /// CPU time and elapsed time between consecutive samples without the GIL.
    off_gil_pairs: (f64, f64),
    held_pairs: (f64, f64),
    /// Time asleep for the GIL, and for anything else.
    asleep: (f64, f64),
    rules: Rules,
}

impl OffGilEstimator {
    /// Follows these rules.
    pub fn apply(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Adds an interval whose slices are resolved.
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

    /// Adds two consecutive samples of the same mode: the CPU time between them, and the elapsed
    /// time.
    pub fn observe_pair(&mut self, mode: RunMode, cpu: Nanos, length: Nanos) {
        let sums = match mode {
            RunMode::Holding => &mut self.held_pairs,
            RunMode::OffGil => &mut self.off_gil_pairs,
        };
        *sums = (sums.0 + cpu.as_nanos() as f64, sums.1 + length.as_nanos() as f64);
    }

    /// Adds a slice of a known state off the CPU.
    pub fn observe_sleep(&mut self, state: State, length: Nanos) {
        let sum = if state == State::Waiting { &mut self.asleep.0 } else { &mut self.asleep.1 };
        *sum += length.as_nanos() as f64;
    }

    /// Whether the thread sleeps more for the GIL than for anything else. Between two holds such a
    /// thread has most likely waited for the GIL; another may have slept for something else.
    pub fn mostly_sleeps_for_gil(&self) -> bool {
        self.asleep.0 > self.asleep.1
    }

    /// The fraction of runnable time next to a wait that is waiting. The rest is native code, on a
    /// CPU or starved.
    pub fn waiting_fraction(&self) -> f64 {
        if !self.rules.has(Rule::OffGil) {
            return 1.0;
        }
        let native = self.native_fraction();
        ((MOSTLY_NATIVE - native) / (MOSTLY_NATIVE - MOSTLY_WAITING)).clamp(0.0, 1.0) * (1.0 - native)
    }

    /// The fraction that is native code: the CPU use without the GIL relative to the CPU use with
    /// it, because native code gets a CPU as often as holding does.
    fn native_fraction(&self) -> f64 {
        let CpuSums { cpu, queue, held, off_gil } = self.all;
        let presumed = if cpu + queue > 0.0 { cpu / (cpu + queue) } else { 1.0 };
        let cleared = self.holding_only.cpu.min(self.holding_only.held);
        let on_cpu = ((cleared + presumed * HOLDING_PRIOR_NS) / (self.holding_only.held + HOLDING_PRIOR_NS)).clamp(0.0, 1.0);
        let on_cpu = if self.rules.has(Rule::HoldingOnly) { on_cpu } else { presumed };
        let ratio = |used: f64, had: f64| if had > 0.0 { (used / had).clamp(0.0, 1.0) } else { 1.0 };
        let indirect = ratio((cpu - on_cpu * held) / (off_gil + PRIOR_NS), on_cpu);
        let holding = (self.held_pairs.0 + PRIOR_NS * on_cpu) / (self.held_pairs.1 + PRIOR_NS);
        let direct = ratio(self.off_gil_pairs.0, self.off_gil_pairs.1 * holding.min(1.0));
        let weight = if self.rules.has(Rule::Pairs) { self.off_gil_pairs.1 / (self.off_gil_pairs.1 + PAIR_PRIOR_NS) } else { 0.0 };
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
