//! The time that each thread takes for one second of today's work, in a program with other GILs,
//! other cores or code that releases the GIL. Pure.
//!
//! A thread keeps its work and its sleep. Two things change, and both depend on what the other
//! threads do, so the equations are solved as a fixed point (mean value analysis of a closed
//! queueing network, with the approximation of Schweitzer 1979 that a thread meets the others as
//! they are on average):
//! - Waiting for the GIL is in proportion to the time in which the other threads of its GIL hold it
//!   or wait for it. The factor is the measured waiting, so that a convoy keeps its long waits.
//! - Threads that want a CPU at the same time share the cores: CPU time is stretched by the number
//!   of threads that want one, divided by the cores, if that is more than one. It is stretched so
//!   far that all threads together use no more cores than other programs leave. Time spent runnable
//!   without a CPU today already counts as queueing.

use crate::sample::{State, StateTimes};

/// Most steps of the fixed point, which settles in a handful.
const STEPS: usize = 60;
/// Changes below which it has settled.
const SETTLED: f64 = 1e-4;
/// Time of other threads at the GIL below which there are none.
const NOBODY: f64 = 1e-6;

/// A thread that runs: a measured one, or a copy of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Worker {
    /// Index of the measured thread.
    pub thread: usize,
    /// The GIL that it takes; `None` if it needs none.
    pub gil: Option<usize>,
}

/// What differs from today.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario<'a> {
    /// Cores on which threads can run at the same time.
    pub cores: f64,
    /// Cores that they can have on average, because other programs use the rest.
    pub available: f64,
    /// Speed of code that held the GIL; 1 is today's.
    pub speed: f64,
    /// Share of each measured thread's running with the GIL that runs without it.
    pub freed: &'a [f64],
    /// Whether waits for locks shrink as the threads get faster.
    pub locks_follow: bool,
    /// Share of today's time runnable without a CPU that stays, however many cores there are.
    pub starvation_stays: f64,
    /// The share of that time which passed beside an idle core: a delay, and no demand for cores.
    pub woken: f64,
}

/// A sum over threads, of which one is left out: those that exist for most of the window, and
/// short-lived ones.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    staying: f64,
    passing: f64,
}

impl Sum {
    fn add(&mut self, total: f64, value: f64) {
        *(if stays(total) { &mut self.staying } else { &mut self.passing }) += value;
    }

    /// What one thread meets. Short-lived threads (one per request, say) mostly replace each other:
    /// while one exists, it stands for a whole thread, however short its life.
    fn without(&self, total: f64, value: f64) -> f64 {
        if stays(total) {
            (self.staying - value).max(0.0) + self.passing
        } else {
            self.staying + (self.passing - value / total.max(1e-12)).max(0.0)
        }
    }
}

/// Whether a thread exists for most of the window.
fn stays(total: f64) -> bool {
    total >= 0.5
}

/// The parts of a worker's time that the model distinguishes.
struct Parts {
    worker: Worker,
    total: f64,
    /// Asleep, with the GIL or without, or about to run.
    off: f64,
    lock: f64,
    queued: f64,
    cpu: f64,
    /// With the GIL, then and today.
    held: f64,
    held_today: f64,
    waiting_today: f64,
    /// The time of others at its GIL today.
    others_today: f64,
    /// Mean number of cores wanted, at most the share of the window in which the thread exists.
    wants: f64,
    /// The same of the GIL, held or waited for.
    at_gil: f64,
    /// The time that its work takes.
    time: f64,
}

impl Parts {
    fn new(worker: Worker, t: &StateTimes, s: &Scenario<'_>, others_today: f64) -> Parts {
        let running = t.get(State::HoldingPython) + t.get(State::HoldingNative);
        let freed = running * s.freed.get(worker.thread).copied().unwrap_or(0.0).clamp(0.0, 1.0);
        let holding_starved = t.get(State::HoldingStarved);
        let queued = (t.get(State::Starved) + holding_starved) * s.starvation_stays;
        let blocked = t.get(State::HoldingBlocked);
        let held = (running - freed) / s.speed + blocked + holding_starved * s.starvation_stays;
        let total = t.total();
        Parts {
            worker,
            total,
            off: t.get(State::Io) + blocked + t.get(State::Unknown) + queued * s.woken,
            lock: t.get(State::Lock),
            queued: queued * (1.0 - s.woken),
            cpu: running / s.speed + t.get(State::Native),
            held,
            held_today: t.holding(),
            waiting_today: t.get(State::Waiting),
            others_today,
            wants: 0.0,
            at_gil: if worker.gil.is_some() { (held + t.get(State::Waiting)).min(total.min(1.0)) } else { 0.0 },
            time: total,
        }
    }

