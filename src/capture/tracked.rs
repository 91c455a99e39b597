//! What gilprof keeps of each OS thread of the target from look to look.

use super::classify::{self, Judgement, Place, Seen};
use super::ledger::{Entry, Kind, Ledger};
use crate::ids::{Addr, Pid, Tid};
use crate::process::threads::{SchedStat, TaskFiles};
use crate::python::stack::ThreadStack;
use crate::sample::{Evidence, Sink, Slice, Stack, State, ThreadFacts, ThreadTotals};
use crate::units::Nanos;
use std::sync::Arc;

/// One thread.
#[derive(Debug)]
pub struct Tracked {
    /// What is told of it.
    pub facts: ThreadFacts,
    /// Its thread state; null when it has none.
    pub tstate: Addr,
    /// `pthread_self()`, by which thread names are found.
    pub pthread: u64,
    /// 3.15: it has asked for the GIL, at this look.
    pub requested: bool,
    /// Its Python stack.
    pub stack: ThreadStack,
    /// What the kernel said at this look.
    pub now: Now,
    /// Whether a name was found in the interpreter.
    pub named: bool,
    files: Option<TaskFiles>,
    last: Option<Last>,
    told: (State, Evidence),
    ledger: Ledger,
    first: (Nanos, Option<SchedStat>),
}

/// One look at a thread.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    place: Place,
    stat: Option<SchedStat>,
    ran: Option<bool>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    at: Nanos,
    stat: Option<SchedStat>,
    /// What it did, if that was off the CPU.
    slept: Option<State>,
}

/// The thread is gone.
#[derive(Debug)]
pub struct Dead;

impl Tracked {
    /// Starts following a thread. `began`: when its first slice begins.
    pub fn new(pid: Pid, facts: ThreadFacts, began: Nanos, empty: &Arc<Stack>) -> Tracked {
        let files = TaskFiles::open(pid, facts.tid).ok();
        let stat = files.as_ref().and_then(|f| f.schedstat().ok().flatten());
        let mut ledger = Ledger::default();
        ledger.open(stat);
        Tracked {
            facts,
            tstate: Addr(0),
            pthread: 0,
            requested: false,
            stack: ThreadStack::new(empty),
            now: Now { place: Place::Unread, stat: None, ran: None },
            named: false,
            files,
            last: Some(Last { at: began, stat, slept: None }),
            told: (State::Unknown, Evidence::Unread),
            ledger,
            first: (began, stat),
        }
    }

    /// Asks the kernel where the thread is; not where it slept at the last look and has not run since.
    pub fn look(&mut self, on_gil: impl Fn(Addr) -> bool) -> Result<(), Dead> {
        let Some(files) = &self.files else {
            self.now = Now { place: Place::Unread, stat: None, ran: None };
            return Ok(());
        };
        let stat = files.schedstat().map_err(|_| Dead)?;
        let ran = match (self.last.and_then(|l| l.stat), stat) {
            (Some(last), Some(now)) => Some(last.runs != now.runs),
            _ => None,
        };
        let slept = self.last.and_then(|l| l.slept);
        // A waiter that was woken and has no CPU yet still waits, so it need not be looked at either.
        let place = if ran == Some(false) && slept.is_some_and(|s| s != State::Starved) {
            Place::NotRunSince
        } else {
            classify::place(files.kernel().map_err(|_| Dead)?, on_gil)
        };
        self.now = Now { place, stat, ran };
        Ok(())
    }

    /// Whether its stack may have changed since it was last read.
    pub fn may_have_moved(&self) -> bool {
        self.now.ran != Some(false) || self.last.is_none_or(|l| l.slept.is_none())
    }

    /// Whether the look found it asleep.
    pub fn asleep(&self) -> bool {
        !matches!(self.now.place, Place::Runnable | Place::Unread)
    }

    /// Judges the look.
    pub fn judge(&self, held_before: bool, held_after: bool) -> Judgement {
        classify::judge(&Seen {
            place: self.now.place,
            held_before,
            held_after,
            requested: self.requested,
            in_c_call: self.stack.in_c_call(),
            slept: self.last.and_then(|l| l.slept),
            ran: self.now.ran,
        })
    }

    /// What the last look told of the thread.
    pub fn told(&self) -> (State, Evidence) {
        self.told
    }

    /// Books the time since the last look.
    pub fn book(&mut self, at: Nanos, judgement: Judgement, holder: Option<(crate::ids::ThreadId, Arc<Stack>)>, sink: &mut dyn Sink) {
        let asleep = self.asleep();
        let (kind, slept) = match judgement {
            Judgement::Told(state, evidence) => (Kind::Told(state, evidence), Some(state)),
            Judgement::HoldingOnCpu(state) => (Kind::HoldingOnCpu(state), None),
            Judgement::Undecided { near_wait } => (Kind::Open { near_wait }, None),
        };
        self.told = match kind {
            Kind::Told(state, evidence) => (state, evidence),
            Kind::HoldingOnCpu(state) => (state, Evidence::GilHolder),
            Kind::Open { .. } => (State::Unknown, Evidence::Conservation),
        };
        let length = at.since(self.last.map_or(at, |l| l.at));
        let entry = Entry { end: at, length, kind, stack: self.stack.stack().clone(), holder };
        let id = self.facts.id;
        self.ledger.add(entry, self.now.stat, asleep, &mut |entry, split, evidence| emit(sink, id, entry, split, evidence));
        // A thread that was woken and has not run keeps what it did before, until its count of runs moves.
        let woken = matches!(judgement, Judgement::Told(_, Evidence::WokenNotRun));
        let slept = if asleep || woken { slept } else { None };
        self.last = Some(Last { at, stat: self.now.stat, slept });
    }

    /// Settles what is pending and says that the thread's time ends here.
    pub fn end(&mut self, at: Nanos, sink: &mut dyn Sink) {
        let id = self.facts.id;
        let last = self.files.as_ref().and_then(|f| f.schedstat().ok().flatten()).or(self.last.and_then(|l| l.stat));
        self.ledger.close(last, &mut |entry, split, evidence| emit(sink, id, entry, split, evidence));
        let (since, base) = self.first;
        let mut totals = ThreadTotals { seen: at.since(since), ..ThreadTotals::default() };
        if let (Some(base), Some(last)) = (base, last) {
            totals.cpu = last.cpu.since(base.cpu);
            totals.run_queue = last.run_queue.since(base.run_queue);
        }
        sink.thread_end(id, totals);
    }
}

fn emit(sink: &mut dyn Sink, thread: crate::ids::ThreadId, entry: &Entry, split: crate::sample::Split, evidence: Evidence) {
    let holder = entry.holder.as_ref().map(|(id, stack)| (*id, stack));
    sink.slice(&Slice { thread, end: entry.end, split, evidence, stack: &entry.stack, holder });
}

/// The name for a thread whose Python name is not known.
pub fn kernel_name(pid: Pid, tid: Tid) -> String {
    crate::process::threads::comm(pid, tid).unwrap_or_default()
}
