//! From the kernel's events to slices of states: the judge of the kernel engine.
//!
//! ```text
//!  CpuRun, Tick, ThreadNow ─► ThreadTrack ─► Pieces ─► Holders ─► Sink: slices, waits
//!  as the kernel tells        one thread's   its time  who held
//!                             place, wait              while it waited
//! ```
//!
//! What happens off the CPU is exact: an event begins and ends it. What happens on a CPU is known
//! by the clock's ticks (`pieces`). A piece is emitted [`LAG`] after its end, when what decides it
//! has come.

mod holders;
mod pieces;
mod thread;

#[cfg(test)]
mod tests;

use crate::ids::{GilId, ThreadId};
use crate::sample::{CpuRun, Evidence, GilView, MeasuredInterval, OffCpu, Sink, Stack, State, StateSlice, StateTimes, ThreadNow};
use crate::units::Nanos;
use holders::Holders;
use pieces::{Known, Piece, MAX_PIECES};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use thread::{SeenGil, ThreadTrack};

/// How long pieces wait for what decides them.
pub const LAG: Nanos = Nanos::from_millis(250);

/// What the clock found.
#[derive(Clone, Debug)]
pub struct Tick {
    /// When.
    pub at: Nanos,
    /// The GIL then.
    pub view: GilView,
    /// The leaf frame's current instruction is a call of a C function.
    pub in_c_call: bool,
    /// The thread's stack.
    pub stack: Arc<Stack>,
}

/// Judges the events of one process.
#[derive(Debug, Default)]
pub struct EventEstimator {
    threads: BTreeMap<ThreadId, (GilId, ThreadTrack)>,
    holders: Holders,
    seen: BTreeMap<GilId, SeenGil>,
    lost_runs: u64,
    /// `sys.getswitchinterval()`.
    interval: Nanos,
}

impl EventEstimator {
    /// The switch interval, once it is known and whenever it has changed.
    pub fn set_switch_interval(&mut self, interval: Nanos) {
        self.interval = interval;
    }

    /// A thread's time begins, also one that was known before.
    pub fn start(&mut self, thread: ThreadId, at: Nanos, stack: &Arc<Stack>) {
        self.threads.insert(thread, (GilId::default(), ThreadTrack::new(at, stack.clone())));
    }

    /// A thread was found asleep, of which no event has come.
    pub fn assume(&mut self, thread: ThreadId, why: OffCpu, holds: bool, gil: GilId, stack: &Arc<Stack>) {
        if let Some((_, track)) = self.threads.get_mut(&thread) {
            track.assume(why, holds, gil, stack);
        }
    }

    /// A run of a thread has ended. `stack`: its stack then, if it was read.
    pub fn run(&mut self, thread: ThreadId, run: &CpuRun, stack: Option<Arc<Stack>>, sink: &mut dyn Sink) {
        let Some((gil, track)) = self.threads.get_mut(&thread) else { return };
        track.run(run, stack, self.seen.get(gil), self.interval);
        *gil = run.view.gil;
        see(&mut self.seen, run.end, &run.view);
        if track.pieces.queue.len() > MAX_PIECES {
            let until = track.pieces.queue.get(MAX_PIECES / 2).map_or(Nanos::ZERO, |piece| piece.end);
            self.flush(until, sink);
        }
    }

    /// The clock found a thread on a CPU.
    pub fn tick(&mut self, thread: ThreadId, tick: &Tick) {
        if let Some((_, track)) = self.threads.get_mut(&thread) {
            track.tick(tick);
            see(&mut self.seen, tick.at, &tick.view);
        }
    }

    /// A thread is here at `at`.
    pub fn now(&mut self, thread: ThreadId, at: Nanos, now: ThreadNow) {
        if let Some((gil, track)) = self.threads.get_mut(&thread) {
            track.now(at, now, self.seen.get(gil));
        }
    }

    /// Accounts the time up to `at` of threads without events: they stay where they were found.
    pub fn stay(&mut self, at: Nanos) {
        self.threads.values_mut().filter(|(_, track)| !track.has_events()).for_each(|(_, track)| track.stay(at));
    }

