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

use super::habit::{Habit, Runs, Stretch};
use crate::ids::ThreadId;
use crate::process::threads::SchedStat;
use crate::sample::{Evidence, Split, Stack, State};
use crate::units::Nanos;
use std::sync::Arc;

/// A stretch is settled at the latest after this long, also for a thread that never leaves the CPU.
const MAX_AGE: Nanos = Nanos::from_millis(250);
/// Slices that wait to be settled.
const MAX_PENDING: usize = 1024;
/// CPU time that no look accounts for is carried so far: short runs between looks would otherwise pay for starvation much later.
const MAX_SURPLUS_NS: f64 = 12e6;
/// CPU time that looks claimed too much of is carried so far before it counts as starvation: a look stands for a whole period, and holds
/// shorter than that are met too often or too seldom by chance. This error grows with the account's age: by this part of what is beyond
/// the first tenth of a second.
const MAX_PATIENCE_NS: f64 = 6e6;
const PATIENCE: f64 = 0.02;
const YOUNG_NS: f64 = 100e6;
/// CPU time that the kernel may still owe: its counter moves only at the scheduler's tick (10 ms at most, HZ=100).
const MAX_DEFICIT_NS: f64 = 12e6;
/// Slices of one sleep that are kept.
const MOST_ASLEEP: usize = 64;
/// Time in the run queue that looks claimed too much of is carried so far.
const MAX_QUEUE_OWED_NS: f64 = 5e6;
/// Time in the run queue is carried so far.
const MAX_QUEUE_NS: f64 = 20e6;

/// What is known of a slice before it is settled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Told by the look.
    Told(State, Evidence),
    /// Owns the GIL and is runnable.
    HoldingOnCpu(State),
    /// Runnable without the GIL and without wanting it.
    Released,
    /// Found in the run queue, without the GIL and without wanting it. A look needs a CPU, and pushes off it whom it then finds in the queue: so
    /// this is starved only as far as the kernel has counted time there.
    Queued,
    /// Runnable without the GIL.
    Open {
        /// Whether it waited for the GIL at the look before, or lies between waits and holds.
        near_wait: bool,
    },
}

/// A slice in the account.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When it ends.
    pub end: Nanos,
    /// How long it is.
    pub length: Nanos,
    /// What is known of it.
    pub kind: Kind,
    /// The thread's stack.
    pub stack: Arc<Stack>,
    /// Who held the GIL meanwhile.
    pub holder: Option<(ThreadId, Arc<Stack>)>,
}

/// The account.
#[derive(Debug, Default)]
pub struct Ledger {
    pending: Vec<Entry>,
    /// Slices of the sleep that goes on, for anything but the GIL: the end of it may turn out to have been in the run queue.
    sleep: Vec<Entry>,
    base: Option<SchedStat>,
    /// When the account began.
    opened: Option<Nanos>,
    /// Counted since the last settlement.
    fresh: Stretch,
    cpu_pool: f64,
    queue_pool: f64,
    /// Queued time that looks have told of and the kernel has not counted yet.
    queue_told: f64,
    habit: Habit,
    /// The last look's kind and count, where that was a runnable one.
    before: Option<(Runs, SchedStat)>,
}

/// What share of each kind of runnable time goes where.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Shares {
    /// Of `HoldingOnCpu` and of open time away from a wait: without a CPU.
    starved: f64,
    /// Of open time next to a wait: without a CPU, and not waiting.
    near_starved: f64,
    /// Of open time next to a wait: waiting.
    waiting: f64,
    /// Of open time: covered by nothing.
    unknown: f64,
    /// Of `Queued`: in the run queue, as the kernel counts. The rest is time next to a wait.
    queued: f64,
}

impl Ledger {
    /// Whether no slice waits to be settled.
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// Adds a slice, and settles what can be settled. `stat` is the kernel's count at the end of the slice, `asleep` whether the thread is
    /// off the CPU, which makes the count exact.
    pub fn add(&mut self, entry: Entry, stat: Option<SchedStat>, asleep: bool, emit: &mut dyn FnMut(&Entry, Split, Evidence)) {
        let told = matches!(entry.kind, Kind::Told(..));
        self.watch(&entry, stat);
        self.wake(stat, emit);
        self.queue_told += queued(&entry);
        self.opened.get_or_insert(entry.end - entry.length);
        if told && self.pending.is_empty() {
            self.emit_told(entry, emit);
            self.base_from(stat, asleep);
            return;
        }
        let age = self.pending.first().map_or(Nanos::ZERO, |first| entry.end.since(first.end));
        self.pending.push(entry);
        if asleep || age >= MAX_AGE || self.pending.len() >= MAX_PENDING {
            self.settle(stat, false, emit);
        }
    }

    /// A slice off the CPU for which there is no count, and which no count is needed to tell.
    pub fn pass(&mut self, state: State, length: Nanos) {
        self.habit.slept(state, length);
        self.before = None;
    }

