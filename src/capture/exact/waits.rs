//! From futex calls to waits: the state machine of exact mode. Pure: events in, waits and holds out.
//!
//! One `take_gil` that has to sleep makes many calls: a sleep on `cond` ends every switch interval, and another follows at once. They are
//! one wait. What parts two waits is what the thread does in between: a holder that lets go wakes a sleeper on `cond`, a taker wakes the
//! one who was forced to let go on `switch_cond`. Without either, sleeps that follow closely belong together: a thread whose
//! sleep ran out goes round the loop unless the GIL has become free at that very moment; one that was woken usually has the GIL, and only
//! goes back to sleep at once if another was faster. However late it does: while some other thread slept on `cond` all the time, nobody can
//! have let go of the GIL without a call that wakes.
//!
//! The forced switch in `drop_gil` (a sleep on `switch_cond`) is the beginning of the wait that follows it, or a [`Stretch::HandOver`] of
//! its own when the thread then wants something else. Where the GIL has been taken by the time the thread gets a core again, it makes no such
//! sleep and asks at once. So who was forced to let go waits from then on. It was if another thread's sleep on `cond` ran out before without the GIL
//! having changed hands: that is when `take_gil` asks for a drop.
//!
//! A hold is told when both its ends are seen: it follows a wait, and somebody was waiting when it ended.

use crate::ids::{GilId, Tid};
use crate::sample::Stretch;
use crate::units::Nanos;
use std::collections::HashMap;

/// So long after a sleep that ran out, another sleep is the same wait: the thread may be pushed off its core on its way round the loop.
const AFTER_TIME_OUT: Nanos = Nanos::from_millis(10);
/// So long after a sleep that was ended by a wake-up, another sleep is the same wait.
const AFTER_WAKE: Nanos = Nanos::from_micros(60);
/// So long after a sleep it is not kept open whether the wait goes on, whoever else sleeps.
const MOST_DOUBT: Nanos = Nanos::from_millis(250);
/// So long after it was forced to let go a thread may have had no core, and not have asked again.
pub const MOST_FORCED: Nanos = Nanos::from_millis(100);
/// Threads followed at once; those that are out are forgotten first.
const MOST_THREADS: usize = 32_768;

/// Which part of a GIL a futex lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// `cond`: sleepers want the GIL.
    Cond,
    /// `mutex`: guards `cond`.
    Mutex,
    /// `switch_cond`: the sleeper was forced to let go, until the GIL is taken.
    SwitchCond,
    /// `switch_mutex`: guards `switch_cond`.
    SwitchMutex,
    /// glibc's own book-keeping in either condition variable: who signals waits here for those signalled before to be gone. A wake-up
    /// here comes from a waiter that leaves, and says nothing of the GIL.
    Groups,
}

/// What a thread did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// Went to sleep.
    Sleep(GilId, Spot),
    /// Woke others.
    Wake(GilId, Spot),
    /// Runs again after a sleep.
    Return {
        /// Because the time was over.
        timed_out: bool,
    },
}

/// What has become plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Of which thread.
    pub tid: Tid,
    /// And which GIL.
    pub gil: GilId,
    /// What.
    pub stretch: Stretch,
    /// From when.
    pub begin: Nanos,
    /// To when.
    pub end: Nanos,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    gil: GilId,
    begin: Nanos,
    /// Whether `take_gil` slept.
    take: bool,
    /// Whether all sleeps were on the mutex, for which `drop_gil` sleeps too.
    mutex_only: bool,
    /// When the last sleep began.
    slept: Nanos,
    /// Whether that was on `cond`.
    on_cond: bool,
    /// When the last sleep on `cond` began, if that ran out.
    ran_out: Option<Nanos>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    #[default]
    Out,
    Asleep(Open),
    /// Runs again since then; whether the wait goes on is not plain yet.
    Awake(Open, Nanos, bool),
    /// A look found it asleep since before the watch began: its return will not be told.
    Found(Open),
}

/// Where a thread is, as far as events tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In no wait.
    Out,
    /// In a wait since then.
    Since(Nanos),
    /// Was in one that began then, and came back from a sleep then; which may still go on, and does so very likely if the sleep ran out.
    Between {
        /// When the wait began.
        begin: Nanos,
        /// When its last sleep ended.
        since: Nanos,
        /// Because the time was over.
        timed_out: bool,
    },
    /// Was forced to let go then, and has not asked again: as far as events tell.
    Forced(Nanos),
    /// Not told yet: only looks can say.
    Unknown,
}

#[derive(Clone, Copy, Debug, Default)]
struct Thread {
    phase: Phase,
    /// Since when it has the GIL, when that is known.
    held: Option<Nanos>,
    /// When it let go, and whether because it was forced to, if it has done nothing since that events tell of.
    let_go: Option<(Nanos, bool)>,
}

/// All threads.
#[derive(Debug, Default)]
pub struct Waits {
    threads: HashMap<Tid, Thread>,
    /// When each GIL was last let go of with others waiting.
    let_go: HashMap<GilId, Nanos>,
    /// Sleeps whose end was never seen.
    pub unfinished: u64,
}

