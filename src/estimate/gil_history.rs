//! What is kept of each GIL from sample to sample.

use crate::ids::{Addr, GilId};
use crate::sample::GilReading;
use crate::units::Nanos;

/// One GIL.
#[derive(Clone, Copy, Debug)]
pub struct GilHistory {
    /// Its id.
    pub id: GilId,
    /// The reading of the last complete sample.
    pub(super) previous: Option<GilReading>,
    /// When a sample last found no thread waiting for it.
    pub(super) uncontended_since: Option<Nanos>,
    /// Threads that the current sample found waiting for it.
    pub(super) waiters: u32,
    /// Whether any thread may wait for it in the current sample.
    pub(super) contended: bool,
}

impl GilHistory {
    /// A GIL that no sample has read.
    pub fn new(id: GilId) -> GilHistory {
        GilHistory { id, previous: None, uncontended_since: None, waiters: 0, contended: false }
    }

    /// Whether the thread with this thread state may have had the GIL since the last sample. If
    /// not, a waiting thread is not read again (`Sampler::cannot_have_held`).
    /// `switch_number` counts each GIL switch to another thread: after at most one, only the last
    /// holder of then and that of now have had the GIL. A thread that releases the GIL and takes it
    /// back is not counted as a switch.
    pub fn may_have_held(&self, now: &GilReading, tstate: Addr) -> bool {
        let Some(before) = self.previous else { return true };
        before.last_holder == tstate || now.last_holder == tstate || now.switches.wrapping_sub(before.switches) > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(last_holder: u64, switches: u64) -> GilReading {
        GilReading { enabled: true, holder: Some(Addr(last_holder)), last_holder: Addr(last_holder), switches, interval_us: 5000 }
    }

    #[test]
    fn a_gil_switch_count_shows_which_threads_may_have_held() {
        let mut gil = GilHistory::new(GilId(0));
        assert!(gil.may_have_held(&reading(7, 3), Addr(9)), "nothing is known of the time before");
        gil.previous = Some(reading(7, 3));
        for (now, tstate, expected) in [
            (reading(7, 3), 9, false),
            (reading(7, 3), 7, true),
            // The thread may have held and released in between: taking the GIL back is not counted.
            (reading(8, 4), 7, true),
            (reading(8, 4), 8, true),
            (reading(8, 4), 9, false),
            // Which threads held between the two samples is unknown.
            (reading(8, 5), 9, true),
            (reading(8, 2), 9, true),
        ] {
            assert_eq!(gil.may_have_held(&now, Addr(tstate)), expected, "{now:?} {tstate}");
        }
    }
}
