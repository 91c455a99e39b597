//! The end of a sample: classifies every thread, attributes its time, and emits a sample of each
//! GIL.

use super::Sampler;
use crate::capture::classify::Classification;
use crate::capture::thread_tracker::GilView;
use crate::ids::Addr;
use crate::python::gil::GilReading;
use crate::python::layout::Minor;
use crate::sample::{GilSample, Holder, Sink, State};
use crate::units::Nanos;

/// The first minor version whose locks spin before they sleep: `PyMutex` (Python/lock.c).
const LOCKS_SPIN: Minor = Minor(3, 13);

impl Sampler {
    /// `is_stopped`: the program as a whole was stopped.
    pub(super) fn attribute(&mut self, is_stopped: bool, sink: &mut dyn Sink) {
        let (span, at) = ((self.accounted_until, self.weight_until), self.weight_until);
        self.identify_holders();
        for n in 0..self.schedule.count() {
            let index = self.schedule.get(n);
            let thread = &mut self.threads[index];
            let Some(g) = self.gils.0.iter().position(|gil| gil.at == thread.gil) else {
                let classification = thread.classify(at, &GilView::default());
                thread.attribute(span, classification, None, sink);
                self.schedule.defer(index, thread.next_poll_at(), thread.has_moved());
                continue;
            };
            let (gil, reading) = (&mut self.gils.0[g], self.runtime_state.gils[g].1);
            let waited_on = gil.holder.as_ref().filter(|(holder, ..)| *holder != index).map(|(_, id, stack)| (*id, stack));
            if thread.is_still_waiting() {
                thread.attribute_wait(at, waited_on, sink);
                (gil.waiters, gil.contended) = (gil.waiters + 1, true);
                continue;
            }
            let holder = reading.and_then(|r| r.holder);
            let holds = |holder: Option<Addr>| !thread.tstate.is_null() && holder == Some(thread.tstate);
            let view = GilView {
                held_before: holds(holder),
                held_after: holds(self.gils_after.get(g).and_then(|after| after.as_ref()?.holder)),
                other_holds: holder.is_some_and(|holder| holder != thread.tstate),
                may_have_held: reading.is_none_or(|now| gil.may_have_held(&now, thread.tstate)),
                is_off: reading.is_some_and(|now| !now.enabled),
                uncontended_since: gil.uncontended_since,
                interval: reading.map_or(Nanos::ZERO, |r| Nanos::from_micros(r.interval_us)),
                locks_spin: self.python.layout.minor >= LOCKS_SPIN,
            };
            let classification = thread.classify(at, &view);
            let waits = matches!(classification, Classification::Known(State::Waiting, _));
            let may_wait = matches!(classification, Classification::Ambiguous { .. }) || view.held_before && !view.held_after;
            (gil.waiters, gil.contended) = (gil.waiters + u32::from(waits), gil.contended || waits || may_wait);
            thread.attribute(span, classification, waited_on, sink);
            self.schedule.defer(index, thread.next_poll_at(), thread.has_moved());
        }
        if !is_stopped {
            self.emit_gil_samples(span, sink);
        }
    }

    /// Notes the holder of each GIL when the sample began, with its stack.
    fn identify_holders(&mut self) {
        for (gil, (_, reading)) in self.gils.0.iter_mut().zip(&self.runtime_state.gils) {
            let index = reading.and_then(|r| r.holder).and_then(|holder| self.by_tstate.get(&holder)).copied();
            gil.holder = index.map(|index| (index, self.threads[index].info.id, self.threads[index].stack.stack().clone()));
            (gil.waiters, gil.contended) = (0, false);
        }
    }

    fn emit_gil_samples(&mut self, (begin, at): (Nanos, Nanos), sink: &mut dyn Sink) {
        let span = at.saturating_since(begin);
        for (g, (gil, (_, reading))) in self.gils.0.iter_mut().zip(&self.runtime_state.gils).enumerate() {
            let Some(GilReading { holder, switches, .. }) = *reading else { continue };
            if !gil.contended {
                gil.uncontended_since = Some(at);
            }
            let holder = match (holder, &gil.holder) {
                (None, _) => Holder::Nobody,
                (Some(_), Some((_, id, _))) => Holder::Thread(*id),
                (Some(_), None) => Holder::Unmatched,
            };
            let collecting = self.runtime_state.is_collecting(gil.at);
            sink.gil(&GilSample {
                gil: self.gil_ids.by_index(g),
                at,
                span,
                holder,
                switches: Some(switches),
                waiters: gil.waiters,
                collecting,
            });
        }
    }
}
