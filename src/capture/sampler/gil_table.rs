//! What is kept of each GIL from look to look, and what one look finds out about it.

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
    /// As the last good look found it.
    pub previous: Option<GilReading>,
    /// When nobody was last seen to wait for it.
    pub uncontended_since: Option<Nanos>,
    /// The place of the thread that held it when this look began, if it is known.
    pub holder_at: Option<usize>,
    /// That thread has no other thread state, so that it cannot be another that holds (see `bindings`).
    pub unambiguous: bool,
    /// The holder's place among the threads, and its stack, when this look began.
    pub holder: Option<(usize, ThreadId, Arc<Stack>)>,
    /// Threads that this look told to wait for it.
    pub waiters: u32,
    /// Whether somebody may wait for it at this look.
    pub contended: bool,
}

impl TrackedGil {
    fn new(at: Addr) -> TrackedGil {
        TrackedGil {
            at,
            previous: None,
            uncontended_since: None,
            holder_at: None,
            unambiguous: false,
            holder: None,
            waiters: 0,
            contended: false,
        }
    }

    /// Whether the thread under this state cannot have had it since the last look, and another that is known has it now. CPython counts every
    /// change of the holder: after none or one, only who held last then and who holds now have had it. Not where it is not sure who holds: a thread may
    /// run under a thread state with another's ids (up to 3.12), and would then be passed over for ever.
    pub fn cannot_have_held(&self, now: &GilReading, tstate: Addr) -> bool {
        self.holder_at.is_some() && self.unambiguous && !self.may_have_held(now, tstate)
    }

    /// Whether the thread under this state may have had it since the last look: who let go and took it back is not counted as a change.
    pub fn may_have_held(&self, now: &GilReading, tstate: Addr) -> bool {
        let Some(before) = self.previous else { return true };
        before.last_holder == tstate || now.last_holder == tstate || now.switches.wrapping_sub(before.switches) > 1
    }
}

/// All of them, in the roster's order.
#[derive(Debug, Default)]
pub(super) struct GilTable(pub Vec<TrackedGil>);

impl GilTable {
    /// Brings them in step with the GILs that there are. What was known of one stays known.
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
    fn who_has_not_had_the_gil_since_the_last_look() {
        let mut gils = GilTable::default();
        gils.update(&runtime_state(&[1]));
        (gils.0[0].holder_at, gils.0[0].unambiguous) = (Some(0), true);
        assert!(!gils.0[0].cannot_have_held(&reading(7, 3), Addr(9)), "nothing is known of the time before");
        gils.0[0].previous = Some(reading(7, 3));
        for (now, tstate, expected) in [
            (reading(7, 3), 9, true),
            (reading(7, 3), 7, false),
            // It may have held in between, and let go: taking it back is not counted.
            (reading(8, 4), 7, false),
            (reading(8, 4), 8, false),
            (reading(8, 4), 9, true),
            // Whoever held between the two is not known.
            (reading(8, 5), 9, false),
            (reading(8, 2), 9, false),
        ] {
            assert_eq!(gils.0[0].cannot_have_held(&now, Addr(tstate)), expected, "{now:?} {tstate}");
            assert_eq!(gils.0[0].may_have_held(&now, Addr(tstate)), !expected, "{now:?} {tstate}");
        }
    }

    #[test]
    fn nobody_is_passed_over_by_who_may_not_be_the_holder() {
        let mut gils = GilTable::default();
        gils.update(&runtime_state(&[1]));
        (gils.0[0].holder_at, gils.0[0].previous) = (Some(0), Some(reading(7, 3)));
        assert!(!gils.0[0].cannot_have_held(&reading(7, 3), Addr(9)));
        gils.0[0].unambiguous = true;
        assert!(gils.0[0].cannot_have_held(&reading(7, 3), Addr(9)));
    }

    #[test]
    fn what_is_known_of_a_gil_stays_with_it() {
        let mut gils = GilTable::default();
        gils.update(&runtime_state(&[1, 5]));
        gils.0[1].uncontended_since = Some(Nanos::from_millis(3));
        gils.update(&runtime_state(&[1, 7, 5]));
        assert_eq!(gils.0.iter().map(|gil| gil.uncontended_since.is_some()).collect::<Vec<_>>(), [false, false, true]);
    }
}
