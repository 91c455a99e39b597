//! What the same work would gain without the GIL: in processes, in a free-threaded Python, or with
//! the GIL released inside C calls.
//!
//! The model, per thread and per second of its time: remove its waiting, keep its work and its
//! sleep. The thread then advances faster by `stretch = total / (total − waiting)`, which is 1 / (1
//! − waiting share). Threads that want a CPU at the same time share `C` cores: CPU time is
//! stretched by `q = max(1, (1 + others wanting one) / C)`, solved as a fixed point, so that the
//! sum of CPU demand never exceeds `C`. Time spent runnable without a CPU today already counts as
//! queueing. The gain is the mean stretch, weighted by each thread's work (holding and native). A
//! thread that only waits in join, on a lock or on a queue has no work, stretches with the thread
//! that it waits for, and does not count. Waits of working threads for locks shrink with the gain:
//! without that, the model predicted 1.5 for an asyncio service whose pool waits for a loop that
//! waits for the GIL, and 1.9 was measured.
//!
//! The ends of the interval are models too, widened by the measured errors of the middle model
//! (CPython 3.11, 2 cores, against the same work really run in processes):
//! - High: a GIL switch costs time (cold caches, gaps of forced switches). Pure Python was
//!   predicted 2.0 and measured 2.0 - 2.5, so the end is up to a quarter higher in proportion to
//!   how contended the GIL is. Starvation disappears (the scheduler was seen to wake two lightly
//!   contending threads on one core). At least 5 %.
//! - Low: waits for locks stay as they are; 5 % for all (1.01 was measured .95). Threads that
//!   alternately sleep and compute then queue for cores at random, which the mean does not show:
//!   predicted 1.90, measured 1.47. A program that gets only part of the CPU time that it asks for
//!   continues to get that part.
//!
//! The model excludes the cost of moving data between processes and work that depends on other
//! work. Short acquirers that wait for a CPU-bound thread gain far more than the work-weighted mean
//! says: this is latency, not throughput.

use super::report::Estimate;
use super::shares::on_cpu;
use crate::sample::{State, StateTimes};

/// Measured cost of GIL switches above the prediction at full contention.
const SWITCH_COST: f64 = 0.25;
/// Measured error of the prediction in either direction.
const MODEL_ERROR: f64 = 0.05;
/// Share of the gain that threads lose which sleep whenever they do not compute.
const SLEEPERS_LOSE: f64 = 0.55;
/// Speed of one thread in a free-threaded build against an ordinary one: "What's New In Python
/// 3.14" gives a penalty of roughly 5 - 10 %.
const FREE_THREADED_SPEED: Estimate = Estimate { estimate: 0.925, low: 0.90, high: 0.95 };
/// Most steps of the fixed point, which settles in a handful.
const STEPS: usize = 40;
/// Largest saturation point: above it the GIL is hardly held at all.
const MAX_THREADS: f64 = 1e6;
/// A core count that stands for no limit.
pub(super) const NO_LIMIT: f64 = 1e9;

/// One case for the model.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    cores: f64,
    /// Share of today's waiting that stays.
    waiting_stays: f64,
    /// Speed of code that held the GIL; 1 is today's.
    speed: f64,
    /// Whether waits for locks shrink with the gain.
    locks_follow: bool,
    /// Whether time runnable without a CPU disappears where there are cores.
    starvation_goes: bool,
    /// Whether code that keeps the GIL still runs one thread at a time.
    python_takes_turns: bool,
}

/// Every thread in a separate process.
pub(super) fn processes(threads: &[StateTimes], cores: f64) -> Estimate {
    without_gil(threads, cores, Estimate { estimate: 1.0, low: 1.0, high: 1.0 })
}

/// The same program in a free-threaded Python.
pub(super) fn free_threading(threads: &[StateTimes], cores: f64) -> Estimate {
    without_gil(threads, cores, FREE_THREADED_SPEED)
}

fn without_gil(threads: &[StateTimes], cores: f64, speed: Estimate) -> Estimate {
    let plain = plain(cores);
    let low = Scenario { cores: cores_left(threads, cores), speed: speed.low, ..plain };
    let high = Scenario { speed: speed.high, locks_follow: true, starvation_goes: true, ..plain };
    ordered(
        gain(threads, &Scenario { speed: speed.estimate, locks_follow: true, ..plain }),
        cautious(threads, gain(threads, &low)),
        gain(threads, &high) * (1.0 + SWITCH_COST * sum(threads, State::Waiting).min(1.0)),
    )
}

