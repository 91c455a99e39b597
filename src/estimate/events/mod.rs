//! From the kernel's events to slices of states: the estimate of the kernel engine.
//!
//! ```text
//!  CpuRun, Tick, ThreadNow ─► EventEstimator ─► ThreadEvents ─► OpenWait    did the wait end?
//!                                  │                │  └──────► Stratum     holding or native?
//!                                  ▼                ▼
//!                            GilTimelines ──────► Pieces ─► Sink: slices
//!                            who held it when     undecided time, in order
//! ```
//!
//! Events give the time on a CPU, asleep, in the run queue and in waits for the GIL exactly, but
//! for the few microseconds of a run in which a thread takes or releases the GIL. The ticks of a
//! clock divide the time on a CPU between holding and native code. Nothing here reads the target.

mod gil_timeline;
mod input;
mod open_wait;
mod phase;
mod pieces;
mod position;
mod rules;
mod strata;
mod thread_events;

#[cfg(test)]
mod tests;

pub use input::{Found, InputFaults, Tick};
#[cfg(test)]
pub use rules::EventRule;
pub use rules::EventRules;

use crate::ids::{Addr, GilId, ThreadId};
use crate::sample::{CpuRun, GilView, OffCpu, Sink, Stack, ThreadNow, ThreadTotals};
use crate::units::Nanos;
use gil_timeline::GilTimelines;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use strata::Shares;
use thread_events::{Shared, ThreadEvents};

/// The histories of one process's threads and GILs, from the kernel's events.
///
/// The events of one thread must arrive in order of time, those of different threads nearly so. At
/// each drain, about ten times a second, the events of all threads come first, then
/// [`EventEstimator::now`] of each thread. Slices leave at drains, up to 250 ms late.
#[derive(Debug, Default)]
pub struct EventEstimator {
    threads: FxHashMap<ThreadId, ThreadEvents>,
    gils: GilTimelines,
    pooled: Shares,
    faults: InputFaults,
    rules: EventRules,
}

impl EventEstimator {
    /// An estimator that follows these rules.
    #[cfg(any(test, feature = "internals"))]
    pub fn with_rules(rules: EventRules) -> EventEstimator {
        EventEstimator { rules, ..EventEstimator::default() }
    }

    /// What was wrong with the events so far.
    pub fn faults(&self) -> InputFaults {
        self.faults
    }

    /// A thread's time begins. `python`: it has a thread state.
    pub fn start(&mut self, thread: ThreadId, at: Nanos, python: bool, found: Found) {
        self.threads.insert(thread, ThreadEvents::new(thread, at, python, found));
    }

    /// A thread has been asleep since before its first event, for this reason, with the GIL in this
    /// state.
    pub fn assume(&mut self, thread: ThreadId, off: OffCpu, view: &GilView, stack: &Arc<Stack>) {
        if let Some(events) = self.threads.get_mut(&thread) {
            events.assume(off, view, stack);
        }
    }

    /// A thread has this thread state, as the interpreter's list of them says. Without this call it
    /// becomes known when the thread holds the GIL at one of its events.
    pub fn thread_state(&mut self, thread: ThreadId, gil: GilId, tstate: Addr, sink: &mut dyn Sink) {
        self.with(thread, sink, |events, shared| events.assign((gil, tstate), shared));
    }

    /// A run of a thread has ended. `stack`: its Python stack then, if it was read.
    pub fn run(&mut self, thread: ThreadId, run: &CpuRun, stack: Option<Arc<Stack>>, sink: &mut dyn Sink) {
        self.with(thread, sink, |events, shared| events.run(run, stack, shared));
    }

    /// A tick of the clock found a thread on a CPU.
    pub fn tick(&mut self, thread: ThreadId, tick: Tick, sink: &mut dyn Sink) {
        self.with(thread, sink, |events, shared| events.tick(tick, shared));
    }

    /// Where a thread is at a drain. Accounts for its time up to `at`.
    pub fn now(&mut self, thread: ThreadId, at: Nanos, now: ThreadNow, sink: &mut dyn Sink) {
        self.with(thread, sink, |events, shared| events.now(at, now, shared));
    }

    /// Accounts for the time up to `at` of threads of which no event has come.
    pub fn rest(&mut self, at: Nanos, sink: &mut dyn Sink) {
        let EventEstimator { threads, gils, pooled, faults, rules } = self;
        let mut shared = Shared { gils, pooled, faults, rules: *rules, sink };
        threads.values_mut().for_each(|events| events.rest(at, &mut shared));
    }

    /// A thread has ended, or the window ends. Returns its totals; `None` for an unknown thread.
    pub fn end(&mut self, thread: ThreadId, at: Nanos, sink: &mut dyn Sink) -> Option<ThreadTotals> {
        let events = self.threads.remove(&thread)?;
        Some(events.end(at, &mut self.shared(sink)))
    }

    /// The process runs another program. The threads of the one before have ended, and what was
    /// known of its GILs does not hold any longer.
    pub fn new_program(&mut self) {
        self.threads.clear();
        self.gils.clear();
    }

    fn with(&mut self, thread: ThreadId, sink: &mut dyn Sink, act: impl FnOnce(&mut ThreadEvents, &mut Shared<'_>)) {
        let EventEstimator { threads, gils, pooled, faults, rules } = self;
        if let Some(events) = threads.get_mut(&thread) {
            act(events, &mut Shared { gils, pooled, faults, rules: *rules, sink });
        }
    }

    fn shared<'a>(&'a mut self, sink: &'a mut dyn Sink) -> Shared<'a> {
        let EventEstimator { gils, pooled, faults, rules, .. } = self;
        Shared { gils, pooled, faults, rules: *rules, sink }
    }
}
