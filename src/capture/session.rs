//! One capture: takes samples on schedule, counts samples that were missed or failed, and ends for
//! one of the reasons in [`StopReason`].
//!
//! The span from the first sample to the last is called the window.

use super::descendants::DescendantMonitor;
use super::schedule::SampleSchedule;
use crate::ids::{Pid, Tid};
use crate::process::idle_cpus::IdleCpus;
use crate::process::sys_linux;
use crate::sample::{CaptureStats, SampleCounts, Sink, TargetInfo};
use crate::units::Nanos;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sleeps are cut into slices of this length, so that a request to stop is served soon at low
/// rates.
const SLEEP_SLICE: Nanos = Nanos::from_millis(50);
/// So long the stacks of a program with many threads are read before its window begins.
const MAX_PREPARATION: Nanos = Nanos::from_millis(1_000);
/// How often the progress hook is called.
const PROGRESS_PERIOD: Nanos = Nanos::from_millis(100);

/// How to measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CaptureConfig {
    /// The sampling rate, in samples per second.
    pub rate_hz: f64,
    /// The length of the window; `None`: until stopped, or until the target ends.
    pub duration: Option<Nanos>,
    /// What measures. Where the kernel does not allow that, the program is sampled.
    pub engine: Engine,
    /// Stop the thread that holds the GIL while its stack is read.
    pub freeze_holder: bool,
    /// Read all evidence of where a runnable thread is, also what is not needed. Only for
    /// measurements of gilprof itself.
    pub all_evidence: bool,
}

impl Default for CaptureConfig {
    /// A thousand samples per second, until stopped.
    fn default() -> CaptureConfig {
        CaptureConfig { rate_hz: 1000.0, duration: None, engine: Engine::Samples, freeze_holder: false, all_evidence: false }
    }
}

/// What measures a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// Samples of the process, which gilprof takes.
    #[default]
    Samples,
    /// Kernel events, and a clock in the kernel.
    Kernel,
    /// [`Engine::Kernel`] where the kernel allows that, else [`Engine::Samples`]. Which one, and
    /// what is missing, is [`CaptureStats::engine_reason`].
    Auto,
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

/// The outcome of one sample of a source.
#[derive(Clone, Debug)]
pub enum Sampled {
    /// The GIL and the threads were read.
    Complete,
    /// They could not be read.
    Failed,
    /// The process runs another program, which is sampled from now on.
    Switched,
    /// The window ends.
    Ended(StopReason),
}

/// What a capture takes its samples from: one process, by one way to read it.
pub trait SampleSource {
    /// The highest rate that it can be sampled at, in Hz.
    fn max_rate(&self) -> f64 {
        f64::INFINITY
    }
    /// How often it is asked for a sample to be sampled at this rate: less often where the kernel
    /// takes the samples.
    fn poll_rate(&self, rate_hz: f64) -> f64 {
        rate_hz
    }
    /// Prepares this thread to sample, and finds the target's threads before the window begins,
    /// while `may_go_on`.
    fn prepare(&mut self, now: Nanos, may_go_on: &dyn Fn() -> bool, sink: &mut dyn Sink);
    /// Takes one sample, which stands for the time until `until`.
    fn sample(&mut self, now: Nanos, until: Nanos, sink: &mut dyn Sink) -> Sampled;
    /// The end of the time that the last sample stands for.
    fn accounted_until(&self) -> Nanos;
    /// Resolves all pending time: the window ends at `end`.
    fn finish(&mut self, end: Nanos, sink: &mut dyn Sink);
    /// The reason of a window that ended for `reason`, by what is known now.
    fn correct(&self, reason: StopReason) -> StopReason {
        reason
    }
    /// What is known of the target so far.
    fn target(&self) -> TargetInfo;
    /// Sets what the source knows of how the measurement went: the kinds of evidence, torn stacks,
    /// stops, events and warnings.
    fn fill_stats(&self, stats: &mut CaptureStats);
}

