//! The live line while measuring: looks, GIL busy, waiting, time left. On stderr, and only where that is a terminal.
//!
//! It has a thread of its own: a terminal may be slow, or stopped with Ctrl-S, and looks must not wait for it.

use super::values::DurationArg;
use crate::output::numbers;
use crate::profile::LiveStats;
use crate::sample::CaptureStats;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::mpsc::{sync_channel, SyncSender};
use std::thread::JoinHandle;

/// The line; nothing where there is no terminal.
pub struct LiveLine(Option<(SyncSender<Update>, JoinHandle<()>)>);

/// What the line's thread is told.
type Update = (CaptureStats, LiveStats);

impl LiveLine {
    /// A line for a window, if stderr is a terminal.
    pub fn new(window: DurationArg) -> LiveLine {
        if !std::io::stderr().is_terminal() {
            return LiveLine::none();
        }
        let (send, receive) = sync_channel(1);
        let draw = move || {
            // Cut to the terminal's width: a line that wraps cannot be taken back.
            let style = ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.set_draw_target(ProgressDrawTarget::stderr());
            for (stats, live) in receive {
                bar.set_message(message(window, &stats, live));
                bar.tick();
            }
            bar.finish_and_clear();
        };
        LiveLine(Some((send, std::thread::spawn(draw))))
    }

    /// No line: the terminal is the measured program's own.
    pub fn none() -> LiveLine {
        LiveLine(None)
    }

    /// Shows where the window stands, unless the terminal has not yet taken what came before.
    pub fn show(&self, stats: CaptureStats, live: LiveStats) {
        if let Some((send, _)) = &self.0 {
            let _ = send.try_send((stats, live));
        }
    }

    /// Takes the line away.
    pub fn clear(self) {
        if let Some((send, drawing)) = self.0 {
            drop(send);
            // A line that could not be drawn is not worth an error.
            let _ = drawing.join();
        }
    }
}

fn message(window: DurationArg, stats: &CaptureStats, live: LiveStats) -> String {
    let left = match window.0 {
        Some(window) => format!("{} left", numbers::seconds((window.as_secs_f64() - stats.seconds).max(0.0))),
        None => format!("{}, Ctrl-C ends", numbers::seconds(stats.seconds)),
    };
    format!(
        "{} looks  GIL busy {}  waiting {}  {left}",
        numbers::thousands(stats.samples),
        numbers::percent(live.gil_busy),
        numbers::count(live.waiters_mean),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Nanos;

    #[test]
    fn the_line_fits_a_terminal() {
        let live = LiveStats { samples: 0, gil_busy: 0.995, waiters_mean: 1234.5 };
        let stats = |seconds, samples| CaptureStats { seconds, samples, ..CaptureStats::default() };
        for window in [DurationArg(None), DurationArg(Some(Nanos::from_secs_f64(604_800.0)))] {
            let line = message(window, &stats(600_000.0, 600_000_000), live);
            assert!(line.chars().count() < 78, "{line}");
        }
        let line = message(DurationArg(Some(Nanos::from_secs_f64(10.0))), &stats(2.5, 2_500), live);
        assert!(line.starts_with("2 500 looks  GIL busy ") && line.ends_with("7.5 s left"), "{line}");
    }
}
