//! One capture: takes samples on schedule, counts samples that were missed or failed, follows the
//! process across `exec`, and ends for one of the reasons in [`StopReason`].
//!
//! The span from the first sample to the last is called the window.

use super::address_space::AddressSpace;
use super::descendants::DescendantMonitor;
use super::exact::ExactMode;
use super::pause::PtracePauser;
use super::sampler::{SampleOutcome, Sampler, ThreadPauser};
use super::schedule::SampleSchedule;
use crate::error::{Error, ReadError, Result};
use crate::ids::{Pid, Tid};
use crate::process::futex_tracer::Unavailable;
use crate::process::idle_cpus::IdleCpus;
use crate::process::{kernel_stack, proc_info, sys_linux, threads};
use crate::python::attach::PythonProcess;
use crate::sample::{CaptureStats, Sink, Stop, TargetInfo};
use crate::units::Nanos;
use std::sync::atomic::{AtomicBool, Ordering};

/// After this time without a good sample, gilprof locates the interpreter again: the process may be
/// ending, or its data may have moved.
const RELOCATE_AFTER: Nanos = Nanos::from_millis(100);
/// How often gilprof checks whether a program that replaced the measured one is Python by now.
const RELOCATE_PERIOD: Nanos = Nanos::from_millis(10);
/// A program that replaced the measured one may be a launcher that soon runs `exec` itself. After
/// this time it is taken to stay.
const EXEC_GRACE: Nanos = Nanos::from_millis(1_000);
/// After this time without a good sample the window ends.
const GIVE_UP_AFTER: Nanos = Nanos::from_millis(2_000);
/// In a gap of this length between two good samples, another program may have started its own
/// interpreter.
const RECHECK_EXEC_AFTER: Nanos = Nanos::from_millis(5);
/// Samples after which it is checked although all were good: no sample may fall into the exec.
const RECHECK_EXEC_EVERY: u64 = 16;
/// Sleeps are cut into slices of this length, so that a request to stop is served soon at low
/// rates.
const SLEEP_SLICE: Nanos = Nanos::from_millis(50);
/// So long the stacks of a program with many threads are read before its window begins.
const MAX_PREPARATION: Nanos = Nanos::from_millis(1_000);
/// How often the progress hook is called.
const PROGRESS_PERIOD: Nanos = Nanos::from_millis(100);

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CaptureConfig {
    /// The sampling rate, in samples per second.
    pub rate_hz: f64,
    /// The length of the window; `None`: until stopped, or until the target ends.
    pub duration: Option<Nanos>,
    /// Measure waits from kernel events. Where the kernel does not allow that, waits are sampled,
    /// and a warning says so.
    pub exact: bool,
    /// Stop the thread that holds the GIL while its stack is read.
    pub freeze_holder: bool,
    /// Read all evidence of where a runnable thread is, also what is not needed. Only for
    /// measurements of gilprof itself.
    pub all_evidence: bool,
}

/// Why a window ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The duration has passed.
    Done,
    /// The caller asked to stop.
    Stopped,
    /// The target ended.
    TargetEnded,
    /// The target no longer has a Python interpreter that gilprof can read; the text says why.
    Lost(String),
}

/// A finished capture.
#[derive(Clone, Debug)]
pub struct CaptureResult {
    /// What was measured.
    pub target: TargetInfo,
    /// How the measurement went.
    pub stats: CaptureStats,
    /// Why the window ended.
    pub stop_reason: StopReason,
}

/// The state of a running capture, for a progress line and for a recording that may be cut off.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What is measured.
    pub target: TargetInfo,
    /// How the measurement goes so far.
    pub window: CaptureStats,
}

/// Called about ten times a second on the sampling thread.
pub type ProgressHook<'a, S> = dyn FnMut(Progress, &mut S) + 'a;

/// Samples taken, failed and missed.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    samples: u64,
    failed: u64,
    missed: u64,
}

/// A running capture.
struct ActiveCapture {
    pid: Pid,
    /// The file of the measured runtime.
    path: String,
    target: TargetInfo,
    sampler: Sampler,
    exact: Option<ExactMode>,
    /// The counts and warnings of exact mode, if it ended with an earlier program.
    exact_before: CaptureStats,
    address_space: AddressSpace,
    freeze_holder: bool,
    counts: Counts,
    torn: u64,
    stops: Vec<Stop>,
    shortened: u64,
    /// The time between two samples.
    period: Nanos,
    /// The time of the last good sample, and the counts then.
    last_good: (Nanos, Counts),
    /// When gilprof last located the interpreter again.
    relocated_at: Nanos,
    /// The measured program has been replaced by another one.
    replaced: bool,
    warnings: Vec<String>,
}

