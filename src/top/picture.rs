//! One moment of a measurement, ready to be shown: the report of a window with what the screen adds
//! to it.

use super::history::{History, Span};
use crate::analysis::{self, report::Report};
use crate::profile::{LiveStats, Profile};
use crate::sample::Stop;

/// A measurement at one moment.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The window that was asked for. The report has its real length.
    pub span: Span,
    /// The figures, for flame graphs.
    pub profile: Profile,
    /// The report of the window.
    pub report: Report,
    /// How busy the GIL was and how many threads waited in each of the last seconds.
    pub chart: Vec<LiveStats>,
    /// Seconds since the start.
    pub measured: f64,
    /// The program is stopped at this moment: by what, and what lets it go on.
    pub stopped: Option<String>,
}

impl Picture {
    /// The window that ends now. `stops` are those of the last moment.
    pub fn new(history: &History, span: Span, stops: &[Stop]) -> Picture {
        let profile = history.profile(span);
        let report = analysis::report(&profile);
        let pid = profile.target.pid;
        Picture {
            span,
            report,
            chart: history.chart().collect(),
            measured: history.latest().1.seconds,
            stopped: stops.first().map(|stop| format!("the program is {}; let it go on: {}", stop.cause, stop.cause.remedy(pid))),
            profile,
        }
    }
}
