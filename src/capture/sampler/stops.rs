//! What a sample finds out about the program as a whole: that it is stopped, and that a GIL's
//! holder runs under another thread's ids.

use super::Sampler;
use crate::capture::stop_detector::StopHints;
use crate::capture::thread_reader::ThreadReader;
use crate::error::ReadError;
use crate::sample::{Sink, StopCause};
use crate::units::Nanos;

/// If a tracer stops so many threads, it is taken to stop all of them.
const MAX_TRACED: usize = 16;

impl Sampler {
    /// Checks for a stop of the whole program, and returns whether this sample counts as stopped.
    /// The task states of its threads then show only where they were stopped, so all threads are
    /// marked as stopped. While a tracer stops the holder of a GIL, the others wait for the tracer.
    pub(super) fn detect_stop(&mut self, at: Nanos) -> bool {
        let mut hints = StopHints::default();
        for thread in self.threads.schedule.indices().map(|index| &self.threads.readers[index]) {
            hints.outside_syscall |= thread.is_outside_syscall();
            hints.stopped = hints.stopped.or_else(|| thread.is_stopped().then_some(thread.info.tid));
        }
        let is_whole = match self.stop_detector.detect(self.interpreter.target.as_ref(), at, hints) {
            Some(StopCause::Tracer(_)) => {
                self.holder_indices().any(|index| self.threads.readers[index].is_stopped())
                    || self.threads.readers.iter().take(MAX_TRACED).all(ThreadReader::is_stopped_now)
            }
            cause => cause.is_some(),
        };
        // In a lasting stop few threads are polled. The time of the others is attributed when they
        // are polled again: after the sample that finds the end of the stop, which counts as
        // stopped too.
        let polled_few = self.stop_detector.is_lasting();
        self.stop_detector.count(at, is_whole);
        if is_whole && !polled_few {
            self.threads.schedule.wake_all();
        }
        if is_whole || polled_few {
            self.threads.schedule.indices().for_each(|index| self.threads.readers[index].mark_stopped());
        }
        is_whole || polled_few
    }

    /// Handles GILs whose holder is a foreign thread state (see `bindings`).
    pub(super) fn resolve_foreign_states(&mut self, sink: &mut dyn Sink) -> Result<(), ReadError> {
        let count = if self.binder.bindings.may_be_foreign(self.interpreter.python.layout.minor) {
            self.interpreter.runtime_state.gils.len()
        } else {
            0
        };
        for g in 0..count {
            // A thread that released the GIL during this sample may well be asleep by now.
            let reading = self.interpreter.runtime_state.gils[g].1.filter(|reading| self.batch.gils_after.get(g) == Some(&Some(*reading)));
            let Some(holder) = reading.and_then(|r| r.holder) else { continue };
            let Some(sleeper) = self.binder.bindings.resolve_foreign_holder(holder, &self.threads.readers) else { continue };
            // The next sample knows the right thread. In this one the thread state is not the
            // sleeper's.
            self.binder.by_tstate.remove(&holder);
            self.gils.all[g].holder_index = None;
            self.match_again();
            self.bind_to(&sleeper, sink);
            self.read_stack(sleeper.thread, false)?;
        }
        Ok(())
    }
}