/// Measures one window.
pub fn capture<S: Sink>(
    python: PythonProcess,
    config: CaptureConfig,
    stop: &AtomicBool,
    sink: &mut S,
    on_progress: &mut ProgressHook<'_, S>,
) -> Result<CaptureResult> {
    // Before this thread's own settings, which a new thread would inherit.
    let mut descendants = DescendantMonitor::start(python.pid);
    sys_linux::set_timer_slack();
    sys_linux::request_short_timeslice();
    sys_linux::raise_nofile_limit();
    let exact = config.exact.then(|| ExactMode::open(&python));
    let mut active = ActiveCapture::new(python, config.freeze_holder);
    active.period = Nanos::from_nanos((1e9 / config.rate_hz) as u64);
    active.sampler.all_evidence = config.all_evidence;
    active.enable_exact(exact);
    active.prepare(stop, sink);
    let start = sys_linux::monotonic();
    let (own_cpu, idle) = (sys_linux::process_cpu_time(), IdleCpus::start(Tid(active.pid.0)));
    let stats_at = |wall: Nanos| {
        let (wall, cpu) = (wall.as_secs_f64(), sys_linux::process_cpu_time().saturating_since(own_cpu).as_secs_f64());
        let profiler_cpu = if wall > 0.0 { cpu / wall } else { 0.0 };
        CaptureStats { begin: start, seconds: wall, rate_hz: config.rate_hz, profiler_cpu, ..CaptureStats::default() }
    };
    let mut schedule = SampleSchedule::new(start, config.rate_hz, start.as_nanos());
    active.last_good.0 = start;
    let (mut now, mut reported_at) = (start, None::<Nanos>);
    let stop_reason = loop {
        let (until, next) = (schedule.weight_until(now), schedule.next(now));
        let last = config.duration.is_some_and(|d| next.saturating_since(start) > d);
        if let Some(stop_reason) = active.sample_once(now, if last { now } else { until }, sink) {
            break stop_reason;
        }
        active.counts.missed = schedule.missed();
        if reported_at.is_none_or(|reported_at| now.saturating_since(reported_at) >= PROGRESS_PERIOD) {
            reported_at = Some(now);
            let base = CaptureStats { descendants: descendants.latest(), ..stats_at(now.saturating_since(start)) };
            on_progress(Progress { target: active.target(), window: active.stats(base) }, sink);
        }
        if last {
            break StopReason::Done;
        }
        if !sleep(next, stop) {
            break StopReason::Stopped;
        }
        now = sys_linux::monotonic();
    };
    let stop_reason = active.final_stop_reason(stop_reason);
    if let StopReason::Lost(_) = stop_reason {
        // The time after the last good sample is not part of the window.
        (now, active.counts) = active.last_good;
    }
    // Not for every progress report: on a machine with hundreds of CPUs the file is long.
    let idle_cpus = idle.as_ref().and_then(IdleCpus::mean);
    let end = now.max(active.sampler.accounted_until());
    let seconds = end.saturating_since(start).as_secs_f64();
    active.finish(end, sink);
    active.warnings.extend(active.sampler.pauser_warning());
    let stats = active.stats(stats_at(sys_linux::monotonic().saturating_since(start)));
    descendants.finish();
    let idle_cpus = idle_cpus.map(|idle| idle + stats.profiler_cpu);
    let stats = CaptureStats { seconds, idle_cpus, descendants: descendants.latest(), ..stats };
    let target = TargetInfo { cpus: active.usable_cpus(), ..active.target() };
    Ok(CaptureResult { target, stats, stop_reason })
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
        sys_linux::sleep_until(until.min(now + SLEEP_SLICE));
    }
}

impl ActiveCapture {
    fn new(python: PythonProcess, freeze_holder: bool) -> ActiveCapture {
        let pid = python.pid;
        ActiveCapture {
            pid,
            path: python.path.clone(),
            warnings: python.runtimes_warning.iter().cloned().collect(),
            target: target_info(&python),
            address_space: AddressSpace::open(pid, python.runtime),
            sampler: Sampler::new(python, pauser(freeze_holder)),
            exact: None,
            exact_before: CaptureStats::default(),
            freeze_holder,
            counts: Counts::default(),
            torn: 0,
            stops: Vec::new(),
            shortened: 0,
            period: Nanos::ZERO,
            last_good: (Nanos::ZERO, Counts::default()),
            relocated_at: Nanos::ZERO,
            replaced: false,
        }
    }

