//! The end of a sample: what was read becomes one value, and the estimator gives each thread its
//! state.

use super::Sampler;
use crate::sample::{RawEvent, RawGil, RawHolder, RawSample, RawThread, Sink};
use crate::units::Nanos;

impl Sampler {
    /// `is_stopped`: the program as a whole was stopped.
    pub(super) fn attribute(&mut self, is_stopped: bool, sink: &mut dyn Sink) {
        let mut raw = std::mem::take(&mut self.raw);
        self.fill(&mut raw, is_stopped);
        let threads = &mut self.threads;
        threads.estimator.take(&RawEvent::Sample(&raw), &threads.empty_stack, sink);
        for polled in &raw.threads {
            let reader = &threads.readers[polled.index];
            if !reader.is_still_waiting() {
                let until = threads.estimator.next_poll_at(polled);
                threads.schedule.defer(polled.index, until, reader.has_moved());
            }
        }
        self.raw = raw;
    }

    /// Whether nothing of the program ran in the last sample, nor shortly before: every thread
    /// sleeps, and no GIL is held.
    pub fn is_idle(&self) -> bool {
        let is_free = |gil: &RawGil| gil.reading.is_some_and(|reading| reading.holder.is_none()) && gil.holder_after.is_none();
        self.threads.schedule.is_idle()
            && !self.raw.gils.is_empty()
            && self.raw.gils.iter().all(is_free)
            && !self.binder.bindings_pending
            && !self.stop_detector.is_lasting()
    }

    /// Takes a sample of an idle program that has not run since the last one: nothing need be read.
    pub fn sample_idle(&mut self, until: Nanos, sink: &mut dyn Sink) {
        let until = until.max(self.times.accounted_until);
        self.raw.span = (self.times.accounted_until, until);
        self.raw.threads.clear();
        self.threads.estimator.take(&RawEvent::Sample(&self.raw), &self.threads.empty_stack, sink);
        (self.times.last_sample, self.times.accounted_until) = (Some(until), until);
    }

    fn fill(&self, raw: &mut RawSample, is_stopped: bool) {
        raw.span = (self.times.accounted_until, self.times.weight_until);
        raw.is_stopped = is_stopped;
        raw.gils.clear();
        raw.gils.extend((0..self.gils.all.len()).map(|g| self.raw_gil(g)));
        raw.threads.resize_with(self.threads.schedule.count(), || RawThread::unread(self.threads.empty_stack.clone()));
        for (slot, index) in raw.threads.iter_mut().zip(self.threads.schedule.indices()) {
            let reader = &self.threads.readers[index];
            reader.fill(slot, index, self.gils.index_of(reader.gil));
        }
    }

    fn raw_gil(&self, g: usize) -> RawGil {
        let (gil, (_, reading)) = (&self.gils.all[g], &self.interpreter.runtime_state.gils[g]);
        let holder = gil.holder_index.map(|index| {
            let reader = &self.threads.readers[index];
            RawHolder { index, id: reader.info.id, stack: reader.stack.stack().clone() }
        });
        let holder_after = self.batch.gils_after.get(g).and_then(|after| after.as_ref()?.holder);
        RawGil { id: gil.id, reading: *reading, holder_after, holder, collecting: self.interpreter.runtime_state.is_collecting(gil.at) }
    }
}
