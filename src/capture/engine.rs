//! The engines that kernel events feed: exact mode, which corrects samples, and the kernel
//! engine, which needs none.

use super::exact::ExactMode;
use super::kernel::{KernelEngine, POLL_RATE_HZ};
use super::sampler::{SampleOutcome, Sampler};
use super::session::{CaptureConfig, Engine};
use crate::error::ReadError;
use crate::python::attach::PythonProcess;
use crate::sample::{CaptureStats, Sink};
use crate::units::Nanos;

/// An engine that kernel events feed.
pub enum EventEngine {
    /// Samples, whose waits are replaced by those of futex events.
    Exact(Box<ExactMode>),
    /// The scheduler's events, and a clock in the kernel.
    Kernel(Box<KernelEngine>),
}

impl EventEngine {
    /// The engine that `config` asks for; `None`: samples. An error is why there is no such engine.
    pub fn open(config: &CaptureConfig, python: &PythonProcess) -> Result<Option<EventEngine>, String> {
        match config.engine {
            Engine::Samples => Ok(None),
            Engine::Exact => open_exact(ExactMode::open(python)).map(Some),
            Engine::Kernel | Engine::Auto => match KernelEngine::open(python, config.rate_hz) {
                Ok(engine) => Ok(Some(EventEngine::Kernel(Box::new(engine)))),
                Err(why) => Err(why.to_string()),
            },
        }
    }

    /// Measures the program that the process has switched to by `exec`.
    pub fn for_new_program(self, python: &PythonProcess) -> Result<EventEngine, String> {
        match self {
            EventEngine::Exact(exact) => open_exact(exact.for_new_program(python)),
            EventEngine::Kernel(mut kernel) => {
                kernel.switch_program(python);
                Ok(EventEngine::Kernel(kernel))
            }
        }
    }

    /// How often it samples to measure at this rate.
    pub fn poll_rate(&self, rate_hz: f64) -> f64 {
        match self {
            EventEngine::Exact(_) => rate_hz,
            EventEngine::Kernel(_) => rate_hz.min(POLL_RATE_HZ),
        }
    }

    /// As [`Sampler::prepare`].
    pub fn prepare(
        &mut self,
        sampler: &mut Sampler,
        now: Nanos,
        may_go_on: &dyn Fn() -> bool,
        sink: &mut dyn Sink,
    ) -> Result<(), ReadError> {
        match self {
            EventEngine::Exact(exact) => exact.prepare(sampler, now, may_go_on, sink),
            EventEngine::Kernel(kernel) => kernel.prepare(sampler, now, may_go_on, sink),
        }
    }

    /// Takes what happened since the last call, and one sample.
    pub fn sample(&mut self, sampler: &mut Sampler, now: Nanos, sink: &mut dyn Sink) -> Result<SampleOutcome, ReadError> {
        match self {
            EventEngine::Exact(exact) => exact.sample(sampler, now, sink),
            EventEngine::Kernel(kernel) => kernel.sample(sampler, now, sink),
        }
    }

    /// Ends an engine that costs too much, within the window. Returns what to say of that.
    pub fn brake(&mut self, sampler: &mut Sampler, now: Nanos, sink: &mut dyn Sink) -> Option<String> {
        match self {
            EventEngine::Exact(_) => None,
            EventEngine::Kernel(kernel) => kernel.brake(sampler, now, sink),
        }
    }

    /// Ends the window, or the program.
    pub fn finish(&mut self, sampler: &mut Sampler, now: Nanos, sink: &mut dyn Sink) {
        match self {
            EventEngine::Exact(exact) => exact.finish(sampler, now, sink),
            EventEngine::Kernel(kernel) => kernel.finish(sampler, now, sink),
        }
    }

    /// Adds its counts and warnings to the window's statistics.
    pub fn add_stats(&self, stats: &mut CaptureStats) {
        match self {
            EventEngine::Exact(exact) => exact.add_stats(stats),
            EventEngine::Kernel(kernel) => kernel.add_stats(stats),
        }
    }
}

fn open_exact<E: std::fmt::Display>(opened: Result<ExactMode, E>) -> Result<EventEngine, String> {
    match opened {
        Ok(exact) => Ok(EventEngine::Exact(Box::new(exact))),
        Err(why) => Err(format!("waits are sampled, not exact: {why}")),
    }
}
