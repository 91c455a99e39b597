//! Reads the stacks of single threads, within the time that a sample has.

use super::{Sampler, ThreadReader};
use crate::error::ReadError;
use crate::ids::{Addr, Tid};
use crate::process::sys_linux;
use crate::python::frames::{RawStack, MAX_DEPTH};
use crate::python::stack::ThreadStack;
use crate::sample::{Evidence, RawSample, Sink, Stack, StackStatus, State, ThreadInfo};
use crate::units::Nanos;
use std::sync::Arc;

/// How long a frame of a deep stack takes to read, roughly.
const FRAME_TIME: Nanos = Nanos::from_nanos(150);

impl Sampler {
    /// Reads the holders' stacks first, because they change. Deep ones are left to
    /// [`Sampler::read_deep_stacks`], unless their threads are paused.
    pub(super) fn read_holders_stacks(&mut self, sink: &mut dyn Sink) -> Result<(), ReadError> {
        for g in 0..self.interpreter.runtime_state.gils.len() {
            self.gils.all[g].holder_index = None;
            let Some(holder) = self.interpreter.runtime_state.gils[g].1.and_then(|r| r.holder) else { continue };
            if let Some(&index) = self.binder.by_tstate.get(&holder) {
                let binding = self.binder.bindings.for_state(holder);
                (self.gils.all[g].holder_index, self.gils.all[g].unambiguous) = (Some(index), binding.is_none());
                if let Some(binding) = binding {
                    self.bind_to(&binding, sink);
                }
                if self.pauser.is_some() || !self.threads.readers[index].stack.is_deep() {
                    self.read_stack(index, true)?;
                }
            }
        }
        Ok(())
    }

    /// Reads the deep stacks of the holders and of the threads at `others`.
    pub(super) fn read_deep_stacks(&mut self, others: &[usize]) -> Result<(), ReadError> {
        for g in 0..self.gils.all.len() {
            if let Some(index) = self.gils.all[g].holder_index.filter(|&i| self.pauser.is_none() && self.threads.readers[i].stack.is_deep())
            {
                self.read_stack(index, true)?;
            }
        }
        others.iter().try_for_each(|&index| self.read_stack(index, false))
    }

    /// The most frames of a stack for which there is time; `None` where that does not matter.
    fn depth_limit(&self, index: usize) -> Option<usize> {
        let until = self.stacks_until.filter(|_| self.threads.readers[index].stack.is_deep())?;
        Some((until.saturating_since(sys_linux::monotonic()).as_nanos() / FRAME_TIME.as_nanos()) as usize)
    }

    pub(super) fn read_stack(&mut self, index: usize, holds: bool) -> Result<(), ReadError> {
        self.interpreter.symbols.depth_limit = self.depth_limit(index);
        let thread = &mut self.threads.readers[index];
        let tid = thread.info.tid;
        let _paused = self.pauser.as_ref().filter(|_| holds && !self.stop_detector.is_stopped()).and_then(|f| f.pause(tid));
        let still = !holds && thread.is_asleep();
        thread.stack.read(
            self.interpreter.target.memory(),
            &self.interpreter.python.layout,
            &mut self.interpreter.symbols,
            thread.tstate,
            still,
        )?;
        thread.gil_requested = thread.stack.gil_requested();
        self.stats.torn += u64::from(thread.stack.stack().status == StackStatus::Torn);
        self.stats.shortened +=
            u64::from(thread.stack.has_gap() && self.interpreter.symbols.depth_limit.is_some_and(|limit| limit < MAX_DEPTH));
        Ok(())
    }
}

impl Sampler {
    /// Before stacks of the kernel's events are named: gives the naming a new budget.
    pub fn begin_naming(&mut self) {
        self.interpreter.symbols.codes.begin_sample();
    }

    /// Names frames that the kernel's programs read. False if the process cannot be read.
    pub fn name_stack(&mut self, stack: &mut ThreadStack, raw: &RawStack) -> bool {
        let layout = &self.interpreter.python.layout;
        stack.accept(self.interpreter.target.memory(), layout, &mut self.interpreter.symbols, raw).is_ok()
    }

    /// The threads as of the last sample, with their states and stacks.
    pub fn thread_stacks(&self) -> impl Iterator<Item = (&ThreadInfo, (State, Evidence), &Arc<Stack>)> {
        let stacks = self.threads.readers.iter().map(|reader| reader.stack.stack());
        self.threads().zip(stacks).map(|((info, state), stack)| (info, state, stack))
    }

    /// The thread states of the threads, as last matched.
    pub fn thread_states(&self) -> impl Iterator<Item = (Tid, Addr)> + '_ {
        self.threads.readers.iter().filter(|reader| !reader.tstate.is_null()).map(|reader| (reader.info.tid, reader.tstate))
    }
}

/// The thread that held the only GIL when the last sample began. Most often it still does.
pub(super) fn likely_holder<'a>(last: &RawSample, threads: &'a mut [ThreadReader]) -> Option<&'a mut ThreadReader> {
    let [gil] = last.gils.as_slice() else { return None };
    let holder = gil.holder.as_ref()?;
    threads.get_mut(holder.index).filter(|thread| thread.info.id == holder.id && !thread.tstate.is_null())
}
