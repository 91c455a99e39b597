//! `gilprof attach`: measures a running program until the window is over, the program ends or Ctrl-C.

use super::args::{MeasureArgs, Window};
use super::session::Session;
use super::{exit, print, say};
use crate::error::{Error, Result};
use crate::ids::Pid;
use crate::process::sys_linux;
use crate::python::attach::{self, Attached};
use crate::units::Nanos;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use tokio::signal::unix::{signal, SignalKind};

/// How long a Python that has not created its interpreter yet is waited for.
const NOT_READY: Nanos = Nanos::from_millis(3_000);

/// Runs the command.
pub fn command(pid: Pid, window: Window, args: &MeasureArgs) -> Result<ExitCode> {
    let mut session = Session::prepare(args, window)?;
    let target = attach_patiently(pid)?;
    let stop = Arc::new(AtomicBool::new(false));
    watch_signals(stop.clone())?;
    let measured = session.measure(pid, target, &stop)?;
    print(&session.page(&measured, &std::io::stdout())?)?;
    for path in session.write_files(&measured)? {
        say(&format!("wrote {path}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Attaches; waits a moment for an interpreter that is just being created.
pub fn attach_patiently(pid: Pid) -> Result<Attached> {
    let began = sys_linux::monotonic();
    loop {
        match attach::attach(pid) {
            Err(Error::NotReady { .. }) if sys_linux::monotonic().since(began) < NOT_READY => {
                sys_linux::sleep_until(sys_linux::monotonic() + Nanos::from_millis(5));
            }
            other => return other,
        }
    }
}

/// The first Ctrl-C or SIGTERM ends the window; the second ends gilprof.
fn watch_signals(stop: Arc<AtomicBool>) -> Result<()> {
    let runtime = super::runtime()?;
    let failed = |source| Error::System { what: "watch for signals".into(), source };
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                if stop.swap(true, Ordering::Relaxed) {
                    std::process::exit(exit::INTERRUPTED.into());
                }
            }
        })
    });
    Ok(())
}
