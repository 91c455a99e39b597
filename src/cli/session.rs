//! What `attach`, `run` and `record` share: one measured window on a thread of its own, then what is to be delivered.

use super::args::{MeasureArgs, OutputArgs};
use super::deliver::{wrote, Delivery, Measured};
use super::progress::LiveLine;
use super::say;
use super::tape::{self, Tape};
use super::values::Window;
use crate::capture::sampler::ThreadPauser;
use crate::capture::backend;
use crate::capture::session::{self, StopReason, CaptureConfig, Progress};
use crate::error::{Error, Result};
use crate::ids::Pid;
use crate::output::numbers;
use crate::profile::file::Recording;
use crate::profile::CoalescingSink;
use crate::python::attach::Attached;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// A window that has room for fewer looks than this is a slip of the pen.
const FEWEST_LOOKS: f64 = 2.0;

/// What was asked for, with the files already open.
pub struct Session {
    plan: CaptureConfig,
    window: Window,
    freeze: bool,
    /// Whether all that was seen is kept, also when no file needs it.
    keep: bool,
    delivery: Delivery,
}

/// A window that is over.
pub struct Outcome {
    measured: Measured,
    stop_reason: StopReason,
    recorded: Result<()>,
}

impl Outcome {
    /// What was measured; an error where it could not be kept.
    pub fn into_measured(self) -> Result<Measured> {
        self.recorded.map(|()| self.measured)
    }

    /// Whether the window is over because the program is.
    pub fn program_ended(&self) -> bool {
        matches!(self.stop_reason, StopReason::TargetEnded)
    }
}

impl Session {
    /// Checks all that can be checked before measuring.
    pub fn prepare(measure: &MeasureArgs, output: &OutputArgs, window: Window) -> Result<Session> {
        if measure.freeze_holder {
            backend::pauser(Pid(0))?;
        }
        if window.0.is_some_and(|w| w.as_secs_f64() * measure.rate < FEWEST_LOOKS) {
            return Err(Error::Usage(format!(
                "the window is too short for looks {} apart: make it longer (--duration), or look more often (--rate)",
                numbers::seconds(1.0 / measure.rate)
            )));
        }
        let plan = CaptureConfig { rate_hz: measure.rate, duration: window.0, exact: measure.exact };
        Ok(Session { plan, window, freeze: measure.freeze_holder, keep: false, delivery: Delivery::prepare(output)? })
    }

    /// Keeps all that is seen, in order of time.
    pub fn keeping(self) -> Session {
        Session { keep: true, ..self }
    }

    /// A live line for the window.
    pub fn line(&self) -> LiveLine {
        LiveLine::new(self.window)
    }

    /// The files that gilprof made and that are blank as yet.
    pub fn blanks(&self) -> super::files::Blanks {
        self.delivery.blanks.clone()
    }

    /// Measures until the window is over, `stop` is set or the target ends. Blocks. Sets `stop` when a recording cannot go on.
    pub fn measure(&self, pid: Pid, target: Attached, stop: &AtomicBool, line: LiveLine) -> Result<Outcome> {
        let kept = if self.keep || self.delivery.needs_recording() { Some(tape::nameless()?) } else { None };
        let mut sink = CoalescingSink::new(Tape::on(self.delivery.recordings(), kept.as_ref())?);
        let mut tick = |progress: Progress, sink: &mut CoalescingSink<Tape>| {
            let tape = sink.inner_mut();
            if !tape.so_far(&progress.target, &progress.window) {
                stop.store(true, Ordering::Relaxed);
            }
            line.show(progress.window, tape.builder.live());
        };
        let pauser = |pid| -> Option<Box<dyn ThreadPauser>> { self.freeze.then(|| backend::pauser(pid).ok()).flatten() };
        let measured = match target {
            Attached::Python(python) => session::capture(*python, self.plan, &pauser, stop, &mut sink, &mut tick),
            Attached::Legacy(version) => backend::capture(pid, &version, self.plan, stop, &mut sink, &mut tick),
        };
        line.clear();
        let mut window = measured?;
        window.stats.warnings.extend(self.cut_short(&window.stop_reason, window.stats.seconds));
        let (builder, recorded) = sink.finish().finish(&window.target, &window.stats);
        let recording = match (kept, &recorded) {
            (Some(file), Ok(())) => Some(Recording::from_file(file, Path::new(tape::NAMELESS))?),
            _ => None,
        };
        let measured = self.delivery.judge(builder.finish(window.target, window.stats), recording);
        Ok(Outcome { measured, stop_reason: window.stop_reason, recorded })
    }

    /// Why there is less than was asked for. A window without end was to last until the program's.
    fn cut_short(&self, stop_reason: &StopReason, seconds: f64) -> Option<String> {
        let seconds = numbers::seconds(seconds);
        match stop_reason {
            StopReason::TargetEnded if self.window.0.is_some() => Some(format!("the program ended; the report covers the {seconds} before")),
            StopReason::Lost(why) => Some(format!("the window ended after {seconds}: {why}")),
            StopReason::TargetEnded | StopReason::Done | StopReason::Stopped => None,
        }
    }

    /// Writes the files of `-o` and prints the page; says where the files are.
    pub fn deliver(&mut self, outcome: Outcome, to: &impl IsTerminal, print: impl FnOnce(&str) -> Result<()>) -> Result<()> {
        let delivered = self.delivery.deliver(std::slice::from_ref(&outcome.measured), to, print);
        if outcome.recorded.is_ok() {
            self.delivery.recordings().for_each(|sheet| say(&wrote(sheet)));
        }
        outcome.recorded.and(delivered)
    }
}
