//! The live line while measuring: looks, GIL busy, waiting, time left. On stderr, and only where that is a terminal.

use super::args::Window;
use crate::capture::sampler::Progress;
use crate::output::numbers;
use crate::profile::LiveNumbers;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The line; nothing where there is no terminal.
pub struct LiveLine {
    bar: ProgressBar,
    window: Window,
}

impl LiveLine {
    /// A line for a window.
    pub fn new(window: Window) -> LiveLine {
        // indicatif hides itself where stderr is no terminal.
        let bar = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
        bar.set_draw_target(ProgressDrawTarget::stderr());
        LiveLine { bar, window }
    }

    /// Shows where the window stands.
    pub fn show(&self, progress: Progress, live: LiveNumbers) {
        if self.bar.is_hidden() {
            return;
        }
        let left = match self.window.0 {
            Some(window) => format!("{} left", numbers::seconds(window.since(progress.elapsed).as_secs_f64())),
            None => format!("{} so far, Ctrl-C ends", numbers::seconds(progress.elapsed.as_secs_f64())),
        };
        self.bar.set_message(format!(
            "{} looks   GIL busy {}   waiting {}   {left}",
            numbers::thousands(progress.looks),
            numbers::percent(live.gil_busy),
            numbers::mean_threads(live.waiters_mean),
        ));
        self.bar.tick();
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
