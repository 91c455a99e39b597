//! One look at a live interpreter: who holds each GIL, and what every thread of the process is doing.
//!
//! The order matters. First the GILs and all thread states in one batch, and in the same one the likely holder's stack, which moves; then the
//! kernel's word on the other threads, each only as far as it can have changed; then, in one batch, the stacks of those that can have moved and
//! the GILs again: a thread that held at both ends held all along, and only such a one is called asleep with the GIL. No look is lost because
//! one thread is new or gone.

mod awake;
mod batch;
mod book;
mod gils;
mod roll;

use super::bind::Binder;
use super::claims::{Claims, GilNumbers};
use super::halt::Halt;
use super::tracked::{Known, Tracked};
use crate::error::ReadError;
use crate::ids::{Addr, GilId, ThreadId, Tid};
use crate::process::source::{LiveSource, Source};
use crate::python::attach::Python;
use crate::python::gil::{self, GilReading};
use crate::python::interpreters::Roster;
use crate::python::stack::Symbols;
use crate::sample::{Sink, Stack, ThreadView, Trust};
use crate::units::Nanos;
use awake::Awake;
use batch::Batch;
use gils::Gils;
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How often the lists of interpreters and thread states are walked again within one look while they keep changing.
const WALKS: usize = 3;

/// What one look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// The GIL and the threads were read.
    Fully,
    /// There is no interpreter: not yet, or no longer.
    NoInterpreter,
    /// The GIL could not be read, or made no sense.
    Failed,
}

/// Follows one process.
pub struct Observer {
    python: Python,
    source: Box<dyn Source>,
    roster: Roster,
    binder: Binder,
    symbols: Symbols,
    threads: Vec<Tracked>,
    awake: Awake,
    /// The kernel has not been asked for some thread's name.
    uncalled: bool,
    /// Some thread that runs Python may have a name there that is not known.
    unnamed: bool,
    by_tstate: HashMap<Addr, usize>,
    bound: Vec<(Addr, u64, Option<u64>)>,
    claims: Claims,
    numbers: GilNumbers,
    /// Some thread state's thread is not known yet, or two of one interpreter claim the same: their ids are about to change.
    unbound: bool,
    next_id: u32,
    tids: Vec<Tid>,
    /// The list of threads before that.
    listed_before: Vec<Tid>,
    /// Who was on the list, but began after the look that read it had.
    newborn: Vec<Tid>,
    /// How many threads the kernel counted at the last look.
    crowd: Option<u64>,
    listed: Nanos,
    /// When it was last made sure that the main thread lives.
    made_sure: Nanos,
    /// When the thread states were last seen to change.
    changed: Nanos,
    named: Nanos,
    /// When the last look was made, and until when it stands for what the threads do.
    last: Option<Nanos>,
    booked: Nanos,
    /// The same end of the look that is being made.
    until: Nanos,
    empty: Arc<Stack>,
    gils: Gils,
    after: Vec<Option<GilReading>>,
    batch: Batch,
    freezer: Option<Box<dyn Freeze>>,
    /// Whether and how long the program stood still.
    pub halt: Halt,
    /// Exact mode: threads that kernel events say wait for a GIL now, so that the kernel need not be asked.
    pub waiting: HashSet<Tid>,
    /// How often a thread was asked after.
    pub asked: u64,
    /// Stacks whose top moved.
    pub torn: u64,
    /// The most interpreters seen at once.
    pub interpreters: u32,
    /// The switch interval last read.
    pub interval_us: Option<u64>,
    /// Whether the main GIL was last seen switched on.
    pub gil_enabled: bool,
}

/// Stops one thread while its stack is read. Only used when the user asks for it.
pub trait Freeze {
    /// Stops the thread until the guard is dropped; `None` when that could not be done.
    fn freeze(&self, tid: Tid) -> Option<Box<dyn std::any::Any>>;
}

impl Observer {
    /// Starts following the process that `python` was found in.
    pub fn new(python: Python, freezer: Option<Box<dyn Freeze>>) -> Observer {
        Observer { freezer, ..Observer::of(Box::new(LiveSource::new(python.pid)), python) }
    }

