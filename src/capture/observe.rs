//! One look at a live interpreter: who holds each GIL, and what every thread of the process is doing.
//!
//! The order matters. First the GILs and all thread states in one batch; then the holder's stack, which moves; then the other threads,
//! each only as far as it can have changed; then the GILs again: a thread that held at both ends held all along, and only such a one is
//! called asleep with the GIL. No look is lost because one thread is new or gone.

use super::bind::Binder;
use super::classify::Judgement;
use super::tracked::{kernel_name, Known, Tracked};
use crate::ids::{Addr, GilId, Pid, ThreadId, Tid};
use crate::process::live::LiveMemory;
use crate::process::memory::ReadError;
use crate::process::threads;
use crate::python::attach::Python;
use crate::python::code::CodeCache;
use crate::python::gil::{self, GilReading};
use crate::python::interpreters::Roster;
use crate::python::thread_names;
use crate::sample::{GilLook, Holder, Sink, Stack, State, ThreadFacts, ThreadView, Trust};
use crate::units::Nanos;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How often the list of OS threads is read when nothing else asks for it: threads without a thread state announce themselves nowhere.
const RELIST: Nanos = Nanos::from_millis(20);
/// How often the names of threads are read while some are not known.
const RENAME: Nanos = Nanos::from_millis(100);
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
    mem: LiveMemory,
    roster: Roster,
    binder: Binder,
    codes: CodeCache,
    threads: Vec<Tracked>,
    by_tstate: HashMap<Addr, usize>,
    bound: Vec<(Addr, u64, Option<u64>)>,
    /// Some thread state's thread is not known yet, or two claim the same: their ids are about to change.
    unbound: bool,
    next_id: u32,
    tids: Vec<Tid>,
    listed: Nanos,
    named: Nanos,
    last: Option<Nanos>,
    empty: Arc<Stack>,
    after: Vec<Option<GilReading>>,
    /// The GILs as the last look found them.
    earlier: Vec<(Addr, Option<GilReading>)>,
    freezer: Option<Box<dyn Freeze>>,
    /// Exact mode: threads that kernel events say wait for a GIL now, so that the kernel need not be asked.
    pub waiting: HashSet<Tid>,
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
        Observer {
            mem: LiveMemory::new(python.pid),
            python,
            roster: Roster::default(),
            binder: Binder::default(),
            codes: CodeCache::new(),
            threads: Vec::new(),
            by_tstate: HashMap::new(),
            bound: Vec::new(),
            unbound: true,
            next_id: 0,
            tids: Vec::new(),
            listed: Nanos::ZERO,
            named: Nanos::ZERO,
            last: None,
            empty: Arc::new(Stack::empty()),
            after: Vec::new(),
            earlier: Vec::new(),
            freezer,
            waiting: HashSet::new(),
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

    /// Where `_PyRuntime` is.
    pub fn runtime(&self) -> Addr {
        self.python.runtime
    }

    /// The threads as the last look left them.
    pub fn threads(&self) -> &[Tracked] {
        &self.threads
    }

    /// Where the GILs are, by their numbers.
    pub fn gils(&self) -> impl Iterator<Item = Addr> + '_ {
        self.roster.gils.iter().map(|(at, _)| *at)
    }

    fn pid(&self) -> Pid {
        self.python.pid
    }

    /// Looks once. `Err` when the process as a whole cannot be read: it is gone, or access was taken away.
    pub fn look(&mut self, at: Nanos, sink: &mut dyn Sink) -> Result<Looked, ReadError> {
        self.codes.begin_look();
        let all = at.since(self.listed) >= RELIST || self.unbound;
        self.read_roster(all)?;
        self.bind_if_changed(at, sink)?;
        self.read_holders_stacks()?;
        self.read_threads(at, sink)?;
        self.reread_gils()?;
        self.name_threads(at, sink);
        let looked = self.outcome();
        self.book(at, sink);
        self.last = Some(at);
        self.earlier.clone_from(&self.roster.gils);
        Ok(looked)
    }

    /// The window ends: settles every thread's time.
    pub fn finish(&mut self, at: Nanos, sink: &mut dyn Sink) {
        for thread in &mut self.threads {
            thread.end(self.last.unwrap_or(at), sink);
        }
        self.threads.clear();
    }

    fn read_roster(&mut self, all: bool) -> Result<(), ReadError> {
        let (layout, runtime) = (&self.python.layout, self.python.runtime);
        for turn in 0..WALKS {
            if !self.roster.interpreters.is_empty() && self.roster.read(&self.mem, layout, runtime, all || turn > 0)? {
                return Ok(());
            }
            match self.roster.walk(&self.mem, layout, runtime) {
                Ok(()) | Err(ReadError::Unmapped { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        // It keeps changing. What was walked last is a true list of a moment ago; threads made since are met at the next look.
        self.roster.read(&self.mem, layout, runtime, true).map(|_| ())
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

    /// Matches thread states with OS threads again, when either list has changed.
    fn bind_if_changed(&mut self, at: Nanos, sink: &mut dyn Sink) -> Result<(), ReadError> {
        let keys = || self.roster.threads.iter().map(|t| (t.at, t.pthread, t.native_id));
        let same = keys().eq(self.bound.iter().copied());
        if same && at.since(self.listed) < RELIST {
            return Ok(());
        }
        let bound: Vec<_> = keys().collect();
        self.listed = at;
        threads::list(self.pid(), &mut self.tids).map_err(|_| ReadError::Gone)?;
        let known: HashMap<Tid, usize> = self.threads.iter().enumerate().map(|(i, t)| (t.facts.tid, i)).collect();
        if !same || self.tids.len() != known.len() || self.tids.iter().any(|t| !known.contains_key(t)) {
            self.follow_new(at, &known, sink);
            self.bind(sink);
            self.bound = bound;
        }
        Ok(())
    }

    /// Who holds now: asked only where the answer matters, which is where a holder was found asleep.
    fn reread_gils(&mut self) -> Result<(), ReadError> {
        let asleep = |holder: Addr| self.by_tstate.get(&holder).is_some_and(|&i| self.threads[i].asleep());
        if self.roster.gils.iter().filter_map(|(_, r)| r.as_ref()?.holder).any(asleep) {
            return self.roster.reread_gils(&self.mem, &self.python.layout, &mut self.after);
        }
        self.after.clear();
        self.after.extend(self.roster.gils.iter().map(|(_, reading)| *reading));
        Ok(())
    }

    fn follow_new(&mut self, at: Nanos, known: &HashMap<Tid, usize>, sink: &mut dyn Sink) {
        // A thread that was born since the last look lived on average half of that time.
        let began = self.last.map_or(at, |last| Nanos::from_nanos(last.as_nanos() + at.since(last).as_nanos() / 2));
        for tid in &self.tids {
            if known.contains_key(tid) {
                continue;
            }
            let facts = ThreadFacts {
                id: ThreadId(self.next_id),
                tid: *tid,
                name: kernel_name(self.python.pid, *tid),
                python: false,
                main: tid.0 == self.python.pid.0,
                gil: None,
            };
            self.next_id += 1;
            sink.thread(&facts);
            self.threads.push(Tracked::new(self.python.pid, facts, began, &self.empty));
        }
    }

    fn bind(&mut self, sink: &mut dyn Sink) {
        self.binder.refresh(self.python.pid, &self.mem, &self.roster, &self.tids);
        let by_tid: HashMap<Tid, usize> = self.threads.iter().enumerate().map(|(i, t)| (t.facts.tid, i)).collect();
        self.by_tstate.clear();
        for thread in &mut self.threads {
            thread.tstate = Addr(0);
        }
        // Oldest first: a thread state that was just made carries its maker's ids, and must not take its maker's place.
        self.unbound = false;
        for state in self.roster.threads.iter().rev() {
            let Some(&index) = self.binder.tid(&self.mem, state).and_then(|tid| by_tid.get(&tid)) else {
                self.unbound = true;
                continue;
            };
            self.by_tstate.insert(state.at, index);
            let thread = &mut self.threads[index];
            if !thread.tstate.is_null() {
                self.unbound = true;
                continue;
            }
            thread.tstate = state.at;
            thread.pthread = state.pthread;
            let gil = self.roster.gil_of(state.interpreter).map(|g| GilId(g as u32));
            if !thread.facts.python || thread.facts.gil != gil {
                thread.facts.python = true;
                thread.facts.gil = gil;
                sink.thread(&thread.facts);
            }
        }
    }

    /// The holders' stacks first: they move.
    fn read_holders_stacks(&mut self) -> Result<(), ReadError> {
        for g in 0..self.roster.gils.len() {
            let Some(holder) = self.roster.gils[g].1.and_then(|r| r.holder) else { continue };
            if let Some(&index) = self.by_tstate.get(&holder) {
                self.threads[index].tstate = holder;
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
        thread.stack.read(&self.mem, &self.python.layout, &mut self.codes, thread.tstate, still)?;
        thread.requested = thread.stack.requested(&self.python.layout);
        if thread.stack.stack().trust == Trust::Moving {
            self.torn += 1;
        }
        Ok(())
    }

    /// The kernel's word on every thread, and the stacks of those that can have moved.
    fn read_threads(&mut self, at: Nanos, sink: &mut dyn Sink) -> Result<(), ReadError> {
        let holders: Vec<Addr> = self.roster.gils.iter().filter_map(|(_, r)| r.as_ref()?.holder).collect();
        let mut index = 0;
        while index < self.threads.len() {
            let (gils, layout) = (&self.roster.gils, &self.python.layout);
            let on_gil = |futex| gils.iter().any(|(at, _)| gil::is_wait(&layout.gil, *at, futex));
            let thread = &self.threads[index];
            let same_holder = self.same_holder(thread);
            // Events are as old as the look; the GIL was read since, and knows better of one who has just got it.
            let waits = self.waiting.contains(&thread.facts.tid) && !holders.contains(&thread.tstate);
            if self.threads[index].look(Known { same_holder, waits }, on_gil).is_err() {
                self.drop_thread(index, at, sink);
                continue;
            }
            let thread = &self.threads[index];
            if !thread.tstate.is_null() && thread.may_have_moved() && !holders.contains(&thread.tstate) {
                self.read_stack(index, false)?;
            }
            index += 1;
        }
        Ok(())
    }

    /// Whether another thread than this one has held the thread's GIL since the last look. CPython counts every change of the holder, so
    /// whoever waited then has not had it meanwhile.
    fn same_holder(&self, thread: &Tracked) -> bool {
        let Some(g) = thread.facts.gil.map(|g| g.0 as usize) else { return false };
        let (Some((at, Some(now))), Some((before_at, Some(before)))) = (self.roster.gils.get(g), self.earlier.get(g)) else { return false };
        let held = now.holder.is_some_and(|holder| holder != thread.tstate && self.by_tstate.contains_key(&holder));
        at == before_at && held && now.holder == before.holder && now.switches == before.switches
    }

    fn drop_thread(&mut self, index: usize, at: Nanos, sink: &mut dyn Sink) {
        let mut thread = self.threads.remove(index);
        thread.end(self.last.unwrap_or(at), sink);
        self.by_tstate.retain(|_, i| *i != index);
        for i in self.by_tstate.values_mut() {
            if *i > index {
                *i -= 1;
            }
        }
        // Whatever is on the list next time is matched anew.
        self.bound.clear();
    }

    fn book(&mut self, at: Nanos, sink: &mut dyn Sink) {
        let holder = |reading: Option<&GilReading>| reading.and_then(|r| r.holder);
        let count = self.roster.gils.len();
        let before: Vec<Option<Addr>> = self.roster.gils.iter().map(|(_, r)| holder(r.as_ref())).collect();
        let after: Vec<Option<Addr>> = (0..count).map(|g| holder(self.after.get(g).and_then(|r| r.as_ref()))).collect();
        let holding: Vec<Option<usize>> = before.iter().map(|h| h.and_then(|h| self.by_tstate.get(&h).copied())).collect();
        let stacks: Vec<Option<(ThreadId, Arc<Stack>)>> =
            holding.iter().map(|h| h.map(|i| (self.threads[i].facts.id, self.threads[i].stack.stack().clone()))).collect();
        let mut waiters = vec![0; count];
        for (index, thread) in self.threads.iter_mut().enumerate() {
            let gil = thread.facts.gil.map(|g| g.0 as usize).filter(|&g| g < count);
            let held = |holders: &[Option<Addr>]| !thread.tstate.is_null() && holders.contains(&Some(thread.tstate));
            let judgement = thread.judge(held(&before), held(&after));
            if let (Judgement::Told(State::Waiting, _), Some(g)) = (judgement, gil) {
                waiters[g] += 1;
            }
            let behind = gil.filter(|&g| holding[g] != Some(index)).and_then(|g| stacks[g].clone());
            thread.book(at, judgement, behind, sink);
        }
        let span = self.last.map_or(Nanos::ZERO, |last| at.since(last));
        for (g, (_, reading)) in self.roster.gils.iter().enumerate() {
            let Some(reading) = reading else { continue };
            let holder = match (reading.holder, &stacks[g]) {
                (None, _) => Holder::Nobody,
                (Some(_), Some((id, _))) => Holder::Thread(*id),
                (Some(_), None) => Holder::Unmatched,
            };
            let switches = Some(reading.switches);
            sink.gil(&GilLook { gil: GilId(g as u32), at, span, holder, switches, waiters: waiters[g] });
        }
    }

    /// Python's own names of threads, where they are not known yet.
    fn name_threads(&mut self, at: Nanos, sink: &mut dyn Sink) {
        if at.since(self.named) < RENAME || self.threads.iter().all(|t| t.named || t.tstate.is_null()) {
            return;
        }
        self.named = at;
        for interpreter in &self.roster.interpreters {
            let names = thread_names::read(&self.mem, &self.python.layout, interpreter.at);
            for thread in self.threads.iter_mut().filter(|t| !t.tstate.is_null() && !t.named) {
                let Some(name) = names.get(&thread.pthread) else { continue };
                thread.named = true;
                thread.facts.name = name.clone();
                sink.thread(&thread.facts);
            }
        }
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
