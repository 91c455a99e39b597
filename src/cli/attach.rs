//! `gilprof attach`: measures a running program until the window ends, the program ends or Ctrl-C.

use super::args::{MeasureArgs, OutputArgs};
use super::session::{CompletedCapture, Session};
use super::values::DurationArg;
use super::{exit, print, signals, wait_for_python, Verbosity};
use crate::error::{Error, Result};
use crate::ids::Pid;
use crate::python::diagnose;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

/// The part of a core that gilprof may use for the processes of a service.
pub const MAX_CPU: f64 = 0.25;

/// Runs the command. [`Verbosity::Quiet`] prints no report.
pub fn command(pid: Pid, window: DurationArg, measure: &MeasureArgs, output: &OutputArgs, verbosity: Verbosity) -> Result<ExitCode> {
    let mut session = Session::prepare(measure, output, window)?;
    let stop = Arc::new(AtomicBool::new(false));
    signals::end_window_on_signal(stop.clone(), session.placeholders())?;
    let follows = measure.follows(false)?;
    session = session.with_max_cpu(MAX_CPU);
    let Some(outcome) = measure_running(&session, follows, pid, &stop)? else {
        return Ok(ExitCode::from(exit::INTERRUPTED));
    };
    match verbosity {
        Verbosity::Report => session.emit(outcome, &std::io::stdout(), print)?,
        Verbosity::Quiet => session.emit(outcome, &std::io::stdout(), |_| Ok(()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures a running program, or that program and the Python processes below it. `None` when
/// `stop` was set before that.
pub fn measure_running(session: &Session, follows: bool, pid: Pid, stop: &AtomicBool) -> Result<Option<CompletedCapture>> {
    let (pid, attached) = match wait_for_python::attach(pid, &session.runtime, stop) {
        Ok(None) => return Ok(None),
        Ok(Some((pid, target))) if !follows => return session.measure(pid, target, stop, session.live_line()).map(Some),
        Ok(Some((pid, target))) => (pid, Some(target)),
        // A launcher or a supervisor, whose children are measured.
        Err(Error::NotPython { .. }) if follows && !diagnose::python_descendants(pid).is_empty() => (pid, None),
        Err(e) => return Err(e),
    };
    let patience = session.limit().filter(|_| attached.is_none());
    session.measure_tree(pid, attached, patience, stop, session.live_line()).map(Some)
}
