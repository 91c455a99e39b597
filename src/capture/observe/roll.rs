//! The roll of an observed process: which OS threads there are, which thread state is whose, and what they are called.

use super::Observer;
use crate::capture::claims::Claim;
use crate::capture::tracked::Tracked;
use crate::ids::{Addr, ThreadId, Tid};
use crate::process::memory::ReadError;
use crate::python::thread_names;
use crate::sample::{Sink, ThreadFacts};
use crate::units::Nanos;
use std::collections::{HashMap, HashSet};

/// How often the list of OS threads is read when nothing else asks for it: threads without a thread state announce themselves nowhere.
pub(super) const RELIST: Nanos = Nanos::from_millis(20);
/// So long after a change the list of OS threads is read at every look while a thread state has no thread yet.
const SETTLING: Nanos = Nanos::from_millis(200);
/// How often the names of threads are read while some are not known.
const RENAME: Nanos = Nanos::from_millis(100);

impl Observer {
    /// Matches thread states with OS threads again, when either list has changed.
    pub(super) fn bind_if_changed(&mut self, at: Nanos, sink: &mut dyn Sink) -> Result<(), ReadError> {
        let keys = || self.roster.threads.iter().map(|t| (t.at, t.pthread, t.native_id));
        let same = keys().eq(self.bound.iter().copied());
        if !same {
            self.changed = at;
        }
        // A thread state is made before its thread is: until they have found each other, every look tries again.
        let settling = self.unbound && at.since(self.changed) < SETTLING;
        if same && !settling && at.since(self.listed) < RELIST {
            return Ok(());
        }
        let bound: Vec<_> = keys().collect();
        self.listed = at;
        self.source.tids(&mut self.tids).map_err(|_| ReadError::Gone)?;
        self.drop_unlisted(at, sink);
        let known: HashMap<Tid, usize> = self.threads.iter().enumerate().map(|(i, t)| (t.facts.tid, i)).collect();
        if !same || self.tids.len() != known.len() || self.tids.iter().any(|t| !known.contains_key(t)) {
            self.follow_new(at, &known, sink);
            self.bind(sink);
            self.bound = bound;
        }
        Ok(())
    }

    /// One that was looked at in the very moment of its end seems to sleep in exit(2) and never to run again.
    fn drop_unlisted(&mut self, at: Nanos, sink: &mut dyn Sink) {
        let listed: HashSet<Tid> = self.tids.iter().copied().collect();
        for index in (0..self.threads.len()).rev() {
            if !listed.contains(&self.threads[index].facts.tid) {
                self.drop_thread(index, at, sink);
            }
        }
    }

    fn follow_new(&mut self, at: Nanos, known: &HashMap<Tid, usize>, sink: &mut dyn Sink) {
        // Each look stands for the whole time since the last one, the first one of a thread too: it was born in between, but its end falls
        // between two looks as well, and those that live and die between two are never met. Over many threads that adds up to the truth.
        let began = self.last.unwrap_or(at);
        let unseen = self.last.map(|last| at.since(last));
        for tid in &self.tids {
            if known.contains_key(tid) {
                continue;
            }
            let facts = ThreadFacts {
                id: ThreadId(self.next_id),
                tid: *tid,
                name: self.source.comm(*tid).unwrap_or_default(),
                python: false,
                main: tid.0 == self.python.pid.0,
                gil: None,
            };
            self.next_id += 1;
            sink.thread(&facts);
            self.threads.push(Tracked::new(self.source.as_ref(), facts, began, unseen, &self.empty));
        }
    }

    fn bind(&mut self, sink: &mut dyn Sink) {
        self.binder.refresh(self.source.as_ref(), &self.roster, &self.tids);
        self.claims.keep_strays(&self.roster);
        let by_tid: HashMap<Tid, usize> = self.threads.iter().enumerate().map(|(i, t)| (t.facts.tid, i)).collect();
        self.by_tstate.clear();
        let before: Vec<Addr> = self.threads.iter_mut().map(|thread| std::mem::take(&mut thread.tstate)).collect();
        // Oldest first: a thread state that was just made carries its maker's ids, and must not take its maker's place.
        self.unbound = false;
        let mut claims = Vec::with_capacity(self.roster.threads.len());
        for state in self.roster.threads.iter().rev() {
            let tid = self.claims.stray(state.at).or_else(|| self.binder.tid(self.source.memory(), state));
            let Some(&index) = tid.and_then(|tid| by_tid.get(&tid)) else {
                self.unbound = true;
                continue;
            };
            self.by_tstate.insert(state.at, index);
            claims.push(Claim::of(index, state, &self.roster));
        }
        for claim in &claims {
            if self.threads[claim.thread].tstate.is_null() || before.get(claim.thread) == Some(&claim.tstate) {
                self.take(claim, sink);
            }
        }
        self.unbound |= self.claims.renew(claims);
    }

    pub(super) fn take(&mut self, claim: &Claim, sink: &mut dyn Sink) {
        let gil = self.numbers.of(claim.gil);
        let thread = &mut self.threads[claim.thread];
        if thread.take(claim.tstate, claim.pthread, (claim.gil, gil)) {
            sink.thread(&thread.facts);
        }
    }

    pub(super) fn drop_thread(&mut self, index: usize, at: Nanos, sink: &mut dyn Sink) {
        let mut thread = self.threads.remove(index);
        // Gone since the GIL and the thread states were read.
        let held = self.roster.gils.iter().any(|(_, r)| r.and_then(|r| r.holder) == Some(thread.tstate));
        let met = self.roster.threads.iter().any(|state| state.at == thread.tstate) && thread.book_last(at, held, sink);
        thread.end(if met { at } else { self.last.unwrap_or(at) }, sink);
        self.by_tstate.retain(|_, i| *i != index);
        for i in self.by_tstate.values_mut() {
            if *i > index {
                *i -= 1;
            }
        }
        self.claims.clear();
        // Whatever is on the list next time is matched anew.
        self.bound.clear();
    }

    /// Python's own names of threads, where they are not known yet.
    pub(super) fn name_threads(&mut self, at: Nanos, sink: &mut dyn Sink) {
        if at.since(self.named) < RENAME || self.threads.iter().all(|t| t.named || t.tstate.is_null()) {
            return;
        }
        self.named = at;
        // The oldest first: to a subinterpreter whichever thread runs it is its main thread.
        for interpreter in self.roster.interpreters.iter().rev() {
            let names = thread_names::read(self.source.memory(), &self.python.layout, interpreter.at);
            for thread in self.threads.iter_mut().filter(|t| !t.tstate.is_null() && !t.named) {
                let Some(name) = names.get(&thread.pthread) else { continue };
                thread.named = true;
                thread.facts.name = name.clone();
                sink.thread(&thread.facts);
            }
        }
    }
}
