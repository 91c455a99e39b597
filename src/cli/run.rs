//! `gilprof run`: starts a program, measures it from its first bytecode to its end, and exits with
//! its exit code. If the program succeeded, but could not be measured, or a file could not be
//! written, the exit code is gilprof's own.
//!
//! The program has gilprof's own stdin, stdout and stderr. So the report goes to stderr, as soon as
//! the window ends, and there is no live line, because the program may draw on the terminal.

use super::args::{MeasureArgs, OutputArgs};
use super::attach::MAX_CPU;
use super::output_file::Placeholders;
use super::progress::LiveLine;
use super::session::{CompletedCapture, Session};
use super::signals::{self, Signals};
use super::values::DurationArg;
use super::wait_for_python;
use super::{exit, fail, note, system, write_stderr, Verbosity};
use crate::error::{Error, Result};
use crate::ids::Pid;
use crate::output::sanitize;
use crate::process::sys_linux;
use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

/// Runs the command. [`Verbosity::Quiet`] prints no report.
pub fn command(
    window: DurationArg,
    measured: &MeasureArgs,
    output: &OutputArgs,
    args: &[OsString],
    verbosity: Verbosity,
) -> Result<ExitCode> {
    let mut session = Session::prepare(measured, output, window)?;
    let follows = measured.follows(true)?;
    if verbosity == Verbosity::Quiet {
        session = session.with_max_cpu(MAX_CPU);
    }
    let placeholders = session.placeholders();
    let work = |pid, name: &str, ended: &AtomicBool, running| measure(session, follows, pid, name, ended, running, verbosity);
    let ended = supervise(args, &placeholders, work)?;
    Ok(match ended.done.flatten() {
        Some(code) if ended.status.success() => code,
        _ => ExitCode::from(exit_code(ended.status)),
    })
}

/// The end of a supervised program.
pub struct Supervised<T> {
    /// How the program ended.
    pub status: ExitStatus,
    /// Whether gilprof got a signal before that which asked both to end.
    pub interrupted: bool,
    /// The result of the work on it; `None` if there is none.
    pub done: Option<T>,
}

/// Starts a program, passes signals on to it, and does `work` meanwhile on another thread. `work`
/// gets the pid, the command's name, a flag that is set when the program has ended, and a channel
/// that is closed when the program was waited for. A signal after the program's end ends gilprof at
/// once.
pub fn supervise<T: Send>(
    args: &[OsString],
    placeholders: &Placeholders,
    work: impl FnOnce(Pid, &str, &AtomicBool, Receiver<Infallible>) -> T + Send,
) -> Result<Supervised<T>> {
    let runtime = signals::runtime()?;
    let (mut signals, mut child) = {
        let _inside = runtime.enter();
        // Installed before the program starts, so that no signal is lost.
        (Signals::forwarded()?, launch(args)?)
    };
    let pid = Pid(child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or_default());
    let name = args.first().map(|argument| argument.to_string_lossy()).unwrap_or_default();
    let ended = AtomicBool::new(false);
    let (sender, receiver) = oneshot::channel();
    let (running, reaped) = mpsc::channel();
    let (ended_with, done) = std::thread::scope(|scope| {
        // The receiver is gone only if a signal ends gilprof at once.
        scope.spawn(|| sender.send(work(pid, &name, &ended, reaped)).is_ok());
        runtime.block_on(async {
            let ended_with = forward_signals_until_exit(&mut child, pid, &mut signals).await;
            ended.store(true, Ordering::Relaxed);
            drop(running);
            tokio::select! {
                done = receiver => (ended_with, done.ok()),
                _ = signals.next() => {
                    placeholders.remove();
                    std::process::exit(exit::INTERRUPTED.into())
                }
            }
        })
    });
    let (status, interrupted) = ended_with.map_err(|e| system("wait for the program", e))?;
    Ok(Supervised { status, interrupted, done })
}

fn launch(args: &[OsString]) -> Result<Child> {
    let (program, arguments) = args.split_first().ok_or_else(|| Error::Usage("a command is needed".into()))?;
    let failed = |source| Error::Launch { command: program.to_string_lossy().into_owned(), source };
    Command::new(program).args(arguments).spawn().map_err(failed)
}

/// The code that a shell would give: 128 plus the signal's number if a signal ended the program.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(1)
}

/// Measures the program once it runs Python, until the window or the program ends, and reports at
/// once. Returns an exit code of gilprof's own if the program could not be measured, or the report
/// not be written. `running` is closed when the program was waited for.
fn measure(
    mut session: Session,
    follows: bool,
    pid: Pid,
    name: &str,
    ended: &AtomicBool,
    running: Receiver<Infallible>,
    verbosity: Verbosity,
) -> Option<ExitCode> {
    let measured = measure_started(&session, follows, pid, name, ended);
    let emitted = match measured {
        Ok(outcome) => {
            if outcome.program_ended() {
                // The program's memory is gone before its parent can wait for it. Until then a
                // signal would still go to the program, and Ctrl-C would not end a report that
                // blocks.
                let _ = running.recv();
            }
            session.emit(outcome, &std::io::stderr(), |page| {
                if verbosity == Verbosity::Report {
                    write_stderr(page);
                }
                Ok(())
            })
        }
        Err(e) => {
            let code = fail(&e);
            note("nothing was measured, so there is no report");
            return Some(code);
        }
    };
    emitted.err().map(|e| fail(&e))
}

/// Measures a program that was just started, or that program's first Python process only.
pub fn measure_started(session: &Session, follows: bool, pid: Pid, name: &str, ended: &AtomicBool) -> Result<CompletedCapture> {
    if follows {
        let measured = session.measure_tree(pid, None, None, ended, LiveLine::none());
        return measured.map_err(|error| match error {
            Error::Gone { pid, when } => Error::Gone { pid, when: format!("{when} ({})", sanitize::clean(sanitize::basename(name))) },
            other => other,
        });
    }
    wait_for_python::attach_started(pid, name, &session.runtime, ended)
        .and_then(|(pid, target)| session.measure(pid, target, ended, LiveLine::none()))
}

/// Waits for the program's end and passes signals on meanwhile. Also returns whether one of them
/// asked the program to end.
async fn forward_signals_until_exit(child: &mut Child, pid: Pid, signals: &mut Signals) -> std::io::Result<(ExitStatus, bool)> {
    let mut interrupted = false;
    loop {
        tokio::select! {
            // Signals first, so that a signal before the program's end is passed on.
            biased;
            number = signals.next() => {
                interrupted |= signals::asks_to_end(number);
                if !signals::sent_by_terminal(number) {
                    // This fails if the program has just ended, which the next turn of the loop
                    // sees.
                    let _ = sys_linux::kill(pid, number);
                }
            },
            status = child.wait() => return Ok((status?, interrupted)),
        }
    }
}
