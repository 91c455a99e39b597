//! What gilprof keeps of each OS thread of the target from look to look: its files, its stack, its account of time.

use super::account::{Account, Claims, Now};
use super::classify::{self, Asked, Judgement, Place};
use super::ledger::Entry;
use crate::ids::{Addr, GilId, ThreadId};
use crate::process::kernel_stack::{self, Whereabouts};
use crate::process::source::Source;
use crate::process::threads::{SchedStat, TaskFiles};
use crate::python::stack::ThreadStack;
use crate::sample::{Evidence, Sink, Slice, Split, Stack, State, ThreadFacts, ThreadTotals, Trust};
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
    /// 3.15: whether it had asked for the GIL and not got it, when its stack was last read.
    pub requested: Option<bool>,
    /// Its Python stack.
    pub stack: ThreadStack,
    /// The GIL of the interpreter that it runs; null when it has no thread state.
    pub gil: Addr,
    /// Whether the kernel was asked for its name.
    pub called: bool,
    /// Whether a name was found in the interpreter.
    pub named: bool,
    /// Its stack while it rests.
    bed: Option<Arc<Stack>>,
    untold: Option<Untold>,
    /// When another thread was last seen to hold its GIL.
    other_held: Option<Nanos>,
    files: Option<TaskFiles>,
    now: Now,
    account: Account,
    first: (Nanos, Option<SchedStat>),
}

/// Waiting behind one holder in one place, of which nothing has been told yet.
#[derive(Debug)]
struct Untold {
    length: Nanos,
    end: Nanos,
    stack: Arc<Stack>,
    behind: Option<(ThreadId, Arc<Stack>)>,
}

impl Untold {
    /// Whether waiting behind this holder is the same still: what it did is told by function, so that its lines may differ.
    fn goes_on(&self, behind: Option<(ThreadId, &Arc<Stack>)>) -> bool {
        match (&self.behind, behind) {
            (Some((id, stack)), Some((now, there))) => *id == now && stack.is_along(there),
            (None, None) => true,
            _ => false,
        }
    }
}

/// Waiting is told of after so long at the latest.
const MOST_UNTOLD: Nanos = Nanos::from_millis(20);

/// The thread is gone.
#[derive(Debug)]
pub struct Dead;

/// What is known of a thread before the kernel is asked where it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// It cannot have had its GIL since the last look: if it waited then, it still waits.
    pub passed_over: bool,
    /// Exact mode: kernel events say that it waits for a GIL.
    pub waits: bool,
    /// The GIL names it as its holder.
    pub holds: bool,
}

/// What its GIL said of a thread at one look.
#[derive(Clone, Copy, Debug, Default)]
pub struct GilSaid {
    /// It held when the look began.
    pub held_before: bool,
    /// It held when the look ended.
    pub held_after: bool,
    /// Another thread held when the look began.
    pub other_holds: bool,
    /// As [`Claims::may_have_held`].
    pub may_have_held: bool,
    /// When nobody was last seen to wait for it.
    pub unwanted: Option<Nanos>,
    /// The switch interval; 0 where it is not known.
    pub interval: Nanos,
    /// As [`Claims::locks_spin`].
    pub locks_spin: bool,
}

/// A look may take so long.
const LOOK: Nanos = Nanos::from_millis(1);

const UNREAD: Now = Now { place: Place::Unread, supposed: false, stat: None, whereabouts: None };

impl Tracked {
    /// Starts following a thread. `began`: when its first slice begins. `unseen`: so long ago it was not on the list; `None` when there was none.
    pub fn new(source: &dyn Source, facts: ThreadFacts, began: Nanos, unseen: Option<Nanos>, empty: &Arc<Stack>) -> Tracked {
        let files = source.open(facts.tid).ok();
        let stat = files.as_ref().and_then(|f| f.schedstat().ok().flatten());
        // The list is not read at every look: who has run for longer has been there for longer.
        let newborn = unseen.zip(stat).is_some_and(|(unseen, stat)| stat.cpu + stat.run_queue <= unseen + LOOK);
        Tracked {
            facts,
            tstate: Addr(0),
            pthread: 0,
            requested: None,
            gil: Addr(0),
            stack: ThreadStack::new(empty),
            called: false,
            named: false,
            bed: None,
            untold: None,
            other_held: None,
            files,
            now: UNREAD,
            account: Account::open(began, stat, newborn),
            first: (began, stat),
        }
    }

