//! The capture of one process, in progress: takes the samples that are due, and counts those that
//! were missed or failed.
//!
//! One of several processes may rest: while it is idle, and the kernel counts no CPU time of it,
//! its samples read nothing, and are few. That it has woken is noticed by its CPU time, at the next
//! sample at the latest.

use super::descendants::DescendantMonitor;
use super::schedule::SampleSchedule;
use super::session::{CaptureConfig, CaptureResult, Progress, ProgressHook, SampleSource, Sampled, StopReason};
use crate::ids::{Pid, Tid};
use crate::process::idle_cpus::IdleCpus;
use crate::process::sys_linux;
use crate::sample::{CaptureStats, SampleCounts, Sink};
use crate::units::Nanos;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sleeps are cut into slices of this length, so that a request to stop is served soon at low
/// rates.
const SLEEP_SLICE: Nanos = Nanos::from_millis(50);
/// So long the stacks of a program with many threads are read before its window begins.
const MAX_PREPARATION: Nanos = Nanos::from_millis(1_000);
/// How often the progress hook is called, and how often for a process that rests.
const PROGRESS_PERIOD: Nanos = Nanos::from_millis(100);
const RESTING_PROGRESS_PERIOD: Nanos = Nanos::from_millis(1_000);
/// The time between two samples of a process that rests. All such processes are sampled together,
/// at multiples of it.
const REST: Nanos = Nanos::from_millis(10);
/// So often a process that rests is sampled in full: not everything that happens to it uses its CPU
/// time.
const MAX_REST: Nanos = Nanos::from_millis(200);

/// A capture in progress.
pub struct RunningCapture {
    pid: Pid,
    source: Box<dyn SampleSource>,
    /// The requested rate, and by what it is multiplied to keep gilprof's own cost low.
    rate_hz: f64,
    rate_factor: f64,
    poll_rate: f64,
    schedule: SampleSchedule,
    /// The slots that were missed before this schedule began.
    missed_before: u64,
    counts: SampleCounts,
    start: Nanos,
    due: Nanos,
    /// The time of the last sample.
    sampled_at: Nanos,
    /// When the window ends; `None`: it has no limit.
    pub end_at: Option<Nanos>,
    last_good: (Nanos, SampleCounts),
    reported_at: Option<Nanos>,
    /// gilprof's CPU time when the window began.
    cpu_at_start: Nanos,
    /// The cost of this capture's samples, if it is one of several; else all is its own.
    cost: Option<Nanos>,
    idle_cpus: Option<IdleCpus>,
    /// Whether the process may rest.
    may_rest: bool,
    /// Whether the process was idle in the last sample.
    was_idle: bool,
    rest: Option<Rest>,
}

/// A process that rests.
#[derive(Clone, Copy, Debug)]
struct Rest {
    /// Its CPU time when it was last sampled in full, and when that was.
    cpu: Option<Nanos>,
    since: Nanos,
}

impl RunningCapture {
    /// Prepares the source, while `may_go_on`. The first sample is due at once.
    pub fn begin(
        pid: Pid,
        mut source: Box<dyn SampleSource>,
        config: CaptureConfig,
        may_go_on: &dyn Fn() -> bool,
        sink: &mut dyn Sink,
    ) -> RunningCapture {
        let rate_hz = config.rate_hz.min(source.max_rate());
        let prepared = sys_linux::monotonic();
        source.prepare(prepared, &|| may_go_on() && sys_linux::monotonic().saturating_since(prepared) < MAX_PREPARATION, sink);
        let start = sys_linux::monotonic();
        let poll_rate = source.poll_rate(rate_hz);
        RunningCapture {
            pid,
            source,
            rate_hz,
            rate_factor: 1.0,
            poll_rate,
            schedule: SampleSchedule::new(start, poll_rate, start.as_nanos()),
            missed_before: 0,
            counts: SampleCounts::default(),
            start,
            due: start,
            sampled_at: start,
            end_at: None,
            last_good: (start, SampleCounts::default()),
            reported_at: None,
            cpu_at_start: sys_linux::process_cpu_time(),
            cost: None,
            idle_cpus: IdleCpus::start(Tid(pid.0)),
            may_rest: false,
            was_idle: false,
            rest: None,
        }
    }

