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
const MAX_SURPLUS_NS: f64 = 6e6;
/// CPU time that the kernel may still owe: its counter moves only at the scheduler's tick (10 ms at most, HZ=100).
const MAX_DEFICIT_NS: f64 = 12e6;
/// Time in the run queue is carried so far.
const MAX_QUEUE_NS: f64 = 20e6;

/// What is known of a slice before it is settled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Told by the look.
    Told(State, Evidence),
    /// Owns the GIL and is runnable.
    HoldingOnCpu(State),
    /// Runnable without the GIL.
    Open {
        /// Whether it waited for the GIL at the look before.
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
    base: Option<SchedStat>,
    cpu_pool: f64,
    queue_pool: f64,
    /// Queued time that looks have told of and the kernel has not counted yet.
    queue_told: f64,
}

/// What share of each kind of runnable time goes where.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Shares {
    /// Of `HoldingOnCpu` and of open time away from a wait: without a CPU.
    starved: f64,
    /// Of open time next to a wait: still waiting.
    waiting: f64,
    /// Of open time: covered by nothing.
    unknown: f64,
}

impl Ledger {
    /// Adds a slice, and settles what can be settled. `stat` is the kernel's count at the end of the slice, `asleep` whether the thread is
    /// off the CPU, which makes the count exact.
    pub fn add(&mut self, entry: Entry, stat: Option<SchedStat>, asleep: bool, emit: &mut dyn FnMut(&Entry, Split, Evidence)) {
        let told = matches!(entry.kind, Kind::Told(..));
        self.queue_told += queued(&entry);
        if told && self.pending.is_empty() {
            emit(&entry, split(&entry, &Shares::default()), evidence(&entry));
            self.base_from(stat, asleep);
            return;
        }
        let age = self.pending.first().map_or(Nanos::ZERO, |first| entry.end.since(first.end));
        self.pending.push(entry);
        if asleep || age >= MAX_AGE || self.pending.len() >= MAX_PENDING {
            self.settle(stat, emit);
        }
    }

    /// The first count of a thread, from which its account starts.
    pub fn open(&mut self, stat: Option<SchedStat>) {
        self.base = stat;
    }

    /// Settles all that is pending: the thread or the window has ended.
    pub fn close(&mut self, stat: Option<SchedStat>, emit: &mut dyn FnMut(&Entry, Split, Evidence)) {
        self.settle(stat, emit);
    }

    /// While nothing is pending, CPU and queue time are collected but pay for nothing, except that the pools stay small.
    fn base_from(&mut self, stat: Option<SchedStat>, asleep: bool) {
        if asleep && stat.is_some() {
            self.collect(stat);
            self.cpu_pool = self.cpu_pool.min(MAX_SURPLUS_NS);
            self.queue_pool = self.queue_pool.min(MAX_QUEUE_NS);
        }
    }

    fn collect(&mut self, stat: Option<SchedStat>) {
        if let (Some(base), Some(now)) = (self.base, stat) {
            self.cpu_pool += now.cpu.since(base.cpu).as_nanos() as f64;
            let queued = now.run_queue.since(base.run_queue).as_nanos() as f64;
            // The kernel counts queued time when the thread gets a CPU, so what was told before is paid for now.
            self.queue_pool += (queued - self.queue_told).max(0.0);
            self.queue_told = (self.queue_told - queued).max(0.0);
        }
        if stat.is_some() {
            self.base = stat;
        }
    }

    fn settle(&mut self, stat: Option<SchedStat>, emit: &mut dyn FnMut(&Entry, Split, Evidence)) {
        self.collect(stat);
        let shares = match self.base {
            Some(_) => self.pay(),
            None => Shares { unknown: 1.0, ..Shares::default() },
        };
        for entry in self.pending.drain(..) {
            emit(&entry, split(&entry, &shares), evidence(&entry));
        }
    }

    /// Pays for the runnable time out of the pools.
    fn pay(&mut self) -> Shares {
        let sum = |wanted: fn(&Kind) -> bool| -> f64 {
            self.pending.iter().filter(|e| wanted(&e.kind)).map(|e| e.length.as_nanos() as f64).sum()
        };
        let holding = sum(|k| matches!(k, Kind::HoldingOnCpu(_)));
        let near = sum(|k| matches!(k, Kind::Open { near_wait: true }));
        let plain = sum(|k| matches!(k, Kind::Open { near_wait: false }));
        let lack = holding + near + plain - self.cpu_pool;
        if lack <= 0.0 {
            self.cpu_pool = (-lack).min(MAX_SURPLUS_NS);
            self.queue_pool = self.queue_pool.min(MAX_QUEUE_NS);
            return Shares::default();
        }
        let waiting = lack.min(near);
        self.queue_pool = (self.queue_pool - waiting).max(0.0);
        let starved = (lack - waiting).min(holding + plain).min(self.queue_pool);
        let owed = lack - waiting - starved;
        let unknown = (owed - MAX_DEFICIT_NS).clamp(0.0, plain);
        self.cpu_pool = -owed.min(MAX_DEFICIT_NS);
        self.queue_pool = (self.queue_pool - starved).min(MAX_QUEUE_NS);
        let share = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
        Shares { starved: share(starved, holding + plain), waiting: share(waiting, near), unknown: share(unknown, plain) }
    }
}

/// The part of the run queue's time that a told slice accounts for by itself.
fn queued(entry: &Entry) -> f64 {
    match entry.kind {
        Kind::Told(_, Evidence::WokenNotRun) => entry.length.as_nanos() as f64,
        _ => 0.0,
    }
}

fn evidence(entry: &Entry) -> Evidence {
    match entry.kind {
        Kind::Told(_, evidence) => evidence,
        Kind::HoldingOnCpu(_) => Evidence::GilHolder,
        Kind::Open { .. } => Evidence::Conservation,
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
        Kind::Open { near_wait } => {
            let unknown = if near_wait && shares.unknown < 1.0 { 0.0 } else { shares.unknown };
            let off = if near_wait { shares.waiting } else { shares.starved }.min(1.0 - unknown);
            split.add(if near_wait { State::Waiting } else { State::Starved }, nanos * off);
            split.add(State::Unknown, nanos * unknown);
            split.add(State::Native, nanos * (1.0 - off - unknown));
        }
    }
    split
}