impl Waits {
    /// Takes the next event. Those of one thread must come in order of time.
    pub fn take(&mut self, at: Nanos, tid: Tid, did: Did, tell: &mut dyn FnMut(Told)) {
        if self.threads.len() >= MOST_THREADS && !self.threads.contains_key(&tid) {
            self.threads.retain(|_, t| !matches!(t.phase, Phase::Out));
            if self.threads.len() >= MOST_THREADS {
                return;
            }
        }
        let (mut goes_on, mut forced) = (false, false);
        match did {
            Did::Sleep(gil, spot) => goes_on = self.goes_on(at, tid, gil, spot),
            Did::Wake(gil, Spot::Cond) => {
                forced = self.forced(tid, gil);
                self.let_go.insert(gil, at);
            }
            Did::Wake(..) | Did::Return { .. } => {}
        }
        let thread = self.threads.entry(tid).or_default();
        match did {
            Did::Sleep(gil, spot) => {
                self.unfinished += u64::from(matches!(thread.phase, Phase::Asleep(_)));
                thread.sleep(at, tid, gil, spot, goes_on, tell);
            }
            Did::Wake(gil, spot) => thread.wake(at, tid, gil, spot, forced, tell),
            Did::Return { timed_out } => {
                if let Phase::Asleep(open) = thread.phase {
                    let ran_out = Some(open.slept).filter(|_| timed_out && open.on_cond);
                    thread.phase = Phase::Awake(Open { ran_out, ..open }, at, timed_out);
                }
            }
        }
    }

    /// Whether a thread that goes to sleep now is still in the wait that its last sleep belongs to.
    fn goes_on(&self, at: Nanos, tid: Tid, gil: GilId, spot: Spot) -> bool {
        let Some(Phase::Awake(open, since, timed_out)) = self.threads.get(&tid).map(|t| t.phase) else { return false };
        let late = at.since(since) > patience(timed_out);
        open.gil == gil && (!late || spot == Spot::Cond && open.take && self.slept_through(tid, gil, since))
    }

    /// Whether some other thread has slept on `cond` since before `since`.
    fn slept_through(&self, tid: Tid, gil: GilId, since: Nanos) -> bool {
        let through = |open: &Open| open.gil == gil && open.on_cond && open.slept < since;
        self.threads.iter().any(|(other, t)| *other != tid && matches!(&t.phase, Phase::Asleep(open) if through(open)))
    }

    /// Whether the holder that lets go now was told to.
    fn forced(&self, holder: Tid, gil: GilId) -> bool {
        let let_go = self.let_go.get(&gil).copied().unwrap_or(Nanos::ZERO);
        let asked = |open: &Open| open.gil == gil && open.ran_out.is_some_and(|slept| slept >= let_go);
        let waits = |t: &Thread| matches!(&t.phase, Phase::Asleep(open) | Phase::Awake(open, ..) if asked(open));
        self.threads.iter().any(|(other, t)| *other != holder && waits(t))
    }

    /// Where a thread is.
    pub fn standing(&self, tid: Tid) -> Standing {
        let Some(thread) = self.threads.get(&tid) else { return Standing::Out };
        match thread.phase {
            Phase::Out => thread.let_go.filter(|(_, forced)| *forced).map_or(Standing::Out, |(at, _)| Standing::Forced(at)),
            Phase::Asleep(open) => Standing::Since(open.begin),
            Phase::Awake(open, since, timed_out) => Standing::Between { begin: open.begin, since, timed_out },
            Phase::Found(_) => Standing::Unknown,
        }
    }

    /// The threads that sleep for a GIL now.
    pub fn asleep(&self) -> impl Iterator<Item = Tid> + '_ {
        self.threads.iter().filter(|(_, t)| matches!(t.phase, Phase::Asleep(_))).map(|(tid, _)| *tid)
    }

    /// A look found the thread busy with something else at `at`: it has let go of the GIL, unseen because nobody waited.
    pub fn forget_hold(&mut self, tid: Tid, at: Nanos) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.held = thread.held.filter(|&held| held >= at);
        }
    }

    /// A look found the thread at `at` to have the GIL, or to sleep for something else: if it was forced to let go before, it has had the GIL
    /// since, unseen because nobody had it.
    pub fn forget_force(&mut self, tid: Tid, at: Nanos) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.let_go = thread.let_go.filter(|(let_go, _)| *let_go >= at);
        }
    }

    /// A look found the thread asleep on a GIL when the watch had just begun. The next event says whether it still waits.
    pub fn found_asleep(&mut self, tid: Tid, gil: GilId, begin: Nanos) {
        if self.threads.len() < MOST_THREADS {
            let thread = self.threads.entry(tid).or_default();
            if matches!(thread.phase, Phase::Out) {
                thread.phase = Phase::Found(Open { gil, begin, take: true, mutex_only: false, slept: begin, on_cond: true, ran_out: None });
            }
        }
    }

    /// Tells the waits that were over long enough before `now` that nothing can join them.
    pub fn settle(&mut self, now: Nanos, tell: &mut dyn FnMut(Told)) {
        let late: Vec<(Tid, Open, Nanos)> = self.threads.iter().filter_map(|(tid, thread)| late(*tid, thread, now)).collect();
        for (tid, open, since) in late {
            let over = now.since(since) > MOST_DOUBT || !self.slept_through(tid, open.gil, since);
            if let Some(thread) = self.threads.get_mut(&tid).filter(|_| over) {
                thread.over(tid, open, since, tell);
            }
        }
    }

    /// The window ends: what is under way counts up to `now`.
    pub fn finish(&mut self, now: Nanos, tell: &mut dyn FnMut(Told)) {
        for (tid, thread) in &mut self.threads {
            match thread.phase {
                Phase::Out | Phase::Found(_) => {}
                Phase::Asleep(open) => thread.over(*tid, open, now, tell),
                Phase::Awake(open, since, _) => thread.over(*tid, open, since, tell),
            }
        }
        self.threads.clear();
    }
}

