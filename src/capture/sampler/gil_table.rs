//! What is kept of each GIL from sample to sample, and what the current sample shows of it.

use crate::ids::{Addr, ThreadId};
use crate::python::gil::GilReading;
use crate::python::interpreters::RuntimeState;
use crate::sample::Stack;
use crate::units::Nanos;
use std::sync::Arc;

/// One GIL.
#[derive(Debug)]
pub(super) struct TrackedGil {
    pub at: Addr,
    /// The reading of the last complete sample.
    pub previous: Option<GilReading>,
    /// When a sample last found no thread waiting for it.
    pub uncontended_since: Option<Nanos>,
    /// The index of the thread that held it when this sample began, if that thread is known.
    pub holder_index: Option<usize>,
    /// The holding thread has no other thread state, so the holder cannot be a foreign thread state
    /// (see `bindings`).
    pub unambiguous: bool,
    /// The holder when this sample began, as index and id, with its stack.
    pub holder: Option<(usize, ThreadId, Arc<Stack>)>,
    /// Threads that this sample found waiting for it.
    pub waiters: u32,
    /// Whether any thread may wait for it in this sample.
    pub contended: bool,
}

impl TrackedGil {
    fn new(at: Addr) -> TrackedGil {
        TrackedGil {
            at,
            previous: None,
            uncontended_since: None,
            holder_index: None,
            unambiguous: false,
            holder: None,
            waiters: 0,
            contended: false,
        }
    }

    /// Whether the thread with this thread state cannot have had the GIL since the last sample, and
    /// another known thread has it now. `switch_number` counts each GIL switch to another thread:
    /// after at most one, only the last holder of then and that of now have had the GIL. False
    /// where the holder is ambiguous: up to 3.12 a thread may run under a thread state with another
    /// thread's ids, and the real holder would then never be polled.
    pub fn cannot_have_held(&self, now: &GilReading, tstate: Addr) -> bool {
        self.holder_index.is_some() && self.unambiguous && !self.may_have_held(now, tstate)
    }

    /// Whether the thread with this thread state may have had the GIL since the last sample. A
    /// thread that releases the GIL and takes it back is not counted as a switch.
    pub fn may_have_held(&self, now: &GilReading, tstate: Addr) -> bool {
        let Some(before) = self.previous else { return true };
        before.last_holder == tstate || now.last_holder == tstate || now.switches.wrapping_sub(before.switches) > 1
    }
}

/// All GILs, in the order of `RuntimeState::gils`.
#[derive(Debug, Default)]
pub(super) struct GilTable(pub Vec<TrackedGil>);

impl GilTable {
    /// Follows the current list of GILs. A GIL that is still there keeps its history.
    pub fn update(&mut self, runtime_state: &RuntimeState) {
        if self.0.iter().map(|gil| gil.at).eq(runtime_state.gils.iter().map(|(at, _)| *at)) {
            return;
        }
        let mut before = std::mem::take(&mut self.0);
        let mut known = |at: Addr| before.iter().position(|gil| gil.at == at).map(|i| before.swap_remove(i));
        self.0 = runtime_state.gils.iter().map(|&(at, _)| known(at).unwrap_or(TrackedGil::new(at))).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(last_holder: u64, switches: u64) -> GilReading {
        GilReading { enabled: true, holder: Some(Addr(last_holder)), last_holder: Addr(last_holder), switches, interval_us: 5000 }
    }

    fn runtime_state(gils: &[u64]) -> RuntimeState {
        let mut runtime_state = RuntimeState::default();
        runtime_state.gils = gils.iter().map(|&at| (Addr(at), None)).collect();
        runtime_state
    }

    #[test]
    fn a_gil_switch_count_shows_which_threads_cannot_have_held() {
        let mut gils = GilTable::default();
        gils.update(&runtime_state(&[1]));
        (gils.0[0].holder_index, gils.0[0].unambiguous) = (Some(0), true);
        assert!(!gils.0[0].cannot_have_held(&reading(7, 3), Addr(9)), "nothing is known of the time before");
        gils.0[0].previous = Some(reading(7, 3));
        for (now, tstate, expected) in [
            (reading(7, 3), 9, true),
            (reading(7, 3), 7, false),
            // The thread may have held and released in between: taking the GIL back is not counted.
            (reading(8, 4), 7, false),
            (reading(8, 4), 8, false),
            (reading(8, 4), 9, true),
            // Which threads held between the two samples is unknown.
            (reading(8, 5), 9, false),
            (reading(8, 2), 9, false),
        ] {
            assert_eq!(gils.0[0].cannot_have_held(&now, Addr(tstate)), expected, "{now:?} {tstate}");
            assert_eq!(gils.0[0].may_have_held(&now, Addr(tstate)), !expected, "{now:?} {tstate}");
        }
    }

    #[test]
    fn an_ambiguous_holder_rules_no_thread_out() {
        let mut gils = GilTable::default();
        gils.update(&runtime_state(&[1]));
        (gils.0[0].holder_index, gils.0[0].previous) = (Some(0), Some(reading(7, 3)));
        assert!(!gils.0[0].cannot_have_held(&reading(7, 3), Addr(9)));
        gils.0[0].unambiguous = true;
        assert!(gils.0[0].cannot_have_held(&reading(7, 3), Addr(9)));
    }

    #[test]
    fn a_gil_keeps_its_history_when_the_list_changes() {
        let mut gils = GilTable::default();
        gils.update(&runtime_state(&[1, 5]));
        gils.0[1].uncontended_since = Some(Nanos::from_millis(3));
        gils.update(&runtime_state(&[1, 7, 5]));
        assert_eq!(gils.0.iter().map(|gil| gil.uncontended_since.is_some()).collect::<Vec<_>>(), [false, false, true]);
    }
}