    /// Its waiting, if the others are at its GIL for so much of the time.
    fn waiting(&self, others: f64) -> f64 {
        if self.held_today <= 0.0 || self.worker.gil.is_none() {
            return 0.0;
        }
        let (today, scale) = (self.others_today, self.held / self.held_today);
        if today < NOBODY {
            return self.waiting_today * scale + self.held * others;
        }
        let as_today = self.waiting_today * scale * (others / today).min(1.0);
        // Threads that happened never to meet would if there were more of them.
        let factor = (self.waiting_today / (self.held_today * today)).max(1.0);
        as_today + factor * self.held * (others - today).max(0.0)
    }

    fn presence(&self) -> f64 {
        self.total.min(1.0)
    }
}

/// The time of all threads at each GIL today.
fn at_gils_today(threads: &[StateTimes], gils: &[usize]) -> Vec<Sum> {
    let mut sums = vec![Sum::default(); gils.iter().max().map_or(0, |most| most + 1)];
    for (t, gil) in threads.iter().zip(gils) {
        sums[*gil].add(t.total(), t.holding() + t.get(State::Waiting));
    }
    sums
}

/// How many times as fast each worker does its work. `gils`: the GIL that each thread takes today.
pub(super) fn speeds(threads: &[StateTimes], gils: &[usize], workers: &[Worker], s: &Scenario<'_>) -> Vec<f64> {
    let today = at_gils_today(threads, gils);
    let part = |worker: &Worker| {
        let t = &threads[worker.thread];
        let others = today[gils[worker.thread]].without(t.total(), t.holding() + t.get(State::Waiting));
        Parts::new(*worker, t, s, others)
    };
    let mut all: Vec<Parts> = workers.iter().map(part).collect();
    let (cores, gils) = (s.cores.max(0.01), workers.iter().filter_map(|w| w.gil).max().map_or(0, |most| most + 1));
    let (mut faster, mut throttle) = (1.0, 1.0);
    for _ in 0..STEPS {
        let (mut wanted, mut at_gil) = (Sum::default(), vec![Sum::default(); gils]);
        for p in &all {
            wanted.add(p.total, p.wants);
            if let Some(gil) = p.worker.gil {
                at_gil[gil].add(p.total, p.at_gil);
            }
        }
        let (mut moved, mut weight, mut sum, mut used) = (0.0f64, 0.0, 0.0, 0.0);
        for p in all.iter_mut().filter(|p| p.total > 0.0) {
            let waits = p.worker.gil.map_or(0.0, |gil| p.waiting(at_gil[gil].without(p.total, p.at_gil)));
            let drawn_out = ((1.0 + wanted.without(p.total, p.wants)) / cores).max(throttle);
            let queueing = p.queued.max((drawn_out - 1.0) * p.cpu);
            // A thread that waits for the GIL does not queue for a core at the same time.
            let own = p.off + p.cpu + queueing.max(p.queued + waits);
            let lock = if s.locks_follow { p.lock / faster } else { p.lock };
            p.time = (own + lock).max(p.total * 1e-3);
            let wants = (p.cpu + queueing) / p.time * p.presence();
            let at_gil = (p.held + waits) / p.time * p.presence();
            moved = moved.max((wants - p.wants).abs()).max((at_gil - p.at_gil).abs());
            p.wants = (p.wants + wants) / 2.0;
            p.at_gil = (p.at_gil + at_gil) / 2.0;
            weight += p.cpu;
            used += p.cpu / p.time * p.total;
            // Outside of locks: a wait does not shorten itself.
            sum += p.cpu * (p.total - p.lock) / own.max(p.total * 1e-3);
        }
        let next = if weight > 0.0 { (sum / weight).max(1e-3) } else { 1.0 };
        let slower = (throttle * (used / s.available.max(0.01)).sqrt()).max(1.0);
        moved = moved.max((next - faster).abs()).max((slower - throttle).abs());
        throttle = slower;
        faster = (faster + next) / 2.0;
        if moved < SETTLED {
            break;
        }
    }
    all.iter().map(|p| if p.time > 0.0 { p.total / p.time } else { 1.0 }).collect()
}
