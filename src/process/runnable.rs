//! Where a runnable thread is: on a CPU, or in the run queue and how it got there. Kernel stacks
//! tell most (`kernel_stack`), but only root may read them. Every user may read how often a thread
//! was switched out:
//!
//! - `schedstat` counts how often the thread got a CPU, `status` how often it was switched out. On
//!   a CPU the first count is one ahead of the second; off it they are equal.
//! - `status` counts switches of threads that went to sleep apart from those of threads that were
//!   pushed off. If only one of the two counts has moved, that was the last switch.
//!
//! Each thread's counts differ by a constant that is nearly always zero; it is corrected whenever
//! the thread is found asleep.

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
    /// Runs beyond switches while the thread is off the CPU.
    ahead: u64,
    runs: Option<u64>,
}

impl SwitchHistory {
    /// Whether the thread got a CPU since its counts were last read.
    pub fn is_stale(&self, runs: u64) -> bool {
        self.runs != Some(runs)
    }

    /// Takes the counts of a thread that is asleep.
    pub fn observe_asleep(&mut self, counts: SwitchCounts, runs: u64) {
        self.ahead = runs.wrapping_sub(counts.sum());
        (self.last, self.switched_out, self.runs) = (Some(counts), Some(RunnableState::Woken), Some(runs));
    }

    /// Where a runnable thread is, by its counts and those before; `None` where they do not tell.
    pub fn observe_runnable(&mut self, counts: SwitchCounts, runs: u64) -> Option<RunnableState> {
        let before = self.last.replace(counts);
        self.runs = Some(runs);
        let state = match runs.wrapping_sub(counts.sum()).wrapping_sub(self.ahead) {
            0 => before.and_then(|before| match (counts.voluntary != before.voluntary, counts.involuntary != before.involuntary) {
                (true, false) => Some(RunnableState::Woken),
                (false, true) => Some(RunnableState::PushedOff),
                (false, false) => self.switched_out,
                (true, true) => None,
            }),
            1 => Some(RunnableState::OnCpu),
            _ => None,
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
        assert_eq!(history.observe_runnable(counts(6, 6), 15), None);
    }

    #[test]
    fn a_thread_whose_counts_differ_by_more_is_known_once_it_slept() {
        let mut history = SwitchHistory::default();
        assert_eq!(history.observe_runnable(counts(3, 4), 0), None);
        history.observe_asleep(counts(4, 4), 1);
        assert!(history.is_stale(2) && !history.is_stale(1));
        assert_eq!(history.observe_runnable(counts(4, 4), 1), Some(RunnableState::Woken), "woken, and not run since");
        assert_eq!(history.observe_runnable(counts(4, 4), 2), Some(RunnableState::OnCpu));
        history.observe_moving(counts(4, 5));
        assert_eq!(history.observe_runnable(counts(4, 6), 3), Some(RunnableState::PushedOff));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = SwitchCounts::parse(&bytes);
        }
    }
}
