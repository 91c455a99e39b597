//! The capture of a process and of all Python processes below it. One thread samples them all, by a
//! queue of the times at which samples are due; another finds processes as they start.
//!
//! Each process has a sink and a window of its own, and ends when it ends. Nothing is added up over
//! processes here.

mod budget;
mod finder;

use super::descendants::DescendantMonitor;
use super::running::{sleep, RunningCapture};
use super::session::{CaptureConfig, CaptureResult, Engine, Progress, StopReason};
use super::target::Target;
use crate::error::{Error, Result};
use crate::ids::Pid;
use crate::process::sys_linux;
use crate::python::attach::Attached;
use crate::python::diagnose;
use crate::python::runtimes::RuntimeChoice;
use crate::sample::{ProcessTree, RefusedProcess, Sink};
use crate::units::Nanos;
use budget::RateBudget;
use finder::{Finder, Found, SearchFrom};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

/// The longest sleep, after which new processes are taken in; and before there is any.
const MAX_SLEEP: Nanos = Nanos::from_millis(5);
const FIRST_SLEEP: Nanos = Nanos::from_micros(500);
/// The cost of one sample in so many is measured, and stands for those: the clock has a cost too. A
/// prime, so that processes that take turns are all measured.
const COST_EVERY: u64 = 7;
/// So long the stacks of a new process are read before its window begins, while others are sampled.
const MAX_PREPARATION: Nanos = Nanos::from_millis(20);
/// Processes that could not be read, of those that are listed.
const MAX_REFUSED: usize = 64;
/// Why a process is sampled where the kernel engine was wanted.
const ONE_PROCESS: &str = "the kernel engine measures one process, and these are several";

/// What to measure, and how.
#[derive(Debug)]
pub struct TreeConfig {
    /// The processes.
    pub processes: Processes,
    /// How each process is measured. The duration is that of all together, from the first process
    /// on.
    pub capture: CaptureConfig,
    /// The largest part of a core that gilprof may use: above it, rates are lowered.
    pub max_cpu: Option<f64>,
    /// Of a process with several runtimes, the one to measure.
    pub runtime: RuntimeChoice,
}

/// Which processes are measured.
#[derive(Debug)]
pub enum Processes {
    /// A process and all Python processes below it.
    Below {
        /// The process at the top.
        root: Pid,
        /// The same, if it is known to be Python.
        attached: Option<Attached>,
        /// How long to wait for the first Python; `None`: until all processes have ended.
        patience: Option<Nanos>,
    },
    /// Those that come here.
    Given(Receiver<Pid>),
}

/// Receives what is measured.
pub trait TreeSink<S> {
    /// The sink of another process.
    fn begin(&mut self) -> S;
    /// Called about ten times a second for each process, and less often while it is idle.
    fn progress(&mut self, progress: Progress, sink: &mut S);
    /// A process has ended, or the window.
    fn end(&mut self, result: CaptureResult, sink: S);
}

