//! The last reads of a sample, in one batch: the stacks of the threads that can have moved, and
//! after them the GILs again.

use super::Sampler;
use crate::capture::thread_reader::ThreadReader;
use crate::estimate::state_machine::ThreadStateMachine;
use crate::process::memory::{split_parts, Part, ReadError};
use crate::python::gil;
use crate::sample::GilReading;

/// Upper limit of the bytes in one batch. Stacks beyond it are read one by one.
const MAX_BATCH_BYTES: usize = 256 << 10;

/// The batch's buffers, reused from sample to sample.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The indices of the threads whose stacks can have changed, each with its number of parts and
    /// bytes in the batch.
    changed: Vec<(usize, usize, usize)>,
    /// Those whose stacks are deep.
    deep: Vec<usize>,
    parts: Vec<Part>,
    bytes: Vec<u8>,
    /// The GILs at the end of the sample.
    pub gils_after: Vec<Option<GilReading>>,
}

impl Sampler {
    /// Reads what can have changed since the sample began.
    pub(super) fn read_changed(&mut self) -> Result<(), ReadError> {
        let mut batch = std::mem::take(&mut self.batch);
        self.plan(&mut batch);
        let read = self.read_batch(&mut batch);
        self.batch = batch;
        read
    }

    fn plan(&mut self, batch: &mut Batch) {
        let Batch { changed, deep, parts, bytes, .. } = batch;
        changed.clear();
        deep.clear();
        parts.clear();
        let mut size = 0;
        let runtime_state = &self.interpreter.runtime_state;
        let has_changed = |thread: &ThreadReader, history: &ThreadStateMachine| {
            !thread.tstate.is_null() && thread.stack_may_have_changed(history) && !runtime_state.is_holder(thread.tstate)
        };
        // The newest first, in the order of the polls.
        for index in self.threads.schedule.indices().rev() {
            let thread = &mut self.threads.readers[index];
            if !has_changed(thread, self.threads.estimator.thread(index).history()) {
                continue;
            }
            if thread.stack.is_deep() {
                deep.push(index);
                continue;
            }
            let plan = thread.stack.prefetch_plan(&self.interpreter.python.layout, thread.tstate);
            let length: usize = plan.iter().map(|part| part.len).sum();
            let own = if size + length <= MAX_BATCH_BYTES { plan } else { &[] };
            changed.push((index, own.len(), if own.is_empty() { 0 } else { length }));
            parts.extend_from_slice(own);
            size += if own.is_empty() { 0 } else { length };
        }
        if self.needs_gil_recheck() {
            parts.extend(
                self.interpreter.runtime_state.gils.iter().map(|(at, _)| Part::new(*at, self.interpreter.python.layout.gil.size as usize)),
            );
        }
        bytes.resize(parts.iter().map(|part| part.len).sum(), 0);
    }

    /// Whether the GILs must be read again. The holder at the end of the sample matters only if a
    /// holder was found asleep, or if another thread on a CPU may have the GIL by now.
    fn needs_gil_recheck(&self) -> bool {
        self.holder_indices().any(|i| self.threads.readers[i].is_asleep())
            || self.threads.schedule.indices().any(|i| self.threads.readers[i].is_on_cpu())
    }

    fn read_batch(&mut self, Batch { changed, deep, parts, bytes, gils_after }: &mut Batch) -> Result<(), ReadError> {
        if !parts.is_empty() {
            self.interpreter.target.memory().read_batch(parts, bytes)?;
        }
        let (mut parts, mut bytes) = (parts.as_slice(), bytes.as_slice());
        for &(index, count, length) in changed.iter() {
            let (own, others) = parts.split_at(count);
            let (own_bytes, others_bytes) = bytes.split_at(length);
            self.threads.readers[index].stack.accept_prefetch(own, own_bytes);
            self.read_stack(index, false)?;
            (parts, bytes) = (others, others_bytes);
        }
        gils_after.clear();
        if parts.is_empty() {
            gils_after.extend(self.interpreter.runtime_state.gils.iter().map(|(_, reading)| *reading));
        } else {
            let gil = &self.interpreter.python.layout.gil;
            let reread = |(part, bytes): (&Part, &[u8])| -> Option<GilReading> { gil::parse(gil, bytes).filter(|_| part.ok) };
            gils_after.extend(split_parts(parts, bytes).map(reread));
        }
        self.read_deep_stacks(deep)
    }
}
