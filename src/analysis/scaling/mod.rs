//! What the same work would gain without the GIL: in processes, in a free-threaded Python, or with
//! the GIL released inside C calls; and with other numbers of threads, processes and cores.
//!
//! [`model`] gives the speed of each thread. A gain is the mean speed, weighted by each thread's
//! work (holding and native), of the groups of threads that do the work: those of equal names, most
//! work first, until [`MAIN`] of all work is theirs. A thread that polls every 50 us becomes 50
//! times as fast without the GIL and does a hundredth of the work: that is latency, not throughput.
//! A thread that only waits in join, on a lock or on a queue has no work and does not count.
//!
//! The cores are those that the program may use, and of these what it uses now and what nobody
//! uses: a server and its clients on one machine share its cores.
//!
//! The ends of the interval are scenarios too, widened by the measured errors of the middle one
//! (CPython 3.11, 2 cores, against the same work really run in processes):
//! - High: a GIL switch costs time (cold caches, gaps of forced switches). Pure Python was
//!   predicted 2.0 and measured 2.0 - 2.5, so the end is up to a quarter higher in proportion to
//!   how contended the GIL is. Threads that switch by themselves many thousand times a second lose
//!   CPU time to that too (predicted 1.2, measured 1.6 - 2.1). Starvation disappears (the scheduler
//!   was seen to wake two lightly contending threads on one core). At least 5 %.
//! - Low: waits for locks stay as they are; 5 % for all (1.01 was measured .95). Threads that
//!   alternately sleep and compute then queue for cores at random, which the mean does not show:
//!   predicted 1.90, measured 1.47. A program that gets only part of the CPU time that it asks for
//!   continues to get that part.
//!
//! The model excludes the cost of moving data between processes and work that depends on other
//! work, in the program or outside.

mod model;
pub(super) mod workers;

use super::name_pattern::name_pattern;
use super::report::Estimate;
use super::shares::on_cpu;
use crate::profile::Profile;
use crate::sample::{State, StateTimes};
use model::{Scenario, Worker};
use std::collections::BTreeMap;

/// Measured cost of GIL switches above the prediction at full contention.
const SWITCH_COST: f64 = 0.25;
/// CPU time of one GIL switch where threads switch by themselves, in seconds, and the largest share
/// of the program's CPU time that it is taken for. By one program only: threads that fetch SQLite's
/// rows, at 120 000 switches a second, did no more work on 1.6 cores than one thread.
const SWITCH_SECONDS: f64 = 5e-6;
const MAX_SWITCHING: f64 = 0.5;
/// Measured error of the prediction in either direction.
const MODEL_ERROR: f64 = 0.05;
/// Share of the gain that threads lose which sleep whenever they do not compute.
const SLEEPERS_LOSE: f64 = 0.55;
/// Share of all work that the groups do whose gain is the program's.
const MAIN: f64 = 0.9;
/// Speed of one thread in a free-threaded build against an ordinary one: "What's New In Python
/// 3.14" gives a penalty of roughly 5 - 10 %.
const FREE_THREADED_SPEED: Estimate = Estimate { estimate: 0.925, low: 0.90, high: 0.95 };
/// Largest saturation point: above it the GIL is hardly held at all.
const MAX_THREADS: f64 = 1e6;
/// A factor of one.
pub(super) const NO_CHANGE: Estimate = Estimate { estimate: 1.0, low: 1.0, high: 1.0 };
/// A core count that stands for no limit.
pub(super) const NO_LIMIT: f64 = 1e9;
/// Share of the busiest thread's work below which a thread is no worker.
const WORKER: f64 = 0.01;

/// What the model needs to know about the program, apart from its times.
pub(super) struct Program {
    /// CPUs that it may use.
    pub(super) cores: f64,
    /// CPUs that nothing used in the window; `None` if that is not known.
    pub(super) idle: Option<f64>,
    /// CPUs that its threads used, by the kernel's count; `None` where it did not say.
    used: Option<f64>,
    /// GIL switches per second.
    switches_per_s: f64,
    /// The GIL that each thread takes, by index.
    gils: Vec<usize>,
    /// The group of each thread.
    group_of: Vec<usize>,
    /// The groups: threads of equal names, apart from numbers.
    pub(super) groups: Vec<Group>,
}

