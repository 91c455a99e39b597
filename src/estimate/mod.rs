//! From samples as they were read to slices of states.
//!
//! ```text
//!  RawSample ─► Estimator ─► ThreadEstimator ─► classify ──► state_machine ─► cpu_attribution
//!  as read      every GIL    one thread's       one sample   history of       time that one
//!               and thread   part               to a state   one thread       sample cannot decide
//!                                                                              └─► Sink: slices
//! ```
//!
//! Nothing here reads the target: the same samples give the same slices, on any machine. `off_gil`
//! estimates what undecided time is for one thread; `pending_wait` joins waits that go on.

pub mod classify;
pub mod cpu_attribution;
pub mod gil_history;
pub mod off_gil;
pub mod pending_wait;
pub mod state_machine;
pub mod thread_estimator;

use crate::ids::GilId;
use crate::sample::{GilReading, GilSample, Holder, RawGil, RawSample, RawThread, Sink, State, TaskState};
use crate::units::Nanos;
use classify::Classification;
use gil_history::GilHistory;
use thread_estimator::{ThreadEstimator, ThreadsGil};

/// The histories of one process's threads, by their indices, and of its GILs.
#[derive(Debug, Default)]
pub struct Estimator {
    /// The threads.
    pub threads: Vec<ThreadEstimator>,
    gils: Vec<GilHistory>,
    /// A buffer.
    demands: Vec<Demand>,
}

/// What one sample shows of a GIL, beside what was read of it.
#[derive(Clone, Copy, Debug, Default)]
struct Demand {
    /// Threads that wait for it.
    waiters: u32,
    /// Whether any thread may wait for it.
    contended: bool,
}

impl Estimator {
    /// What earlier samples say of a GIL; `None` for a new one.
    pub fn gil(&self, id: GilId) -> Option<&GilHistory> {
        self.gils.iter().find(|gil| gil.id == id)
    }

    /// Gives every thread of the sample its state, and emits slices and a sample of each GIL.
    pub fn sample(&mut self, raw: &RawSample, sink: &mut dyn Sink) {
        self.follow_gils(raw);
        let mut demands = std::mem::take(&mut self.demands);
        demands.clear();
        demands.resize(raw.gils.len(), Demand::default());
        for thread in &raw.threads {
            self.sample_thread(raw, thread, &mut demands, sink);
        }
        for (now, (demand, history)) in raw.gils.iter().zip(demands.iter().zip(&mut self.gils)) {
            if !raw.is_stopped {
                emit_gil(raw.span, now, *demand, history, sink);
            }
            history.previous = now.reading;
        }
        self.demands = demands;
    }

    /// A GIL that is still there keeps its history.
    fn follow_gils(&mut self, raw: &RawSample) {
        if !self.gils.iter().map(|gil| gil.id).eq(raw.gils.iter().map(|gil| gil.id)) {
            self.gils = raw.gils.iter().map(|gil| self.gil(gil.id).copied().unwrap_or(GilHistory::new(gil.id))).collect();
        }
    }

    fn sample_thread(&mut self, raw: &RawSample, thread: &RawThread, demands: &mut [Demand], sink: &mut dyn Sink) {
        let (span, at) = (raw.span, raw.span.1);
        let Some(estimator) = self.threads.get_mut(thread.index) else { return };
        let Some((g, now)) = thread.gil.and_then(|g| Some((g, raw.gils.get(g)?))) else {
            let classification = estimator.classify(at, thread, None);
            return estimator.attribute(span, thread, classification, None, sink);
        };
        let demand = &mut demands[g];
        let waited_on = now.holder.as_ref().filter(|holder| holder.index != thread.index).map(|holder| (holder.id, &holder.stack));
        if thread.task.task_state == TaskState::StillWaiting {
            (demand.waiters, demand.contended) = (demand.waiters + 1, true);
            return estimator.extend_wait(at, &thread.stack, waited_on, sink);
        }
        let classification = estimator.classify(at, thread, Some(&ThreadsGil { now, history: &self.gils[g], locks_spin: raw.locks_spin }));
        let waits = matches!(classification, Classification::Known(State::Waiting, _));
        let held = |holder| !thread.tstate.is_null() && holder == Some(thread.tstate);
        let released = held(now.reading.and_then(|now| now.holder)) && !held(now.holder_after);
        let may_wait = matches!(classification, Classification::Ambiguous { .. }) || released;
        (demand.waiters, demand.contended) = (demand.waiters + u32::from(waits), demand.contended || waits || may_wait);
        estimator.attribute(span, thread, classification, waited_on, sink);
    }
}

fn emit_gil((begin, at): (Nanos, Nanos), now: &RawGil, demand: Demand, history: &mut GilHistory, sink: &mut dyn Sink) {
    let Some(GilReading { holder, switches, .. }) = now.reading else { return };
    if !demand.contended {
        history.uncontended_since = Some(at);
    }
    let holder = match (holder, &now.holder) {
        (None, _) => Holder::Nobody,
        (Some(_), Some(known)) => Holder::Thread(known.id),
        (Some(_), None) => Holder::Unmatched,
    };
    let (gil, span, waiters) = (now.id, at.saturating_since(begin), demand.waiters);
    sink.gil(&GilSample { gil, at, span, holder, switches: Some(switches), waiters, collecting: now.collecting });
}
