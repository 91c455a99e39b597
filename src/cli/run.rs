//! `gilprof run`: starts a program, measures it from its first bytecode to its end, and exits with its exit code.
//!
//! The program has gilprof's own stdin and stdout; so the report goes to stderr. Signals sent to gilprof are passed on, except what a
//! terminal sends to both anyway.

use super::args::{MeasureArgs, Window};
use super::session::{Measured, Session};
use super::{say, say_raw};
use crate::error::{Error, Result};
use crate::ids::Pid;
use crate::process::sys_linux;
use crate::python::attach::{self, Attached};
use crate::units::Nanos;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::process::{Child, Command};
use tokio::signal::unix::{signal, Signal, SignalKind};

/// How often the program is asked whether it runs Python yet; slower after the first second, for a shell that starts one much later.
const POLL: Nanos = Nanos::from_micros(500);
const SLOW_POLL: Nanos = Nanos::from_millis(20);
const SLOW_AFTER: Nanos = Nanos::from_millis(1_000);

/// Runs the command.
pub fn command(window: Window, args: &MeasureArgs, words: &[String]) -> Result<ExitCode> {
    let mut session = Session::prepare(args, window)?;
    let (program, arguments) = words.split_first().ok_or_else(|| Error::Usage("a command is needed after --".into()))?;
    let runtime = super::runtime()?;
    let inside = runtime.enter();
    // Before the program starts, so that no signal falls between.
    let signals = Signals::watch()?;
    let mut child = Command::new(program).args(arguments).spawn().map_err(|source| Error::Launch { command: program.clone(), source })?;
    drop(inside);
    let pid = Pid(child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or_default());
    let ended = AtomicBool::new(false);
    let (measured, status) = std::thread::scope(|scope| {
        let measuring = scope.spawn(|| measure(&session, pid, &ended));
        let status = runtime.block_on(wait(&mut child, pid, signals));
        ended.store(true, Ordering::Relaxed);
        (measuring.join(), status)
    });
    let status = status.map_err(|source| Error::System { what: format!("wait for {program}"), source })?;
    match measured {
        Ok(Ok(measured)) => report(&mut session, &measured)?,
        Ok(Err(e)) => say(&format!("error: {e}")),
        Err(panic) => std::panic::resume_unwind(panic),
    }
    Ok(exit_code(status))
}

fn report(session: &mut Session, measured: &Measured) -> Result<()> {
    say_raw(&session.page(measured, &std::io::stderr())?);
    for path in session.write_files(measured)? {
        say(&format!("wrote {path}"));
    }
    Ok(())
}

/// As a shell would: 128 and the signal's number for a program that a signal ended.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Measures the program once it runs Python, until the window is over or it ends.
fn measure(session: &Session, pid: Pid, ended: &AtomicBool) -> Result<Measured> {
    let target = await_python(pid, ended)?;
    session.measure(pid, target, ended)
}

/// The program may be a shell or a launcher that becomes Python later; whatever it is now, it is asked again until it ends.
fn await_python(pid: Pid, ended: &AtomicBool) -> Result<Attached> {
    let began = sys_linux::monotonic();
    loop {
        let failed = match attach::attach(pid) {
            Ok(target) => return Ok(target),
            Err(e @ (Error::UnsupportedVersion { .. } | Error::Permission { .. })) => return Err(e),
            Err(e) => e,
        };
        if ended.load(Ordering::Relaxed) {
            return Err(match failed {
                Error::NotPython { .. } => failed,
                _ => Error::Gone { pid, when: " before it ran any Python that gilprof could see".into() },
            });
        }
        let now = sys_linux::monotonic();
        sys_linux::sleep_until(now + if now.since(began) < SLOW_AFTER { POLL } else { SLOW_POLL });
    }
}

/// Waits for the program's end; passes signals on meanwhile.
async fn wait(child: &mut Child, pid: Pid, mut signals: Signals) -> std::io::Result<ExitStatus> {
    loop {
        tokio::select! {
            status = child.wait() => return status,
            number = signals.next() => {
                // A program that has just ended cannot be told; its end is met in the next turn.
                let _ = sys_linux::kill(pid, number);
            }
        }
    }
}

/// The signals that are passed on.
struct Signals {
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
    /// A terminal sends its Ctrl-C and Ctrl-\ to the program by itself.
    terminal: bool,
}

impl Signals {
    fn watch() -> Result<Signals> {
        let on = |kind| signal(kind).map_err(|source| Error::System { what: "watch for signals".into(), source });
        Ok(Signals {
            interrupt: on(SignalKind::interrupt())?,
            quit: on(SignalKind::quit())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
            user1: on(SignalKind::user_defined1())?,
            user2: on(SignalKind::user_defined2())?,
            terminal: std::io::stdin().is_terminal(),
        })
    }

    /// The next signal to pass on.
    async fn next(&mut self) -> i32 {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => if !self.terminal { return libc::SIGINT },
                _ = self.quit.recv() => if !self.terminal { return libc::SIGQUIT },
                _ = self.terminate.recv() => return libc::SIGTERM,
                _ = self.hangup.recv() => return libc::SIGHUP,
                _ = self.user1.recv() => return libc::SIGUSR1,
                _ = self.user2.recv() => return libc::SIGUSR2,
            }
        }
    }
}