    /// Looks at a process by way of `source`: a recorded one, or one that is being recorded.
    pub fn of(source: Box<dyn Source>, python: Python) -> Observer {
        Observer {
            source,
            python,
            roster: Roster::default(),
            binder: Binder::default(),
            symbols: Symbols::default(),
            threads: Vec::new(),
            awake: Awake::default(),
            uncalled: false,
            unnamed: false,
            by_tstate: HashMap::new(),
            bound: Vec::new(),
            claims: Claims::default(),
            numbers: GilNumbers::default(),
            halt: Halt::default(),
            unbound: true,
            next_id: 0,
            tids: Vec::new(),
            listed_before: Vec::new(),
            newborn: Vec::new(),
            crowd: None,
            listed: Nanos::ZERO,
            made_sure: Nanos::ZERO,
            changed: Nanos::ZERO,
            named: Nanos::ZERO,
            last: None,
            booked: Nanos::ZERO,
            until: Nanos::ZERO,
            empty: Arc::new(Stack::empty()),
            gils: Gils::default(),
            after: Vec::new(),
            batch: Batch::default(),
            freezer: None,
            waiting: HashSet::new(),
            asked: 0,
            torn: 0,
            interpreters: 0,
            interval_us: None,
            gil_enabled: true,
        }
    }

    /// Follows the program that the process runs now, with the thread numbers going on from `before`.
    pub fn continued(python: Python, freezer: Option<Box<dyn Freeze>>, before: &Observer) -> Observer {
        Observer { next_id: before.next_id, ..Observer::new(python, freezer) }
    }

    /// A number for a new thread.
    pub fn number(&mut self) -> ThreadId {
        self.next_id += 1;
        ThreadId(self.next_id - 1)
    }

    /// Until when the last look stands for what threads do.
    pub fn booked(&self) -> Nanos {
        self.booked
    }

    /// Where `_PyRuntime` is.
    pub fn runtime(&self) -> Addr {
        self.python.runtime
    }

    /// The threads as the last look left them.
    pub fn threads(&self) -> &[Tracked] {
        &self.threads
    }