/// Measures until the duration has passed, `stop` is set, or all processes have ended. Each process
/// has [`ProcessTree`] in its statistics as of its own end. Returns why the window ended, and how
/// long it was, from the first process on.
///
/// # Errors
///
/// The process at the top, if it is known to be Python, cannot be sampled; or of those that were
/// found none can be read.
pub fn capture_tree<S: Sink>(config: TreeConfig, stop: &AtomicBool, to: &mut dyn TreeSink<S>) -> Result<(StopReason, f64)> {
    // These threads first: a new thread inherits the settings that sampling makes for its own.
    let mut give_up_at = None;
    let (descendants, from, first) = match config.processes {
        Processes::Given(pids) => (None, SearchFrom::Given(pids), None),
        Processes::Below { root, attached, patience } => {
            give_up_at = patience.map(|patience| sys_linux::monotonic() + patience);
            let from = SearchFrom::Root { root, known: attached.is_some() };
            (Some(DescendantMonitor::start(root)), from, attached.map(|attached| (root, attached)))
        }
    };
    let finder = Finder::start(from, config.runtime);
    let mut tree = TreeCapture::new(&config.capture, config.max_cpu, descendants);
    tree.give_up_at = give_up_at;
    if let Some((root, attached)) = first {
        tree.add(root, attached, stop, to)?;
    }
    while tree.take_found(&finder, stop, to) && tree.wait(stop) {
        tree.sample_due(to);
    }
    let reason = match stop.load(Ordering::Relaxed) {
        true => StopReason::Stopped,
        false if tree.is_over() => StopReason::Done,
        false => StopReason::TargetEnded,
    };
    let now = sys_linux::monotonic();
    tree.finish(to);
    if let Some(why) = tree.first_error.filter(|_| tree.met == 0) {
        return Err(why);
    }
    Ok((reason, tree.start.map_or(0.0, |start| now.saturating_since(start).as_secs_f64())))
}

struct ActiveProcess<S> {
    capture: RunningCapture,
    sink: S,
}

struct TreeCapture<S> {
    config: CaptureConfig,
    engine_reason: Option<String>,
    descendants: Option<DescendantMonitor>,
    /// Those that have not ended, by number.
    active: BTreeMap<usize, ActiveProcess<S>>,
    /// How many there were.
    met: usize,
    /// Samples taken, of all.
    samples: u64,
    /// What was found and is not taken in yet.
    found: VecDeque<Found>,
    /// When which process is due.
    queue: BinaryHeap<Reverse<(Nanos, usize)>>,
    refused: Vec<RefusedProcess>,
    first_error: Option<Error>,
    budget: RateBudget,
    rate_factor: f64,
    /// When the first process was met; and when to give up if none was.
    start: Option<Nanos>,
    give_up_at: Option<Nanos>,
}

impl<S: Sink> TreeCapture<S> {
    fn new(config: &CaptureConfig, max_cpu: Option<f64>, descendants: Option<DescendantMonitor>) -> TreeCapture<S> {
        let now = sys_linux::monotonic();
        TreeCapture {
            config: CaptureConfig { engine: Engine::Samples, ..*config },
            engine_reason: (config.engine != Engine::Samples).then(|| ONE_PROCESS.to_owned()),
            descendants,
            active: BTreeMap::new(),
            met: 0,
            samples: 0,
            found: VecDeque::new(),
            queue: BinaryHeap::new(),
            refused: Vec::new(),
            first_error: None,
            budget: RateBudget::new(max_cpu, config.rate_hz, now),
            rate_factor: 1.0,
            start: None,
            give_up_at: None,
        }
    }

    fn end_at(&self) -> Option<Nanos> {
        Some(self.start? + self.config.duration?)
    }

    fn is_over(&self) -> bool {
        let end = if self.start.is_some() { self.end_at() } else { self.give_up_at };
        end.is_some_and(|end| sys_linux::monotonic() >= end)
    }

    /// Takes in the processes that were found. False when no more is to come.
    fn take_found(&mut self, finder: &Finder, stop: &AtomicBool, to: &mut dyn TreeSink<S>) -> bool {
        // Read before the channel is: what was found last is then not missed.
        let is_over = finder.is_over();
        self.found.extend(finder.found.try_iter());
        // One at a time: to prepare a process with many threads takes as long as many samples.
        match self.found.pop_front() {
            Some(Found::Python(pid, attached)) => {
                if let Err(why) = self.add(pid, attached, stop, to) {
                    self.refuse(RefusedProcess::new(pid.0, diagnose::brief_command(pid), &why), why);
                }
            }
            Some(Found::Refused(process, why)) => self.refuse(process, why),
            None => {}
        }
        !((is_over && self.found.is_empty() || self.is_over()) && self.queue.is_empty())
    }