/// The GIL released inside every C call: waiting for such calls disappears, and Python code still
/// takes turns.
pub(super) fn release_in_native(threads: &[StateTimes], cores: f64) -> Estimate {
    let holding: f64 = threads.iter().map(StateTimes::holding).sum();
    let stays = if holding > 0.0 { 1.0 - (sum(threads, State::HoldingNative) / holding).clamp(0.0, 1.0) } else { 1.0 };
    let scenario = Scenario { waiting_stays: stays, python_takes_turns: true, ..plain(cores) };
    // Less waiting than in proportion stays, as a GIL in less demand is also free more often.
    let high = Scenario { waiting_stays: stays * stays, starvation_goes: true, ..scenario };
    let low = Scenario { cores: cores_left(threads, cores), ..scenario };
    ordered(gain(threads, &scenario), cautious(threads, gain(threads, &low)), gain(threads, &high))
}

/// The number of such threads at which the GIL saturates: (hold + off-GIL time per cycle) / hold. A
/// cycle excludes waits for the GIL, for other threads and for a CPU. Threads that hardly ever hold
/// (asleep in join) do not count. Zero if no thread holds the GIL.
pub(super) fn saturation(threads: &[StateTimes]) -> f64 {
    let most = threads.iter().map(StateTimes::holding).fold(0.0, f64::max);
    let (mut cycle, mut hold) = (0.0, 0.0);
    for t in threads.iter().filter(|t| t.holding() > 0.01 * most) {
        let excluded = [State::Waiting, State::Lock, State::Starved, State::Unknown].iter().map(|&s| t.get(s)).sum::<f64>();
        cycle += t.total() - excluded;
        hold += t.holding();
    }
    if hold > 0.0 {
        (cycle / hold).min(MAX_THREADS)
    } else {
        0.0
    }
}

fn plain(cores: f64) -> Scenario {
    Scenario { cores, waiting_stays: 0.0, speed: 1.0, locks_follow: false, starvation_goes: false, python_takes_turns: false }
}

fn sum(threads: &[StateTimes], state: State) -> f64 {
    threads.iter().map(|t| t.get(state)).sum()
}

/// Cores that the program can count on: its share of the CPU time that it asks for stays the same.
fn cores_left(threads: &[StateTimes], cores: f64) -> f64 {
    let used: f64 = threads.iter().map(on_cpu).sum();
    let lacked = sum(threads, State::Starved) + sum(threads, State::HoldingStarved);
    let share = if lacked > 0.0 { used / (used + lacked) } else { 1.0 };
    (cores * share).max(used).min(cores).max(0.01)
}

/// The lower end: model error, and queueing of threads that alternately sleep and compute.
fn cautious(threads: &[StateTimes], gain: f64) -> f64 {
    let (mut asleep, mut all) = (0.0, 0.0);
    for t in threads.iter().filter(|t| t.total() > 0.0) {
        let own = t.total() - t.get(State::Waiting) - t.get(State::Lock);
        if own > 0.0 {
            asleep += work(t) * t.get(State::Io) / own;
            all += work(t);
        }
    }
    let sleepers = if all > 0.0 { asleep / all } else { 0.0 };
    let queued = if gain > 1.0 { 1.0 + (gain - 1.0) * (1.0 - SLEEPERS_LOSE * sleepers) } else { gain };
    queued * (1.0 - MODEL_ERROR)
}

/// The work of a thread: the weight of its stretch.
pub(super) fn work(t: &StateTimes) -> f64 {
    on_cpu(t) + t.get(State::HoldingBlocked)
}

/// The parts of a thread's time that the model distinguishes.
struct Parts {
    total: f64,
    off: f64,
    lock: f64,
    queued: f64,
    waits: f64,
    cpu: f64,
    takes_turns: f64,
    work: f64,
    /// Mean number of cores wanted, at most the share of the window in which the thread exists.
    wants: f64,
}

/// Cores wanted on average by all threads: those that exist for most of the window, and short-lived
/// ones.
struct Wanted {
    staying: f64,
    passing: f64,
}

impl Wanted {
    fn from_parts(all: &[Parts]) -> Wanted {
        let sum = |stays: bool| all.iter().filter(|p| p.stays() == stays).map(|p| p.wants).sum();
        Wanted { staying: sum(true), passing: sum(false) }
    }

