//! Divides one thread's runnable time between states by conservation of CPU time.
//!
//! One sample cannot always tell a thread on a CPU from one in the run queue. The kernel counts
//! both times per thread (`schedstat`), and the counts are exact at a sample that finds the thread
//! off the CPU. So slices that a sample cannot decide stay pending until such a sample. All slices
//! since the last one are then resolved together:
//!
//! - The CPU time counted in the interval is the budget for its runnable time, with and without the
//!   GIL.
//! - Runnable time beyond the budget was spent without a CPU. Next to a GIL wait the thread was
//!   still waiting (woken, but not on a CPU yet). Elsewhere it was starved, as far as the time
//!   counted in the run queue covers it.
//! - Time that neither count covers was a sleep too short for any sample: waiting next to a wait,
//!   unknown elsewhere.
//!
//! A sample stands for a whole period, so the sampled time of an interval never equals the counted
//! time. The difference is carried into the next interval, within limits, so that errors cancel.
//! Clamping every interval by itself would add them up.
//!
//! ```text
//!   samples   W W R R H H H H R W W      W waiting, H holding, R runnable without the GIL
//!   interval      |<------------->|      between two samples that find the thread off the CPU
//!   balance   cpu + run queue = H + R    R next to W: what CPU time does not cover is waiting
//! ```

use super::off_gil::{CpuSums, OffGilEstimator, RunMode};
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
/// Limit of the CPU time carried as debit before it counts as starvation: time that the samples
/// overstate. A sample stands for a whole period, and holds shorter than that are sampled too often
/// or too seldom by chance. The error grows with the age of the attribution: by this rate beyond
/// the first tenth of a second.
const MAX_TOLERANCE_NS: f64 = 6e6;
const TOLERANCE_RATE: f64 = 0.02;
const TOLERANCE_FREE_NS: f64 = 100e6;
/// Limit of the CPU time that the kernel has not counted yet: its counter moves only at the
/// scheduler's tick (10 ms at most, HZ=100).
const MAX_CPU_DEBIT_NS: f64 = 12e6;
/// Upper limit of slices kept of one sleep.
const MAX_SLEEP_SLICES: usize = 64;
/// Limit of the run-queue time carried as debit: time that the samples overstate.
const MAX_QUEUE_DEBIT_NS: f64 = 5e6;
/// Limit of the run-queue time carried as credit.
const MAX_QUEUE_CREDIT_NS: f64 = 20e6;

/// What is known of a slice before it is resolved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Class {
    /// A sample decided the state.
    Known(State, Evidence),
    /// Holds the GIL and is runnable.
    HoldingRunnable(State),
    /// Runnable without the GIL and without wanting it.
    OffGil,
    /// Sampled in the run queue, without the GIL and without wanting it. gilprof's own sample needs
    /// a CPU and preempts the thread that it then finds in the run queue, so such a slice is
    /// starved only as far as the kernel has counted run-queue time.
    InRunQueue(Evidence),
    /// Runnable without the GIL.
    Ambiguous {
        /// The thread waited for the GIL at the sample before, or the slice lies between waits and
        /// holds.
        near_wait: bool,
    },
}

/// A slice that is not resolved yet.
#[derive(Clone, Debug)]
pub struct PendingSlice {
    /// When the slice ends.
    pub end: Nanos,
    /// The slice's length.
    pub length: Nanos,
    /// What is known of the slice.
    pub class: Class,
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
    /// When the first slice began.
    started: Option<Nanos>,
    /// Sums since the last resolution.
    since_resolved: CpuSums,
    cpu_budget: f64,
    queue_budget: f64,
    /// Run-queue time that slices have been given and the kernel has not counted yet.
    queue_attributed: f64,
    off_gil: OffGilEstimator,
    /// The last sample's mode and counts, if it was a runnable sample.
    previous: Option<(RunMode, SchedStat)>,
    rules: Rules,
}

/// The fractions of each class of runnable time that go to each state.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Fractions {
    /// Of `HoldingRunnable`, and of ambiguous time away from a wait: in the run queue.
    starved: f64,
    /// Of ambiguous time next to a wait: in the run queue, and not waiting.
    near_starved: f64,
    /// Of ambiguous time next to a wait: waiting.
    waiting: f64,
    /// Of ambiguous time away from a wait: covered by neither count.
    unknown: f64,
    /// Of `InRunQueue`: in the run queue, as the kernel counts. The rest is time next to a wait.
    queued: f64,
}

impl CpuAttribution {
    /// Follows these rules.
    pub fn apply(&mut self, rules: Rules) {
        self.rules = rules;
        self.off_gil.apply(rules);
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
        let known = matches!(entry.class, Class::Known(..));
        self.note_pair(&entry, stat);
        self.split_wakeup(stat, emit);
        self.queue_attributed += queued_time(&entry);
        self.started.get_or_insert(entry.end - entry.length);
        if known && self.pending.is_empty() {
            self.emit_known(entry, emit);
            self.rebase(stat, asleep);
            return;
        }
        let age = self.pending.first().map_or(Nanos::ZERO, |first| entry.end.saturating_since(first.end));
        self.pending.push(entry);
        if asleep || age >= MAX_AGE || self.pending.len() >= MAX_PENDING {
            self.resolve(stat, false, emit);
        }
    }

