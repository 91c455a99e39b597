//! Another number of worker processes with another number of threads each: the same model, with the
//! threads that work today distributed over other GILs.
//!
//! The threads of the new workers are copies of those that work today, in their order, so that the
//! numbers of today give today's workers. Each new worker has a GIL of its own; all workers share
//! the cores with the threads that stay as they are. As many threads as today have today's load.
//! More threads have more of it, each as much as one has today.
//!
//! What the threads lack of the cores because of each other follows from their number, so that
//! fewer workers than today lack less. The gain is that over the same prediction of today.

use super::{ends, on_cpu, sum, work, Case, Cores, Program, NO_CHANGE, SWITCH_COST, WORKER};
use crate::analysis::report::Estimate;
use crate::analysis::scaling::model::Worker;
use crate::sample::{State, StateTimes};

/// A case to predict; what is `None` stays as it is.
#[derive(Clone, Debug)]
pub(in crate::analysis) struct Workers {
    /// The worker process that each thread is of; `None` for threads that stay as they are.
    pub(in crate::analysis) of: Vec<Option<usize>>,
    /// Worker processes.
    pub(in crate::analysis) workers: Option<usize>,
    /// Threads of each.
    pub(in crate::analysis) threads: Option<usize>,
    /// Cores of the machine.
    pub(in crate::analysis) cores: Option<f64>,
}

/// Worker processes and their threads that work, today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::analysis) struct Today {
    pub(in crate::analysis) workers: usize,
    /// Of all workers together.
    pub(in crate::analysis) threads: usize,
}

impl Today {
    /// Threads of each worker, rounded up.
    pub(in crate::analysis) fn of_each(self) -> usize {
        self.threads.div_ceil(self.workers.max(1))
    }
}

impl Program {
    /// The share of the used cores that these threads use themselves. Other programs take the rest.
    fn own_share(&self, threads: &[StateTimes]) -> f64 {
        let used: f64 = threads.iter().map(on_cpu).sum();
        let others = self.idle.map_or(0.0, |idle| (self.cores - used - idle).max(0.0));
        if used > 0.0 {
            used / (used + others)
        } else {
            0.0
        }
    }
}

impl Workers {
    /// Threads of the workers that do some work.
    fn working(&self, threads: &[StateTimes]) -> Vec<usize> {
        let of_workers = || (0..threads.len()).filter(|n| self.of[*n].is_some());
        let most = of_workers().map(|n| work(&threads[n])).fold(0.0, f64::max);
        of_workers().filter(|n| most > 0.0 && work(&threads[*n]) > WORKER * most).collect()
    }

    /// The workers that do some work today.
    pub(in crate::analysis) fn today(&self, threads: &[StateTimes]) -> Today {
        let working = self.working(threads);
        let mut workers: Vec<usize> = working.iter().filter_map(|n| self.of[*n]).collect();
        workers.sort_unstable();
        workers.dedup();
        Today { workers: workers.len(), threads: working.len() }
    }

    /// The work that the workers do in that case, divided by what they do today; `None` if they do
    /// none.
    pub(in crate::analysis) fn gain(&self, threads: &[StateTimes], program: &Program) -> Option<Estimate> {
        let (working, today) = (self.working(threads), self.today(threads));
        if working.is_empty() {
            return None;
        }
        let workers = self.workers.unwrap_or(today.workers);
        let each = self.threads.unwrap_or_else(|| today.of_each());
        let as_today = |thread: usize| Worker { thread, gil: Some(program.gils[thread]) };
        let all_today: Vec<Worker> = (0..threads.len()).map(as_today).collect();
        let now = self.predicted(threads, program, &all_today, program.own_cores(threads)).estimate.max(1e-3);
        let unchanged = workers == today.workers && self.threads.is_none();
        let (count, gils) = (workers * each, program.gils.iter().max().map_or(1, |most| most + 1));
        let copy = |n: usize| Worker { thread: working[n * working.len() / count], gil: Some(gils + n / each) };
        let others = (0..threads.len()).filter(|n| working.binary_search(n).is_err()).map(as_today);
        let changed = if unchanged { all_today } else { (0..count).map(copy).chain(others).collect() };
        let cores = self.cores.map_or_else(|| program.own_cores(threads), Cores::alone);
        let then = self.predicted(threads, program, &changed, cores);
        let no_switches = 1.0 + SWITCH_COST * sum(threads, State::Waiting).min(1.0) * fewer_companions(today.of_each(), each);
        Some(Estimate { estimate: then.estimate / now, low: then.low / now, high: then.high / now * no_switches })
    }

    /// The work of the workers over what they do today, before it is compared with the prediction
    /// of today.
    fn predicted(&self, threads: &[StateTimes], program: &Program, all: &[Worker], cores: Cores) -> Estimate {
        let own_starvation = program.own_share(threads);
        let ends = ends(threads, program, all, Case { cores, speed: NO_CHANGE, freed: &[], own_starvation });
        ends.gain(&|thread| self.of[thread].is_some())
    }
}

/// The share of the other threads of its GIL that a thread loses: so much of the cost of GIL
/// switches may end.
fn fewer_companions(today: usize, then: usize) -> f64 {
    let (today, then) = (today.saturating_sub(1) as f64, then.saturating_sub(1) as f64);
    if today > then {
        1.0 - then / today
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::scaling::Machine;

    /// Threads of each worker that share its GIL evenly and have work all the time, in this many
    /// workers on that many cores.
    fn gain(today: (usize, usize), case: (usize, usize), cores: f64) -> f64 {
        let (workers, each) = today;
        let running = (cores / workers as f64).min(1.0);
        let share = running / each as f64;
        let thread = || {
            let mut times = StateTimes::single(State::HoldingPython, share);
            times.add(State::HoldingStarved, (1.0 - running) / each as f64);
            times.add(State::Waiting, 1.0 - 1.0 / each as f64);
            times
        };
        let threads: Vec<StateTimes> = (0..workers * each).map(|_| thread()).collect();
        let named = vec![("worker".to_string(), 1.0, true); threads.len()];
        let gils: Vec<usize> = (0..threads.len()).map(|n| n / each).collect();
        let program = Program::of_processes(&named, gils.clone(), Machine { cores, idle: None, used: None, switches_per_s: 0.0 });
        let of = gils.into_iter().map(Some).collect();
        let case = Workers { of, workers: Some(case.0), threads: Some(case.1), cores: None };
        case.gain(&threads, &program).unwrap().estimate
    }

    #[test]
    fn today_is_no_gain_and_more_gils_use_the_cores() {
        for today in [(1, 4), (4, 4), (2, 1), (4, 1)] {
            assert!((gain(today, today, 8.0) - 1.0).abs() < 0.02, "{today:?} {}", gain(today, today, 8.0));
        }
        assert!((gain((1, 4), (2, 2), 2.0) - 2.0).abs() < 0.1, "{}", gain((1, 4), (2, 2), 2.0));
        assert!((gain((4, 4), (8, 2), 8.0) - 2.0).abs() < 0.1);
        assert!((gain((1, 4), (4, 1), 2.0) - 2.0).abs() < 0.1, "no more than the cores");
        assert!((gain((4, 2), (2, 4), 8.0) - 0.5).abs() < 0.05, "fewer GILs do less");
        assert!((gain((4, 1), (2, 1), 2.0) - 1.0).abs() < 0.1, "{}", gain((4, 1), (2, 1), 2.0));
    }
}
