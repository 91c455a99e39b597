//! The window: looks at the right times, counts those that were late or failed, and ends for one of a few named reasons.

use super::clock::Clock;
use super::exact::ExactMode;
use super::observe::{Freeze, Looked, Observer};
use crate::error::{Error, Result};
use crate::ids::Pid;
use crate::process::memory::ReadError;
use crate::process::sys_linux;
use crate::python::attach::Python;
use crate::sample::{Sink, TargetFacts, WindowFacts};
use crate::units::Nanos;
use std::sync::atomic::{AtomicBool, Ordering};

/// After so long without one good look the target is located again: it may have replaced itself by another program.
const LOST: Nanos = Nanos::from_millis(100);
/// After so long without one good look the window ends.
const GIVE_UP: Nanos = Nanos::from_millis(2_000);
/// How often the caller hears of the progress.
const TICK: Nanos = Nanos::from_millis(100);

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Looks per second.
    pub rate_hz: f64,
    /// How long; `None` until stopped or the target ends.
    pub duration: Option<Nanos>,
    /// Measure waits by kernel events, where the kernel lets us.
    pub exact: bool,
}

/// Why a window ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The duration is over.
    Done,
    /// It was asked to stop.
    Stopped,
    /// The target ended.
    TargetEnded,
    /// The target is no longer a Python that can be read; why.
    Lost(String),
}

/// A finished window.
#[derive(Clone, Debug)]
pub struct Window {
    /// What was measured.
    pub target: TargetFacts,
    /// How.
    pub facts: WindowFacts,
    /// Why it ended.
    pub ended: Ended,
}

/// Where the window stands, for a live line.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Time since the first look.
    pub elapsed: Nanos,
    /// Looks made.
    pub looks: u64,
}

/// Makes the stopper of threads anew for each program that the process runs.
pub type MakeFreezer<'a> = &'a dyn Fn(Pid) -> Option<Box<dyn Freeze>>;

struct Counts {
    looks: u64,
    failed: u64,
    torn: u64,
    last_good: Nanos,
    /// When the target was last located again.
    sought: Nanos,
    warnings: Vec<String>,
}

/// Measures one window. `tick` hears of the progress about ten times a second, on this thread.
pub fn measure<S: Sink>(
    python: Python,
    plan: Plan,
    freezer: MakeFreezer<'_>,
    stop: &AtomicBool,
    sink: &mut S,
    tick: &mut dyn FnMut(Progress, &S),
) -> Result<Window> {
    sys_linux::precise_timers();
    sys_linux::short_slice();
    sys_linux::raise_file_limit();
    let pid = python.pid;
    let mut target = facts(&python);
    let mut warnings = Vec::new();
    let mut exact = if plan.exact { exact_mode(&python, &mut warnings) } else { None };
    let mut observer = Observer::new(python, freezer(pid));
    let start = sys_linux::monotonic();
    let own = sys_linux::own_cpu();
    let mut clock = Clock::new(start, plan.rate_hz, start.as_nanos());
    let mut counts = Counts { looks: 0, failed: 0, torn: 0, last_good: start, sought: start, warnings };
    let (mut now, mut ticked) = (start, start);
    let ended = loop {
        counts.looks += 1;
        match look(&mut observer, &mut exact, now, sink) {
            Ok(Looked::Fully) => counts.last_good = now,
            Ok(Looked::Failed | Looked::NoInterpreter) => counts.failed += 1,
            Err(e) => break ended_by(e, pid, &mut counts),
        }
        if now.since(counts.last_good) > LOST && now.since(counts.sought) > LOST {
            counts.sought = now;
            if let Some(ended) = find_again(pid, (&mut observer, &mut exact), &mut target, freezer, sink, now, &mut counts) {
                break ended;
            }
        }
        if now.since(ticked) >= TICK {
            ticked = now;
            tick(Progress { elapsed: now.since(start), looks: counts.looks }, sink);
        }
        let next = clock.next(sys_linux::monotonic());
        if plan.duration.is_some_and(|d| next.since(start) > d) {
            break Ended::Done;
        }
        while sys_linux::monotonic() < next && !stop.load(Ordering::Relaxed) {
            sys_linux::sleep_until(next);
        }
        if stop.load(Ordering::Relaxed) {
            break Ended::Stopped;
        }
        now = sys_linux::monotonic();
    };
    let seconds = now.since(start).as_secs_f64();
    finish(&mut observer, &mut exact, now, sink);
    let wall = sys_linux::monotonic().since(start).as_secs_f64();
    target.interpreters = observer.interpreters.max(target.interpreters);
    target.switch_interval_us = observer.interval_us;
    target.gil_enabled = observer.gil_enabled;
    let mut facts = WindowFacts {
        seconds,
        rate_hz: plan.rate_hz,
        looks: counts.looks,
        missed: clock.missed(),
        torn: counts.torn + observer.torn,
        failed: counts.failed,
        profiler_cpu: if wall > 0.0 { sys_linux::own_cpu().since(own).as_secs_f64() / wall } else { 0.0 },
        warnings: counts.warnings,
        ..WindowFacts::default()
    };
    if let Some(exact) = exact {
        exact.describe(&mut facts);
    }
    Ok(Window { target, facts, ended })
}