    /// The same, of one of several processes: it rests while it is idle.
    pub fn one_of_several(self) -> RunningCapture {
        RunningCapture { may_rest: true, cost: Some(Nanos::ZERO), ..self }
    }

    /// When the window began.
    pub fn start(&self) -> Nanos {
        self.start
    }

    /// When the next sample is due.
    pub fn due(&self) -> Nanos {
        self.due
    }

    /// Multiplies the requested rate from the next sample on.
    pub fn set_rate_factor(&mut self, factor: f64) {
        self.rate_factor = factor;
    }

    /// Adds to what this capture's samples have cost.
    pub fn add_cost(&mut self, cpu: Nanos) {
        self.cost.iter_mut().for_each(|cost| *cost += cpu);
    }

    /// Takes the sample that is due. Returns why the window ends, if it does.
    pub fn sample<S: Sink>(&mut self, sink: &mut S, on_progress: &mut ProgressHook<'_, S>) -> Option<StopReason> {
        let now = sys_linux::monotonic();
        let before = std::mem::replace(&mut self.sampled_at, now);
        if let Some(ended) = self.rest_on(before, now, sink, on_progress) {
            return ended;
        }
        let (until, next) = (self.schedule.weight_until(now), self.schedule.next(now));
        let is_last = self.end_at.is_some_and(|end| next > end);
        self.counts.samples += 1;
        // Read before the sample: what runs from now on is not missed.
        let cpu = if self.was_idle { sys_linux::cpu_time_of(self.pid) } else { None };
        match self.source.sample(now, if is_last { now } else { until }, sink) {
            Sampled::Complete => self.last_good = (now, self.counts),
            Sampled::Failed => self.counts.failed += 1,
            Sampled::Switched => {
                self.counts.failed += 1;
                self.last_good = (now, self.counts);
            }
            Sampled::Ended(reason) => return Some(reason),
        }
        self.counts.missed = self.missed_before + self.schedule.missed();
        self.report(now, PROGRESS_PERIOD, sink, on_progress);
        if is_last {
            return Some(StopReason::Done);
        }
        self.due = next;
        let poll_rate = self.source.poll_rate(self.rate_hz) * self.rate_factor;
        if poll_rate != self.poll_rate {
            // The kernel no longer takes the samples, or gilprof costs too much.
            self.poll_rate = poll_rate;
            self.begin_schedule(sys_linux::monotonic());
        }
        let is_idle = self.may_rest && self.source.is_idle();
        if is_idle && std::mem::replace(&mut self.was_idle, is_idle) {
            self.rest = Some(Rest { cpu, since: now });
            self.due = next_rest(now);
        }
        self.was_idle = is_idle;
        None
    }

    /// Takes the sample of a process that still rests. `None`: it does not, and a full sample is
    /// due.
    fn rest_on<S: Sink>(
        &mut self,
        before: Nanos,
        now: Nanos,
        sink: &mut S,
        on_progress: &mut ProgressHook<'_, S>,
    ) -> Option<Option<StopReason>> {
        let rest = self.rest?;
        let next = next_rest(now);
        let is_last = self.end_at.is_some_and(|end| next > end);
        let has_run = rest.cpu.is_none() || sys_linux::cpu_time_of(self.pid) != rest.cpu;
        if has_run || (!is_last && now.saturating_since(rest.since) >= MAX_REST) {
            self.rest = None;
            self.begin_schedule(now);
            self.due = now;
            return None;
        }
        // It stands for all samples that were due since the last one: each would have found the
        // same.
        self.counts.samples += ((now.saturating_since(before).as_secs_f64() * self.poll_rate) as u64).max(1);
        self.source.sample_idle(now, sink);
        self.last_good = (now, self.counts);
        self.report(now, RESTING_PROGRESS_PERIOD, sink, on_progress);
        self.due = next;
        Some(is_last.then_some(StopReason::Done))
    }