    /// Two looks in a row that were alike: how much of the time between them it had a CPU.
    fn watch(&mut self, entry: &Entry, stat: Option<SchedStat>) {
        let kind = match entry.kind {
            Kind::Told(state, _) => {
                self.habit.slept(state, entry.length);
                None
            }
            Kind::HoldingOnCpu(_) => Some(Runs::Holding),
            Kind::Open { .. } => Some(Runs::Open),
            Kind::Queued => {
                self.habit.slept(State::Starved, entry.length);
                None
            }
            Kind::Released => None,
        };
        let now = kind.zip(stat);
        if let (Some((kind, before)), Some((same, stat))) = (self.before, now) {
            if kind == same && before.runs == stat.runs {
                self.habit.pair(kind, stat.cpu.since(before.cpu), entry.length);
            }
        }
        self.before = now;
    }

    fn emit_told(&mut self, entry: Entry, emit: &mut dyn FnMut(&Entry, Split, Evidence)) {
        if !sleeps(&entry) {
            return emit(&entry, split(&entry, &Shares::default()), evidence(&entry));
        }
        self.sleep.push(entry);
        if self.sleep.len() >= MOST_ASLEEP {
            for entry in self.sleep.drain(..MOST_ASLEEP / 2) {
                emit(&entry, split(&entry, &Shares::default()), evidence(&entry));
            }
        }
    }

    /// Ends the sleep when the thread has run: the kernel says now for how long it was awake before that, in the run queue.
    fn wake(&mut self, stat: Option<SchedStat>, emit: &mut dyn FnMut(&Entry, Split, Evidence)) {
        let mut queued = match (self.base, stat) {
            (Some(base), Some(now)) if now.runs == base.runs => return,
            (Some(base), Some(now)) => now.run_queue.since(base.run_queue).as_nanos() as f64,
            _ => 0.0,
        };
        let mut parts = Vec::with_capacity(self.sleep.len());
        for entry in self.sleep.drain(..).rev() {
            let part = queued.min(entry.length.as_nanos() as f64);
            queued -= part;
            self.queue_told += part;
            parts.push((entry, part));
        }
        for (entry, part) in parts.into_iter().rev() {
            let mut split = split(&entry, &Shares::default());
            let Kind::Told(state, told) = entry.kind else { continue };
            split.add(state, -part);
            split.add(State::Starved, part);
            emit(&entry, split, if part > 0.0 { Evidence::Conservation } else { told });
        }
    }

    /// The first count of a thread, from which its account starts.
    pub fn open(&mut self, stat: Option<SchedStat>) {
        self.base = stat;
    }

    /// Settles all that is pending: the thread or the window has ended.
    pub fn close(&mut self, stat: Option<SchedStat>, emit: &mut dyn FnMut(&Entry, Split, Evidence)) {
        self.wake(stat, emit);
        self.settle(stat, true, emit);
        self.base = None;
        self.wake(None, emit);
    }

    /// While nothing is pending, CPU and queue time are collected but pay for nothing, except that the pools stay small.
    fn base_from(&mut self, stat: Option<SchedStat>, asleep: bool) {
        if asleep && stat.is_some() {
            self.collect(stat);
            self.habit.learn(std::mem::take(&mut self.fresh));
            self.cpu_pool = self.cpu_pool.min(MAX_SURPLUS_NS);
            self.queue_pool = self.queue_pool.min(MAX_QUEUE_NS);
        }
    }

    fn collect(&mut self, stat: Option<SchedStat>) {
        if let (Some(base), Some(now)) = (self.base, stat) {
            let cpu = now.cpu.since(base.cpu).as_nanos() as f64;
            self.cpu_pool += cpu;
            self.fresh.cpu += cpu;
            let queued = now.run_queue.since(base.run_queue).as_nanos() as f64;
            self.fresh.queue += queued;
            // The kernel counts queued time when the thread gets a CPU, so what was told before is paid for now.
            self.queue_pool += (queued - self.queue_told).max(0.0);
            self.queue_told = (self.queue_told - queued).max(0.0);
        }
        if stat.is_some() {
            self.base = stat;
        }
    }

    fn settle(&mut self, stat: Option<SchedStat>, last: bool, emit: &mut dyn FnMut(&Entry, Split, Evidence)) {
        self.collect(stat);
        self.mark_between();
        let shares = match self.base {
            Some(_) => self.pay(last),
            None => Shares { unknown: 1.0, queued: 1.0, ..Shares::default() },
        };
        let asleep = self.pending.pop_if(|entry| sleeps(entry));
        for entry in self.pending.drain(..) {
            emit(&entry, split(&entry, &shares), evidence(&entry));
        }
        if let Some(entry) = asleep {
            self.emit_told(entry, emit);
        }
    }

    /// A thread that is runnable and then found waiting was on its way into the wait; between two holds it may have waited unseen.
    fn mark_between(&mut self) {
        let mut from = 0;
        let mut held = false;
        for index in 0..self.pending.len() {
            let (waits, holds) = match self.pending[index].kind {
                Kind::Open { .. } => continue,
                Kind::Released | Kind::Queued => (false, false),
                Kind::Told(state, _) => (state == State::Waiting, false),
                Kind::HoldingOnCpu(_) => (false, true),
            };
            if waits || held && holds && self.habit.sleeps_for_the_gil() {
                for entry in &mut self.pending[from..index] {
                    entry.kind = Kind::Open { near_wait: true };
                }
            }
            (from, held) = (index + 1, holds);
        }
    }