    /// Adds waiting or sleep to the estimate, for a slice that the caller emits itself and that
    /// needs no count.
    pub fn note_known(&mut self, state: State, length: Nanos) {
        self.off_gil.observe_sleep(state, length);
        self.previous = None;
    }

    /// Feeds the estimator: the slice's sleep, or the CPU time between two consecutive samples of
    /// the same mode.
    fn note_pair(&mut self, entry: &PendingSlice, stat: Option<SchedStat>) {
        let mode = match entry.class {
            Class::Known(state, _) => {
                self.off_gil.observe_sleep(state, entry.length);
                None
            }
            Class::HoldingRunnable(_) => Some(RunMode::Holding),
            Class::Ambiguous { .. } => Some(RunMode::OffGil),
            Class::InRunQueue(_) => {
                self.off_gil.observe_sleep(State::Starved, entry.length);
                None
            }
            Class::OffGil => None,
        };
        let now = mode.zip(stat);
        if let (Some((mode, before)), Some((same, stat))) = (self.previous, now) {
            if mode == same && before.runs == stat.runs {
                self.off_gil.observe_pair(mode, stat.cpu.saturating_since(before.cpu), entry.length);
            }
        }
        self.previous = now;
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
            let Class::Known(state, evidence) = entry.class else { continue };
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
        self.resolve(stat, true, emit);
        self.baseline = None;
        self.split_wakeup(None, emit);
    }

    /// While nothing is pending, CPU and run-queue time are added to the budgets, which are capped.
    fn rebase(&mut self, stat: Option<SchedStat>, asleep: bool) {
        if asleep && stat.is_some() {
            self.collect(stat);
            self.off_gil.add(std::mem::take(&mut self.since_resolved));
            self.cpu_budget = self.cpu_budget.min(MAX_CPU_CREDIT_NS);
            self.queue_budget = self.queue_budget.min(MAX_QUEUE_CREDIT_NS);
        }
    }

    fn collect(&mut self, stat: Option<SchedStat>) {
        if let (Some(base), Some(now)) = (self.baseline, stat) {
            let cpu = now.cpu.saturating_since(base.cpu).as_nanos() as f64;
            self.cpu_budget += cpu;
            self.since_resolved.cpu += cpu;
            let queued = now.run_queue.saturating_since(base.run_queue).as_nanos() as f64;
            self.since_resolved.queue += queued;
            // The kernel counts run-queue time when the thread gets a CPU. Slices that were already
            // given such time are offset now.
            self.queue_budget += (queued - self.queue_attributed).max(0.0);
            self.queue_attributed = (self.queue_attributed - queued).max(0.0);
        }
        if stat.is_some() {
            self.baseline = stat;
        }
    }