/// Measures one window of the process `pid`.
pub fn capture<S: Sink>(
    pid: Pid,
    source: &mut dyn SampleSource,
    config: CaptureConfig,
    stop: &AtomicBool,
    sink: &mut S,
    on_progress: &mut ProgressHook<'_, S>,
) -> CaptureResult {
    // Before the settings that the source makes for this thread: a new thread would inherit them.
    let mut descendants = DescendantMonitor::start(pid);
    let rate_hz = config.rate_hz.min(source.max_rate());
    let prepared = sys_linux::monotonic();
    source.prepare(
        prepared,
        &|| !stop.load(Ordering::Relaxed) && sys_linux::monotonic().saturating_since(prepared) < MAX_PREPARATION,
        sink,
    );
    let start = sys_linux::monotonic();
    let (own_cpu, idle) = (sys_linux::process_cpu_time(), IdleCpus::start(Tid(pid.0)));
    let stats_at = |now: Nanos, counts: SampleCounts, source: &dyn SampleSource| {
        let (seconds, cpu) =
            (now.saturating_since(start).as_secs_f64(), sys_linux::process_cpu_time().saturating_since(own_cpu).as_secs_f64());
        let profiler_cpu = if seconds > 0.0 { cpu / seconds } else { 0.0 };
        let mut stats = CaptureStats { begin: start, seconds, rate_hz, counts, profiler_cpu, ..CaptureStats::default() };
        source.fill_stats(&mut stats);
        stats
    };
    let mut poll_rate = source.poll_rate(rate_hz);
    let mut schedule = SampleSchedule::new(start, poll_rate, start.as_nanos());
    let mut missed_before = 0;
    let (mut counts, mut last_good) = (SampleCounts::default(), (start, SampleCounts::default()));
    let (mut now, mut reported_at) = (start, None::<Nanos>);
    let stop_reason = loop {
        let (until, next) = (schedule.weight_until(now), schedule.next(now));
        let last = config.duration.is_some_and(|d| next.saturating_since(start) > d);
        counts.samples += 1;
        match source.sample(now, if last { now } else { until }, sink) {
            Sampled::Complete => last_good = (now, counts),
            Sampled::Failed => counts.failed += 1,
            Sampled::Switched => {
                counts.failed += 1;
                last_good = (now, counts);
            }
            Sampled::Ended(reason) => break reason,
        }
        counts.missed = missed_before + schedule.missed();
        if reported_at.is_none_or(|reported_at| now.saturating_since(reported_at) >= PROGRESS_PERIOD) {
            reported_at = Some(now);
            let window = CaptureStats { descendants: descendants.latest(), ..stats_at(now, counts, source) };
            on_progress(Progress { target: source.target(), window }, sink);
        }
        if last {
            break StopReason::Done;
        }
        let mut next = next;
        if source.poll_rate(rate_hz) != poll_rate {
            // The kernel no longer takes the samples.
            poll_rate = source.poll_rate(rate_hz);
            next = sys_linux::monotonic();
            (missed_before, schedule) = (counts.missed, SampleSchedule::new(next, poll_rate, next.as_nanos()));
        }
        if !sleep(next, stop) {
            break StopReason::Stopped;
        }
        now = sys_linux::monotonic();
    };
    let stop_reason = source.correct(stop_reason);
    if let StopReason::Lost(_) = stop_reason {
        // The time after the last good sample is not part of the window.
        (now, counts) = last_good;
    }
    // Not for every progress report: on a machine with hundreds of CPUs the file is long.
    let idle_cpus = idle.as_ref().and_then(IdleCpus::mean);
    let end = now.max(source.accounted_until());
    source.finish(end, sink);
    let stats = stats_at(sys_linux::monotonic(), counts, source);
    descendants.finish();
    let idle_cpus = idle_cpus.map(|idle| idle + stats.profiler_cpu);
    let seconds = end.saturating_since(start).as_secs_f64();
    let stats = CaptureStats { seconds, idle_cpus, descendants: descendants.latest(), ..stats };
    CaptureResult { target: source.target(), stats, stop_reason }
}

/// Sleeps until `until`; false when asked to stop.
fn sleep(until: Nanos, stop: &AtomicBool) -> bool {
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
