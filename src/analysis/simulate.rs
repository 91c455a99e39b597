//! Simulation by events of threads that alternately need the GIL, a CPU, or neither, on a number of
//! cores. Pure.
//!
//! Threads that want CPU time share it evenly (processor sharing, which approximates the kernel's
//! fair scheduler over some milliseconds). The GIL is CPython's (`take_gil`, `drop_gil`): the
//! thread that has waited longest gets it. A waiter during whose switch interval the GIL has not
//! switched sends a drop request, and the holder releases it. A thread that releases the GIL
//! voluntarily continues at once, and may take it back before the thread that it woke runs.

/// What a phase of a thread's work needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A CPU and the GIL.
    Held,
    /// The GIL and no CPU: asleep while it holds the GIL.
    HeldAsleep,
    /// A CPU.
    Cpu,
    /// Nothing: asleep.
    Asleep,
}

impl Need {
    fn gil(self) -> bool {
        matches!(self, Need::Held | Need::HeldAsleep)
    }

    fn cpu(self) -> bool {
        matches!(self, Need::Held | Need::Cpu)
    }
}

/// A phase: its need, and its nanoseconds on an otherwise free CPU.
pub type Phase = (Need, f64);

/// The machine that runs the threads.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Cores that the threads may use; a quota makes fractions.
    pub cores: f64,
    /// The GIL's switch interval, nanoseconds; `None`: there is no GIL.
    pub interval: Option<f64>,
    /// Nanoseconds from the release of the GIL until the woken thread runs.
    pub wake: f64,
}

/// Most events of one simulation, which then ends early.
const MAX_EVENTS: usize = 200_000;
/// The same, times workers: each event visits all workers.
const MAX_STEPS: usize = 8_000_000;
/// A smaller rest of a phase is zero but for rounding.
const NOTHING: f64 = 1e-6;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Activity {
    /// Works on its phase.
    Work,
    /// Waits for the GIL since this time.
    Waits(f64),
    /// Has got the GIL, and runs from this time.
    Woken(f64),
}

/// A thread to simulate: its repeated cycle, and the GIL that it takes.
#[derive(Clone, Debug, Default)]
pub struct Worker {
    /// Its cycle.
    pub work: Vec<Phase>,
    /// The number of its GIL: one for each process.
    pub gil: usize,
}

#[derive(Debug)]
struct SimThread<'a> {
    work: &'a [Phase],
    gil: usize,
    next: usize,
    left: f64,
    at: Activity,
    /// Nanoseconds of phases done, and nanoseconds waited for the GIL.
    done: f64,
    waited: f64,
}

/// The result for one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WorkerOutcome {
    /// Its work done per nanosecond: 1 without competition.
    pub speed: f64,
    /// The share of the time in which it waited for the GIL.
    pub waiting: f64,
}

/// Simulates `span` nanoseconds, in which each worker repeats its phases. A worker without work has
/// the speed 0.
pub fn run(workers: &[Worker], machine: &Machine, span: f64) -> Vec<WorkerOutcome> {
    let gils = workers.iter().map(|w| w.gil + 1).max().unwrap_or(0);
    let mut sim =
        Sim { machine: *machine, now: 0.0, gils: vec![SimGil::default(); gils], threads: workers.iter().map(SimThread::new).collect() };
    for index in 0..sim.threads.len() {
        sim.begin(index);
    }
    for _ in 0..MAX_EVENTS.min(MAX_STEPS / workers.len().max(1)) {
        if sim.now >= span || !sim.step(span) {
            break;
        }
    }
    let whole = sim.now.max(NOTHING);
    sim.threads.iter().map(|t| WorkerOutcome { speed: t.done / whole, waiting: t.waited / whole }).collect()
}

#[derive(Clone, Copy, Debug, Default)]
struct SimGil {
    holder: Option<usize>,
    /// Time of the last switch.
    switched_at: f64,
}

struct Sim<'a> {
    machine: Machine,
    now: f64,
    gils: Vec<SimGil>,
    threads: Vec<SimThread<'a>>,
}

