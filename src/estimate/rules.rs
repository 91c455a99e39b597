//! The rules of the estimate that can be left out, to see what each is worth: `scripts/eval replay
//! --without RULE`. A rule that is worth nothing goes.

/// A rule. The first words of each say where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `state_machine`: a thread within a C call is presumed to sleep for what it sleeps for there.
    SleepsInCCall,
    /// `classify`: a request (3.15) may have been made after the sample had begun.
    RequestStarted,
    /// `classify`: without a drop request, a thread that leaves a system call does not want the
    /// GIL.
    NoDropRequest,
    /// `classify`: woken within a C call, before it requests the GIL.
    BeforeRequest,
    /// `classify`, counts of switches: pushed off after a forced release.
    ForcedRelease,
    /// `classify`, counts of switches: pushed off next to a wait.
    PushedOffNearWait,
    /// `classify`: where nothing says where a runnable thread is, it may wait after a hold too.
    AfterHold,
    /// `classify`, counts of switches: pushed off after a hold, where a drop request is possible.
    UnknownDropRequest,
    /// `thread_estimator`: the thread's drop-request bit.
    DropRequestBit,
    /// `cpu_attribution`: time that no count covers is a short sleep.
    ShortSleeps,
    /// `cpu_attribution`: the difference of an interval is carried into the next.
    Carry,
    /// `cpu_attribution`: the end of a sleep was in the run queue.
    SplitWakeup,
    /// `state_machine`: a thread starts in the run queue.
    FirstWait,
}

impl Rule {
    /// All of them.
    #[cfg(any(test, feature = "internals"))]
    pub const ALL: [Rule; 13] = [
        Rule::SleepsInCCall,
        Rule::RequestStarted,
        Rule::NoDropRequest,
        Rule::BeforeRequest,
        Rule::ForcedRelease,
        Rule::PushedOffNearWait,
        Rule::AfterHold,
        Rule::UnknownDropRequest,
        Rule::DropRequestBit,
        Rule::ShortSleeps,
        Rule::Carry,
        Rule::SplitWakeup,
        Rule::FirstWait,
    ];
}

/// The rules that apply: all but those that were left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    left_out: u32,
}

impl Rules {
    /// These, without one.
    #[cfg(any(test, feature = "internals"))]
    pub fn without(self, rule: Rule) -> Rules {
        Rules { left_out: self.left_out | 1 << rule as u32 }
    }

    /// Whether a rule applies.
    pub fn has(self, rule: Rule) -> bool {
        self.left_out & 1 << rule as u32 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_can_be_left_out_alone() {
        for left_out in Rule::ALL {
            let rules = Rules::default().without(left_out);
            assert!(Rule::ALL.iter().all(|rule| rules.has(*rule) == (*rule != left_out)), "{left_out:?}");
        }
    }
}