    fn refuse(&mut self, process: RefusedProcess, why: Error) {
        if self.refused.len() < MAX_REFUSED {
            self.refused.push(process);
        }
        self.first_error.get_or_insert(why);
    }

    fn add(&mut self, pid: Pid, attached: Attached, stop: &AtomicBool, to: &mut dyn TreeSink<S>) -> Result<()> {
        if self.is_over() {
            return Ok(());
        }
        let source = Target::new(pid, attached).config(self.config).source()?;
        let mut sink = to.begin();
        let began = sys_linux::monotonic();
        let is_alone = self.queue.is_empty();
        let may_go_on = || !stop.load(Ordering::Relaxed) && (is_alone || sys_linux::monotonic().saturating_since(began) < MAX_PREPARATION);
        let capture = RunningCapture::begin(pid, source, self.config, &may_go_on, &mut sink);
        let mut capture = capture.one_of_several();
        self.start = self.start.or(Some(capture.start()));
        capture.end_at = self.end_at();
        capture.set_rate_factor(self.rate_factor);
        self.queue.push(Reverse((capture.due(), self.met)));
        self.active.insert(self.met, ActiveProcess { capture, sink });
        self.met += 1;
        Ok(())
    }

    /// Sleeps until a sample is due, or for a short time; false when asked to stop.
    fn wait(&self, stop: &AtomicBool) -> bool {
        let latest = sys_linux::monotonic() + if self.start.is_some() { MAX_SLEEP } else { FIRST_SLEEP };
        sleep(self.queue.peek().map_or(latest, |Reverse((due, _))| latest.min(*due)), stop)
    }

    /// Takes the samples that are due.
    fn sample_due(&mut self, to: &mut dyn TreeSink<S>) {
        let now = sys_linux::monotonic();
        if let Some(factor) = self.budget.check(now) {
            self.rate_factor = factor;
            self.active.values_mut().for_each(|process| process.capture.set_rate_factor(factor));
        }
        while let Some(Reverse((_, number))) = self.queue.peek().copied().filter(|Reverse((due, _))| *due <= now) {
            self.queue.pop();
            let Some(process) = self.active.get_mut(&number) else { continue };
            self.samples = self.samples.wrapping_add(1);
            let before = self.samples.is_multiple_of(COST_EVERY).then(sys_linux::thread_cpu_time);
            let ended = process.capture.sample(&mut process.sink, &mut |progress, sink| to.progress(progress, sink));
            if let Some(before) = before {
                let cost = sys_linux::thread_cpu_time().saturating_since(before);
                process.capture.add_cost(Nanos::from_nanos(cost.as_nanos() * COST_EVERY));
            }
            match ended {
                None => self.queue.push(Reverse((process.capture.due(), number))),
                Some(reason) => self.end(number, reason, false, to),
            }
        }
    }

    /// `is_last`: the window ends.
    fn end(&mut self, number: usize, reason: StopReason, is_last: bool, to: &mut dyn TreeSink<S>) {
        if let Some(ActiveProcess { capture, mut sink }) = self.active.remove(&number) {
            let mut result = capture.finish(reason, &mut sink);
            result.stats.engine_reason.clone_from(&self.engine_reason);
            result.stats.warnings.extend(self.budget.warning(self.config.rate_hz));
            // Short processes come by the thousand, and do not each need the whole list.
            let refused = if is_last || number == 0 { self.refused.clone() } else { Vec::new() };
            result.stats.tree = self.descendants.as_ref().map(|cpu| ProcessTree { cpu: cpu.latest(), refused, ..ProcessTree::default() });
            to.end(result, sink);
        }
    }

    fn finish(&mut self, to: &mut dyn TreeSink<S>) {
        self.descendants.iter_mut().for_each(DescendantMonitor::finish);
        let left: Vec<usize> = self.active.keys().copied().collect();
        left.into_iter().for_each(|number| self.end(number, StopReason::Stopped, true, to));
    }
}
