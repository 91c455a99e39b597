//! The last reads of a look, in one batch: the stacks of the threads that can have moved, and the GILs again after them.

use super::Observer;
use crate::capture::tracked::Tracked;
use crate::process::memory::{pieces, Part, ReadError};
use crate::python::gil::{self, GilReading};

/// No more bytes than this are read in one batch. Stacks for which there is no room are read one by one.
const MOST: usize = 256 << 10;

/// Room for the batch, kept from look to look.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The threads whose stacks can have moved, by their places, each with how many parts and bytes of the batch are its own.
    moved: Vec<(usize, usize, usize)>,
    parts: Vec<Part>,
    bytes: Vec<u8>,
}

impl Observer {
    /// Reads what can have changed since the look began.
    pub(super) fn read_moved(&mut self) -> Result<(), ReadError> {
        let mut batch = std::mem::take(&mut self.batch);
        self.plan(&mut batch);
        let read = self.read_batch(&mut batch);
        self.batch = batch;
        read
    }

    fn plan(&mut self, batch: &mut Batch) {
        let Batch { moved, parts, bytes } = batch;
        moved.clear();
        parts.clear();
        let mut size = 0;
        let roster = &self.roster;
        let has_moved = |thread: &Tracked| !thread.tstate.is_null() && thread.may_have_moved() && !roster.is_holder(thread.tstate);
        // The newest first, as the kernel was asked after them.
        for index in self.awake.places().rev() {
            let thread = &mut self.threads[index];
            if !has_moved(thread) {
                continue;
            }
            let plan = thread.stack.plan(&self.python.layout, thread.tstate);
            let length: usize = plan.iter().map(|part| part.len).sum();
            let own = if size + length <= MOST { plan } else { &[] };
            moved.push((index, own.len(), if own.is_empty() { 0 } else { length }));
            parts.extend_from_slice(own);
            size += if own.is_empty() { 0 } else { length };
        }
        if self.wants_gils_again() {
            parts.extend(self.roster.gils.iter().map(|(at, _)| Part::new(*at, self.python.layout.gil.size as usize)));
        }
        bytes.resize(parts.iter().map(|part| part.len).sum(), 0);
    }

    /// Who holds now matters only where a holder was found asleep, or another on a CPU, with the GIL perhaps.
    fn wants_gils_again(&self) -> bool {
        let mut holders = self.roster.gils.iter().filter_map(|(_, r)| self.by_tstate.get(&r.as_ref()?.holder?));
        holders.any(|&i| self.threads[i].asleep()) || self.awake.places().any(|i| self.threads[i].on_cpu())
    }

    fn read_batch(&mut self, Batch { moved, parts, bytes }: &mut Batch) -> Result<(), ReadError> {
        if !parts.is_empty() {
            self.source.memory().read_batch(parts, bytes)?;
        }
        let (mut parts, mut bytes) = (parts.as_slice(), bytes.as_slice());
        for &(index, count, length) in moved.iter() {
            let (own, others) = parts.split_at(count);
            let (own_bytes, others_bytes) = bytes.split_at(length);
            self.threads[index].stack.take_in(own, own_bytes);
            self.read_stack(index, false)?;
            (parts, bytes) = (others, others_bytes);
        }
        self.after.clear();
        if parts.is_empty() {
            self.after.extend(self.roster.gils.iter().map(|(_, reading)| *reading));
        } else {
            let gil = &self.python.layout.gil;
            let again = |(part, bytes): (&Part, &[u8])| -> Option<GilReading> { gil::parse(gil, bytes).filter(|_| part.ok) };
            self.after.extend(pieces(parts, bytes).map(again));
        }
        Ok(())
    }
}