    /// Finds the threads before the window begins. What goes wrong here the first sample reports.
    fn prepare(&mut self, stop: &AtomicBool, sink: &mut dyn Sink) {
        let now = sys_linux::monotonic();
        let may_go_on = || !stop.load(Ordering::Relaxed) && sys_linux::monotonic().saturating_since(now) < MAX_PREPARATION;
        let _ = match &mut self.exact {
            Some(exact) => exact.prepare(&mut self.sampler, now, &may_go_on, sink),
            None => self.sampler.prepare(now, &may_go_on, sink),
        };
    }

    /// Takes one sample, which stands for the time until `until`. Returns a reason if the window
    /// ends.
    fn sample_once(&mut self, now: Nanos, until: Nanos, sink: &mut dyn Sink) -> Option<StopReason> {
        let since_good = now.saturating_since(self.last_good.0);
        let bad_before = self.counts.samples != self.last_good.1.samples;
        let recheck = since_good >= RECHECK_EXEC_AFTER || bad_before || self.counts.samples.is_multiple_of(RECHECK_EXEC_EVERY);
        self.replaced = self.replaced || (recheck && self.address_space.is_replaced());
        self.counts.samples += 1;
        if !self.replaced {
            // The second half of the period is left for what follows, and for the program.
            self.sampler.stacks_until = Some(now + Nanos::from_nanos(self.period.as_nanos() / 2));
            let outcome = match &mut self.exact {
                Some(exact) => exact.sample(&mut self.sampler, now, sink),
                None => self.sampler.sample(now, until, sink),
            };
            match outcome {
                Ok(SampleOutcome::Complete) => {
                    self.last_good = (now, self.counts);
                    return None;
                }
                Ok(SampleOutcome::Failed | SampleOutcome::NoInterpreter) => {}
                Err(e) => return Some(self.reason_of(e)),
            }
        }
        self.counts.failed += 1;
        let every = if self.replaced { RELOCATE_PERIOD } else { RELOCATE_AFTER };
        if since_good > every && now.saturating_since(self.relocated_at) > every {
            self.relocated_at = now;
            return self.relocate(now, sink);
        }
        None
    }

    /// Turns exact mode on. Where it is not available, a warning is added and waits are sampled.
    fn enable_exact(&mut self, exact: Option<std::result::Result<ExactMode, Unavailable>>) {
        match exact {
            Some(Ok(exact)) => self.exact = Some(exact),
            Some(Err(why)) => self.warnings.push(format!("waits are sampled, not exact: {why}")),
            None => {}
        }
    }

    /// Resolves all pending time: the window ends, or the program.
    fn finish(&mut self, now: Nanos, sink: &mut dyn Sink) {
        match &mut self.exact {
            Some(exact) => exact.finish(&mut self.sampler, now, sink),
            None => self.sampler.finish(now, sink),
        }
    }

    fn reason_of(&mut self, error: ReadError) -> StopReason {
        match error {
            ReadError::Gone => StopReason::TargetEnded,
            // An exiting process refuses access before it is gone.
            ReadError::Refused if !sys_linux::exists(self.pid) => StopReason::TargetEnded,
            ReadError::Refused | ReadError::Unmapped { .. } => StopReason::Lost(error.to_string()),
        }
    }

    /// Locates the interpreter after some time without a good sample: the process may run another
    /// program now, or be ending.
    fn relocate(&mut self, now: Nanos, sink: &mut dyn Sink) -> Option<StopReason> {
        let since_good = now.saturating_since(self.last_good.0);
        match PythonProcess::open_again(self.pid, &self.path) {
            Ok(python) if self.replaced || python.runtime != self.sampler.runtime() || python.version != self.target.python => {
                self.switch_program(python, now, sink);
                None
            }
            Err(Error::NoSuchProcess { .. } | Error::Gone { .. }) => Some(StopReason::TargetEnded),
            found => reason_lost(found.as_ref().err(), self.replaced, since_good).map(StopReason::Lost),
        }
    }

    fn switch_program(&mut self, python: PythonProcess, now: Nanos, sink: &mut dyn Sink) {
        self.warnings.push(format!("the process replaced itself by another program; it runs Python {} since", python.version));
        self.warnings.extend(python.runtimes_warning.clone());
        self.path.clone_from(&python.path);
        self.finish(now, sink);
        if let Some(exact) = self.exact.take() {
            let mut before = CaptureStats::default();
            exact.add_stats(&mut before);
            self.enable_exact(Some(exact.for_new_program(&python)));
            if self.exact.is_none() {
                self.exact_before = before;
            }
        }
        self.torn += self.sampler.stats.torn;
        self.shortened += self.sampler.stats.shortened;
        self.warnings.extend(self.sampler.pauser_warning());
        self.stops.extend(self.sampler.stop_detector.stops());
        self.target = target_info(&python);
        self.address_space = AddressSpace::open(self.pid, python.runtime);
        self.sampler = Sampler::continued(python, pauser(self.freeze_holder), &self.sampler);
        self.replaced = false;
        self.last_good = (now, self.counts);
    }

