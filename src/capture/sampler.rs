//! The window: looks at the right times, counts those that were late or failed, and ends for one of a few named reasons.

use super::clock::Clock;
use super::exact::ExactMode;
use super::halt;
use super::observe::{Freeze, Looked, Observer};
use super::program::Program;
use crate::error::{Error, ReadError, Result};
use crate::ids::Pid;
use crate::process::futex_watch::Unavailable;
use crate::process::sys_linux;
use crate::python::attach::Python;
use crate::sample::{Sink, TargetFacts, WindowFacts};
use crate::units::Nanos;
use std::sync::atomic::{AtomicBool, Ordering};

/// After so long without one good look the target is located again: it may be ending, or its data may have moved.
const LOST: Nanos = Nanos::from_millis(100);
/// How often a program that has replaced the measured one is asked whether it is Python by now.
const RELOCATE: Nanos = Nanos::from_millis(10);
/// A program that has replaced the measured one may be a launcher; after so long it is what it is.
const NOT_PYTHON: Nanos = Nanos::from_millis(1_000);
/// After so long without one good look the window ends.
const GIVE_UP: Nanos = Nanos::from_millis(2_000);
/// Between two good looks so far apart another program may have started its own interpreter.
const UNSEEN: Nanos = Nanos::from_millis(5);
/// A sleep is cut into pieces of this length, so that a slow rate does not keep one who asked to stop.
const NAP: Nanos = Nanos::from_millis(50);
/// How often the caller hears of the progress.
const TICK: Nanos = Nanos::from_millis(100);

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Looks per second.
    pub rate_hz: f64,
    /// How long; `None` until stopped or the target ends.
    pub duration: Option<Nanos>,
    /// Measure waits by kernel events, where the kernel lets us; else by the looks, with a warning.
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

/// Where the window stands, for a live line and for a recording that may be cut off.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What is measured.
    pub target: TargetFacts,
    /// How, so far.
    pub window: WindowFacts,
}

/// Who hears of the progress, about ten times a second, on the sampling thread.
pub type Tick<'a, S> = dyn FnMut(Progress, &mut S) + 'a;

/// Makes the stopper of threads anew for each program that the process runs.
pub type MakeFreezer<'a> = &'a dyn Fn(Pid) -> Option<Box<dyn Freeze>>;

/// Looks made and lost.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    looks: u64,
    failed: u64,
    missed: u64,
}

/// A window while it is open.
struct Open<'a> {
    pid: Pid,
    target: TargetFacts,
    observer: Observer,
    exact: Option<ExactMode>,
    program: Program,
    freezer: MakeFreezer<'a>,
    counts: Counts,
    torn: u64,
    stopped: Nanos,
    /// The last good look, and the counts then.
    good: (Nanos, Counts),
    /// When the target was last located again.
    sought: Nanos,
    /// The program that was measured is over.
    replaced: bool,
    warnings: Vec<String>,
}

