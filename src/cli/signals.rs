//! Signals: they end the window of `attach` early, and `run` passes them on to its program.
//!
//! A signal that was ignored when gilprof started stays ignored, for gilprof and for the program:
//! `nohup gilprof run …` outlives its terminal. `attach` handles SIGINT even then, because scripts
//! start it with `&`, for which shells ignore SIGINT, and end it by `kill -INT`.

use super::output_file::Placeholders;
use super::{exit, system};
use crate::error::Result;
use crate::process::proc_info::Status;
use crate::top::app::Arrived;
use crate::top::terminal::restore_mode;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{signal, Signal, SignalKind};

/// The signals that `run` passes on. SIGKILL and SIGSTOP cannot be caught; the others concern
/// gilprof itself.
const FORWARDED: [i32; 6] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];

/// How long a program that has the terminal may take to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// The runtime that waits for signals and children; measuring has its own thread.
pub fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().map_err(|e| system("set up waiting for signals", e))
}

/// Signals with a handler.
pub struct Signals(Vec<(i32, Signal)>);

impl Signals {
    /// The signals that `run` passes on. Must be called inside a runtime.
    pub fn forwarded() -> Result<Signals> {
        let ignored = ignored();
        watch(FORWARDED.into_iter().filter(|number| !ignored(*number)))
    }

    /// The signals that end a window early. Must be called inside a runtime.
    fn ending() -> Result<Signals> {
        let ignored = ignored();
        watch([libc::SIGINT, libc::SIGTERM, libc::SIGHUP].into_iter().filter(|&number| number == libc::SIGINT || !ignored(number)))
    }

    /// Waits for the next signal that should end gilprof.
    async fn next_ending(&mut self) {
        while !asks_to_end(self.next().await) {}
    }

    /// Waits for the next signal and returns its number.
    pub async fn next(&mut self) -> i32 {
        poll_fn(|context| {
            let arrived = self.0.iter_mut().find_map(|(number, stream)| stream.poll_recv(context).is_ready().then_some(*number));
            arrived.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

fn watch(numbers: impl Iterator<Item = i32>) -> Result<Signals> {
    let one = |number| signal(SignalKind::from_raw(number)).map(|stream| (number, stream));
    numbers.map(one).collect::<std::io::Result<_>>().map(Signals).map_err(|e| system("watch for signals", e))
}

/// The signals that were ignored when gilprof started.
fn ignored() -> impl Fn(i32) -> bool {
    let bits = Status::own().ok().and_then(|own| own.bits("SigIgn")).unwrap_or(0);
    move |number| bits >> (number - 1) & 1 == 1
}

/// The first signal sets `stop`, the second ends gilprof.
pub fn end_window_on_signal(stop: Arc<AtomicBool>, placeholders: Placeholders) -> Result<()> {
    let runtime = runtime()?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::ending()?
    };
    std::thread::spawn(move || loop {
        runtime.block_on(signals.next());
        if stop.swap(true, Ordering::Relaxed) {
            placeholders.remove();
            std::process::exit(exit::INTERRUPTED.into());
        }
    });
    Ok(())
}

/// For a program that has the terminal: notes the signals that end it, suspend it and follow a
/// stop. If it has not ended soon after the first that should end it, or there is a second one,
/// gilprof ends with the terminal in its usual mode: the terminal may be stopped, and the program
/// block.
pub fn note_for_screen(arrived: &Arc<Arrived>) -> Result<()> {
    let runtime = runtime()?;
    let mut signals = {
        let _inside = runtime.enter();
        let Signals(mut ending) = Signals::ending()?;
        ending.extend(watch([libc::SIGTSTP, libc::SIGCONT].into_iter())?.0);
        Signals(ending)
    };
    let arrived = Arc::clone(arrived);
    std::thread::spawn(move || loop {
        match runtime.block_on(signals.next()) {
            libc::SIGTSTP => arrived.suspend.store(true, Ordering::Relaxed),
            libc::SIGCONT => arrived.resumed.store(true, Ordering::Relaxed),
            _ => {
                arrived.end.store(true, Ordering::Relaxed);
                let _ = runtime.block_on(async { tokio::time::timeout(PATIENCE, signals.next_ending()).await });
                if !arrived.done.load(Ordering::Relaxed) {
                    restore_mode();
                    std::process::exit(exit::INTERRUPTED.into());
                }
            }
        }
    });
    Ok(())
}

/// Whether a signal asks a program to end. The others that `run` passes on are the program's own.
pub fn asks_to_end(number: i32) -> bool {
    matches!(number, libc::SIGINT | libc::SIGQUIT | libc::SIGTERM | libc::SIGHUP)
}

/// Whether the program gets the terminal's Ctrl-C or Ctrl-\ without gilprof: a terminal sends them
/// to every process of its foreground group, which is the group of gilprof and of the program. A
/// signal that another process sends to gilprof's pid alone cannot be distinguished from these.
pub fn sent_by_terminal(number: i32) -> bool {
    matches!(number, libc::SIGINT | libc::SIGQUIT) && std::fs::read_to_string("/proc/self/stat").is_ok_and(|stat| in_foreground(&stat))
}

/// From `/proc/PID/stat`: `PID (name) state ppid pgrp session tty_nr tpgid`.
fn in_foreground(stat: &str) -> bool {
    let fields: Vec<&str> = stat.rsplit_once(')').map_or_else(Vec::new, |(_, rest)| rest.split_whitespace().take(6).collect());
    matches!(fields[..], [_, _, group, _, terminal, foreground] if terminal != "0" && group == foreground)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_foreground_group_gets_the_terminal_s_signals() {
        assert!(in_foreground("7 (a) b) S 1 7 5 34816 7 4194560 1"));
        assert!(!in_foreground("7 (a) S 1 7 5 34816 9 4194560 1"), "another group has the terminal");
        assert!(!in_foreground("7 (a) S 1 7 5 0 -1 4194560 1"), "no terminal");
        assert!(!in_foreground("nonsense"));
    }
}
