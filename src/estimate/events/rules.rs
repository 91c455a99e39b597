//! The rules of the kernel engine's estimate that tests leave out, to show that a wrong rule is
//! caught.

/// A rule. The first word of each says where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventRule {
    /// `open_wait`: `switch_number` shows that a thread cannot have had the GIL, and still waits.
    SwitchNumber,
    /// `thread_events`: a thread that is preempted just after it released the GIL may wait.
    Limbo,
    /// `thread_events`: a release without a drop request is not forced, so that no wait follows.
    Unforced,
    /// `open_wait`: the run after a wait was short, so the thread can still be in `take_gil`.
    ShortRun,
    /// `thread_events`: on-CPU time is divided by stratum.
    Strata,
}

#[cfg(any(test, feature = "internals"))]
impl EventRule {
    /// All of them.
    pub const ALL: [EventRule; 5] =
        [EventRule::SwitchNumber, EventRule::Limbo, EventRule::Unforced, EventRule::ShortRun, EventRule::Strata];
}

/// The rules that apply: all but those that were left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventRules {
    left_out: u8,
}

impl EventRules {
    /// These, without one.
    #[cfg(any(test, feature = "internals"))]
    pub fn without(self, rule: EventRule) -> EventRules {
        EventRules { left_out: self.left_out | 1 << rule as u8 }
    }

    /// Whether a rule applies.
    pub fn has(self, rule: EventRule) -> bool {
        self.left_out & 1 << rule as u8 == 0
    }
}
