//! Divides one thread's runnable time between states by conservation of CPU time.
//!
//! One sample cannot always tell a thread on a CPU from one in the run queue. The kernel counts
//! both times per thread (`schedstat`), and the counts are exact at a sample that finds the thread
//! off the CPU. So slices that a sample cannot decide stay pending until such a sample. All slices
//! since the last one are then resolved together:
//!
//! - The CPU time counted in the interval is the budget for its runnable time, with and without the
//!   GIL.
//! - Next to a GIL wait the thread waits (woken, but not on a CPU yet), unless the budget is left
//!   with more than the credit that is carried: then it ran native code there.
//! - Other runnable time beyond the budget was starved, as far as the time counted in the run queue
//!   covers it.
//! - Time that neither count covers was a sleep too short for any sample: unknown.
//!
//! A sample stands for a whole period, so the sampled time of an interval never equals the counted
//! time. The difference is carried into the next interval, within limits, so that errors cancel.
//! Clamping every interval by itself would add them up.
//!
//! ```text
//!   samples   W W R R H H H H R W W      W waiting, H holding, R runnable without the GIL
//!   interval      |<------------->|      between two samples that find the thread off the CPU
//!   balance   cpu + run queue = H + R    R next to W waits, unless much CPU time is left
//! ```

use super::classify::Classification;
use super::rules::{Rule, Rules};
use crate::ids::ThreadId;
use crate::sample::{Evidence, SchedStat, Stack, State, StateTimes};
use crate::units::Nanos;
use std::sync::Arc;

/// Slices are resolved after this time at the latest, also for a thread that never leaves the CPU.
const MAX_AGE: Nanos = Nanos::from_millis(250);
/// Upper limit of pending slices.
const MAX_PENDING: usize = 1024;
/// Limit of the CPU time carried as credit: time that no sample accounts for. Without the limit,
/// short runs between samples would offset starvation much later.
const MAX_CPU_CREDIT_NS: f64 = 12e6;
/// Limit of the CPU time that the kernel has not counted yet: its counter moves only at the
/// scheduler's tick (10 ms at most, HZ=100).
const MAX_CPU_DEBIT_NS: f64 = 12e6;
/// Upper limit of slices kept of one sleep.
const MAX_SLEEP_SLICES: usize = 64;
/// Limit of the run-queue time carried as credit.
const MAX_QUEUE_CREDIT_NS: f64 = 20e6;

/// A slice that is not resolved yet.
#[derive(Clone, Debug)]
pub struct PendingSlice {
    /// When the slice ends.
    pub end: Nanos,
    /// The slice's length.
    pub length: Nanos,
    /// What one sample says of it.
    pub class: Classification,
    /// The thread's stack.
    pub stack: Arc<Stack>,
    /// The holder of the GIL at the slice's end, with its stack.
    pub holder: Option<(ThreadId, Arc<Stack>)>,
}

/// One thread's pending slices and its balance of CPU and run-queue time.
#[derive(Debug, Default)]
pub struct CpuAttribution {
    pending: Vec<PendingSlice>,
    /// Slices of the sleep that the thread is in, for anything but the GIL. The last part of a
    /// sleep may turn out to have been in the run queue.
    sleep_slices: Vec<PendingSlice>,
    baseline: Option<SchedStat>,
    cpu_budget: f64,
    queue_budget: f64,
    /// Run-queue time that slices have been given and the kernel has not counted yet.
    queue_attributed: f64,
    rules: Rules,
}

/// The fractions of each class of runnable time that go to each state.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Fractions {
    /// Of `HoldingRunnable` and `OffGil`: in the run queue.
    starved: f64,
    /// Of `NearWait`: without a CPU, which is waiting or unknown.
    waiting: f64,
    /// Of `OffGil`: covered by neither count.
    unknown: f64,
    /// Of `InRunQueue`: in the run queue, as the kernel counts. The rest is like `OffGil`.
    queued: f64,
}