    /// Corrects the reason of a window that ended while another program had replaced the measured
    /// one: such a window ended with the measured program.
    fn final_stop_reason(&self, stop_reason: StopReason) -> StopReason {
        match stop_reason {
            // A process loses its address space before it ends, which is taken for another program
            // for a moment.
            StopReason::Done if self.replaced && !proc_info::is_running(self.pid) => StopReason::TargetEnded,
            // The end of a command that gilprof started may be known before a sample fails.
            StopReason::Stopped if !proc_info::is_running(self.pid) => StopReason::TargetEnded,
            StopReason::Done | StopReason::Stopped if self.replaced => {
                StopReason::Lost("the process replaced itself by another program".into())
            }
            other => other,
        }
    }

    /// What is known of the target so far.
    fn target(&self) -> TargetInfo {
        let sampler = &self.sampler;
        TargetInfo {
            interpreters: sampler.stats.interpreters.max(self.target.interpreters),
            switch_interval_us: sampler.stats.interval_us,
            gil_enabled: sampler.stats.gil_enabled,
            ..self.target.clone()
        }
    }

    /// The CPUs that the threads which worked may use. Known once the window has ended.
    fn usable_cpus(&self) -> f64 {
        let affinity = self.sampler.working_cpus().count().map(f64::from);
        affinity.map_or(self.target.cpus, |affinity| self.target.quota.map_or(affinity, |quota| quota.min(affinity)))
    }

    /// How the measurement went so far, on top of what `base` holds.
    fn stats(&self, base: CaptureStats) -> CaptureStats {
        let counts = self.counts;
        let mut stats = CaptureStats {
            samples: counts.samples,
            missed: counts.missed,
            torn: self.torn + self.sampler.stats.torn,
            failed: counts.failed,
            kernel_stacks: Some(kernel_stack::proven()),
            switch_counts: !kernel_stack::readable() && threads::switch_counts_are_usable(),
            stops: self.stops.iter().cloned().chain(self.sampler.stop_detector.stops()).collect(),
            events: self.exact_before.events,
            lost_events: self.exact_before.lost_events,
            unmet_waits: self.exact_before.unmet_waits,
            warnings: self.warnings.iter().chain(&self.exact_before.warnings).cloned().collect(),
            ..base
        };
        let shortened = self.shortened + self.sampler.stats.shortened;
        if shortened > 0 {
            stats.warnings.push(format!(
                "{shortened} stacks were too deep to be read whole at this rate; frames in their middle are left out (to read them, lower --rate)"
            ));
        }
        if let Some(exact) = &self.exact {
            exact.add_stats(&mut stats);
        }
        stats
    }
}

/// Why the window ends after this time without a good sample; `None`: it does not end yet. `error`:
/// the search for an interpreter failed. `replaced`: another program replaced the measured one.
fn reason_lost(error: Option<&Error>, replaced: bool, since_good: Nanos) -> Option<String> {
    match error {
        Some(Error::NotPython { what, .. }) if replaced && since_good > EXEC_GRACE => {
            Some(format!("the process replaced itself by {what}, which is not Python"))
        }
        _ if since_good <= GIVE_UP_AFTER => None,
        Some(Error::NotPython { .. }) => Some("the program unloaded its Python".into()),
        Some(Error::NotReady { .. }) if replaced => {
            Some("the process replaced itself by another Python, which has not created its interpreter".into())
        }
        Some(Error::NotReady { .. }) => Some("the program ended its interpreter, but not itself".into()),
        _ => Some("its interpreter could no longer be read".into()),
    }
}

/// A pauser for the program that the process runs now, if the user asked for it.
pub fn pauser(freeze_holder: bool) -> Option<Box<dyn ThreadPauser>> {
    freeze_holder.then(|| -> Box<dyn ThreadPauser> { Box::new(PtracePauser::default()) })
}

/// What is known of a target before the first sample.
pub fn target_info(python: &PythonProcess) -> TargetInfo {
    let limits = proc_info::CpuLimits::from_pid(python.pid);
    TargetInfo {
        pid: python.pid.0,
        python: python.version.clone(),
        executable: proc_info::exe(python.pid).unwrap_or_default(),
        command: proc_info::command(python.pid),
        free_threaded: python.free_threaded,
        gil_enabled: true,
        interpreters: 1,
        cpus: limits.cpus(),
        quota: limits.quota,
        machine_cpus: limits.machine,
        switch_interval_us: None,
    }
}

#[cfg(test)]
mod tests;