/// Threads whose names differ by numbers only.
pub(super) struct Group {
    /// The name with a star for each number.
    pub(super) name: String,
    /// How many there are.
    pub(super) threads: usize,
    /// Share of the work of all threads.
    pub(super) work: f64,
    /// Whether it is one of those that do the work.
    pub(super) main: bool,
    /// Whether it has a Python thread.
    pub(super) python: bool,
}

impl Program {
    pub(super) fn new(profile: &Profile, cores: f64) -> Program {
        let gil = |thread: &crate::profile::ThreadProfile| {
            thread.info.gil.and_then(|id| profile.gils.iter().position(|gil| gil.id == id)).unwrap_or(0)
        };
        let named = |thread: &crate::profile::ThreadProfile| (name_pattern(&thread.info.name), work(&thread.times), thread.info.python);
        let (group_of, groups) = grouped(&profile.threads.iter().map(named).collect::<Vec<_>>());
        // Of all threads, or the rest would seem to use nothing.
        let used: Option<f64> = profile.threads.iter().map(|thread| thread.totals.map(|totals| totals.cpu.as_secs_f64())).sum();
        let used = used.map(|used| used / profile.running_seconds().max(1e-9)).filter(|used| *used > 0.0);
        let switches_per_s = profile.gils.iter().filter_map(|gil| gil.switches_per_s()).sum();
        let gils = profile.threads.iter().map(gil).collect();
        Program { cores, idle: profile.window.idle_cpus, used, switches_per_s, gils, group_of, groups }
    }

    /// Several processes as one program, from the name of each thread's group, its work, whether it
    /// is a Python thread, and its GIL.
    pub(super) fn of_processes(threads: &[(String, f64, bool)], gils: Vec<usize>, machine: Machine) -> Program {
        let (group_of, groups) = grouped(threads);
        let Machine { cores, idle, used, switches_per_s } = machine;
        Program { cores, idle, used, switches_per_s, gils, group_of, groups }
    }

    /// Threads of one group and one GIL.
    #[cfg(test)]
    pub(super) fn plain(threads: usize, cores: f64) -> Program {
        let groups = vec![Group { name: "*".into(), threads, work: 1.0, main: true, python: true }];
        Program { cores, idle: None, used: None, switches_per_s: 0.0, gils: vec![0; threads], group_of: vec![0; threads], groups }
    }

    /// The cores that the program can have on average: of those that it may use, the ones that it
    /// uses now and the ones that nobody uses. In units of the states: a thread that has just been
    /// woken counts as running in them, but not for the kernel.
    fn available(&self, threads: &[StateTimes]) -> f64 {
        let Some(idle) = self.idle else { return NO_LIMIT };
        let running: f64 = threads.iter().map(on_cpu).sum();
        let used = self.used.unwrap_or(running);
        if used <= 0.0 {
            return NO_LIMIT;
        }
        running * ((used + idle).min(self.cores) / used).max(1.0)
    }

    /// The share of the program's CPU time that switches of the GIL take. `running`: the mean
    /// number of threads on a core, which serves where the kernel did not count.
    pub(super) fn switching(&self, running: f64) -> f64 {
        let used = self.used.unwrap_or(running);
        if used > 0.0 {
            (self.switches_per_s * SWITCH_SECONDS / used).min(MAX_SWITCHING)
        } else {
            0.0
        }
    }

    /// The cores of this machine, as other programs use them.
    fn own_cores(&self, threads: &[StateTimes]) -> Cores {
        Cores { most: self.cores, mean: self.available(threads) }
    }