/// Measures one window.
pub fn measure<S: Sink>(
    python: Python,
    plan: Plan,
    freezer: MakeFreezer<'_>,
    stop: &AtomicBool,
    sink: &mut S,
    tick: &mut Tick<'_, S>,
) -> Result<Window> {
    sys_linux::precise_timers();
    sys_linux::wake_soon();
    sys_linux::raise_file_limit();
    let exact = plan.exact.then(|| ExactMode::open(&python));
    let mut open = Open::new(python, freezer);
    open.be_exact(exact);
    let start = sys_linux::monotonic();
    let own = sys_linux::own_cpu();
    let spent = |wall: Nanos| {
        let (wall, cpu) = (wall.as_secs_f64(), sys_linux::own_cpu().since(own).as_secs_f64());
        let profiler_cpu = if wall > 0.0 { cpu / wall } else { 0.0 };
        WindowFacts { begin: start, seconds: wall, rate_hz: plan.rate_hz, profiler_cpu, ..WindowFacts::default() }
    };
    let mut clock = Clock::new(start, plan.rate_hz, start.as_nanos());
    open.good.0 = start;
    let (mut now, mut ticked) = (start, None::<Nanos>);
    let ended = loop {
        let (until, next) = (clock.stands_until(now), clock.next(now));
        let last = plan.duration.is_some_and(|d| next.since(start) > d);
        if let Some(ended) = open.look(now, if last { now } else { until }, sink) {
            break ended;
        }
        open.counts.missed = clock.missed();
        if ticked.is_none_or(|ticked| now.since(ticked) >= TICK) {
            ticked = Some(now);
            tick(Progress { target: open.target(), window: open.window(spent(now.since(start))) }, sink);
        }
        if last {
            break Ended::Done;
        }
        if !sleep(next, stop) {
            break Ended::Stopped;
        }
        now = sys_linux::monotonic();
    };
    let ended = open.unless_replaced(ended);
    if let Ended::Lost(_) = ended {
        // The time in which nothing could be seen is not part of the window.
        (now, open.counts) = open.good;
    }
    let end = now.max(open.observer.booked());
    let seconds = end.since(start).as_secs_f64();
    open.finish(end, sink);
    open.warnings.extend(halt::warning(open.stopped + open.observer.halt.total()));
    let facts = WindowFacts { seconds, ..open.window(spent(sys_linux::monotonic().since(start))) };
    Ok(Window { target: open.target(), facts, ended })
}

/// Sleeps until `until`; false when asked to stop.
pub(super) fn sleep(until: Nanos, stop: &AtomicBool) -> bool {
    loop {
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        let now = sys_linux::monotonic();
        if now >= until {
            return true;
        }
        sys_linux::sleep_until(until.min(now + NAP));
    }
}

