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
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

/// The longest sleep, after which new processes are taken in; and before there is any.
const MAX_SLEEP: Nanos = Nanos::from_millis(5);
const FIRST_SLEEP: Nanos = Nanos::from_micros(500);
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
    let (descendants, from, first) = match config.processes {
        Processes::Given(pids) => (None, SearchFrom::Given(pids), None),
        Processes::Below { root, attached } => {
            let from = SearchFrom::Root { root, known: attached.is_some() };
            (Some(DescendantMonitor::start(root)), from, attached.map(|attached| (root, attached)))
        }
    };
    let finder = Finder::start(from, config.runtime);
    let mut tree = TreeCapture::new(&config.capture, config.max_cpu, descendants);
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
    if let Some(why) = tree.first_error.filter(|_| tree.active.is_empty()) {
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
    /// By number; `None` once it has ended.
    active: Vec<Option<ActiveProcess<S>>>,
    /// When which process is due.
    queue: BinaryHeap<Reverse<(Nanos, usize)>>,
    refused: Vec<RefusedProcess>,
    first_error: Option<Error>,
    budget: RateBudget,
    rate_factor: f64,
    /// When the first process was met.
    start: Option<Nanos>,
}

impl<S: Sink> TreeCapture<S> {
    fn new(config: &CaptureConfig, max_cpu: Option<f64>, descendants: Option<DescendantMonitor>) -> TreeCapture<S> {
        let now = sys_linux::monotonic();
        TreeCapture {
            config: CaptureConfig { engine: Engine::Samples, ..*config },
            engine_reason: (config.engine != Engine::Samples).then(|| ONE_PROCESS.to_owned()),
            descendants,
            active: Vec::new(),
            queue: BinaryHeap::new(),
            refused: Vec::new(),
            first_error: None,
            budget: RateBudget::new(max_cpu, config.rate_hz, now),
            rate_factor: 1.0,
            start: None,
        }
    }

    fn end_at(&self) -> Option<Nanos> {
        Some(self.start? + self.config.duration?)
    }

    fn is_over(&self) -> bool {
        self.end_at().is_some_and(|end| sys_linux::monotonic() >= end)
    }

    /// Takes in the processes that were found. False when no more is to come.
    fn take_found(&mut self, finder: &Finder, stop: &AtomicBool, to: &mut dyn TreeSink<S>) -> bool {
        // Read before the channel is: what was found last is then not missed.
        let is_over = finder.is_over();
        for found in finder.found.try_iter() {
            match found {
                Found::Python(pid, attached) => {
                    if let Err(why) = self.add(pid, attached, stop, to) {
                        self.refuse(RefusedProcess::new(pid.0, diagnose::brief_command(pid), &why), why);
                    }
                }
                Found::Refused(process, why) => self.refuse(process, why),
            }
        }
        !((is_over || self.is_over()) && self.queue.is_empty())
    }

    fn refuse(&mut self, process: RefusedProcess, why: Error) {
        self.refused.push(process);
        self.first_error.get_or_insert(why);
    }

    fn add(&mut self, pid: Pid, attached: Attached, stop: &AtomicBool, to: &mut dyn TreeSink<S>) -> Result<()> {
        if self.is_over() {
            return Ok(());
        }
        let source = Target::new(pid, attached).config(self.config).source()?;
        let mut sink = to.begin();
        let capture = RunningCapture::begin(pid, source, self.config, &|| !stop.load(Ordering::Relaxed), &mut sink);
        let mut capture = capture.one_of_several();
        self.start = self.start.or(Some(capture.start()));
        capture.end_at = self.end_at();
        capture.set_rate_factor(self.rate_factor);
        self.queue.push(Reverse((capture.due(), self.active.len())));
        self.active.push(Some(ActiveProcess { capture, sink }));
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
            self.active.iter_mut().flatten().for_each(|process| process.capture.set_rate_factor(factor));
        }
        while let Some(Reverse((_, number))) = self.queue.peek().copied().filter(|Reverse((due, _))| *due <= now) {
            self.queue.pop();
            let Some(process) = self.active.get_mut(number).and_then(Option::as_mut) else { continue };
            let before = sys_linux::thread_cpu_time();
            let ended = process.capture.sample(&mut process.sink, &mut |progress, sink| to.progress(progress, sink));
            process.capture.add_cost(sys_linux::thread_cpu_time().saturating_since(before));
            match ended {
                None => self.queue.push(Reverse((process.capture.due(), number))),
                Some(reason) => self.end(number, reason, to),
            }
        }
    }

    fn end(&mut self, number: usize, reason: StopReason, to: &mut dyn TreeSink<S>) {
        if let Some(ActiveProcess { capture, mut sink }) = self.active.get_mut(number).and_then(Option::take) {
            let mut result = capture.finish(reason, &mut sink);
            result.stats.engine_reason.clone_from(&self.engine_reason);
            result.stats.warnings.extend(self.budget.warning(self.config.rate_hz));
            let cpu = self.descendants.as_ref().map(|cpu| cpu.latest().unwrap_or_default());
            result.stats.tree = cpu.map(|cpu| ProcessTree { cpu, refused: self.refused.clone() });
            to.end(result, sink);
        }
    }

    fn finish(&mut self, to: &mut dyn TreeSink<S>) {
        self.descendants.iter_mut().for_each(DescendantMonitor::finish);
        (0..self.active.len()).for_each(|number| self.end(number, StopReason::Stopped, to));
    }
}
