//! Of a command that runs in several processes: which of them a check is of.
//!
//! A limit is for every process, so each run is represented by the process that meets the limit
//! worst. Processes that did next to nothing beside the others do not count: their shares are of a
//! short time, and no function of theirs matters. A baseline has one process, the one that did
//! most.

use super::check;
use super::expr::Limit;
use super::outcome::Check;
use super::run::{Run, ThreadRun};

/// Share of all active time from which a process counts.
const MIN_ACTIVE_SHARE: f64 = 0.05;

/// The processes of one run.
#[derive(Clone, Debug, Default)]
pub struct ProcessRuns {
    processes: Vec<Run>,
    /// Those that count; at least one, if there is any.
    counted: Vec<usize>,
    busiest: usize,
}

impl ProcessRuns {
    /// The processes of a run, in any order.
    pub fn new(processes: Vec<Run>) -> ProcessRuns {
        let active: Vec<f64> = processes.iter().map(|run| run.threads.iter().map(ThreadRun::active).sum()).collect();
        let all: f64 = active.iter().sum();
        let busiest = (0..active.len()).max_by(|&a, &b| active[a].total_cmp(&active[b]).then(b.cmp(&a))).unwrap_or(0);
        let counted = (0..active.len()).filter(|&n| n == busiest || active[n] >= MIN_ACTIVE_SHARE * all).collect();
        ProcessRuns { processes, counted, busiest }
    }

    /// The number of the process that did most.
    pub fn busiest(&self) -> usize {
        self.busiest
    }

    /// Its run.
    pub fn busiest_run(&self) -> Option<&Run> {
        self.processes.get(self.busiest)
    }

    /// The number of the process that meets a limit worst, and its run.
    pub fn worst(&self, limit: &Limit) -> Option<(usize, &Run)> {
        let of = |n: usize| check::limit(limit, std::slice::from_ref(&self.processes[n]));
        // A process that cannot be judged is worse than one that passes: it may break the limit.
        let worse = |x: &Check, y: &Check| x.verdict.cmp(&y.verdict).then(excess(x).total_cmp(&excess(y)));
        let judged = self.counted.iter().filter(|&&n| n < self.processes.len()).map(|&n| (n, of(n)));
        let (n, _) = judged.max_by(|(a, x), (b, y)| worse(x, y).then(b.cmp(a)))?;
        Some((n, &self.processes[n]))
    }
}

/// By how much the figure is on the wrong side of its limit.
fn excess(check: &Check) -> f64 {
    match (check.measured, check.limit) {
        (Some(measured), Some(limit)) if check.limit_text.starts_with('>') => limit - measured.value,
        (Some(measured), Some(limit)) => measured.value - limit,
        _ => f64::NEG_INFINITY,
    }
}