    /// The GILs with their numbers.
    pub fn gils(&self) -> impl Iterator<Item = (GilId, Addr)> + '_ {
        self.roster.gils.iter().enumerate().map(|(g, (at, _))| (self.numbers.at(g), *at))
    }

    /// Looks once, at `at`. The look stands for the time from where the last one's ended until `until`.
    /// `Err` when the process as a whole cannot be read: it is gone, or access was taken away.
    pub fn look(&mut self, at: Nanos, until: Nanos, sink: &mut dyn Sink) -> Result<Looked, ReadError> {
        if self.last.is_none() {
            self.booked = at;
        }
        self.until = until.max(self.booked);
        self.symbols.codes.begin_look();
        let crowd = self.source.crowd();
        let others = std::mem::replace(&mut self.crowd, crowd) != crowd;
        let all = self.is_list_due(at) || self.unbound || others;
        self.read_roster(all)?;
        self.numbers.follow(&self.roster);
        self.gils.follow(&self.roster);
        self.bind_if_changed(at, others, sink)?;
        self.read_holders_stacks(sink)?;
        self.ask_after_threads(sink);
        self.read_moved()?;
        self.find_strays(sink)?;
        self.heed_stops(at);
        self.name_threads(at, sink);
        let looked = self.outcome();
        // Else nothing is known, and the next look that tells stands for this time too. Threads that an ended interpreter leaves behind sleep.
        if looked == Looked::Fully {
            self.book(sink);
            (self.last, self.booked) = (Some(at), self.until);
            self.gils.0.iter_mut().zip(&self.roster.gils).for_each(|(gil, (_, reading))| gil.earlier = *reading);
        }
        Ok(looked)
    }

    /// The window ends: settles every thread's time.
    pub fn finish(&mut self, at: Nanos, sink: &mut dyn Sink) {
        for thread in &mut self.threads {
            thread.end(if self.last.is_some() { self.booked } else { at }, sink);
        }
        self.threads.clear();
        self.awake = Awake::default();
    }

    fn read_roster(&mut self, all: bool) -> Result<(), ReadError> {
        let (layout, runtime) = (&self.python.layout, self.python.runtime);
        let mut first = Vec::new();
        for turn in 0..WALKS {
            if !self.roster.interpreters.is_empty() {
                // Who is to be stopped before it is read is not read before.
                let likely = if turn == 0 && self.freezer.is_none() { likely_holder(&self.gils, &mut self.threads) } else { None };
                let along = likely.map_or(&[][..], |thread| thread.stack.plan(layout, thread.tstate));
                if self.roster.read_along(self.source.memory(), layout, runtime, all || turn > 0, along)? {
                    self.roster.keep_readings(&first);
                    self.take_along();
                    return Ok(());
                }
                if turn == 0 {
                    // Who held when the look began, rather than after the lists were followed: a short hold may be over by then.
                    first.clone_from(&self.roster.gils);
                    self.roster.follow_heads(self.source.memory(), layout);
                    continue;
                }
            }
            match self.roster.walk(self.source.memory(), layout, runtime) {
                Ok(()) | Err(ReadError::Unmapped { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        // It keeps changing. What was walked last is a true list of a moment ago; threads made since are met at the next look.
        self.roster.read(self.source.memory(), layout, runtime, true).map(|_| ())
    }

    /// The stack of the likely holder was read with the GIL, and is wanted if it holds.
    fn take_along(&mut self) {
        let (parts, bytes) = self.roster.along();
        let holds =
            |thread: &&mut Tracked| self.roster.gils.first().is_some_and(|(_, r)| r.is_some_and(|r| r.holder == Some(thread.tstate)));
        if let Some(thread) = likely_holder(&self.gils, &mut self.threads).filter(holds) {
            thread.stack.take_in(parts, bytes);
        }
    }

    fn outcome(&mut self) -> Looked {
        self.interpreters = self.interpreters.max(self.roster.interpreters.len() as u32);
        match self.roster.gils.first() {
            None => Looked::NoInterpreter,
            Some((_, None)) => Looked::Failed,
            Some((_, Some(reading))) => {
                self.interval_us = Some(reading.interval_us);
                self.gil_enabled = reading.enabled;
                Looked::Fully
            }
        }
    }

    /// The holders' stacks first: they move.
    fn read_holders_stacks(&mut self, sink: &mut dyn Sink) -> Result<(), ReadError> {
        for g in 0..self.roster.gils.len() {
            self.gils.0[g].holder_at = None;
            let Some(holder) = self.roster.gils[g].1.and_then(|r| r.holder) else { continue };
            if let Some(&index) = self.by_tstate.get(&holder) {
                let claim = self.claims.by(holder);
                (self.gils.0[g].holder_at, self.gils.0[g].sure) = (Some(index), claim.is_none());
                if let Some(claim) = claim {
                    self.take(&claim, sink);
                }
                self.read_stack(index, true)?;
            }
        }
        Ok(())
    }

    fn read_stack(&mut self, index: usize, holds: bool) -> Result<(), ReadError> {
        let thread = &mut self.threads[index];
        let tid = thread.facts.tid;
        let _frozen = self.freezer.as_ref().filter(|_| holds).and_then(|f| f.freeze(tid));
        let still = !holds && thread.asleep();
        thread.stack.read(self.source.memory(), &self.python.layout, &mut self.symbols, thread.tstate, still)?;
        thread.requested = thread.stack.requested();
        if thread.stack.stack().trust == Trust::Moving {
            self.torn += 1;
        }
        Ok(())
    }

    /// The kernel's word on every thread that can have moved.
    fn ask_after_threads(&mut self, sink: &mut dyn Sink) {
        let holds = |index| self.gils.0.iter().any(|gil| gil.holder_at == Some(index));
        let waits = |tid| self.gils.0.len() == 1 && self.waiting.contains(&tid);
        self.awake.begin(self.until, |index, tid| holds(index) || waits(tid));
        // The newest first, which are the likeliest to be gone soon. Who is gone was the last of those that are left to ask after.
        for n in (0..self.awake.count()).rev() {
            let index = self.awake.nth(n);
            let (gils, layout) = (&self.roster.gils, &self.python.layout);
            // While some GIL's place is not known, a futex that is on none of the known ones may be on that.
            let known = |yes: bool| (yes || self.roster.complete).then_some(yes);
            let waits_for = Cell::new(None);
            let on_gil = |futex| {
                waits_for.set(gils.iter().find(|(at, _)| gil::is_wait(&layout.gil, *at, futex)).map(|(at, _)| *at));
                known(waits_for.get().is_some())
            };
            let thread = &self.threads[index];
            let passed_over = self.passed_over(thread);
            // Events are as old as the look; the GIL was read since, and knows better of one who has just got it.
            let holds = self.roster.is_holder(thread.tstate);
            let waits = gils.len() == 1 && self.waiting.contains(&thread.facts.tid) && !holds;
            if self.threads[index].look(self.source.as_ref(), Known { passed_over, waits, holds }, on_gil).is_err() {
                self.drop_thread(index, true, sink);
                continue;
            }
            self.asked += u64::from(!self.threads[index].still_waits());
            if let Some(gil) = waits_for.get().filter(|gil| *gil != self.threads[index].gil) {
                let claim = self.claims.on(index).rev().find(|claim| claim.gil == gil).copied();
                claim.into_iter().for_each(|claim| self.take(&claim, sink));
            }
        }
    }

    /// Holders that are not the thread they name (see `claims`).
    fn find_strays(&mut self, sink: &mut dyn Sink) -> Result<(), ReadError> {
        let count = if self.claims.may_stray(self.python.layout.minor) { self.roster.gils.len() } else { 0 };
        for g in 0..count {
            // One that let go during this look may well sleep by now.
            let reading = self.roster.gils[g].1.filter(|reading| self.after.get(g) == Some(&Some(*reading)));
            let Some(holder) = reading.and_then(|r| r.holder) else { continue };
            let Some(sleeper) = self.claims.stray_holder(holder, &self.threads) else { continue };
            // Whose it is is known at the next look; at this one it is not the sleeper's.
            self.by_tstate.remove(&holder);
            self.bound.clear();
            self.take(&sleeper, sink);
            self.read_stack(sleeper.thread, false)?;
        }
        Ok(())
    }

    /// What the threads of a stopped program do is not what they were at when it was stopped.
    fn heed_stops(&mut self, at: Nanos) {
        let elsewhere = self.awake.places().any(|i| self.threads[i].elsewhere());
        if self.halt.look(self.source.as_ref(), at, elsewhere) {
            self.threads.iter_mut().for_each(Tracked::stop);
            self.awake.rouse();
        }
    }

    /// Whether a thread cannot have had its GIL since the last look, and another that is known has it now.
    fn passed_over(&self, thread: &Tracked) -> bool {
        let gil = self.gils.0.iter().zip(&self.roster.gils).find(|(gil, _)| gil.at == thread.gil);
        gil.is_some_and(|(gil, (_, now))| now.is_some_and(|now| gil.passed_over(&now, thread.tstate)))
    }

    /// Each thread as the last look saw it, for `dump`; what one look cannot tell is `Unknown`.
    pub fn views(&self) -> Vec<(ThreadId, ThreadView)> {
        let view = |thread: &Tracked| {
            let (state, evidence) = thread.told();
            let facts = &thread.facts;
            let stack = thread.stack.stack().clone();
            let view = ThreadView { tid: facts.tid, name: facts.name.clone(), python: facts.python, state, evidence, stack };
            (facts.id, view)
        };
        self.threads.iter().map(view).collect()
    }
}

/// The thread that held the only GIL when the last look began: most often it still does.
fn likely_holder<'a>(gils: &Gils, threads: &'a mut [Tracked]) -> Option<&'a mut Tracked> {
    let [gil] = gils.0.as_slice() else { return None };
    let (index, id, _) = gil.holder.as_ref()?;
    threads.get_mut(*index).filter(|thread| thread.facts.id == *id && !thread.tstate.is_null())
}
