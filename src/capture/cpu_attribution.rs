//! One thread's account of time: what one look could not tell is settled later by conservation of CPU time.
//!
//! The kernel counts, per thread, the time on a CPU and the time in the run queue; both are exact between two looks at which the thread
//! was off the CPU. Over such a stretch the runnable looks must be paid for: time on a CPU first, then time in the run queue. What the CPU
//! time does not cover was not running: next to a GIL wait it was still waiting (woken, not yet on a core), elsewhere it was starved, as
//! far as the run queue covers it. Errors of one stretch (a look stands for a whole period) are carried into the next, so that they cancel
//! instead of adding up, which clamping each stretch by itself would do.
//!
//! ```text
//!   looks      W W R R H H H H R W W        W waits, H holds, R runnable
//!   stretch        |<------------->|        from the last look off the CPU to the next
//!   must hold      cpu + queue  =  H + R    R next to W: what the CPU time does not pay for is waiting
//! ```

use super::off_gil::{CpuSums, OffGilEstimator, RunMode};
use crate::ids::ThreadId;
use crate::process::threads::SchedStat;
use crate::sample::{Evidence, Stack, State, StateTimes};
use crate::units::Nanos;
use std::sync::Arc;

/// A stretch is settled at the latest after this long, also for a thread that never leaves the CPU.
const MAX_AGE: Nanos = Nanos::from_millis(250);
/// Slices that wait to be settled.
const MAX_PENDING: usize = 1024;
/// CPU time that no look accounts for is carried so far: short runs between looks would otherwise pay for starvation much later.
const MAX_CPU_CREDIT_NS: f64 = 12e6;
/// CPU time that looks claimed too much of is carried so far before it counts as starvation: a look stands for a whole period, and holds
/// shorter than that are met too often or too seldom by chance. This error grows with the account's age: by this part of what is beyond
/// the first tenth of a second.
const MAX_TOLERANCE_NS: f64 = 6e6;
const TOLERANCE_RATE: f64 = 0.02;
const TOLERANCE_FREE_NS: f64 = 100e6;
/// CPU time that the kernel may still owe: its counter moves only at the scheduler's tick (10 ms at most, HZ=100).
const MAX_CPU_DEBIT_NS: f64 = 12e6;
/// Slices of one sleep that are kept.
const MAX_SLEEP_SLICES: usize = 64;
/// Time in the run queue that looks claimed too much of is carried so far.
const MAX_QUEUE_DEBIT_NS: f64 = 5e6;
/// Time in the run queue is carried so far.
const MAX_QUEUE_CREDIT_NS: f64 = 20e6;

/// What is known of a slice before it is settled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Class {
    /// Told by the look.
    Known(State, Evidence),
    /// Owns the GIL and is runnable.
    HoldingRunnable(State),
    /// Runnable without the GIL and without wanting it.
    OffGil,
    /// Found in the run queue, without the GIL and without wanting it. A look needs a CPU, and pushes off it whom it then finds in the queue: so
    /// this is starved only as far as the kernel has counted time there.
    InRunQueue,
    /// Runnable without the GIL.
    Ambiguous {
        /// Whether it waited for the GIL at the look before, or lies between waits and holds.
        near_wait: bool,
    },
}

/// A slice in the account.
#[derive(Clone, Debug)]
pub struct PendingSlice {
    /// When it ends.
    pub end: Nanos,
    /// How long it is.
    pub length: Nanos,
    /// What is known of it.
    pub class: Class,
    /// The thread's stack.
    pub stack: Arc<Stack>,
    /// Who held the GIL meanwhile.
    pub holder: Option<(ThreadId, Arc<Stack>)>,
}

/// The account.
#[derive(Debug, Default)]
pub struct CpuAttribution {
    pending: Vec<PendingSlice>,
    /// Slices of the sleep that goes on, for anything but the GIL: the end of it may turn out to have been in the run queue.
    sleep_slices: Vec<PendingSlice>,
    baseline: Option<SchedStat>,
    /// When the account began.
    started: Option<Nanos>,
    /// Counted since the last settlement.
    since_resolved: CpuSums,
    cpu_budget: f64,
    queue_budget: f64,
    /// Queued time that looks have told of and the kernel has not counted yet.
    queue_attributed: f64,
    off_gil: OffGilEstimator,
    /// The last look's kind and count, where that was a runnable one.
    previous: Option<(RunMode, SchedStat)>,
}

/// What share of each kind of runnable time goes where.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Fractions {
    /// Of `HoldingRunnable` and of open time away from a wait: without a CPU.
    starved: f64,
    /// Of open time next to a wait: without a CPU, and not waiting.
    near_starved: f64,
    /// Of open time next to a wait: waiting.
    waiting: f64,
    /// Of open time: covered by nothing.
    unknown: f64,
    /// Of `InRunQueue`: in the run queue, as the kernel counts. The rest is time next to a wait.
    queued: f64,
}

impl CpuAttribution {
    /// Whether no slice waits to be settled.
    pub fn is_resolved(&self) -> bool {
        self.pending.is_empty()
    }

    /// Adds a slice, and settles what can be settled. `stat` is the kernel's count at the end of the slice, `asleep` whether the thread is
    /// off the CPU, which makes the count exact.
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

    /// A slice off the CPU for which there is no count, and which no count is needed to tell.
    pub fn note_known(&mut self, state: State, length: Nanos) {
        self.off_gil.observe_sleep(state, length);
        self.previous = None;
    }