    /// Accounts the time up to `at`, where the window ends.
    pub fn stay_all(&mut self, at: Nanos) {
        self.threads.values_mut().for_each(|(_, track)| track.stay(at));
    }

    /// A thread has ended, or its time ends.
    pub fn end(&mut self, thread: ThreadId, at: Nanos, sink: &mut dyn Sink) {
        if let Some((_, track)) = self.threads.get_mut(&thread) {
            track.stay(at);
            self.emit(Nanos::from_nanos(u64::MAX), Some(thread), sink);
        }
        if let Some((_, track)) = self.threads.remove(&thread) {
            self.lost_runs += track.lost_runs;
        }
    }

    /// Emits the slices that end by `until`, all threads'.
    pub fn flush(&mut self, until: Nanos, sink: &mut dyn Sink) {
        self.emit(until, None, sink);
        self.holders.forget(until.saturating_since(LAG));
    }

    /// The runs that are missing, because their events were lost.
    pub fn lost_runs(&self) -> u64 {
        self.lost_runs + self.threads.values().map(|(_, track)| track.lost_runs).sum::<u64>()
    }

    fn emit(&mut self, until: Nanos, only: Option<ThreadId>, sink: &mut dyn Sink) {
        let EventEstimator { threads, holders, .. } = self;
        let ids = only.map_or((Bound::Unbounded, Bound::Unbounded), |id| (Bound::Included(id), Bound::Included(id)));
        // All holders are known before any waiter is emitted.
        for (id, (gil, track)) in threads.range_mut(ids) {
            let prior = track.limbo_prior();
            track.pieces.decide_all(until, prior);
            for piece in track.pieces.queue.iter().take_while(|piece| piece.end <= until) {
                if matches!(piece.known, Known::State(state, _) if state.is_holding()) {
                    holders.add(*gil, *id, piece);
                }
            }
            for wait in track.waits.drain(..) {
                sink.interval(&MeasuredInterval { thread: *id, gil: wait.gil, kind: wait.kind, begin: wait.begin, end: wait.end });
            }
        }
        for (id, (gil, track)) in threads.range_mut(ids) {
            let count = track.pieces.queue.iter().take_while(|piece| piece.end <= until).count();
            for piece in track.pieces.queue.drain(..count) {
                emit_piece(*id, *gil, &piece, holders, sink);
            }
        }
    }
}

/// Remembers a GIL, unless its holder could not be read.
fn see(seen: &mut BTreeMap<GilId, SeenGil>, at: Nanos, view: &GilView) {
    if !view.last_holder.is_null() && seen.get(&view.gil).is_none_or(|gil| gil.at <= at) {
        seen.insert(view.gil, SeenGil { at, last_holder: view.last_holder, switches: view.switches });
    }
}

fn emit_piece(thread: ThreadId, gil: GilId, piece: &Piece, holders: &Holders, sink: &mut dyn Sink) {
    let nanos = |begin: Nanos, end: Nanos| end.saturating_since(begin).as_nanos() as f64;
    let mut slice = |end, times, evidence, holder: Option<(ThreadId, &Arc<Stack>)>| {
        sink.slice(&StateSlice { thread, end, times, evidence, stack: &piece.stack, holder });
    };
    match piece.known {
        Known::State(State::Waiting, evidence) => {
            let mut begin = piece.begin;
            holders.within(gil, piece.begin, piece.end, &mut |end, holder| {
                let holder = holder.filter(|(id, _)| *id != thread);
                slice(end, StateTimes::single(State::Waiting, nanos(begin, end)), evidence, holder);
                begin = end;
            });
        }
        Known::State(state, evidence) => slice(piece.end, StateTimes::single(state, nanos(piece.begin, piece.end)), evidence, None),
        Known::Divided(times) => slice(piece.end, times, Evidence::Conservation, None),
        Known::Cpu(_) | Known::Limbo => {
            slice(piece.end, StateTimes::single(State::Unknown, nanos(piece.begin, piece.end)), Evidence::Unread, None);
        }
    }
}
