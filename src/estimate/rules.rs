//! The rules of the estimate that can be left out, to see what each is worth: `scripts/eval replay
//! --without RULE`. A rule that is worth nothing goes.

/// A rule. The first words of each say where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `state_machine`: a thread within a C call is presumed to sleep for what it sleeps for there.
    InCCall,
    /// `state_machine`: on versions whose locks spin, a thread woken from a lock wants the GIL.
    AfterLock,
    /// `state_machine`: the same as `InCCall` for counts of switches, with all sleeps.
    SleepsInCCall,
    /// `state_machine`: a thread that may have had the GIL since may sleep for something else.
    MayHaveHeld,
    /// `classify`: a request (3.15) may have been made after the sample had begun.
    RequestStarted,
    /// `classify`: without a drop request, a thread that leaves a system call does not want the
    /// GIL.
    NoDropRequest,
    /// `classify`: in a C call and without knowledge of a drop request, CPU time decides.
    UnknownDropRequest,
    /// `classify`: woken within a C call, before it requests the GIL.
    BeforeRequest,
    /// `classify`: on a CPU, and the holder when the sample ended.
    HeldAfter,
    /// `classify`, counts of switches: pushed off after a forced release.
    ForcedRelease,
    /// `classify`, counts of switches: pushed off next to a wait.
    PushedOffNearWait,
    /// `thread_estimator`: the thread's drop-request bit.
    DropRequestBit,
    /// `cpu_attribution`: runnable and then waiting is next to the wait.
    NearWait,
    /// `cpu_attribution`: between two holds there may have been a wait.
    BetweenHolds,
    /// `cpu_attribution`: more CPU time than any credit is native code.
    NativeExcess,
    /// `cpu_attribution`: time that no count covers is a short sleep.
    ShortSleeps,
    /// `cpu_attribution`: samples overstate a little before it counts as starvation.
    Tolerance,
    /// `cpu_attribution`: the difference of an interval is carried into the next.
    Carry,
    /// `cpu_attribution`: the end of a sleep was in the run queue.
    SplitWakeup,
    /// `cpu_attribution`: run-queue time may be counted later than it is sampled.
    QueueDebit,
    /// `off_gil`: next to a wait a thread may run native code.
    OffGil,
    /// `off_gil`: CPU time between two samples of one mode.
    Pairs,
    /// `off_gil`: holding gets a CPU as often as it did in intervals of holding alone.
    HoldingOnly,
    /// `state_machine`: a thread starts in the run queue.
    FirstWait,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 24] = [
        Rule::InCCall,
        Rule::AfterLock,
        Rule::SleepsInCCall,
        Rule::MayHaveHeld,
        Rule::RequestStarted,
        Rule::NoDropRequest,
        Rule::UnknownDropRequest,
        Rule::BeforeRequest,
        Rule::HeldAfter,
        Rule::ForcedRelease,
        Rule::PushedOffNearWait,
        Rule::DropRequestBit,
        Rule::NearWait,
        Rule::BetweenHolds,
        Rule::NativeExcess,
        Rule::ShortSleeps,
        Rule::Tolerance,
        Rule::Carry,
        Rule::SplitWakeup,
        Rule::QueueDebit,
        Rule::OffGil,
        Rule::Pairs,
        Rule::HoldingOnly,
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
