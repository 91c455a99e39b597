//! What a capture is: how to measure, what the samples are taken from, and why a window ended.
//!
//! The span from the first sample to the last is called the window.

use crate::sample::{CaptureStats, Sink, TargetInfo};
use crate::units::Nanos;

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
    /// Whether nothing of the program ran in the last sample, nor shortly before.
    fn is_idle(&self) -> bool {
        false
    }
    /// Takes a sample of an idle program that has not run since the last one: all is as it was, and
    /// nothing is read.
    fn sample_idle(&mut self, _until: Nanos, _sink: &mut dyn Sink) {}
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
