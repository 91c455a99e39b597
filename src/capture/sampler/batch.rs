//! The last reads of a look, in one batch: the stacks of the threads that can have moved, and the GILs again after them.

use super::Sampler;
use crate::capture::thread_tracker::ThreadTracker;
use crate::process::memory::{split_parts, Part, ReadError};
use crate::python::gil::{self, GilReading};

/// No more bytes than this are read in one batch. Stacks for which there is no room are read one by one.
const MAX_BATCH_BYTES: usize = 256 << 10;

/// Room for the batch, kept from look to look.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The threads whose stacks can have moved, by their places, each with how many parts and bytes of the batch are its own.
    changed: Vec<(usize, usize, usize)>,
    parts: Vec<Part>,
    bytes: Vec<u8>,
}

impl Sampler {
    /// Reads what can have changed since the look began.
    pub(super) fn read_changed(&mut self) -> Result<(), ReadError> {
        let mut batch = std::mem::take(&mut self.batch);
        self.plan(&mut batch);
        let read = self.read_batch(&mut batch);
        self.batch = batch;
        read
    }

    fn plan(&mut self, batch: &mut Batch) {
        let Batch { changed, parts, bytes } = batch;
        changed.clear();
        parts.clear();
        let mut size = 0;
        let runtime_state = &self.runtime_state;
        let has_changed =
            |thread: &ThreadTracker| !thread.tstate.is_null() && thread.stack_may_have_changed() && !runtime_state.is_holder(thread.tstate);
        // The newest first, as the kernel was asked after them.
        for index in self.schedule.indices().rev() {
            let thread = &mut self.threads[index];
            if !has_changed(thread) {
                continue;
            }
            let plan = thread.stack.prefetch_plan(&self.python.layout, thread.tstate);
            let length: usize = plan.iter().map(|part| part.len).sum();
            let own = if size + length <= MAX_BATCH_BYTES { plan } else { &[] };
            changed.push((index, own.len(), if own.is_empty() { 0 } else { length }));
            parts.extend_from_slice(own);
            size += if own.is_empty() { 0 } else { length };
        }
        if self.needs_gil_recheck() {
            parts.extend(self.runtime_state.gils.iter().map(|(at, _)| Part::new(*at, self.python.layout.gil.size as usize)));
        }
        bytes.resize(parts.iter().map(|part| part.len).sum(), 0);
    }

    /// Who holds now matters only where a holder was found asleep, or another on a CPU, with the GIL perhaps.
    fn needs_gil_recheck(&self) -> bool {
        let mut holders = self.runtime_state.gils.iter().filter_map(|(_, r)| self.by_tstate.get(&r.as_ref()?.holder?));
        holders.any(|&i| self.threads[i].is_asleep()) || self.schedule.indices().any(|i| self.threads[i].is_on_cpu())
    }

    fn read_batch(&mut self, Batch { changed, parts, bytes }: &mut Batch) -> Result<(), ReadError> {
        if !parts.is_empty() {
            self.source.memory().read_batch(parts, bytes)?;
        }
        let (mut parts, mut bytes) = (parts.as_slice(), bytes.as_slice());
        for &(index, count, length) in changed.iter() {
            let (own, others) = parts.split_at(count);
            let (own_bytes, others_bytes) = bytes.split_at(length);
            self.threads[index].stack.accept_prefetch(own, own_bytes);
            self.read_stack(index, false)?;
            (parts, bytes) = (others, others_bytes);
        }
        self.gils_after.clear();
        if parts.is_empty() {
            self.gils_after.extend(self.runtime_state.gils.iter().map(|(_, reading)| *reading));
        } else {
            let gil = &self.python.layout.gil;
            let again = |(part, bytes): (&Part, &[u8])| -> Option<GilReading> { gil::parse(gil, bytes).filter(|_| part.ok) };
            self.gils_after.extend(split_parts(parts, bytes).map(again));
        }
        Ok(())
    }
}