    /// The share of the time without a core in which one was idle: those threads had been woken and
    /// were about to get it.
    pub(super) fn woken(&self, threads: &[StateTimes]) -> f64 {
        let (lacked, used) = (lacked(threads), threads.iter().map(on_cpu).sum::<f64>());
        // A quota leaves cores of the machine idle that the program cannot have.
        let idle = self.idle.map_or(0.0, |idle| idle.min((self.cores - used).max(0.0)));
        if lacked > 0.0 {
            (idle / lacked).min(1.0)
        } else {
            0.0
        }
    }

    fn is_main(&self, thread: usize) -> bool {
        self.groups[self.group_of[thread]].main
    }
}

/// The cores of several processes, and the GIL switches of all.
pub(super) struct Machine {
    /// As in [`Program`].
    pub(super) cores: f64,
    pub(super) idle: Option<f64>,
    pub(super) used: Option<f64>,
    pub(super) switches_per_s: f64,
}

/// The group of each thread, and the groups, from the threads' group names, their work, and whether
/// they are Python threads.
fn grouped(threads: &[(String, f64, bool)]) -> (Vec<usize>, Vec<Group>) {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (n, (name, ..)) in threads.iter().enumerate() {
        by_name.entry(name).or_default().push(n);
    }
    let work = |members: &[usize]| members.iter().map(|n| threads[*n].1).sum::<f64>();
    let mut of_groups: Vec<(&str, Vec<usize>)> = by_name.into_iter().collect();
    of_groups.sort_by(|a, b| work(&b.1).total_cmp(&work(&a.1)));
    let all: f64 = of_groups.iter().map(|group| work(&group.1)).sum();
    let (mut group_of, mut groups, mut done) = (vec![0; threads.len()], Vec::new(), 0.0);
    for (index, (name, members)) in of_groups.into_iter().enumerate() {
        members.iter().for_each(|n| group_of[*n] = index);
        let (python, work) = (members.iter().any(|n| threads[*n].2), work(&members));
        let share = if all > 0.0 { work / all } else { 0.0 };
        groups.push(Group { name: name.into(), threads: members.len(), work: share, main: index == 0 || done < MAIN * all, python });
        done += work;
    }
    (group_of, groups)
}

/// A gain of the threads that do the work, and of each group.
#[derive(Clone, Debug)]
pub(super) struct Prediction {
    pub(super) gain: Estimate,
    pub(super) groups: Vec<Estimate>,
}

/// Cores that threads can have: at the same time, and on average.
#[derive(Clone, Copy)]
struct Cores {
    most: f64,
    mean: f64,
}

impl Cores {
    fn alone(most: f64) -> Cores {
        Cores { most, mean: NO_LIMIT }
    }
}

/// Every thread in a separate process.
pub(super) fn processes(threads: &[StateTimes], program: &Program) -> Prediction {
    without_gil(threads, program, program.own_cores(threads), NO_CHANGE)
}

/// The same on so many cores that none is waited for.
pub(super) fn unlimited_cores(threads: &[StateTimes], program: &Program) -> Estimate {
    without_gil(threads, program, Cores::alone(NO_LIMIT), NO_CHANGE).gain
}

/// The same program in a free-threaded Python.
pub(super) fn free_threading(threads: &[StateTimes], program: &Program) -> Estimate {
    without_gil(threads, program, program.own_cores(threads), FREE_THREADED_SPEED).gain
}

fn without_gil(threads: &[StateTimes], program: &Program, cores: Cores, speed: Estimate) -> Prediction {
    let workers: Vec<Worker> = (0..threads.len()).map(|thread| Worker { thread, gil: None }).collect();
    let ends = ends(threads, program, &workers, Case { cores, speed, freed: &[], own_starvation: 0.0 });
    let groups = ends.gains(&program.group_of, program.groups.len());
    Prediction { gain: ends.gain(&|thread| program.is_main(thread)), groups }
}

