//! The live line while measuring: samples, GIL busy, waiting, time left. It goes to stderr, and
//! only if stderr is a terminal.
//!
//! A separate thread draws the line, because a terminal may be slow, or stopped with Ctrl-S, and
//! sampling must not wait for it.

use super::values::DurationArg;
use crate::output::numbers;
use crate::profile::LiveStats;
use crate::sample::CaptureStats;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::mpsc::{sync_channel, SyncSender};
use std::thread::JoinHandle;

/// The line; `None` without a terminal.
pub struct LiveLine(Option<(SyncSender<Update>, JoinHandle<()>)>);

/// The message to the thread that draws.
type Update = (CaptureStats, LiveStats, usize);

impl LiveLine {
    /// A line for a window, if stderr is a terminal.
    pub fn new(window: DurationArg) -> LiveLine {
        if !std::io::stderr().is_terminal() {
            return LiveLine::none();
        }
        let (send, receive) = sync_channel(1);
        let draw = move || {
            // Cut to the terminal's width, because a line that wraps cannot be cleared.
            let style = ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.set_draw_target(ProgressDrawTarget::stderr());
            for (stats, live, processes) in receive {
                bar.set_message(message(window, &stats, live, processes));
                bar.tick();
            }
            bar.finish_and_clear();
        };
        LiveLine(Some((send, std::thread::spawn(draw))))
    }

    /// No line, because the measured program uses the terminal.
    pub fn none() -> LiveLine {
        LiveLine(None)
    }

    /// Shows the progress, unless the terminal still draws the update before this one. Of several
    /// processes `live` is that of the one with the most waiting.
    pub fn show(&self, stats: CaptureStats, live: LiveStats, processes: usize) {
        if let Some((send, _)) = &self.0 {
            let _ = send.try_send((stats, live, processes));
        }
    }

    /// Removes the line.
    pub fn clear(self) {
        if let Some((send, drawing)) = self.0 {
            drop(send);
            // A line that cannot be drawn is not an error of the measurement.
            let _ = drawing.join();
        }
    }
}

fn message(window: DurationArg, stats: &CaptureStats, live: LiveStats, processes: usize) -> String {
    let left = match window.0 {
        Some(window) => format!("{} left", numbers::seconds((window.as_secs_f64() - stats.seconds).max(0.0))),
        None => format!("{}, Ctrl-C ends", numbers::seconds(stats.seconds)),
    };
    let what = match processes {
        0 | 1 => format!("{} samples", numbers::thousands(stats.counts.samples)),
        several => format!("{several} processes, worst:"),
    };
    format!("{what}  GIL busy {}  waiting {}  {left}", numbers::percent(live.gil_busy), numbers::count(live.waiters_mean),)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::SampleCounts;
    use crate::units::Nanos;

    #[test]
    fn the_line_fits_a_terminal() {
        let live = LiveStats { samples: 0, gil_busy: 0.995, waiters_mean: 1234.5 };
        let stats = |seconds, samples| CaptureStats {
            seconds,
            counts: SampleCounts { samples, ..SampleCounts::default() },
            ..CaptureStats::default()
        };
        for window in [DurationArg(None), DurationArg(Some(Nanos::from_secs_f64(604_800.0)))] {
            let line = message(window, &stats(600_000.0, 600_000_000), live, 1);
            assert!(line.chars().count() < 78, "{line}");
        }
        let line = message(DurationArg(Some(Nanos::from_secs_f64(10.0))), &stats(2.5, 2_500), live, 1);
        assert!(line.starts_with("2 500 samples  GIL busy ") && line.ends_with("7.5 s left"), "{line}");
        let line = message(DurationArg(None), &stats(600_000.0, 600_000_000), live, 4000);
        assert!(line.starts_with("4000 processes, worst:  GIL busy ") && line.chars().count() < 78, "{line}");
    }
}
