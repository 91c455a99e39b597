//! `gilprof attach`: measures a running program until the window ends, the program ends or Ctrl-C.

use super::args::{MeasureArgs, OutputArgs};
use super::session::Session;
use super::values::DurationArg;
use super::{exit, print, signals, wait_for_python, Verbosity};
use crate::error::Result;
use crate::ids::Pid;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

/// Runs the command. [`Verbosity::Quiet`] prints no report.
pub fn command(pid: Pid, window: DurationArg, measure: &MeasureArgs, output: &OutputArgs, verbosity: Verbosity) -> Result<ExitCode> {
    let mut session = Session::prepare(measure, output, window)?;
    let stop = Arc::new(AtomicBool::new(false));
    signals::end_window_on_signal(stop.clone(), session.placeholders())?;
    let Some((pid, target)) = wait_for_python::attach(pid, &session.runtime, &stop)? else {
        return Ok(ExitCode::from(exit::INTERRUPTED));
    };
    let outcome = session.measure(pid, target, &stop, session.live_line())?;
    match verbosity {
        Verbosity::Report => session.emit(outcome, &std::io::stdout(), print)?,
        Verbosity::Quiet => session.emit(outcome, &std::io::stdout(), |_| Ok(()))?,
    }
    Ok(ExitCode::SUCCESS)
}
