//! One thread's time as a queue of pieces whose state is not known or not yet emitted.
//!
//! A piece begins where the one before it ended, so the pieces add up to the thread's life however
//! the states are decided. Slices leave in order: a piece that is pending holds up those after it.

use super::gil_timeline::{Blamed, GilTimelines};
use super::strata::{tick_evidence, Shares, Stratum, ON_CPU};
use crate::ids::{GilId, ThreadId};
use crate::sample::{Evidence, Sink, Stack, State, StateSlice, StateTimes};
use crate::units::Nanos;
use std::collections::VecDeque;
use std::sync::Arc;

/// What is known of a piece.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// Its state.
    Known(State, Evidence),
    /// It waited for this GIL.
    Waiting(GilId, Evidence),
    /// It was on a CPU: the next tick of its stratum gives the state.
    OnCpu(Stratum),
    /// It waited for this GIL, or was on a CPU for something else.
    WaitingOrOnCpu(GilId, Stratum),
    /// It waited for this GIL, or was in the run queue for something else.
    WaitingOrStarved(GilId),
}

#[derive(Clone, Debug)]
struct Piece {
    end: Nanos,
    kind: Kind,
    stack: Arc<Stack>,
}

/// The pieces of one thread that have not been emitted.
#[derive(Debug)]
pub(super) struct Pieces {
    /// The end of the last slice.
    emitted: Nanos,
    until: Nanos,
    queue: VecDeque<Piece>,
    /// Pieces on a CPU without a state, by stratum.
    pending: [usize; Stratum::COUNT],
    /// Pieces of a wait that is only possible.
    doubtful: usize,
    blamed: Vec<Blamed>,
    /// The last slice was a wait's, and the next one continues it.
    continues_wait: bool,
}

/// Where a thread's slices go, and what they are made with.
pub(super) struct Output<'a> {
    pub thread: ThreadId,
    pub own: &'a Shares,
    /// The shares of all threads, for those that have no tick.
    pub pooled: &'a Shares,
    pub gils: &'a GilTimelines,
    pub sink: &'a mut dyn Sink,
}

impl Pieces {
    /// The thread's time begins.
    pub fn new(begin: Nanos) -> Pieces {
        Pieces {
            emitted: begin,
            until: begin,
            queue: VecDeque::new(),
            pending: [0; Stratum::COUNT],
            doubtful: 0,
            blamed: Vec::new(),
            continues_wait: false,
        }
    }

    /// The end of the last piece.
    pub fn until(&self) -> Nanos {
        self.until
    }

    /// The number of pieces that are not emitted.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Adds a piece. One that ends before the last is empty.
    pub fn push(&mut self, end: Nanos, kind: Kind, stack: &Arc<Stack>) {
        if end <= self.until {
            return;
        }
        self.until = end;
        if let Some(last) = self.queue.back_mut().filter(|last| last.kind == kind && Arc::ptr_eq(&last.stack, stack)) {
            last.end = end;
            return;
        }
        match kind {
            Kind::OnCpu(stratum) => self.pending[stratum.index()] += 1,
            Kind::WaitingOrOnCpu(..) | Kind::WaitingOrStarved(_) => self.doubtful += 1,
            Kind::Known(..) | Kind::Waiting(..) => {}
        }
        self.queue.push_back(Piece { end, kind, stack: stack.clone() });
    }

    /// A tick of this stratum stands for the time since the stratum's last tick.
    pub fn represent(&mut self, stratum: Stratum, state: State, stack: &Arc<Stack>) {
        let mut pending = std::mem::take(&mut self.pending[stratum.index()]);
        for piece in self.queue.iter_mut().rev() {
            if pending == 0 {
                break;
            }
            if piece.kind == Kind::OnCpu(stratum) {
                (piece.kind, piece.stack) = (Kind::Known(state, tick_evidence(state)), stack.clone());
                pending -= 1;
            }
        }
    }

