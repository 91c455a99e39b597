//! `gilprof attach`: measures a running program until the window is over, the program ends or Ctrl-C.

use super::args::{MeasureArgs, OutputArgs};
use super::session::Session;
use super::values::Window;
use super::{exit, print, signals, wait_for_python, Manner};
use crate::error::Result;
use crate::ids::Pid;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

/// Runs the command. Quietly, it prints no report.
pub fn command(pid: Pid, window: Window, measure: &MeasureArgs, output: &OutputArgs, manner: Manner) -> Result<ExitCode> {
    let mut session = Session::prepare(measure, output, window)?;
    let stop = Arc::new(AtomicBool::new(false));
    signals::end_window_on_signal(stop.clone(), session.blanks())?;
    let Some((pid, target)) = wait_for_python::attach(pid, &stop)? else {
        // Ended before there was anything to report.
        return Ok(ExitCode::from(exit::INTERRUPTED_TWICE));
    };
    let outcome = session.measure(pid, target, &stop, session.line())?;
    match manner {
        Manner::Reporting => session.deliver(outcome, &std::io::stdout(), print)?,
        Manner::Quiet => session.deliver(outcome, &std::io::stdout(), |_| Ok(()))?,
    }
    Ok(ExitCode::SUCCESS)
}