    fn resolve(&mut self, stat: Option<SchedStat>, last: bool, emit: &mut dyn FnMut(&PendingSlice, StateTimes, Evidence)) {
        self.collect(stat);
        self.mark_near_waits();
        let fractions = match self.baseline {
            Some(_) => self.attribute(last),
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

    /// Marks ambiguous slices next to waits. A thread that is runnable and then found waiting was
    /// entering the wait. Between two holds it may have had a wait that no sample saw.
    fn mark_near_waits(&mut self) {
        let mut from = 0;
        let mut held = false;
        for index in 0..self.pending.len() {
            let (waits, holds) = match self.pending[index].class {
                Class::Ambiguous { .. } => continue,
                Class::OffGil | Class::InRunQueue(_) => (false, false),
                Class::Known(state, _) => (state == State::Waiting, false),
                Class::HoldingRunnable(_) => (false, true),
            };
            let between = held && holds && self.rules.has(Rule::BetweenHolds) && self.off_gil.mostly_sleeps_for_gil();
            if waits && self.rules.has(Rule::NearWait) || between {
                for entry in &mut self.pending[from..index] {
                    entry.class = Class::Ambiguous { near_wait: true };
                }
            }
            (from, held) = (index + 1, holds);
        }
    }

    /// Covers the interval's runnable time from the CPU and run-queue budgets.
    fn attribute(&mut self, last: bool) -> Fractions {
        let sum = |wanted: fn(&Class) -> bool| -> f64 {
            self.pending.iter().filter(|e| wanted(&e.class)).map(|e| e.length.as_nanos() as f64).sum()
        };
        let holding = sum(|k| matches!(k, Class::HoldingRunnable(_)));
        let sampled_queued = sum(|k| matches!(k, Class::InRunQueue(_)));
        let queue_debit = if self.rules.has(Rule::QueueDebit) { MAX_QUEUE_DEBIT_NS } else { 0.0 };
        let queued = sampled_queued.min((self.queue_budget + queue_debit).max(0.0));
        self.queue_budget -= queued;
        let near = sampled_queued - queued + sum(|k| matches!(k, Class::Ambiguous { near_wait: true }));
        let plain = sum(|k| matches!(k, Class::Ambiguous { near_wait: false } | Class::OffGil));
        self.off_gil.add(CpuSums { held: holding, off_gil: near + plain, ..std::mem::take(&mut self.since_resolved) });
        let presumed_waiting = near * self.off_gil.waiting_fraction();
        let cpu_claim = holding + plain + near - presumed_waiting;
        let balance = self.cpu_budget - cpu_claim;
        // More CPU time than any credit that is carried: the thread ran native code near its wait.
        let most = if self.rules.has(Rule::NativeExcess) { presumed_waiting } else { 0.0 };
        let native_excess = (balance - MAX_CPU_CREDIT_NS).clamp(0.0, most);
        let mut waiting = presumed_waiting - native_excess;
        self.queue_budget = (self.queue_budget - waiting).max(self.queue_budget.min(0.0));
        let deficit = -balance;
        let tolerance = if last || !self.rules.has(Rule::Tolerance) { 0.0 } else { self.tolerance() };
        let starved = (deficit - tolerance).clamp(0.0, cpu_claim).min(self.queue_budget.max(0.0));
        let uncovered = (deficit - starved).max(0.0);
        // Neither on a CPU nor in the run queue: sleeps too short for a sample to find.
        let asleep = if self.rules.has(Rule::ShortSleeps) { (uncovered - MAX_CPU_DEBIT_NS).max(0.0) } else { 0.0 };
        let unknown = (asleep - (near - waiting)).clamp(0.0, plain);
        waiting += asleep.min(near - waiting);
        self.cpu_budget = (balance - native_excess + starved).clamp(-MAX_CPU_DEBIT_NS, MAX_CPU_CREDIT_NS);
        self.queue_budget = (self.queue_budget - starved).min(MAX_QUEUE_CREDIT_NS);
        if !self.rules.has(Rule::Carry) {
            (self.cpu_budget, self.queue_budget) = (0.0, 0.0);
        }
        let ratio = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
        let (starved, waiting) = (ratio(starved, cpu_claim), ratio(waiting, near));
        let near_starved = (starved * (1.0 - ratio(presumed_waiting, near))).min(1.0 - waiting);
        Fractions { starved, near_starved, waiting, unknown: ratio(unknown, plain), queued: ratio(queued, sampled_queued) }
    }

    fn tolerance(&self) -> f64 {
        let (Some(started), Some(last)) = (self.started, self.pending.last()) else { return 0.0 };
        (TOLERANCE_RATE * (last.end.saturating_since(started).as_nanos() as f64 - TOLERANCE_FREE_NS)).clamp(0.0, MAX_TOLERANCE_NS)
    }
}

/// Whether the slice belongs to a sleep from which a thread wakes into the run queue without
/// wanting the GIL yet.
fn is_sleep(entry: &PendingSlice) -> bool {
    matches!(entry.class, Class::Known(State::Io | State::Lock, _))
}

/// The run-queue time that a slice of a known state accounts for.
fn queued_time(entry: &PendingSlice) -> f64 {
    match entry.class {
        Class::Known(_, evidence) if evidence.in_run_queue() => entry.length.as_nanos() as f64,
        _ => 0.0,
    }
}

fn evidence(entry: &PendingSlice) -> Evidence {
    match entry.class {
        Class::Known(_, evidence) | Class::InRunQueue(evidence) => evidence,
        Class::HoldingRunnable(_) => Evidence::GilHolder,
        Class::OffGil | Class::Ambiguous { .. } => Evidence::Conservation,
    }
}

fn split(entry: &PendingSlice, fractions: &Fractions) -> StateTimes {
    let nanos = entry.length.as_nanos() as f64;
    let mut times = StateTimes::default();
    match entry.class {
        Class::Known(state, _) => times.add(state, nanos),
        Class::HoldingRunnable(state) => {
            times.add(State::HoldingStarved, nanos * fractions.starved);
            times.add(state, nanos * (1.0 - fractions.starved));
        }
        Class::OffGil | Class::Ambiguous { near_wait: false } => {
            times.add(State::Starved, nanos * fractions.starved);
            times.add(State::Unknown, nanos * fractions.unknown);
            times.add(State::Native, nanos * (1.0 - fractions.starved - fractions.unknown).max(0.0));
        }
        Class::Ambiguous { near_wait: true } | Class::InRunQueue(_) => {
            let queued = if matches!(entry.class, Class::InRunQueue(_)) { nanos * fractions.queued } else { 0.0 };
            times.add(State::Starved, queued);
            let nanos = nanos - queued;
            // Without any count from the kernel this time is unknown too.
            let unknown = if fractions.unknown >= 1.0 { 1.0 } else { 0.0 };
            let waiting = fractions.waiting * (1.0 - unknown);
            let starved = fractions.near_starved * (1.0 - unknown);
            times.add(State::Waiting, nanos * waiting);
            times.add(State::Starved, nanos * starved);
            times.add(State::Unknown, nanos * unknown);
            times.add(State::Native, nanos * (1.0 - waiting - starved - unknown).max(0.0));
        }
    }
    times
}