impl Sim<'_> {
    /// Advances to the next event; false if there is none before the end.
    fn step(&mut self, end: f64) -> bool {
        let wanting = self.threads.iter().filter(|t| t.at == Activity::Work && t.need().is_some_and(Need::cpu)).count() as f64;
        let rate = (self.machine.cores / wanting.max(1.0)).min(1.0);
        let mut until = end;
        for thread in &self.threads {
            let Some(need) = thread.need() else { continue };
            until = until.min(match thread.at {
                Activity::Work => self.now + thread.left / if need.cpu() { rate } else { 1.0 },
                Activity::Woken(at) => at,
                Activity::Waits(_) => f64::INFINITY,
            });
        }
        let forced = (0..self.gils.len()).map(|gil| (self.forced_at(gil), gil)).min_by(|a, b| a.0.total_cmp(&b.0));
        let (forced, gil) = forced.unwrap_or((f64::INFINITY, 0));
        until = until.min(forced).max(self.now);
        self.advance(until, rate);
        if forced <= until {
            self.force_switch(gil);
        }
        for index in 0..self.threads.len() {
            self.finish_due(index);
        }
        until < end
    }

    fn advance(&mut self, until: f64, rate: f64) {
        let time = until - self.now;
        for thread in &mut self.threads {
            match (thread.at, thread.need()) {
                (Activity::Work, Some(need)) => {
                    let part = (if need.cpu() { time * rate } else { time }).min(thread.left);
                    thread.left -= part;
                    thread.done += part;
                }
                (Activity::Waits(_) | Activity::Woken(_), _) => thread.waited += time,
                (Activity::Work, None) => {}
            }
        }
        self.now = until;
    }

    /// Time of the next forced switch: the switch interval of the thread that has waited longest,
    /// restarted at every GIL switch. A thread in a C call does not see a drop request; a phase of
    /// work counts as Python code as a whole.
    fn forced_at(&self, gil: usize) -> f64 {
        let SimGil { holder: Some(holder), switched_at } = self.gils[gil] else { return f64::INFINITY };
        let (Some(interval), holds) = (self.machine.interval, &self.threads[holder]) else { return f64::INFINITY };
        let since = self.waiting(gil).map(|(_, since)| since).fold(f64::INFINITY, f64::min);
        if holds.at != Activity::Work || holds.need() != Some(Need::Held) {
            return f64::INFINITY;
        }
        since.max(switched_at) + interval
    }

    /// The threads that wait for a GIL, each with the start of its wait.
    fn waiting(&self, gil: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
        let waits = |t: &SimThread<'_>| if let Activity::Waits(since) = t.at { Some(since) } else { None };
        self.threads.iter().enumerate().filter(move |(_, t)| t.gil == gil).filter_map(move |(i, t)| Some((i, waits(t)?)))
    }

    fn force_switch(&mut self, gil: usize) {
        let Some(holder) = self.gils[gil].holder.take() else { return };
        self.threads[holder].at = Activity::Waits(self.now);
        self.grant(gil, Some(holder));
    }

    /// Gives a free GIL to the thread that has waited longest. A thread that a forced switch has
    /// just made release the GIL gets it only if no other thread wants it.
    fn grant(&mut self, gil: usize, not: Option<usize>) {
        let first = self.waiting(gil).filter(|(i, _)| Some(*i) != not).min_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i);
        if let Some(index) = first.or(not) {
            self.threads[index].at = Activity::Woken(self.now + self.machine.wake);
            self.gils[gil] = SimGil { holder: Some(index), switched_at: self.now };
        }
    }

    /// Ends a finished phase or wake-up of one thread and begins the next.
    fn finish_due(&mut self, index: usize) {
        match self.threads[index].at {
            Activity::Woken(at) if at <= self.now => self.threads[index].at = Activity::Work,
            Activity::Work if self.threads[index].need().is_some() && self.threads[index].left <= NOTHING => {
                let had = self.threads[index].need().is_some_and(Need::gil);
                self.threads[index].next += 1;
                let (wants, gil) = (self.threads[index].need().is_some_and(Need::gil), self.threads[index].gil);
                if had && !wants && self.machine.interval.is_some() {
                    self.gils[gil].holder = None;
                    self.grant(gil, None);
                }
                if had && wants {
                    self.threads[index].load();
                } else {
                    self.begin(index);
                }
            }
            Activity::Work | Activity::Waits(_) | Activity::Woken(_) => {}
        }
    }

    fn begin(&mut self, index: usize) {
        self.threads[index].load();
        if self.machine.interval.is_none() || !self.threads[index].need().is_some_and(Need::gil) {
            return;
        }
        let gil = self.threads[index].gil;
        if self.gils[gil].holder.is_none() {
            self.gils[gil] = SimGil { holder: Some(index), switched_at: self.now };
        } else {
            self.threads[index].at = Activity::Waits(self.now);
        }
    }
}