    fn begin_schedule(&mut self, at: Nanos) {
        self.missed_before = self.counts.missed;
        self.schedule = SampleSchedule::new(at, self.poll_rate, at.as_nanos());
        self.due = at;
    }

    fn report<S: Sink>(&mut self, now: Nanos, period: Nanos, sink: &mut S, on_progress: &mut ProgressHook<'_, S>) {
        if self.reported_at.is_none_or(|reported_at| now.saturating_since(reported_at) >= period) {
            self.reported_at = Some(now);
            on_progress(Progress { target: self.source.target(), window: self.stats_at(now) }, sink);
        }
    }

    fn stats_at(&self, now: Nanos) -> CaptureStats {
        let seconds = now.saturating_since(self.start).as_secs_f64();
        let cpu = self.cost.unwrap_or_else(|| self.whole_cost());
        let profiler_cpu = if seconds > 0.0 { cpu.as_secs_f64() / seconds } else { 0.0 };
        let (begin, rate_hz, counts) = (self.start, self.rate_hz, self.counts);
        let mut stats = CaptureStats { begin, seconds, rate_hz, counts, profiler_cpu, ..CaptureStats::default() };
        self.source.fill_stats(&mut stats);
        stats
    }

    /// All that gilprof has cost since the window began.
    fn whole_cost(&self) -> Nanos {
        sys_linux::process_cpu_time().saturating_since(self.cpu_at_start)
    }

    /// Resolves all pending time: the window ends.
    pub fn finish(mut self, reason: StopReason, sink: &mut dyn Sink) -> CaptureResult {
        let stop_reason = self.source.correct(reason);
        if let StopReason::Lost(_) = stop_reason {
            // The time after the last good sample is not part of the window.
            (self.sampled_at, self.counts) = self.last_good;
        }
        // Not for every progress report: on a machine with hundreds of CPUs the file is long.
        let idle_cpus = self.idle_cpus.as_ref().and_then(IdleCpus::mean);
        let end = self.sampled_at.max(self.source.accounted_until());
        self.source.finish(end, sink);
        let now = sys_linux::monotonic();
        let stats = self.stats_at(now);
        let cost = self.whole_cost().as_secs_f64() / now.saturating_since(self.start).as_secs_f64().max(1e-9);
        let idle_cpus = idle_cpus.map(|idle| idle + cost);
        let stats = CaptureStats { seconds: end.saturating_since(self.start).as_secs_f64(), idle_cpus, ..stats };
        CaptureResult { target: self.source.target(), stats, stop_reason }
    }
}

/// Measures one window of the process `pid`.
pub fn capture<S: Sink>(
    pid: Pid,
    source: Box<dyn SampleSource>,
    config: CaptureConfig,
    stop: &AtomicBool,
    sink: &mut S,
    on_progress: &mut ProgressHook<'_, S>,
) -> CaptureResult {
    // Before the settings that the source makes for this thread: a new thread would inherit them.
    let mut descendants = DescendantMonitor::start(pid);
    let mut capture = RunningCapture::begin(pid, source, config, &|| !stop.load(Ordering::Relaxed), sink);
    capture.end_at = config.duration.map(|duration| capture.start() + duration);
    let mut reason = None;
    while reason.is_none() {
        reason = if sleep(capture.due(), stop) {
            capture.sample(sink, &mut |mut progress, sink| {
                progress.window.descendants = descendants.latest();
                on_progress(progress, sink);
            })
        } else {
            Some(StopReason::Stopped)
        };
    }
    let mut result = capture.finish(reason.unwrap_or(StopReason::Done), sink);
    descendants.finish();
    result.stats.descendants = descendants.latest();
    result
}

/// Sleeps until `until`; false when asked to stop.
pub fn sleep(until: Nanos, stop: &AtomicBool) -> bool {
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

/// When a process that rests is sampled next.
fn next_rest(now: Nanos) -> Nanos {
    Nanos::from_nanos((now.as_nanos() / REST.as_nanos() + 1) * REST.as_nanos())
}
