//! From samples as they were read to slices of states.
//!
//! ```text
//!  RawSample ─► Estimator ─► ThreadEstimator ─► classify ──► state_machine ─► cpu_attribution
//!  as read      all threads  one thread's       one sample   history of       time that one
//!               and GILs     part               to a state   one thread       sample cannot decide
//!                                                                              └─► Sink: slices
//! ```
//!
//! Nothing here reads the target: the same samples give the same slices, on any machine.
//! `raw_stream` writes down what the estimator was given, and reads it again; `replay` judges such
//! a stream.

pub mod classify;
pub mod cpu_attribution;
pub mod events;
pub mod gil_history;
#[cfg(feature = "internals")]
pub mod raw_stream;
#[cfg(feature = "internals")]
pub mod replay;
pub mod rules;
pub mod state_machine;
pub mod thread_estimator;

use crate::ids::GilId;
use crate::sample::{GilReading, GilSample, Holder, RawEvent, RawGil, RawSample, RawThread, SchedStat, Sink, Stack, State, TaskState};
use crate::units::Nanos;
use classify::Classification;
use gil_history::GilHistory;
use rules::Rules;
use std::sync::Arc;
use thread_estimator::{ThreadEstimator, ThreadsGil};

/// The histories of one process's threads, by their indices, and of its GILs.
#[derive(Debug, Default)]
pub struct Estimator {
    threads: Vec<ThreadEstimator>,
    gils: Vec<GilHistory>,
    rules: Rules,
}

impl Estimator {
    /// An estimator that follows these rules.
    #[cfg(any(test, feature = "internals"))]
    pub fn with_rules(rules: Rules) -> Estimator {
        Estimator { rules, ..Estimator::default() }
    }

    /// What earlier samples say of a GIL; `None` for a new one.
    pub fn gil(&self, id: GilId) -> Option<&GilHistory> {
        self.gils.iter().find(|gil| gil.id == id)
    }

    /// The thread at this index.
    pub fn thread(&self, index: usize) -> &ThreadEstimator {
        &self.threads[index]
    }

    /// All threads.
    pub fn threads(&self) -> &[ThreadEstimator] {
        &self.threads
    }

    /// Until when samples need not poll a thread, because it sleeps; zero when the next one must.
    pub fn next_poll_at(&mut self, raw: &RawThread) -> Nanos {
        self.threads.get_mut(raw.index).map_or(Nanos::ZERO, |thread| thread.next_poll_at(raw))
    }

    /// Takes what was read. `stack`: the stack of the thread that the event is about. Returns the
    /// last counts of a thread whose time ends.
    pub fn take(&mut self, event: &RawEvent<'_>, stack: &Arc<Stack>, sink: &mut dyn Sink) -> Option<SchedStat> {
        sink.raw(event);
        match *event {
            RawEvent::Start { id, at, stat, just_started, .. } => {
                self.threads.push(ThreadEstimator::new(id, at, stat, just_started, self.rules))
            }
            RawEvent::Restart { index, at, stat } => self.threads.get_mut(index)?.restart(at, stat),
            RawEvent::Sample(raw) => self.sample(raw, sink),
            RawEvent::Last { index, span, held, in_c_call } => {
                self.threads.get_mut(index)?.attribute_last(span, held, in_c_call, stack, sink);
            }
            RawEvent::Finish { index, at, stat } => return self.threads.get_mut(index)?.finish(at, stat, stack, sink),
            RawEvent::Remove(gone) => {
                let mut index = 0;
                self.threads.retain(|_| {
                    index += 1;
                    gone.binary_search(&(index - 1)).is_err()
                });
            }
        }
        None
    }

    /// Gives every thread of the sample its state, and emits slices and a sample of each GIL.
    fn sample(&mut self, raw: &RawSample, sink: &mut dyn Sink) {
        self.follow_gils(raw);
        for thread in &raw.threads {
            self.sample_thread(raw, thread, sink);
        }
        for (now, history) in raw.gils.iter().zip(&mut self.gils) {
            if !raw.is_stopped {
                emit_gil(raw.span, now, history, sink);
            }
            history.previous = now.reading;
            (history.waiters, history.contended) = (0, false);
        }
    }

    /// A GIL that is still there keeps its history.
    fn follow_gils(&mut self, raw: &RawSample) {
        if !self.gils.iter().map(|gil| gil.id).eq(raw.gils.iter().map(|gil| gil.id)) {
            self.gils = raw.gils.iter().map(|gil| self.gil(gil.id).copied().unwrap_or(GilHistory::new(gil.id))).collect();
        }
    }

    fn sample_thread(&mut self, raw: &RawSample, thread: &RawThread, sink: &mut dyn Sink) {
        let (span, at) = (raw.span, raw.span.1);
        let Some(estimator) = self.threads.get_mut(thread.index) else { return };
        let Some((g, now)) = thread.gil.and_then(|g| Some((g, raw.gils.get(g)?))) else {
            let classification = estimator.classify(at, thread, None);
            return estimator.attribute(span, thread, classification, None, sink);
        };
        let gil = &mut self.gils[g];
        let waited_on = now.holder.as_ref().filter(|holder| holder.index != thread.index).map(|holder| (holder.id, &holder.stack));
        // The table's row for this needs nothing else.
        if thread.task.task_state == TaskState::StillWaiting {
            (gil.waiters, gil.contended) = (gil.waiters + 1, true);
            return estimator.extend_wait(at, &thread.stack, waited_on, sink);
        }
        let classification = estimator.classify(at, thread, Some(&ThreadsGil { now, history: gil }));
        let waits = matches!(classification, Classification::Known(State::Waiting, _));
        let held = |holder| !thread.tstate.is_null() && holder == Some(thread.tstate);
        let released = held(now.reading.and_then(|now| now.holder)) && !held(now.holder_after);
        let may_wait = matches!(classification, Classification::NearWait(_)) || released;
        (gil.waiters, gil.contended) = (gil.waiters + u32::from(waits), gil.contended || waits || may_wait);
        estimator.attribute(span, thread, classification, waited_on, sink);
    }
}

fn emit_gil((begin, at): (Nanos, Nanos), now: &RawGil, history: &mut GilHistory, sink: &mut dyn Sink) {
    let Some(GilReading { holder, switches, .. }) = now.reading else { return };
    if !history.contended {
        history.uncontended_since = Some(at);
    }
    let holder = match (holder, &now.holder) {
        (None, _) => Holder::Nobody,
        (Some(_), Some(known)) => Holder::Thread(known.id),
        (Some(_), None) => Holder::Unmatched,
    };
    let (gil, span, waiters) = (now.id, at.saturating_since(begin), history.waiters);
    sink.gil(&GilSample { gil, at, span, holder, switches: Some(switches), waiters, collecting: now.collecting });
}