    /// Pays for the runnable time out of the pools.
    fn pay(&mut self, last: bool) -> Shares {
        let sum = |wanted: fn(&Kind) -> bool| -> f64 {
            self.pending.iter().filter(|e| wanted(&e.kind)).map(|e| e.length.as_nanos() as f64).sum()
        };
        let holding = sum(|k| matches!(k, Kind::HoldingOnCpu(_)));
        let claimed = sum(|k| matches!(k, Kind::Queued));
        let queued = claimed.min((self.queue_pool + MAX_QUEUE_OWED_NS).max(0.0));
        self.queue_pool -= queued;
        let near = claimed - queued + sum(|k| matches!(k, Kind::Open { near_wait: true }));
        let plain = sum(|k| matches!(k, Kind::Open { near_wait: false } | Kind::Released));
        self.habit.learn(Stretch { held: holding, open: near + plain, ..std::mem::take(&mut self.fresh) });
        let judged = near * self.habit.waits();
        let firm = holding + plain + near - judged;
        let left = self.cpu_pool - firm;
        // Much more CPU time than is ever carried: native code for once.
        let more = (left - MAX_SURPLUS_NS).clamp(0.0, judged);
        let mut waiting = judged - more;
        self.queue_pool = (self.queue_pool - waiting).max(self.queue_pool.min(0.0));
        let lack = -left;
        let patience = if last { 0.0 } else { self.patience() };
        let starved = (lack - patience).clamp(0.0, firm).min(self.queue_pool.max(0.0));
        let owed = (lack - starved).max(0.0);
        // Neither on a CPU nor in the queue, so asleep too briefly to be met asleep.
        let asleep = (owed - MAX_DEFICIT_NS).max(0.0);
        let unknown = (asleep - (near - waiting)).clamp(0.0, plain);
        waiting += asleep.min(near - waiting);
        self.cpu_pool = (left - more + starved).clamp(-MAX_DEFICIT_NS, MAX_SURPLUS_NS);
        self.queue_pool = (self.queue_pool - starved).min(MAX_QUEUE_NS);
        let share = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
        let (starved, waiting) = (share(starved, firm), share(waiting, near));
        let near_starved = (starved * (1.0 - share(judged, near))).min(1.0 - waiting);
        Shares { starved, near_starved, waiting, unknown: share(unknown, plain), queued: share(queued, claimed) }
    }

    fn patience(&self) -> f64 {
        let (Some(opened), Some(last)) = (self.opened, self.pending.last()) else { return 0.0 };
        (PATIENCE * (last.end.since(opened).as_nanos() as f64 - YOUNG_NS)).clamp(0.0, MAX_PATIENCE_NS)
    }
}

/// Whether it is a slice of a sleep from which a thread wakes into the run queue without wanting the GIL yet.
fn sleeps(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::Told(State::Io | State::Lock, _))
}

/// The part of the run queue's time that a told slice accounts for by itself.
fn queued(entry: &Entry) -> f64 {
    match entry.kind {
        Kind::Told(_, evidence) if evidence.in_run_queue() => entry.length.as_nanos() as f64,
        _ => 0.0,
    }
}

fn evidence(entry: &Entry) -> Evidence {
    match entry.kind {
        Kind::Told(_, evidence) => evidence,
        Kind::HoldingOnCpu(_) => Evidence::GilHolder,
        Kind::Released | Kind::Open { .. } => Evidence::Conservation,
        Kind::Queued => Evidence::KernelStack,
    }
}

fn split(entry: &Entry, shares: &Shares) -> Split {
    let nanos = entry.length.as_nanos() as f64;
    let mut split = Split::default();
    match entry.kind {
        Kind::Told(state, _) => split.add(state, nanos),
        Kind::HoldingOnCpu(state) => {
            split.add(State::HoldingStarved, nanos * shares.starved);
            split.add(state, nanos * (1.0 - shares.starved));
        }
        Kind::Released | Kind::Open { near_wait: false } => {
            split.add(State::Starved, nanos * shares.starved);
            split.add(State::Unknown, nanos * shares.unknown);
            split.add(State::Native, nanos * (1.0 - shares.starved - shares.unknown).max(0.0));
        }
        Kind::Open { near_wait: true } | Kind::Queued => {
            let queued = if entry.kind == Kind::Queued { nanos * shares.queued } else { 0.0 };
            split.add(State::Starved, queued);
            let nanos = nanos - queued;
            // Without any count from the kernel nothing can be told here either.
            let unknown = if shares.unknown >= 1.0 { 1.0 } else { 0.0 };
            let waiting = shares.waiting * (1.0 - unknown);
            let starved = shares.near_starved * (1.0 - unknown);
            split.add(State::Waiting, nanos * waiting);
            split.add(State::Starved, nanos * starved);
            split.add(State::Unknown, nanos * unknown);
            split.add(State::Native, nanos * (1.0 - waiting - starved - unknown).max(0.0));
        }
    }
    split
}