    /// Two looks in a row that were alike: how much of the time between them it had a CPU.
    fn note_pair(&mut self, entry: &PendingSlice, stat: Option<SchedStat>) {
        let mode = match entry.class {
            Class::Known(state, _) => {
                self.off_gil.observe_sleep(state, entry.length);
                None
            }
            Class::HoldingRunnable(_) => Some(RunMode::Holding),
            Class::Ambiguous { .. } => Some(RunMode::OffGil),
            Class::InRunQueue => {
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

    /// Ends the sleep when the thread has run: the kernel says now for how long it was awake before that, in the run queue.
    fn split_wakeup(&mut self, stat: Option<SchedStat>, emit: &mut dyn FnMut(&PendingSlice, StateTimes, Evidence)) {
        let mut queued = match (self.baseline, stat) {
            (Some(base), Some(now)) if now.runs == base.runs => return,
            (Some(base), Some(now)) => now.run_queue.saturating_since(base.run_queue).as_nanos() as f64,
            _ => 0.0,
        };
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

    /// The first count of a thread, from which its account starts.
    pub fn start_at(&mut self, stat: Option<SchedStat>) {
        self.baseline = stat;
    }

    /// Settles all that is pending: the thread or the window has ended.
    pub fn finish(&mut self, stat: Option<SchedStat>, emit: &mut dyn FnMut(&PendingSlice, StateTimes, Evidence)) {
        self.split_wakeup(stat, emit);
        self.resolve(stat, true, emit);
        self.baseline = None;
        self.split_wakeup(None, emit);
    }

    /// While nothing is pending, CPU and queue time are collected but pay for nothing, except that the pools stay small.
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
            // The kernel counts queued time when the thread gets a CPU, so what was told before is paid for now.
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

    /// A thread that is runnable and then found waiting was on its way into the wait; between two holds it may have waited unseen.
    fn mark_near_waits(&mut self) {
        let mut from = 0;
        let mut held = false;
        for index in 0..self.pending.len() {
            let (waits, holds) = match self.pending[index].class {
                Class::Ambiguous { .. } => continue,
                Class::OffGil | Class::InRunQueue => (false, false),
                Class::Known(state, _) => (state == State::Waiting, false),
                Class::HoldingRunnable(_) => (false, true),
            };
            if waits || held && holds && self.off_gil.mostly_sleeps_for_gil() {
                for entry in &mut self.pending[from..index] {
                    entry.class = Class::Ambiguous { near_wait: true };
                }
            }
            (from, held) = (index + 1, holds);
        }
    }

    /// Pays for the runnable time out of the pools.
    fn attribute(&mut self, last: bool) -> Fractions {
        let sum = |wanted: fn(&Class) -> bool| -> f64 {
            self.pending.iter().filter(|e| wanted(&e.class)).map(|e| e.length.as_nanos() as f64).sum()
        };
        let holding = sum(|k| matches!(k, Class::HoldingRunnable(_)));
        let sampled_queued = sum(|k| matches!(k, Class::InRunQueue));
        let queued = sampled_queued.min((self.queue_budget + MAX_QUEUE_DEBIT_NS).max(0.0));
        self.queue_budget -= queued;
        let near = sampled_queued - queued + sum(|k| matches!(k, Class::Ambiguous { near_wait: true }));
        let plain = sum(|k| matches!(k, Class::Ambiguous { near_wait: false } | Class::OffGil));
        self.off_gil.add(CpuSums { held: holding, off_gil: near + plain, ..std::mem::take(&mut self.since_resolved) });
        let presumed_waiting = near * self.off_gil.waiting_fraction();
        let cpu_claim = holding + plain + near - presumed_waiting;
        let balance = self.cpu_budget - cpu_claim;
        // Much more CPU time than is ever carried: native code for once.
        let native_excess = (balance - MAX_CPU_CREDIT_NS).clamp(0.0, presumed_waiting);
        let mut waiting = presumed_waiting - native_excess;
        self.queue_budget = (self.queue_budget - waiting).max(self.queue_budget.min(0.0));
        let deficit = -balance;
        let tolerance = if last { 0.0 } else { self.tolerance() };
        let starved = (deficit - tolerance).clamp(0.0, cpu_claim).min(self.queue_budget.max(0.0));
        let uncovered = (deficit - starved).max(0.0);
        // Neither on a CPU nor in the queue, so asleep too briefly to be met asleep.
        let asleep = (uncovered - MAX_CPU_DEBIT_NS).max(0.0);
        let unknown = (asleep - (near - waiting)).clamp(0.0, plain);
        waiting += asleep.min(near - waiting);
        self.cpu_budget = (balance - native_excess + starved).clamp(-MAX_CPU_DEBIT_NS, MAX_CPU_CREDIT_NS);
        self.queue_budget = (self.queue_budget - starved).min(MAX_QUEUE_CREDIT_NS);
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

/// Whether it is a slice of a sleep from which a thread wakes into the run queue without wanting the GIL yet.
fn is_sleep(entry: &PendingSlice) -> bool {
    matches!(entry.class, Class::Known(State::Io | State::Lock, _))
}

/// The part of the run queue's time that a told slice accounts for by itself.
fn queued_time(entry: &PendingSlice) -> f64 {
    match entry.class {
        Class::Known(_, evidence) if evidence.in_run_queue() => entry.length.as_nanos() as f64,
        _ => 0.0,
    }
}

fn evidence(entry: &PendingSlice) -> Evidence {
    match entry.class {
        Class::Known(_, evidence) => evidence,
        Class::HoldingRunnable(_) => Evidence::GilHolder,
        Class::OffGil | Class::Ambiguous { .. } => Evidence::Conservation,
        Class::InRunQueue => Evidence::KernelStack,
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
        Class::Ambiguous { near_wait: true } | Class::InRunQueue => {
            let queued = if entry.class == Class::InRunQueue { nanos * fractions.queued } else { 0.0 };
            times.add(State::Starved, queued);
            let nanos = nanos - queued;
            // Without any count from the kernel nothing can be told here either.
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
