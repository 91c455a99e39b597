//! A thread's time in pieces, and how the clock's ticks decide those that no event tells.
//!
//! Events say exactly how long a thread had a CPU, but not whether it held the GIL there: a free
//! GIL is taken without a system call. Only a tick tells. Runs that begin and end alike are of one
//! class, and each tick stands for the time of its class since the class's last tick. Ticks come
//! at equal distances of CPU time, so that every state of a class gets its share.

use crate::sample::{Evidence, Stack, State, StateTimes};
use crate::units::Nanos;
use std::collections::VecDeque;
use std::sync::Arc;

/// The most pieces of one thread that wait to be emitted. Beyond them the oldest are decided early.
pub(super) const MAX_PIECES: usize = 1 << 14;

/// How a run on a CPU began and ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunClass {
    /// It held the GIL at its begin.
    pub held: bool,
    pub end: RunEnd,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunEnd {
    /// It holds the GIL.
    Holds,
    /// It waits for the GIL.
    Waits,
    /// Neither.
    Else,
}

impl RunClass {
    const COUNT: usize = 6;

    fn index(self) -> usize {
        usize::from(self.held) * 3 + self.end as usize
    }
}

/// What is known of a piece.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Known {
    State(State, Evidence),
    /// On a CPU; a tick of this class will tell.
    Cpu(RunClass),
    /// Preempted next to a release of the GIL: the next run will tell whether it wants it again.
    Limbo,
    /// No tick came in time: divided as the other time of its class.
    Divided(StateTimes),
}

/// A piece of a thread's time.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub begin: Nanos,
    pub end: Nanos,
    pub known: Known,
    pub stack: Arc<Stack>,
}

/// What a tick found.
#[derive(Clone, Debug)]
pub(super) struct TickFinding {
    pub at: Nanos,
    pub state: State,
    pub stack: Arc<Stack>,
}

/// The pieces of a thread that have not been emitted, in order and without gaps.
#[derive(Debug)]
pub(super) struct Pieces {
    pub queue: VecDeque<Piece>,
    /// The end of the last piece.
    pub until: Nanos,
    /// Nanoseconds per class and state that ticks have decided.
    shares: [StateTimes; RunClass::COUNT],
    /// Pieces of each class that no tick has decided.
    undecided: [usize; RunClass::COUNT],
}

impl Pieces {
    pub fn new(at: Nanos) -> Pieces {
        Pieces { queue: VecDeque::new(), until: at, shares: Default::default(), undecided: Default::default() }
    }

    /// Adds the time up to `end`, if there is any.
    pub fn push(&mut self, end: Nanos, known: Known, stack: &Arc<Stack>) {
        if end <= self.until {
            return;
        }
        let begin = std::mem::replace(&mut self.until, end);
        if let Some(last) = self.queue.back_mut() {
            if last.known == known && Arc::ptr_eq(&last.stack, stack) {
                last.end = end;
                return;
            }
        }
        if let Known::Cpu(class) = known {
            self.undecided[class.index()] += 1;
        }
        self.queue.push_back(Piece { begin, end, known, stack: stack.clone() });
    }

    /// Adds a run's time up to `end`, in which these ticks came.
    pub fn push_run(&mut self, end: Nanos, class: RunClass, ticks: &[TickFinding], stack: &Arc<Stack>) {
        for tick in ticks {
            self.decide(class, tick);
            let known = Known::State(tick.state, evidence(tick.state));
            let begin = self.until;
            self.push(tick.at.min(end), known, &tick.stack);
            self.shares[class.index()].add(tick.state, self.until.saturating_since(begin).as_nanos() as f64);
        }
        self.push(end, Known::Cpu(class), stack);
    }

    /// A tick stands for the time of its class since the class's last tick.
    fn decide(&mut self, class: RunClass, tick: &TickFinding) {
        let undecided = &mut self.undecided[class.index()];
        for piece in self.queue.iter_mut().rev() {
            if *undecided == 0 {
                break;
            }
            if piece.known == Known::Cpu(class) {
                *undecided -= 1;
                piece.known = Known::State(tick.state, evidence(tick.state));
                piece.stack = tick.stack.clone();
                self.shares[class.index()].add(tick.state, piece.end.saturating_since(piece.begin).as_nanos() as f64);
            }
        }
        *undecided = 0;
    }

    /// Decides the pieces at the end that are in limbo. Returns when they begin.
    pub fn leave_limbo(&mut self, state: State, evidence: Evidence) -> Option<Nanos> {
        let mut begin = None;
        for piece in self.queue.iter_mut().rev().take_while(|piece| piece.known == Known::Limbo) {
            piece.known = Known::State(state, evidence);
            begin = Some(piece.begin);
        }
        begin
    }

    /// Decides what has not been decided of the pieces that end by `until`. `limbo`: what those in
    /// limbo are.
    pub fn decide_all(&mut self, until: Nanos, limbo: (State, Evidence)) {
        for piece in self.queue.iter_mut().take_while(|piece| piece.end <= until) {
            match piece.known {
                Known::State(..) | Known::Divided(_) => {}
                Known::Limbo => piece.known = Known::State(limbo.0, limbo.1),
                Known::Cpu(class) => {
                    let (shares, nanos) = (&self.shares[class.index()], piece.end.saturating_since(piece.begin).as_nanos() as f64);
                    self.undecided[class.index()] = self.undecided[class.index()].saturating_sub(1);
                    piece.known = if shares.total() > 0.0 {
                        let mut times = StateTimes::default();
                        State::ALL.iter().for_each(|&state| times.add(state, nanos * shares.get(state) / shares.total()));
                        Known::Divided(times)
                    } else {
                        let state = if class.held || class.end == RunEnd::Holds { State::HoldingPython } else { State::Native };
                        Known::State(state, Evidence::Conservation)
                    };
                }
            }
        }
    }
}

fn evidence(state: State) -> Evidence {
    if state.is_holding() {
        Evidence::GilHolder
    } else {
        Evidence::Conservation
    }
}
