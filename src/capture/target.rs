//! A process to measure, as a library user sees it.

use super::backend;
use super::program::InterpreterSource;
use super::running;
use super::session::{CaptureConfig, CaptureResult, ProgressHook, SampleSource};
use crate::error::{Error, Result};
use crate::ids::Pid;
use crate::python::attach::{self, Attached};
use crate::python::runtimes::RuntimeChoice;
use crate::sample::Sink;
use std::sync::atomic::AtomicBool;

/// A running Python process, found and ready to be measured. It is neither stopped nor changed.
#[derive(Clone, Debug)]
pub struct Target {
    pid: Pid,
    attached: Attached,
    config: CaptureConfig,
}

impl Target {
    /// Finds the interpreter of the process `pid`.
    ///
    /// # Errors
    ///
    /// The process does not exist, is not Python, may not be read by this user, or has not
    /// initialised its interpreter yet ([`Error::NotReady`](crate::error::Error::NotReady)).
    pub fn attach(pid: i32) -> Result<Target> {
        let pid = Pid(pid);
        Ok(Target::new(pid, attach::attach(pid, &RuntimeChoice::default())?))
    }

    /// A process whose interpreter is known.
    #[doc(hidden)]
    pub fn new(pid: Pid, attached: Attached) -> Target {
        Target { pid, attached, config: CaptureConfig::default() }
    }

    /// Measures in this way.
    pub fn config(self, config: CaptureConfig) -> Target {
        Target { config, ..self }
    }

    /// Measures until the duration of the configuration has passed, or the target ends. Blocks, and
    /// gives `sink` every slice of every thread's time: one for each sample, of which
    /// [`CoalescingSink`](crate::profile::CoalescingSink) joins equal ones.
    ///
    /// # Errors
    ///
    /// The rate is no rate; or the process is read by py-spy (Python before 3.7), and that fails or
    /// is not built in. How the window ended is not an error but [`CaptureResult::stop_reason`].
    pub fn run<S: Sink>(self, sink: &mut S) -> Result<CaptureResult> {
        self.run_until(&AtomicBool::new(false), sink, &mut |_, _| {})
    }

    /// The same, until `stop` is set at the latest. `on_progress` is called about ten times a
    /// second.
    pub fn run_until<S: Sink>(self, stop: &AtomicBool, sink: &mut S, on_progress: &mut ProgressHook<'_, S>) -> Result<CaptureResult> {
        let (pid, config) = (self.pid, self.config);
        Ok(running::capture(pid, self.source()?, config, stop, sink, on_progress))
    }

    /// What its samples are taken from.
    pub(super) fn source(self) -> Result<Box<dyn SampleSource>> {
        if !(self.config.rate_hz > 0.0 && self.config.rate_hz.is_finite()) {
            return Err(Error::Usage(format!("failed to sample {} times a second: the rate must be above 0", self.config.rate_hz)));
        }
        let source: Box<dyn SampleSource> = match self.attached {
            Attached::Python(python) => Box::new(InterpreterSource::new(*python, &self.config)),
            Attached::Legacy(version) => backend::source(self.pid, &version)?,
        };
        Ok(source)
    }
}