/// The GIL released inside every C call: Python code still takes turns.
pub(super) fn release_in_native(threads: &[StateTimes], program: &Program) -> Estimate {
    let native = |t: &StateTimes| {
        let held = t.get(State::HoldingPython) + t.get(State::HoldingNative);
        if held > 0.0 {
            t.get(State::HoldingNative) / held
        } else {
            0.0
        }
    };
    let freed: Vec<f64> = threads.iter().map(native).collect();
    let change = Alternative { freed: Some(freed), ..Alternative::default() };
    asked(threads, program, &change).unwrap_or(NO_CHANGE)
}

/// What is to be predicted; what is `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Alternative {
    pub(super) processes: Option<usize>,
    pub(super) threads: Option<usize>,
    pub(super) cores: Option<f64>,
    /// Share of each thread's running with the GIL that runs without it.
    pub(super) freed: Option<Vec<f64>>,
}

/// The work done in that case, divided by the work done now; `None` if no thread works.
///
/// Other numbers of threads are copied in turn from those that work.
pub(super) fn asked(threads: &[StateTimes], program: &Program, change: &Alternative) -> Option<Estimate> {
    let most = threads.iter().map(work).fold(0.0, f64::max);
    let working: Vec<usize> = (0..threads.len()).filter(|n| work(&threads[*n]) > WORKER * most && most > 0.0).collect();
    if working.is_empty() {
        return None;
    }
    let gils = program.gils.iter().max().map_or(1, |most| most + 1);
    let process_of = |n: usize| change.processes.map_or(0, |processes| n % processes.max(1));
    let worker = |n: usize, thread: usize| Worker { thread, gil: Some(process_of(n) * gils + program.gils[thread]) };
    let count = match (change.processes, change.threads) {
        (Some(processes), _) => processes.max(working.len()),
        (None, Some(threads)) => threads,
        (None, None) => working.len(),
    };
    let mut workers: Vec<Worker> = (0..count).map(|n| worker(n, working[n % working.len()])).collect();
    // The others are not copied.
    let others = (0..threads.len()).filter(|n| working.binary_search(n).is_err());
    workers.extend(others.enumerate().map(|(n, thread)| worker(working.len() + n, thread)));
    let cores = change.cores.map_or_else(|| program.own_cores(threads), Cores::alone);
    let speed = NO_CHANGE;
    let freed = change.freed.as_deref().unwrap_or(&[]);
    Some(ends(threads, program, &workers, Case { cores, speed, freed, own_starvation: 0.0 }).gain(&|thread| program.is_main(thread)))
}

/// What [`ends`] varies.
struct Case<'a> {
    cores: Cores,
    speed: Estimate,
    freed: &'a [f64],
    /// The share of today's time without a core that these threads cause themselves. It is not
    /// taken over, but follows from the number of those that want a core.
    own_starvation: f64,
}

/// The speed of each worker, in the middle scenario and at both ends.
struct Ends<'a> {
    threads: &'a [StateTimes],
    workers: &'a [Worker],
    /// What the end of the GIL's switches adds to the high end, as a factor.
    no_switches: f64,
    low: Vec<f64>,
    middle: Vec<f64>,
    high: Vec<f64>,
}

fn ends<'a>(threads: &'a [StateTimes], program: &Program, workers: &'a [Worker], case: Case<'_>) -> Ends<'a> {
    let (used, woken) = (threads.iter().map(on_cpu).sum::<f64>(), program.woken(threads));
    let Cores { most: cores, mean: available } = case.cores;
    let middle = Scenario {
        cores,
        available,
        speed: case.speed.estimate,
        freed: case.freed,
        locks_follow: true,
        starvation_stays: 1.0 - case.own_starvation,
        woken,
    };
    // Of the CPU time that it asks for, the program gets the share that it gets today.
    let asked = used + lacked(threads) * (1.0 - woken);
    let served = |cores: f64| (if asked > 0.0 { cores * used / asked } else { cores }).max(used.min(cores));
    let low = Scenario { cores: served(cores), available: served(available), speed: case.speed.low, locks_follow: false, ..middle };
    let high = Scenario { speed: case.speed.high, starvation_stays: 0.0, ..middle };
    let speeds = |scenario| model::speeds(threads, &program.gils, workers, scenario);
    let mut gils: Vec<usize> =
        workers.iter().filter(|worker| work(&threads[worker.thread]) > 0.0).filter_map(|worker| worker.gil).collect();
    let taken = gils.len();
    gils.sort_unstable();
    gils.dedup();
    // Waiting ends together with the switches, which cost the holder time too.
    let alone = gils.len() == taken;
    let waiting = sum(threads, State::Waiting).min(1.0);
    let no_switches = if alone { (1.0 + SWITCH_COST * waiting) / (1.0 - program.switching(used)) } else { 1.0 };
    Ends { threads, workers, no_switches, low: speeds(&low), middle: speeds(&middle), high: speeds(&high) }
}

