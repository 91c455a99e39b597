//! Where a runnable thread is: on a CPU, or in the run queue and how it got there. Kernel stacks
//! tell most (`kernel_stack`), but only root may read them. Every user may read how often a thread
//! was switched out:
//!
//! - `schedstat` counts how often the thread got a CPU, `status` how often it was switched out. On
//!   a CPU the first count is one ahead of the second; off it they are equal.
//! - `status` counts switches of threads that went to sleep apart from those of threads that were
//!   pushed off. If only one of the two counts has moved, that was the last switch.
//!
//! Each thread's counts differ by a constant besides, which is nearly always zero. It is known once
//! the thread is found asleep on the GIL. Until then it is taken to be zero, while that is
//! possible.

use crate::sample::RunnableState;

/// How often a thread was switched out, by `/proc/PID/task/TID/status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwitchCounts {
    /// Because it went to sleep.
    pub voluntary: u64,
    /// Because another thread got its CPU.
    pub involuntary: u64,
}

impl SwitchCounts {
    /// The counts in the text of the file; `None` if it has none.
    pub fn parse(status: &[u8]) -> Option<SwitchCounts> {
        let text = String::from_utf8_lossy(status);
        let count = |name: &str| text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok();
        Some(SwitchCounts { voluntary: count("voluntary_ctxt_switches:")?, involuntary: count("nonvoluntary_ctxt_switches:")? })
    }

    pub(super) fn sum(self) -> u64 {
        self.voluntary.wrapping_add(self.involuntary)
    }
}

/// The counts of one thread from sample to sample.
#[derive(Debug, Default)]
pub struct SwitchHistory {
    last: Option<SwitchCounts>,
    /// How the thread was last switched out, if it was off the CPU then.
    switched_out: Option<RunnableState>,
    /// The least and the most that runs can be beyond switches while the thread is off the CPU.
    ahead: (i64, i64),
    runs: Option<u64>,
}

impl SwitchHistory {
    /// Whether the thread got a CPU since its counts were last read.
    pub fn is_stale(&self, runs: u64) -> bool {
        self.runs != Some(runs)
    }

    /// Takes the counts of a thread that is asleep.
    pub fn observe_asleep(&mut self, counts: SwitchCounts, runs: u64) {
        let ahead = runs.wrapping_sub(counts.sum()) as i64;
        self.ahead = (ahead, ahead);
        (self.last, self.switched_out, self.runs) = (Some(counts), Some(RunnableState::Woken), Some(runs));
    }

    /// Where a runnable thread is, by its counts and those before; `None` where they do not tell.
    pub fn observe_runnable(&mut self, counts: SwitchCounts, runs: u64) -> Option<RunnableState> {
        let before = self.last.replace(counts);
        self.runs = Some(runs);
        let ahead = runs.wrapping_sub(counts.sum()) as i64;
        // It is the constant if the thread is off the CPU, and else one more.
        let possible = (self.ahead.0.max(ahead.saturating_sub(1)), self.ahead.1.min(ahead));
        self.ahead = if possible.0 <= possible.1 { possible } else { (ahead.saturating_sub(1), ahead) };
        let state = match ahead.saturating_sub(self.ahead.0) {
            _ if self.ahead.0 != self.ahead.1 => None,
            0 => before.and_then(|before| match (counts.voluntary != before.voluntary, counts.involuntary != before.involuntary) {
                (true, false) => Some(RunnableState::Woken),
                (false, true) => Some(RunnableState::PushedOff),
                (false, false) => self.switched_out,
                (true, true) => None,
            }),
            _ => Some(RunnableState::OnCpu),
        };
        self.switched_out = state.filter(|state| *state != RunnableState::OnCpu);
        state
    }

    /// Takes the counts of a thread that got a CPU while they were read.
    pub fn observe_moving(&mut self, counts: SwitchCounts) {
        (self.last, self.switched_out, self.runs) = (Some(counts), None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(voluntary: u64, involuntary: u64) -> SwitchCounts {
        SwitchCounts { voluntary, involuntary }
    }

    #[test]
    fn the_form_of_the_counts() {
        let text = b"Name:\tpython3\nMems_allowed_list:\t0\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n";
        assert_eq!(SwitchCounts::parse(text), Some(counts(150, 545)));
        assert_eq!(SwitchCounts::parse(b"voluntary_ctxt_switches:\t150\n"), None);
        assert_eq!(SwitchCounts::parse(b"voluntary_ctxt_switches:\tx\nnonvoluntary_ctxt_switches:\t1\n"), None);
    }

    #[test]
    fn on_a_cpu_the_runs_are_one_ahead_of_the_switches() {
        let mut history = SwitchHistory::default();
        assert_eq!(history.observe_runnable(counts(3, 4), 8), Some(RunnableState::OnCpu));
        assert_eq!(history.observe_runnable(counts(3, 5), 8), Some(RunnableState::PushedOff));
        assert_eq!(history.observe_runnable(counts(3, 5), 8), Some(RunnableState::PushedOff), "it has not run since");
        assert_eq!(history.observe_runnable(counts(5, 5), 10), Some(RunnableState::Woken));
        assert_eq!(history.observe_runnable(counts(6, 6), 12), None, "which of the two came last is unknown");
    }

    #[test]
    fn a_thread_whose_counts_differ_by_more_is_known_once_it_slept() {
        let mut history = SwitchHistory::default();
        history.observe_asleep(counts(4, 4), 1);
        assert!(history.is_stale(2) && !history.is_stale(1));
        assert_eq!(history.observe_runnable(counts(4, 4), 1), Some(RunnableState::Woken), "woken, and not run since");
        assert_eq!(history.observe_runnable(counts(4, 4), 2), Some(RunnableState::OnCpu));
        history.observe_moving(counts(4, 5));
        assert_eq!(history.observe_runnable(counts(4, 6), 3), Some(RunnableState::PushedOff));
    }

    #[test]
    fn nothing_is_said_before_it_is_known_by_how_much_the_counts_differ() {
        let mut history = SwitchHistory::default();
        // Seven runs are missing: six on a CPU.
        assert_eq!(history.observe_runnable(counts(30, 4), 28), None);
        assert_eq!(history.observe_runnable(counts(31, 4), 29), None);
        assert_eq!(history.observe_runnable(counts(31, 5), 29), Some(RunnableState::PushedOff));
        assert_eq!(history.observe_runnable(counts(31, 5), 30), Some(RunnableState::OnCpu));
        // Three too many.
        let mut history = SwitchHistory::default();
        assert_eq!(history.observe_runnable(counts(3, 4), 11), None);
        assert_eq!(history.observe_runnable(counts(4, 4), 11), Some(RunnableState::Woken));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = SwitchCounts::parse(&bytes);
        }
    }
}