impl CpuAttribution {
    /// Follows these rules.
    pub fn apply(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Whether no slice is pending.
    pub fn is_resolved(&self) -> bool {
        self.pending.is_empty()
    }

    /// Adds a slice, and resolves what can be resolved. `stat` is the kernel's count at the end of
    /// the slice. `asleep`: the thread is off the CPU, which makes the count exact.
    pub fn add(
        &mut self,
        entry: PendingSlice,
        stat: Option<SchedStat>,
        asleep: bool,
        emit: &mut dyn FnMut(&PendingSlice, StateTimes, Evidence),
    ) {
        let known = matches!(entry.class, Classification::Known(..));
        self.split_wakeup(stat, emit);
        self.queue_attributed += queued_time(&entry);
        if known && self.pending.is_empty() {
            self.emit_known(entry, emit);
            self.rebase(stat, asleep);
            return;
        }
        let age = self.pending.first().map_or(Nanos::ZERO, |first| entry.end.saturating_since(first.end));
        self.pending.push(entry);
        if asleep || age >= MAX_AGE || self.pending.len() >= MAX_PENDING {
            self.resolve(stat, emit);
        }
    }

    fn emit_known(&mut self, entry: PendingSlice, emit: &mut dyn FnMut(&PendingSlice, StateTimes, Evidence)) {
        if !is_sleep(&entry) {
            return emit(&entry, split(&entry, &Fractions::default()), evidence(&entry));
        }
        self.sleep_slices.push(entry);
        if self.sleep_slices.len() >= MAX_SLEEP_SLICES {
            for entry in self.sleep_slices.drain(..MAX_SLEEP_SLICES / 2) {
                emit(&entry, split(&entry, &Fractions::default()), evidence(&entry));
            }
        }
    }

    /// Ends the sleep once the thread has run. Only now the kernel has counted how long the thread
    /// was in the run queue before that, so the end of the sleep becomes starved.
    fn split_wakeup(&mut self, stat: Option<SchedStat>, emit: &mut dyn FnMut(&PendingSlice, StateTimes, Evidence)) {
        let mut queued = match (self.baseline, stat) {
            (Some(base), Some(now)) if now.runs == base.runs => return,
            (Some(base), Some(now)) => now.run_queue.saturating_since(base.run_queue).as_nanos() as f64,
            _ => 0.0,
        };
        if !self.rules.has(Rule::SplitWakeup) {
            queued = 0.0;
        }
        let mut parts = Vec::with_capacity(self.sleep_slices.len());
        for entry in self.sleep_slices.drain(..).rev() {
            let part = queued.min(entry.length.as_nanos() as f64);
            queued -= part;
            self.queue_attributed += part;
            parts.push((entry, part));
        }
        for (entry, part) in parts.into_iter().rev() {
            let mut times = split(&entry, &Fractions::default());
            let Classification::Known(state, evidence) = entry.class else { continue };
            times.add(state, -part);
            times.add(State::Starved, part);
            emit(&entry, times, if part > 0.0 { Evidence::Conservation } else { evidence });
        }
    }

    /// Sets the thread's first count, from which later counts are taken.
    pub fn start_at(&mut self, stat: Option<SchedStat>) {
        self.baseline = stat;
    }

    /// Resolves all pending slices: the thread or the window has ended.
    pub fn finish(&mut self, stat: Option<SchedStat>, emit: &mut dyn FnMut(&PendingSlice, StateTimes, Evidence)) {
        self.split_wakeup(stat, emit);
        self.resolve(stat, emit);
        self.baseline = None;
        self.split_wakeup(None, emit);
    }

    /// While nothing is pending, CPU and run-queue time are added to the budgets, which are capped.
    fn rebase(&mut self, stat: Option<SchedStat>, asleep: bool) {
        if asleep && stat.is_some() {
            self.collect(stat);
            self.cpu_budget = self.cpu_budget.min(MAX_CPU_CREDIT_NS);
            self.queue_budget = self.queue_budget.min(MAX_QUEUE_CREDIT_NS);
        }
    }

    fn collect(&mut self, stat: Option<SchedStat>) {
        if let (Some(base), Some(now)) = (self.baseline, stat) {
            self.cpu_budget += now.cpu.saturating_since(base.cpu).as_nanos() as f64;
            let queued = now.run_queue.saturating_since(base.run_queue).as_nanos() as f64;
            // The kernel counts run-queue time when the thread gets a CPU. Slices that were already
            // given such time are offset now.
            self.queue_budget += (queued - self.queue_attributed).max(0.0);
            self.queue_attributed = (self.queue_attributed - queued).max(0.0);
        }
        if stat.is_some() {
            self.baseline = stat;
        }
    }

    fn resolve(&mut self, stat: Option<SchedStat>, emit: &mut dyn FnMut(&PendingSlice, StateTimes, Evidence)) {
        self.collect(stat);
        let fractions = match self.baseline {
            Some(_) => self.attribute(),
            None => Fractions { unknown: 1.0, queued: 1.0, ..Fractions::default() },
        };
        let asleep = self.pending.pop_if(|entry| is_sleep(entry));
        for entry in self.pending.drain(..) {
            emit(&entry, split(&entry, &fractions), evidence(&entry));
        }
        if let Some(entry) = asleep {
            self.emit_known(entry, emit);
        }
    }

    /// Covers the interval's runnable time from the CPU and run-queue budgets.
    fn attribute(&mut self) -> Fractions {
        let sum = |wanted: fn(&Classification) -> bool| -> f64 {
            self.pending.iter().filter(|e| wanted(&e.class)).map(|e| e.length.as_nanos() as f64).sum()
        };
        let holding = sum(|k| matches!(k, Classification::HoldingRunnable(_)));
        let sampled_queued = sum(|k| matches!(k, Classification::InRunQueue(_)));
        let queued = sampled_queued.min(self.queue_budget);
        self.queue_budget -= queued;
        let near = sum(|k| matches!(k, Classification::NearWait(_)));
        let off_gil = sampled_queued - queued + sum(|k| matches!(k, Classification::OffGil));
        // Next to a wait the thread waits, unless it uses more CPU time than short runs that no
        // sample meets.
        let balance = self.cpu_budget - (holding + off_gil);
        let native = (balance - MAX_CPU_CREDIT_NS).clamp(0.0, near);
        let waiting = near - native;
        self.queue_budget = (self.queue_budget - waiting).max(0.0);
        let deficit = (-balance).max(0.0);
        let starved = deficit.min(holding + off_gil).min(self.queue_budget);
        // Neither on a CPU nor in the run queue: sleeps too short for a sample to find.
        let asleep = if self.rules.has(Rule::ShortSleeps) { (deficit - starved - MAX_CPU_DEBIT_NS).max(0.0) } else { 0.0 };
        self.cpu_budget = (balance - native + starved).clamp(-MAX_CPU_DEBIT_NS, MAX_CPU_CREDIT_NS);
        self.queue_budget = (self.queue_budget - starved).min(MAX_QUEUE_CREDIT_NS);
        if !self.rules.has(Rule::Carry) {
            (self.cpu_budget, self.queue_budget) = (0.0, 0.0);
        }
        let ratio = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
        let starved = ratio(starved, holding + off_gil);
        Fractions {
            starved,
            waiting: ratio(waiting, near),
            unknown: ratio(asleep, off_gil).min(1.0 - starved),
            queued: ratio(queued, sampled_queued),
        }
    }
}

/// Whether the slice belongs to a sleep from which a thread wakes into the run queue without
/// wanting the GIL yet.
fn is_sleep(entry: &PendingSlice) -> bool {
    matches!(entry.class, Classification::Known(State::Io | State::Lock, _))
}

/// The run-queue time that a slice of a known state accounts for.
fn queued_time(entry: &PendingSlice) -> f64 {
    match entry.class {
        Classification::Known(_, evidence) if evidence.in_run_queue() => entry.length.as_nanos() as f64,
        _ => 0.0,
    }
}

fn evidence(entry: &PendingSlice) -> Evidence {
    match entry.class {
        Classification::Known(_, evidence) | Classification::InRunQueue(evidence) => evidence,
        Classification::HoldingRunnable(_) => Evidence::GilHolder,
        Classification::OffGil | Classification::NearWait(_) => Evidence::Conservation,
    }
}

fn split(entry: &PendingSlice, fractions: &Fractions) -> StateTimes {
    let nanos = entry.length.as_nanos() as f64;
    let mut times = StateTimes::default();
    match entry.class {
        Classification::Known(state, _) => times.add(state, nanos),
        Classification::HoldingRunnable(state) => {
            times.add(State::HoldingStarved, nanos * fractions.starved);
            times.add(state, nanos * (1.0 - fractions.starved));
        }
        Classification::OffGil | Classification::InRunQueue(_) => {
            let queued = if entry.class == Classification::OffGil { 0.0 } else { nanos * fractions.queued };
            let rest = nanos - queued;
            times.add(State::Starved, queued + rest * fractions.starved);
            times.add(State::Unknown, rest * fractions.unknown);
            times.add(State::Native, rest * (1.0 - fractions.starved - fractions.unknown).max(0.0));
        }
        Classification::NearWait(state) => {
            times.add(state, nanos * fractions.waiting);
            // Without any count from the kernel this time is unknown too.
            let rest = if fractions.unknown >= 1.0 { State::Unknown } else { State::Native };
            times.add(rest, nanos * (1.0 - fractions.waiting));
        }
    }
    times
}