/// Sums over some threads.
#[derive(Clone, Copy, Default)]
struct Tally {
    /// Work, today and at each end.
    today: f64,
    low: f64,
    middle: f64,
    high: f64,
    /// Share of the program's work that is done by these threads and in proportion to their sleep.
    asleep: f64,
}

impl Ends<'_> {
    /// The gain of some threads.
    fn gain(&self, of: &dyn Fn(usize) -> bool) -> Estimate {
        self.tallies(1, &|thread| of(thread).then_some(0))[0].gain(self.no_switches)
    }

    /// The gain of each of some groups.
    fn gains(&self, group_of: &[usize], groups: usize) -> Vec<Estimate> {
        self.tallies(groups, &|thread| Some(group_of[thread])).iter().map(|tally| tally.gain(self.no_switches)).collect()
    }

    fn tallies(&self, groups: usize, group_of: &dyn Fn(usize) -> Option<usize>) -> Vec<Tally> {
        let all: f64 = self.threads.iter().map(work).sum();
        let mut tallies = vec![Tally::default(); groups];
        for (thread, t) in self.threads.iter().enumerate() {
            let Some(group) = group_of(thread) else { continue };
            let (tally, own) = (&mut tallies[group], t.total() - t.get(State::Waiting) - t.get(State::Lock));
            tally.today += work(t);
            tally.asleep += if own > 0.0 && all > 0.0 { work(t) / all * t.get(State::Io) / own } else { 0.0 };
        }
        for (n, worker) in self.workers.iter().enumerate() {
            let (Some(group), work) = (group_of(worker.thread), work(&self.threads[worker.thread])) else { continue };
            tallies[group].low += work * self.low[n];
            tallies[group].middle += work * self.middle[n];
            tallies[group].high += work * self.high[n];
        }
        tallies
    }
}

impl Tally {
    fn gain(&self, no_switches: f64) -> Estimate {
        let relative = |work: f64| if self.today > 0.0 { work / self.today } else { 1.0 };
        let (low, estimate, high) = (relative(self.low), relative(self.middle), relative(self.high));
        // Threads that alternately sleep and compute queue for cores at random, in so far as the
        // program's work is theirs.
        let low = if low > 1.0 { 1.0 + (low - 1.0) * (1.0 - SLEEPERS_LOSE * self.asleep) } else { low };
        let high = high * no_switches;
        Estimate { estimate, low: (low * (1.0 - MODEL_ERROR)).min(estimate), high: high.max(estimate * (1.0 + MODEL_ERROR)) }
    }
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

fn sum(threads: &[StateTimes], state: State) -> f64 {
    threads.iter().map(|t| t.get(state)).sum()
}

/// Mean number of threads that are ready to run and have no core.
fn lacked(threads: &[StateTimes]) -> f64 {
    sum(threads, State::Starved) + sum(threads, State::HoldingStarved)
}

/// The work of a thread: the weight of its speed.
pub(super) fn work(t: &StateTimes) -> f64 {
    on_cpu(t) + t.get(State::HoldingBlocked)
}

#[cfg(test)]
mod tests;
