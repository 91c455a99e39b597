//! What the reader should know when a window ended before it was meant to.

use crate::capture::session::StopReason;
use crate::output::numbers;
use crate::units::Nanos;

/// How long a window is meant to last.
#[derive(Clone, Copy, Debug)]
pub struct WindowEnd {
    /// At most so long.
    pub limit: Option<Nanos>,
    /// The program was started to be measured, so that a window lasts until its end at most.
    pub of_command: bool,
}

impl WindowEnd {
    /// A warning if the window ended early. A window without limit is meant to last until the
    /// program's end.
    pub fn warning(&self, stop_reason: &StopReason, seconds: f64) -> Option<String> {
        let seconds = numbers::seconds(seconds);
        match stop_reason {
            StopReason::TargetEnded if self.limit.is_some() => {
                Some(format!("the program ended; the report covers the {seconds} until then"))
            }
            StopReason::Lost(why) => Some(format!("the window ended after {seconds}: {why}")),
            StopReason::TargetEnded | StopReason::Done | StopReason::Stopped => None,
        }
    }

    /// Why the window did not last as long as it was meant to. A window without limit ends with the
    /// program, or by a signal.
    pub fn cut_short(&self, stop_reason: &StopReason, seconds: f64) -> Option<String> {
        let seconds = numbers::seconds(seconds);
        match (stop_reason, self.limit) {
            (StopReason::TargetEnded, _) if self.of_command => None,
            (StopReason::Lost(why), _) => Some(format!("the window ended after {seconds}: {why}")),
            (StopReason::TargetEnded | StopReason::Stopped, Some(limit)) => {
                Some(format!("the window ended after {seconds} instead of {}", numbers::seconds(limit.as_secs_f64())))
            }
            (StopReason::TargetEnded | StopReason::Stopped, None) | (StopReason::Done, _) => None,
        }
    }
}
