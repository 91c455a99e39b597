//! Signals: `attach` ends its window early on them, `run` passes them on to its program.
//!
//! A signal that was ignored when gilprof started stays so, for gilprof and for the program: `nohup gilprof run …` outlives its terminal.
//! Only `attach` heeds Ctrl-C all the same, because scripts start it with `&`, where shells have SIGINT ignored, and end it by `kill -INT`.

use super::output_file::Placeholders;
use super::{exit, system};
use crate::error::Result;
use crate::process::proc_info::Status;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::task::Poll;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{signal, Signal, SignalKind};

/// What `run` passes on. The kernel lets nobody catch SIGKILL and SIGSTOP; the rest concern gilprof itself.
const FORWARDED: [i32; 6] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];

/// Where signals and children are waited for; measuring has its own thread.
pub fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().map_err(|e| system("set up waiting for signals", e))
}

/// Signals being watched.
pub struct Signals(Vec<(i32, Signal)>);

impl Signals {
    /// Watches what `run` passes on. Inside a runtime.
    pub fn forwarded() -> Result<Signals> {
        let ignored = ignored();
        watch(FORWARDED.into_iter().filter(|number| !ignored(*number)))
    }

    /// Watches what ends a window early. Inside a runtime.
    fn ending() -> Result<Signals> {
        let ignored = ignored();
        watch([libc::SIGINT, libc::SIGTERM, libc::SIGHUP].into_iter().filter(|&number| number == libc::SIGINT || !ignored(number)))
    }

    /// The number of the next one.
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

/// Which signals gilprof was started to ignore.
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
            std::process::exit(exit::INTERRUPTED_TWICE.into());
        }
    });
    Ok(())
}

/// Whether a terminal's Ctrl-C or Ctrl-\ would reach the program by itself: a terminal sends them to every process of the group in its
/// foreground, which is gilprof's and the program's alike. Whoever sends one to gilprof's pid alone from elsewhere is not told apart.
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
    fn the_foreground_is_told_from_the_rest() {
        assert!(in_foreground("7 (a) b) S 1 7 5 34816 7 4194560 1"));
        assert!(!in_foreground("7 (a) S 1 7 5 34816 9 4194560 1"), "another group has the terminal");
        assert!(!in_foreground("7 (a) S 1 7 5 0 -1 4194560 1"), "no terminal");
        assert!(!in_foreground("nonsense"));
    }
}