    /// Asks the kernel where the thread is; not where it slept at the last look and has not run since.
    /// Nor where what is `known` without it says that it waits.
    pub fn look(&mut self, source: &dyn Source, known: Known, on_gil: impl Fn(Addr) -> Option<bool>) -> Result<(), Dead> {
        if known.passed_over && self.account.waited() {
            self.now = Now { place: Place::StillWaiting, supposed: true, ..UNREAD };
            return Ok(());
        }
        if self.files.is_none() {
            // It was listed, but its files could not be opened: it was gone by then, most likely, and must not live on here.
            match source.open(self.facts.tid) {
                Ok(files) => self.files = Some(files),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Dead),
                Err(_) => {}
            }
        }
        let Some(files) = &self.files else {
            self.now = UNREAD;
            return Ok(());
        };
        let stat = files.schedstat().map_err(|_| Dead)?;
        let sleeps_on = self.account.sleeps_on(stat);
        let supposed = known.waits && !sleeps_on;
        let mut place = if sleeps_on {
            Place::NotRunSince
        } else if supposed {
            Place::GilFutex
        } else {
            classify::place(files.kernel().map_err(|_| Dead)?, &on_gil)
        };
        // Of a holder, and of one that was woken and has not run, it is clear what it does. The first holders only show that the kernel tells.
        let clear = known.holds || self.account.woken_at_most(stat);
        let asks = place == Place::Runnable && (!clear || !kernel_stack::proven());
        let whereabouts = if asks { files.whereabouts() } else { None }.filter(|_| !clear);
        if matches!(whereabouts, Some(Whereabouts::WokenFromFutex | Whereabouts::InSystemCall)) {
            // It may have gone to sleep between the two questions.
            place = classify::place(files.kernel().map_err(|_| Dead)?, &on_gil);
        }
        self.now = Now { place, supposed, stat, whereabouts };
        Ok(())
    }

    /// Whether this look did not look at it, because it cannot have stopped waiting for its GIL.
    pub fn still_waits(&self) -> bool {
        self.now.place == Place::StillWaiting
    }

    /// Books the time since the last look of one that still waits, `behind` the holder.
    pub fn book_wait(&mut self, at: Nanos, behind: Option<(ThreadId, &Arc<Stack>)>, sink: &mut dyn Sink) {
        self.other_held = Some(at);
        let length = self.account.still_waits(at);
        if !self.untold.as_ref().is_some_and(|untold| untold.goes_on(behind)) {
            self.tell_of_wait(sink);
        }
        let stack = self.stack.stack();
        let new = || Untold { length: Nanos::ZERO, end: at, stack: stack.clone(), behind: behind.map(|(id, there)| (id, there.clone())) };
        let untold = self.untold.get_or_insert_with(new);
        untold.length += length;
        untold.end = at;
        if untold.length >= MOST_UNTOLD {
            self.tell_of_wait(sink);
        }
    }

    fn tell_of_wait(&mut self, sink: &mut dyn Sink) {
        let Some(Untold { length, end, stack, behind }) = self.untold.take() else { return };
        let (split, evidence) = (Split::whole(State::Waiting, length.as_nanos() as f64), Evidence::SameHolder);
        let holder = behind.as_ref().map(|(id, there)| (*id, there));
        sink.slice(&Slice { thread: self.facts.id, end, split, evidence, stack: &stack, holder });
    }

    /// Until when looks need not go to it, because it has slept for long; zero when the next one must.
    pub fn rests_until(&mut self) -> Nanos {
        let until = self.account.rests_until(self.facts.id);
        if until > self.account.last_look() {
            self.bed.get_or_insert_with(|| self.stack.stack().clone());
        }
        until
    }

    /// The whole program stands still: what the kernel says of the thread is where it was stopped.
    pub fn stop(&mut self) {
        self.now.place = Place::Stopped;
    }

    /// Whether this look found it off the CPU outside of any system call.
    pub fn elsewhere(&self) -> bool {
        self.now.place == Place::Elsewhere
    }

    /// Whether this look found it runnable.
    pub fn runnable(&self) -> bool {
        self.now.place == Place::Runnable
    }

    /// Whether this look found it on a CPU by its kernel stack, which is asked only of one that did not hold.
    pub fn on_cpu(&self) -> bool {
        self.now.whereabouts == Some(Whereabouts::OnCpu)
    }

    /// Puts it under one of its thread states. True when that changes what is told of it.
    pub fn take(&mut self, tstate: Addr, pthread: u64, gil: (Addr, Option<GilId>)) -> bool {
        (self.tstate, self.pthread, self.gil) = (tstate, pthread, gil.0);
        let changed = !self.facts.python || self.facts.gil != gil.1;
        self.facts.python = true;
        self.facts.gil = gil.1;
        changed
    }

    /// Whether its stack may have changed since it was last read.
    pub fn may_have_moved(&self) -> bool {
        self.now.place != Place::StillWaiting && self.account.may_have_moved(self.now.stat)
    }

    /// Whether this look found it asleep.
    pub fn asleep(&self) -> bool {
        !matches!(self.now.place, Place::Runnable | Place::Unread)
    }

    /// Whether the last look found it asleep, and not for the GIL.
    pub fn slept(&self) -> bool {
        self.account.slept()
    }

    /// What the last look told of the thread.
    pub fn told(&self) -> (State, Evidence) {
        self.account.told()
    }

    /// Judges the look.
    pub fn judge(&mut self, at: Nanos, gil: &GilSaid) -> Judgement {
        let asked = self.asked(at, gil);
        if gil.other_holds {
            self.other_held = Some(at);
        }
        let GilSaid { held_before, held_after, may_have_held, locks_spin, .. } = *gil;
        let (requested, in_c_call) = (self.requested, self.stack.in_c_call());
        let claims = Claims { held_before, held_after, requested, in_c_call, asked, may_have_held, locks_spin };
        self.account.judge(&self.now, &claims)
    }

    /// Whether it can have been told to let go, if it has.
    fn asked(&self, at: Nanos, gil: &GilSaid) -> Asked {
        let stack = self.stack.stack();
        if self.tstate.is_null() || stack.frames.is_empty() && stack.trust == Trust::Whole {
            // No eval loop is there to be told.
            return Asked::No;
        }
        // The word stays as it is from the drop until the thread has a CPU again, or sleeps until another has taken the GIL (`drop_gil`).
        let kept = self.now.whereabouts == Some(Whereabouts::Leaving);
        if let Some(told) = self.stack.drop_request().filter(|_| kept) {
            return if told { Asked::Likely } else { Asked::No };
        }
        let since = [self.other_held, gil.unwanted].into_iter().flatten().max();
        match gil.interval.as_nanos() {
            0 => Asked::Unclear,
            _ if since.is_some_and(|since| at.since(since) < gil.interval) => Asked::No,
            // Looks that are far apart miss holds and waits.
            interval if at.since(self.account.last_look()).as_nanos() > interval / 4 => Asked::Unclear,
            _ => Asked::Likely,
        }
    }

    /// Books the time since the `last` look, `behind` the holder of its GIL.
    pub fn book(&mut self, (last, at): (Nanos, Nanos), judgement: Judgement, behind: Option<(ThreadId, &Arc<Stack>)>, sink: &mut dyn Sink) {
        self.tell_of_wait(sink);
        let id = self.facts.id;
        let behind = behind.map(|(id, stack)| (id, stack.clone()));
        let mut emit = |entry: &Entry, split, evidence| emit(sink, id, entry, split, evidence);
        // One that sleeps on has been doing so, whole; what another does now it began after the last look.
        if let Some(bed) = self.bed.take().filter(|_| self.now.place != Place::NotRunSince) {
            self.account.rest_until(last, &bed, &mut emit);
            self.other_held = Some(last);
        }
        self.account.book(at, &self.now, judgement, self.stack.stack(), behind, &mut emit);
    }

    /// Books the time since the last look for a thread that was there when this one began and is gone now. If it did not hold the GIL then,
    /// it was past its last hold: a thread needs the GIL to end, and the CPU afterwards.
    pub fn book_last(&mut self, (last, at): (Nanos, Nanos), held: bool, sink: &mut dyn Sink) {
        self.now = UNREAD;
        let gil = GilSaid { held_before: held, held_after: held, ..GilSaid::default() };
        let judgement = if held { self.judge(at, &gil) } else { Judgement::Released };
        self.book((last, at), judgement, None, sink);
    }

    /// Settles what is pending and says that the thread's time ends here.
    pub fn end(&mut self, at: Nanos, sink: &mut dyn Sink) {
        self.tell_of_wait(sink);
        let id = self.facts.id;
        let last = self.files.as_ref().and_then(|f| f.schedstat().ok().flatten());
        let mut emit = |entry: &Entry, split, evidence| emit(sink, id, entry, split, evidence);
        if let Some(bed) = self.bed.take() {
            self.account.rest_until(at, &bed, &mut emit);
        }
        let last = self.account.close(at, last, self.stack.stack(), &mut emit);
        let (since, base) = self.first;
        let mut totals = ThreadTotals { seen: at.since(since), ..ThreadTotals::default() };
        if let (Some(base), Some(last)) = (base, last) {
            totals.cpu = last.cpu.since(base.cpu);
            totals.run_queue = last.run_queue.since(base.run_queue);
        }
        sink.thread_end(id, totals);
    }
}

