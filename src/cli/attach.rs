//! `gilprof attach`: measures a running program until the window is over, the program ends or Ctrl-C.

use super::args::{MeasureArgs, Window};
use super::session::Session;
use super::{exit, patience, print, signals};
use crate::error::Result;
use crate::ids::Pid;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

/// Runs the command.
pub fn command(pid: Pid, window: Window, args: &MeasureArgs) -> Result<ExitCode> {
    let mut session = Session::prepare(args, window)?;
    let stop = Arc::new(AtomicBool::new(false));
    signals::end_window_on_signal(stop.clone(), session.blanks.clone())?;
    let Some((pid, target)) = patience::attach(pid, &stop)? else {
        // Ended before there was anything to report.
        return Ok(ExitCode::from(exit::INTERRUPTED_TWICE));
    };
    let measured = session.measure(pid, target, &stop, session.line())?;
    session.deliver(&measured, &std::io::stdout(), print)?;
    Ok(ExitCode::SUCCESS)
}