/// Exact mode, or a warning that says why not: the looks alone are good enough to go on.
fn exact_mode(python: &Python, warnings: &mut Vec<String>) -> Option<ExactMode> {
    ExactMode::open(python).map_err(|why| warnings.push(format!("waits are sampled, not exact: {why}"))).ok()
}

fn look(observer: &mut Observer, exact: &mut Option<ExactMode>, now: Nanos, sink: &mut dyn Sink) -> std::result::Result<Looked, ReadError> {
    match exact {
        Some(exact) => exact.look(observer, now, sink),
        None => observer.look(now, sink),
    }
}

fn finish(observer: &mut Observer, exact: &mut Option<ExactMode>, now: Nanos, sink: &mut dyn Sink) {
    match exact {
        Some(exact) => exact.finish(observer, now, sink),
        None => observer.finish(now, sink),
    }
}

fn ended_by(error: ReadError, pid: Pid, counts: &mut Counts) -> Ended {
    match error {
        ReadError::Gone => Ended::TargetEnded,
        // A process on its way out refuses before it is gone.
        ReadError::Refused if !sys_linux::exists(pid) => Ended::TargetEnded,
        ReadError::Refused | ReadError::Unmapped { .. } => {
            counts.failed += 1;
            Ended::Lost(error.to_string())
        }
    }
}

/// No good look for a while: the process may run another program now (`exec`), or be ending. `Some`: the window ends.
fn find_again(
    pid: Pid,
    (observer, exact): (&mut Observer, &mut Option<ExactMode>),
    target: &mut TargetFacts,
    freezer: MakeFreezer<'_>,
    sink: &mut dyn Sink,
    now: Nanos,
    counts: &mut Counts,
) -> Option<Ended> {
    match Python::open(pid) {
        Ok(python) if python.runtime != observer.runtime() || python.version != target.python => {
            counts.warnings.push(format!("the process replaced itself by another program; it runs Python {} since", python.version));
            finish(observer, exact, now, sink);
            if exact.as_mut().is_some_and(|e| e.retarget(&python).is_err()) {
                counts.warnings.push("exact mode could not follow the new program; its waits are sampled".into());
            }
            counts.torn += observer.torn;
            *target = facts(&python);
            *observer = Observer::continued(python, freezer(pid), observer);
            counts.last_good = now;
            None
        }
        Err(Error::NoSuchProcess { .. } | Error::Gone { .. }) => Some(Ended::TargetEnded),
        Err(e @ Error::NotPython { .. }) => Some(Ended::Lost(e.to_string())),
        Ok(_) | Err(_) if now.since(counts.last_good) > GIVE_UP => Some(Ended::Lost("its interpreter could no longer be read".into())),
        Ok(_) | Err(_) => None,
    }
}

/// What is known of a target before the first look.
pub fn facts(python: &Python) -> TargetFacts {
    TargetFacts {
        pid: python.pid.0,
        python: python.version.clone(),
        executable: crate::process::facts::exe(python.pid).unwrap_or_default(),
        command: crate::process::facts::command(python.pid),
        free_threaded: python.free_threaded,
        gil_enabled: true,
        interpreters: 1,
        cpus: crate::process::facts::cpus(python.pid),
        switch_interval_us: None,
    }
}