impl<'a> Open<'a> {
    fn new(python: Python, freezer: MakeFreezer<'a>) -> Open<'a> {
        let pid = python.pid;
        Open {
            pid,
            target: facts(&python),
            program: Program::of(pid, python.runtime),
            observer: Observer::new(python, freezer(pid)),
            exact: None,
            freezer,
            counts: Counts::default(),
            torn: 0,
            stopped: Nanos::ZERO,
            good: (Nanos::ZERO, Counts::default()),
            sought: Nanos::ZERO,
            replaced: false,
            warnings: Vec::new(),
        }
    }

    /// Looks once, for the time until `until`. `Some`: the window ends.
    fn look(&mut self, now: Nanos, until: Nanos, sink: &mut dyn Sink) -> Option<Ended> {
        let unseen = now.since(self.good.0);
        let doubtful = unseen >= UNSEEN || self.counts.looks != self.good.1.looks;
        self.replaced = self.replaced || (doubtful && self.program.is_over());
        self.counts.looks += 1;
        if !self.replaced {
            let looked = match &mut self.exact {
                Some(exact) => exact.look(&mut self.observer, now, sink),
                None => self.observer.look(now, until, sink),
            };
            match looked {
                Ok(Looked::Fully) => {
                    self.good = (now, self.counts);
                    return None;
                }
                Ok(Looked::Failed | Looked::NoInterpreter) => {}
                Err(e) => return Some(self.ended_by(e)),
            }
        }
        self.counts.failed += 1;
        let every = if self.replaced { RELOCATE } else { LOST };
        if unseen > every && now.since(self.sought) > every {
            self.sought = now;
            return self.find_again(now, sink);
        }
        None
    }

    /// The looks alone are good enough to go on with.
    fn be_exact(&mut self, exact: Option<std::result::Result<ExactMode, Unavailable>>) {
        match exact {
            Some(Ok(exact)) => self.exact = Some(exact),
            Some(Err(why)) => self.warnings.push(format!("waits are sampled, not exact: {why}")),
            None => {}
        }
    }

    /// All that is pending is settled: the window ends, or the program.
    fn finish(&mut self, now: Nanos, sink: &mut dyn Sink) {
        match &mut self.exact {
            Some(exact) => exact.finish(&mut self.observer, now, sink),
            None => self.observer.finish(now, sink),
        }
    }

    fn ended_by(&mut self, error: ReadError) -> Ended {
        match error {
            ReadError::Gone => Ended::TargetEnded,
            // A process on its way out refuses before it is gone.
            ReadError::Refused if !sys_linux::exists(self.pid) => Ended::TargetEnded,
            ReadError::Refused | ReadError::Unmapped { .. } => Ended::Lost(error.to_string()),
        }
    }

    /// No good look for a while: the process may run another program now, or be ending.
    fn find_again(&mut self, now: Nanos, sink: &mut dyn Sink) -> Option<Ended> {
        let unseen = now.since(self.good.0);
        match Python::open(self.pid) {
            Ok(python) if self.replaced || python.runtime != self.observer.runtime() || python.version != self.target.python => {
                self.go_on_with(python, now, sink);
                None
            }
            Err(Error::NoSuchProcess { .. } | Error::Gone { .. }) => Some(Ended::TargetEnded),
            Err(Error::NotPython { what, .. }) if unseen > NOT_PYTHON => {
                Some(Ended::Lost(format!("the process replaced itself by {what}, which is not Python")))
            }
            Err(Error::NotReady { .. }) if unseen > GIVE_UP => {
                Some(Ended::Lost("the program ended its interpreter, but not itself".into()))
            }
            Ok(_) | Err(_) if unseen > GIVE_UP => Some(Ended::Lost("its interpreter could no longer be read".into())),
            Ok(_) | Err(_) => None,
        }
    }

    fn go_on_with(&mut self, python: Python, now: Nanos, sink: &mut dyn Sink) {
        self.warnings.push(format!("the process replaced itself by another program; it runs Python {} since", python.version));
        self.finish(now, sink);
        if let Some(exact) = self.exact.take() {
            self.be_exact(Some(exact.continued(&python)));
        }
        self.torn += self.observer.torn;
        self.stopped += self.observer.halt.total();
        self.target = facts(&python);
        self.program = Program::of(self.pid, python.runtime);
        self.observer = Observer::continued(python, (self.freezer)(self.pid), &self.observer);
        self.replaced = false;
        self.good = (now, self.counts);
    }

    /// A window that ended while another program ran in the measured one's place ended with the measured one.
    fn unless_replaced(&self, ended: Ended) -> Ended {
        match ended {
            // Its address space goes before the process does, which looks like another program for a moment.
            Ended::Done | Ended::Stopped if self.replaced && !crate::process::facts::runs(self.pid) => Ended::TargetEnded,
            Ended::Done | Ended::Stopped if self.replaced => Ended::Lost("the process replaced itself by another program".into()),
            other => other,
        }
    }

    /// What is known of the target by now.
    fn target(&self) -> TargetFacts {
        let observer = &self.observer;
        TargetFacts {
            interpreters: observer.interpreters.max(self.target.interpreters),
            switch_interval_us: observer.interval_us,
            gil_enabled: observer.gil_enabled,
            ..self.target.clone()
        }
    }

    /// What is known of the measuring by now, beside what `window` holds.
    fn window(&self, window: WindowFacts) -> WindowFacts {
        let counts = self.counts;
        let mut facts = WindowFacts {
            looks: counts.looks,
            missed: counts.missed,
            torn: self.torn + self.observer.torn,
            failed: counts.failed,
            warnings: self.warnings.clone(),
            ..window
        };
        if let Some(exact) = &self.exact {
            exact.describe(&mut facts);
        }
        facts
    }
}

/// What is known of a target before the first look.
pub fn facts(python: &Python) -> TargetFacts {
    let limits = crate::process::facts::Limits::of(python.pid);
    TargetFacts {
        pid: python.pid.0,
        python: python.version.clone(),
        executable: crate::process::facts::exe(python.pid).unwrap_or_default(),
        command: crate::process::facts::command(python.pid),
        free_threaded: python.free_threaded,
        gil_enabled: true,
        interpreters: 1,
        cpus: limits.cpus(),
        quota: limits.quota,
        machine_cpus: limits.machine,
        switch_interval_us: None,
    }
}