    /// The demand that one thread competes with. Short-lived threads (one per request, say) mostly
    /// replace each other: while one exists, it stands for a whole thread, however short its life.
    fn by_others(&self, p: &Parts) -> f64 {
        if p.stays() {
            self.staying - p.wants + self.passing
        } else {
            self.staying + (self.passing - p.wants / p.total).max(0.0)
        }
    }
}

impl Parts {
    /// Whether the thread exists for most of the window.
    fn stays(&self) -> bool {
        self.total >= 0.5
    }
}

fn parts(t: &StateTimes, s: &Scenario) -> Parts {
    let held = t.get(State::HoldingPython) + t.get(State::HoldingNative);
    let starved = t.get(State::Starved) + t.get(State::HoldingStarved);
    Parts {
        total: t.total(),
        off: t.get(State::Io) + t.get(State::HoldingBlocked) + t.get(State::Unknown),
        lock: t.get(State::Lock),
        queued: if s.starvation_goes { 0.0 } else { starved },
        waits: t.get(State::Waiting) * s.waiting_stays,
        cpu: held / s.speed + t.get(State::Native),
        takes_turns: if s.python_takes_turns { t.holding() - t.get(State::HoldingNative) } else { 0.0 },
        work: work(t),
        wants: 0.0,
    }
}

/// The work-weighted mean stretch.
fn gain(threads: &[StateTimes], s: &Scenario) -> f64 {
    let mut all: Vec<Parts> = threads.iter().filter(|t| work(t) > 1e-9).map(|t| parts(t, s)).collect();
    let work: f64 = all.iter().map(|p| p.work).sum();
    let cores = s.cores.max(0.01);
    let (mut gain, mut turns) = (1.0, 0.0);
    for _ in 0..STEPS {
        let wanted = Wanted::from_parts(&all);
        let lock_share = if s.locks_follow { 1.0 / gain } else { 1.0 };
        let (mut sum, mut moved) = (0.0, 0.0f64);
        turns = 0.0;
        for p in &mut all {
            let drawn_out = ((1.0 + wanted.by_others(p)) / cores).max(1.0);
            let queueing = p.queued.max((drawn_out - 1.0) * p.cpu);
            // A thread that still waits for the GIL does not queue for a core at the same time.
            let time = (p.off + p.lock * lock_share + p.cpu + queueing.max(p.queued + p.waits)).max(p.total * 1e-3);
            let wants = (p.cpu + queueing) / time * p.total.min(1.0);
            moved = moved.max((wants - p.wants).abs());
            p.wants = (p.wants + wants) / 2.0;
            sum += p.work * p.total / time;
            turns += p.takes_turns * p.total / time;
        }
        let next = if work > 0.0 { sum / work } else { 1.0 };
        moved = moved.max((next - gain).abs());
        gain = if s.locks_follow { (gain + next) / 2.0 } else { next };
        if moved < 1e-4 {
            break;
        }
    }
    gain / turns.max(1.0)
}