    /// Decides the possible wait.
    pub fn settle(&mut self, has_waited: bool) {
        let mut doubtful = std::mem::take(&mut self.doubtful);
        for piece in self.queue.iter_mut().rev() {
            if doubtful == 0 {
                break;
            }
            doubtful -= usize::from(matches!(piece.kind, Kind::WaitingOrOnCpu(..) | Kind::WaitingOrStarved(_)));
            piece.kind = match piece.kind {
                Kind::WaitingOrOnCpu(gil, _) | Kind::WaitingOrStarved(gil) if has_waited => Kind::Waiting(gil, Evidence::PushedOff),
                Kind::WaitingOrOnCpu(_, stratum) => {
                    self.pending[stratum.index()] += 1;
                    Kind::OnCpu(stratum)
                }
                Kind::WaitingOrStarved(_) => Kind::Known(State::Starved, Evidence::Conservation),
                known => known,
            };
        }
    }

    /// Emits the pieces up to the first that is pending. On-CPU pieces that end by `overdue` are
    /// divided by the shares of their stratum.
    pub fn emit(&mut self, overdue: Nanos, out: &mut Output<'_>) {
        while let Some(piece) = self.queue.front() {
            match piece.kind {
                Kind::OnCpu(_) if piece.end > overdue => break,
                Kind::WaitingOrOnCpu(..) | Kind::WaitingOrStarved(_) => break,
                Kind::Waiting(gil, _) => {
                    let is_final = piece.end <= overdue;
                    out.gils.blame(out.thread, gil, (self.emitted, piece.end), is_final, &mut self.blamed);
                    // The thread that takes the GIL after it may have no event yet.
                    if !is_final && self.blamed.iter().any(|(_, holder)| holder.is_none()) {
                        break;
                    }
                }
                Kind::OnCpu(_) | Kind::Known(..) => {}
            }
            let Some(piece) = self.queue.pop_front() else { break };
            self.emit_piece(&piece, out);
        }
    }

    fn emit_piece(&mut self, piece: &Piece, out: &mut Output<'_>) {
        let begin = std::mem::replace(&mut self.emitted, piece.end);
        let nanos = piece.end.saturating_since(begin).as_nanos() as f64;
        let (thread, end, stack) = (out.thread, piece.end, &piece.stack);
        let was_waiting = std::mem::replace(&mut self.continues_wait, matches!(piece.kind, Kind::Waiting(..)));
        let (times, evidence) = match piece.kind {
            Kind::Known(state, evidence) => (StateTimes::single(state, nanos), evidence),
            Kind::OnCpu(stratum) => {
                self.pending[stratum.index()] = self.pending[stratum.index()].saturating_sub(1);
                divide(stratum, nanos, out)
            }
            Kind::Waiting(_, evidence) => {
                let evidence = if was_waiting && evidence == Evidence::GilFutex { Evidence::SameHolder } else { evidence };
                return self.emit_wait(thread, begin, evidence, stack, out);
            }
            Kind::WaitingOrOnCpu(..) | Kind::WaitingOrStarved(_) => (StateTimes::single(State::Unknown, nanos), Evidence::Unread),
        };
        out.sink.slice(&StateSlice { thread, end, times, evidence, stack, holder: None });
    }

    /// Emits a wait, divided at each change of the holder.
    fn emit_wait(&self, thread: ThreadId, mut begin: Nanos, evidence: Evidence, stack: &Arc<Stack>, out: &mut Output<'_>) {
        for (end, holder) in &self.blamed {
            let times = StateTimes::single(State::Waiting, end.saturating_since(begin).as_nanos() as f64);
            let holder = holder.as_ref().map(|(id, stack)| (*id, stack));
            out.sink.slice(&StateSlice { thread, end: *end, times, evidence, stack, holder });
            begin = *end;
        }
    }
}

/// Time on a CPU that no tick has represented, by the thread's own shares, by those of all threads,
/// or by what its endpoints suggest.
fn divide(stratum: Stratum, nanos: f64, out: &Output<'_>) -> (StateTimes, Evidence) {
    let Some(shares) = out.own.of(stratum).or_else(|| out.pooled.of(stratum)) else {
        let state = stratum.evident();
        return (StateTimes::single(state, nanos), tick_evidence(state));
    };
    let mut times = StateTimes::default();
    ON_CPU.into_iter().zip(shares).for_each(|(state, share)| times.add(state, share * nanos));
    (times, Evidence::Conservation)
}