/// A thread that has not gone back to sleep for longer than one does on its way round the loop.
fn late(tid: Tid, thread: &Thread, now: Nanos) -> Option<(Tid, Open, Nanos)> {
    match thread.phase {
        Phase::Awake(open, since, timed_out) if now.since(since) > patience(timed_out) => Some((tid, open, since)),
        _ => None,
    }
}

fn patience(timed_out: bool) -> Nanos {
    if timed_out {
        AFTER_TIME_OUT
    } else {
        AFTER_WAKE
    }
}

impl Thread {
    fn sleep(&mut self, at: Nanos, tid: Tid, gil: GilId, spot: Spot, goes_on: bool, tell: &mut dyn FnMut(Told)) {
        let before = match self.phase {
            Phase::Awake(open, ..) if goes_on => Some(open),
            Phase::Awake(open, since, _) => {
                self.over(tid, open, since, tell);
                None
            }
            Phase::Found(open) => Some(open).filter(|_| spot == Spot::Cond),
            // Its end was lost, and with it how long it was.
            Phase::Asleep(_) | Phase::Out => None,
        };
        match spot {
            // It sleeps for the GIL, so it does not have it; when it let go was not seen.
            Spot::Cond => self.held = None,
            Spot::SwitchCond => self.lets_go(at, tid, gil, tell),
            Spot::Mutex | Spot::SwitchMutex | Spot::Groups => {}
        }
        // A holder sleeps on the mutex on its way out, all others on their way in.
        let taking = spot == Spot::Cond || spot == Spot::Mutex && self.held.is_none();
        // `drop_gil` lets go, then waits for its taker; the one it wakes may push it off its core in between.
        let waits_on = |(let_go, forced): &(Nanos, bool)| spot == Spot::SwitchCond || *forced && at.since(*let_go) < MOST_FORCED;
        let begin = self.let_go.take().filter(waits_on).map_or(at, |(let_go, _)| let_go);
        let open = before.unwrap_or(Open { gil, begin, take: false, mutex_only: true, slept: at, on_cond: false, ran_out: None });
        let mutex_only = open.mutex_only && spot == Spot::Mutex;
        self.phase = Phase::Asleep(Open { take: open.take || taking, mutex_only, slept: at, on_cond: spot == Spot::Cond, ..open });
    }

    fn wake(&mut self, at: Nanos, tid: Tid, gil: GilId, spot: Spot, forced: bool, tell: &mut dyn FnMut(Told)) {
        if spot == Spot::Groups {
            return;
        }
        let awake = match self.phase {
            Phase::Awake(open, since, _) => Some((open, since)),
            // It runs, so a return was not told, and with it how long the sleep was.
            Phase::Found(_) | Phase::Asleep(_) => {
                self.phase = Phase::Out;
                None
            }
            Phase::Out => None,
        };
        match spot {
            // It has taken the GIL just now.
            Spot::SwitchCond => {
                self.let_go = None;
                if let Some((open, _)) = awake {
                    self.over(tid, open, at, tell);
                }
                self.held = Some(at);
            }
            // It lets go, so it had it.
            Spot::Cond => {
                if let Some((open, since)) = awake {
                    // Straight from the mutex to letting go is the way through `drop_gil`.
                    let take = open.take && !(open.mutex_only && at.since(since) <= AFTER_WAKE);
                    self.over(tid, Open { take, ..open }, since, tell);
                }
                self.lets_go(at, tid, gil, tell);
                self.let_go = Some((at, forced));
            }
            Spot::Mutex | Spot::SwitchMutex | Spot::Groups => {}
        }
    }

    fn over(&mut self, tid: Tid, open: Open, end: Nanos, tell: &mut dyn FnMut(Told)) {
        let stretch = if open.take { Stretch::Wait } else { Stretch::HandOver };
        tell(Told { tid, gil: open.gil, stretch, begin: open.begin, end });
        self.phase = Phase::Out;
        if open.take {
            self.held = Some(end);
        }
    }

    fn lets_go(&mut self, at: Nanos, tid: Tid, gil: GilId, tell: &mut dyn FnMut(Told)) {
        if let Some(begin) = self.held.take() {
            tell(Told { tid, gil, stretch: Stretch::Hold, begin, end: at });
        }
    }
}

#[cfg(test)]
mod tests;