fn ordered(estimate: f64, low: f64, high: f64) -> Estimate {
    Estimate { estimate, low: low.min(estimate), high: high.max(estimate * (1.0 + MODEL_ERROR)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::*;

    fn thread(parts: &[(State, f64)]) -> StateTimes {
        let mut t = StateTimes::default();
        parts.iter().for_each(|&(s, share)| t.add(s, share));
        t
    }

    fn about(e: Estimate, want: f64) {
        assert!((e.estimate - want).abs() < 0.03, "{e:?}, wanted {want}");
        assert!(e.low <= e.estimate && e.estimate <= e.high, "{e:?}");
    }

    fn contenders(n: usize, on: State) -> Vec<StateTimes> {
        let hold = 1.0 / n as f64;
        let mut all = vec![thread(&[(on, hold), (Waiting, 1.0 - hold)]); n];
        all.push(thread(&[(Lock, 1.0)]));
        all
    }

    #[test]
    fn two_cpu_bound_threads_gain_two_on_two_cores_and_nothing_on_one() {
        about(processes(&contenders(2, HoldingPython), 2.0), 2.0);
        about(processes(&contenders(2, HoldingPython), 1.0), 1.0);
        about(processes(&contenders(2, HoldingPython), NO_LIMIT), 2.0);
        let e = processes(&contenders(2, HoldingPython), 2.0);
        assert!(e.low > 1.85 && e.high >= 2.45, "{e:?}");
    }

    #[test]
    fn short_lived_threads_gain_as_much_as_lasting_ones() {
        let brief = thread(&[(HoldingPython, 0.005), (Waiting, 0.005)]);
        about(processes(&[brief; 200], 2.0), 2.0);
        let mut with_hog = vec![thread(&[(HoldingPython, 0.99), (Waiting, 0.01)])];
        with_hog.push(thread(&[(HoldingPython, 0.01), (Waiting, 0.01)]));
        assert!(processes(&with_hog, 1.0).estimate < 1.03);
    }

    #[test]
    fn cores_are_the_cap() {
        about(processes(&contenders(3, HoldingPython), 2.0), 2.0);
        about(processes(&contenders(8, HoldingPython), 4.0), 4.0);
        about(processes(&contenders(3, HoldingPython), 1.5), 1.5);
    }

    #[test]
    fn sleepers_and_released_work_gain_nothing() {
        let sleeper = thread(&[(Io, 0.97), (HoldingPython, 0.025), (Waiting, 0.005)]);
        about(processes(&[sleeper; 4], 2.0), 1.005);
        let hashing = thread(&[(Native, 0.96), (HoldingPython, 0.03), (Waiting, 0.01)]);
        about(processes(&[hashing; 2], 2.0), 1.01);
        let too_many = thread(&[(Native, 0.48), (Starved, 0.5), (HoldingPython, 0.02)]);
        about(processes(&[too_many; 4], 2.0), 1.0);
    }

    #[test]
    fn one_hog_is_the_work() {
        let hog = thread(&[(HoldingPython, 0.98), (Waiting, 0.02)]);
        let victim = thread(&[(Waiting, 0.8), (HoldingPython, 0.01), (Io, 0.19)]);
        let e = processes(&[hog, victim, victim], 2.0);
        assert!(e.estimate < 1.15, "{e:?}");
    }

    #[test]
    fn holders_that_sleep_gain_too() {
        about(processes(&contenders(2, HoldingBlocked), 2.0), 2.0);
    }

    #[test]
    fn cycles_of_sleep_and_work_keep_the_measured_gain_inside() {
        let cyclic = thread(&[(HoldingPython, 0.13), (Io, 0.4), (Waiting, 0.47)]);
        let e = processes(&[cyclic; 4], 2.0);
        assert!(e.low <= 1.47 && e.estimate > 1.8, "{e:?}");
    }

    #[test]
    fn releasing_frees_only_what_is_native() {
        about(release_in_native(&contenders(2, HoldingNative), 2.0), 2.0);
        about(release_in_native(&contenders(2, HoldingPython), 2.0), 1.0);
        about(release_in_native(&contenders(2, HoldingPython), 1.0), 1.0);
        let half = thread(&[(HoldingNative, 0.25), (HoldingPython, 0.25), (Waiting, 0.5)]);
        let e = release_in_native(&[half; 2], 2.0);
        assert!(e.estimate > 1.2 && e.high <= 2.0, "{e:?}");
        let many = thread(&[(HoldingNative, 0.0625), (HoldingPython, 0.0625), (Waiting, 0.875)]);
        assert!(release_in_native(&[many; 8], 8.0).high <= 2.01);
    }

    #[test]
    fn free_threading_pays_for_speed() {
        about(free_threading(&contenders(2, HoldingPython), 2.0), 1.85);
    }

    #[test]
    fn starvation_lowers_the_low_end() {
        let pressed = processes(&[thread(&[(HoldingPython, 0.17), (HoldingStarved, 0.16), (Waiting, 0.67)]); 3], 2.0);
        let free = processes(&[thread(&[(HoldingPython, 0.33), (Waiting, 0.67)]); 3], 2.0);
        assert!(pressed.low / pressed.estimate < 0.8 * free.low / free.estimate, "{pressed:?} {free:?}");
        let queued = thread(&[(Native, 0.5), (Starved, 0.5)]);
        about(processes(&[queued; 2], 2.0), 1.0);
    }

    #[test]
    fn the_gil_saturates_where_holds_fill_the_cycle() {
        assert!((saturation(&contenders(3, HoldingPython)) - 1.0).abs() < 1e-9);
        let io = thread(&[(HoldingPython, 0.05), (Io, 0.95)]);
        assert!((saturation(&[io; 4]) - 20.0).abs() < 1e-9);
        assert_eq!(saturation(&[thread(&[(Io, 1.0)])]), 0.0);
    }
}