impl SimThread<'_> {
    fn new(worker: &Worker) -> SimThread<'_> {
        SimThread { work: &worker.work, gil: worker.gil, next: 0, left: 0.0, at: Activity::Work, done: 0.0, waited: 0.0 }
    }

    fn phase(&self) -> Option<Phase> {
        self.work.get(self.next % self.work.len().max(1)).copied()
    }

    fn need(&self) -> Option<Need> {
        self.phase().map(|(need, _)| need)
    }

    fn load(&mut self) {
        self.left = self.phase().map_or(0.0, |(_, nanos)| nanos.max(1.0));
        self.at = Activity::Work;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: f64 = 1e6;
    const CPYTHON: Machine = Machine { cores: 2.0, interval: Some(5.0 * MS), wake: 0.05 * MS };
    const FREE: Machine = Machine { interval: None, ..CPYTHON };

    fn together(cycles: &[Vec<Phase>]) -> Vec<Worker> {
        cycles.iter().map(|work| Worker { work: work.clone(), gil: 0 }).collect()
    }

    fn speeds(cycles: &[Vec<Phase>], machine: &Machine) -> Vec<f64> {
        run(&together(cycles), machine, 2000.0 * MS).iter().map(|o| o.speed).collect()
    }

    #[test]
    fn two_computing_threads_share_the_gil_and_have_a_core_each_without_it() {
        let two = vec![vec![(Need::Held, 1.0 * MS)]; 2];
        let (with, without) = (speeds(&two, &CPYTHON), speeds(&two, &FREE));
        assert!(with.iter().all(|s| (0.48..0.5).contains(s)), "{with:?}");
        assert!(without.iter().all(|s| (s - 1.0).abs() < 1e-6), "{without:?}");
    }

    #[test]
    fn each_process_has_a_gil() {
        let four: Vec<Worker> = (0..4).map(|n| Worker { work: vec![(Need::Held, 1.0 * MS)], gil: n % 2 }).collect();
        let outcome = run(&four, &CPYTHON, 2000.0 * MS);
        assert!(outcome.iter().all(|o| (0.48..0.5).contains(&o.speed)), "{outcome:?}");
    }

    #[test]
    fn cores_are_shared() {
        let four = vec![vec![(Need::Held, 1.0 * MS)]; 4];
        assert!(speeds(&four, &FREE).iter().all(|s| (s - 0.5).abs() < 1e-6));
        let released = vec![vec![(Need::Cpu, 3.0 * MS), (Need::Held, 0.001 * MS)]; 4];
        assert!(speeds(&released, &CPYTHON).iter().all(|s| (0.45..0.51).contains(s)));
    }

    #[test]
    fn a_short_holder_pays_an_interval_behind_one_that_computes() {
        let convoy = vec![vec![(Need::Held, 20.0 * MS)], vec![(Need::Held, 0.01 * MS), (Need::Asleep, 1.0 * MS)]];
        let short = run(&together(&convoy), &CPYTHON, 2000.0 * MS)[1];
        // Each 1.01 ms of its own take a little more than 6 ms.
        assert!((0.14..0.18).contains(&short.speed) && (0.8..0.86).contains(&short.waiting), "{short:?}");
        assert!(speeds(&convoy, &FREE)[1] > 0.99);
    }

    #[test]
    fn a_holder_that_sleeps_blocks_the_others() {
        let two = vec![vec![(Need::HeldAsleep, 4.0 * MS)], vec![(Need::Held, 1.0 * MS), (Need::Asleep, 1.0 * MS)]];
        let outcome = run(&together(&two), &CPYTHON, 1000.0 * MS);
        assert!(outcome[0].speed > 0.9 && outcome[1].waiting > 0.9, "{outcome:?}");
    }

    #[test]
    fn no_workers_and_no_work() {
        assert_eq!(run(&[], &CPYTHON, MS), []);
        assert_eq!(run(&[Worker::default()], &CPYTHON, MS), [WorkerOutcome::default()]);
        assert!(run(&together(&[vec![(Need::Cpu, 0.0)]]), &CPYTHON, MS)[0].speed <= 1.0);
    }
}