fn emit(sink: &mut dyn Sink, thread: ThreadId, entry: &Entry, split: Split, evidence: Evidence) {
    let holder = entry.holder.as_ref().map(|(id, stack)| (*id, stack));
    sink.slice(&Slice { thread, end: entry.end, split, evidence, stack: &entry.stack, holder });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Pid, Tid};
    use crate::process::source::LiveSource;
    use crate::sample::{Frame, Function, GilLook};

    /// Ends of slices in ms, their lengths, and the line behind which the thread waited.
    #[derive(Default)]
    struct Told(Vec<(u64, f64, u32)>);

    impl Sink for Told {
        fn thread(&mut self, _: &ThreadFacts) {}
        fn gil(&mut self, _: &GilLook) {}
        fn thread_end(&mut self, _: ThreadId, _: ThreadTotals) {}
        fn slice(&mut self, slice: &Slice<'_>) {
            let line = slice.holder.and_then(|(_, stack)| stack.leaf()).map_or(0, |leaf| leaf.line);
            self.0.push((slice.end.as_nanos() / 1_000_000, slice.split.get(State::Waiting) / 1e6, line));
        }
    }

    #[test]
    fn waiting_is_told_of_when_the_holder_goes_elsewhere_and_at_the_end() {
        let facts = ThreadFacts { id: ThreadId(1), tid: Tid(-1), name: String::new(), python: true, main: false, gil: None };
        let mut thread = Tracked::new(&LiveSource::new(Pid(-1)), facts, Nanos::ZERO, None, &Arc::new(Stack::empty()));
        let functions = ["f", "g"].map(|name| Arc::new(Function { name: name.into(), file: String::new(), first_line: 1 }));
        let stack = |f: usize, line| Arc::new(Stack { frames: vec![Frame { function: functions[f].clone(), line }], trust: Trust::Whole });
        let mut told = Told::default();
        for (ms, function, line, holder) in [(1, 0, 5, 7), (2, 0, 6, 7), (3, 1, 9, 7), (4, 1, 9, 8), (50, 1, 9, 8), (51, 1, 9, 8)] {
            let there = stack(function, line);
            thread.book_wait(Nanos::from_millis(ms), Some((ThreadId(holder), &there)), &mut told);
        }
        assert_eq!(told.0, [(2, 2.0, 5), (3, 1.0, 9), (50, 47.0, 9)]);
        thread.end(Nanos::from_millis(51), &mut told);
        assert_eq!(told.0[3], (51, 1.0, 9));
    }
}
