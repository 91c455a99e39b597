//! From futex calls to waits: the state machine of exact mode. Pure: events in, waits and holds out.
//!
//! One `take_gil` that has to sleep makes many calls: a sleep on `cond` ends every switch interval, and another follows at once. They are
//! one wait. Whoever slept on `cond` or `mutex` gets the mutex as one that others wait for, and tells by a call when it gives it up (glibc's
//! `lll_cond_lock` and `lll_lock_wait` leave a 2 in it; seen on 2.36 and 2.43). Until that call, however late it gets a CPU, it is inside `take_gil`. At it,
//! `last_holder` is this thread if it has taken the GIL. If not, it goes back to sleep on `cond`: at once, unless it is pushed off its CPU by the
//! thread it woke; or it finds that it has been signalled meanwhile, and may take the GIL without a call. It has not if `switch_number` is the
//! same when it sleeps again. Nor, where others have taken the GIL meanwhile, while some thread slept on `cond`, or had the GIL and did not let
//! go: then this one cannot have let go without a call that wakes (`cover`). What is left is told by how soon it sleeps.
//!
//! Before it gives up the mutex, a thread that wakes a sleeper on `cond` either came away from there with a signal meant for a later one, and
//! passes it on; or it slept for the mutex only, in `drop_gil`, and lets go. One that slept for the mutex and wakes nobody is in `take_gil`.
//!
//! The forced switch in `drop_gil` (a sleep on `switch_cond`) is the beginning of the wait that follows it, or a [`Stretch::HandOver`] of
//! its own when the thread then wants something else. Where the GIL has been taken by the time the thread gets a core again, it makes no such
//! sleep and asks at once. So who was forced to let go waits from then on. It was if another thread's sleep on `cond` ran out before without the GIL
//! having changed hands: that is when `take_gil` asks for a drop.
//!
//! A hold is told when both its ends are seen: it follows a wait, and somebody was waiting when it ended.

use super::cover::Cover;
use super::spot::Spot;
use crate::ids::{Addr, GilId, Tid};
use crate::process::futex_watch::Turn;
use crate::sample::Stretch;
use crate::units::Nanos;
use open::{Back, Open};
use std::collections::HashMap;

/// So long after a sleep it is not kept open whether the wait goes on, whoever else sleeps.
const MOST_DOUBT: Nanos = Nanos::from_millis(250);
/// So long after it was forced to let go a thread may have had no core, and not have asked again.
pub const MOST_FORCED: Nanos = Nanos::from_millis(100);
/// Threads followed at once; those that are out are forgotten first.
const MOST_THREADS: usize = 32_768;

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
    /// From when for certain: before that, only that it was forced to let go says that it waited.
    pub sure: Nanos,
    /// To when.
    pub end: Nanos,
}

#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    #[default]
    Out,
    Asleep(Open),
    /// Runs again; whether the wait goes on is not plain yet.
    Awake(Open, Back),
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
    /// Was in one that began then, and runs again.
    Between {
        /// When the wait began.
        begin: Nanos,
        /// Up to when it waited for certain.
        since: Nanos,
        /// It has not come out of `take_gil`.
        inside: bool,
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
    /// Its `PyThreadState`, as `last_holder` was when it surely had the GIL last.
    state: Option<Addr>,
}

/// What a thread that wakes others finds around it.
#[derive(Clone, Copy, Debug)]
struct Around {
    turn: Option<Turn>,
    /// It was told to let go.
    forced: bool,
    /// As in [`Back`].
    bare: Nanos,
}

/// All threads.
#[derive(Debug, Default)]
pub struct Waits {
    threads: HashMap<Tid, Thread>,
    /// When each GIL was last let go of with others waiting.
    let_go: HashMap<GilId, Nanos>,
    /// Who sleeps for each GIL and who is known to have it.
    cover: HashMap<GilId, Cover>,
    /// The switch interval, as far as looks have found it.
    pub interval: Option<Nanos>,
}

impl Waits {
    /// Takes the next event. Those of one thread must come in order of time.
    pub fn take(&mut self, at: Nanos, tid: Tid, did: Did, turn: Option<Turn>, tell: &mut dyn FnMut(Told)) {
        if self.threads.len() >= MOST_THREADS && !self.threads.contains_key(&tid) {
            self.threads.retain(|_, t| !matches!(t.phase, Phase::Out));
            if self.threads.len() >= MOST_THREADS {
                return;
            }
        }
        if self.passes_on(at, tid, did) {
            return;
        }
        let asleep = match self.threads.entry(tid).or_default().phase {
            Phase::Asleep(open) => Some(open),
            Phase::Out | Phase::Awake(..) | Phase::Found(_) => None,
        };
        let gil = match did {
            Did::Sleep(gil, _) | Did::Wake(gil, _) => Some(gil),
            Did::Return { .. } => asleep.map(|open| open.gil),
        };
        if let Some(gil) = gil {
            self.cover.entry(gil).or_default().switches = turn.map(|t| t.switch_number);
        }
        if let Some(open) = asleep {
            // It runs now, also if its return was not told.
            self.cover.entry(open.gil).or_default().returns(at, open.spot == Spot::Cond, did == Did::Return { timed_out: true });
        }
        match did {
            Did::Sleep(gil, spot) => {
                let goes_on = self.goes_on(at, tid, gil, spot, turn);
                self.cover.entry(gil).or_default().sleeps(at, tid, spot);
                self.threads.entry(tid).or_default().sleep(at, tid, gil, spot, goes_on, tell);
            }
            Did::Wake(gil, spot) => {
                let forced = spot == Spot::Cond && self.forced(tid, gil);
                let cover = self.cover.entry(gil).or_default();
                let thread = self.threads.entry(tid).or_default();
                cover.wakes(at, tid, spot);
                thread.wake(at, tid, gil, spot, Around { turn, forced, bare: cover.bare(at) }, tell);
                if spot == Spot::Cond {
                    self.let_go.insert(gil, at);
                }
            }
            Did::Return { timed_out } => {
                if let Some(open) = asleep {
                    let bare = self.cover.entry(open.gil).or_default().bare(at);
                    let ran_out = self.counted_from(&open, at).filter(|_| timed_out);
                    let back = Back { since: at, timed_out, gave_up: None, switches: None, bare };
                    self.threads.entry(tid).or_default().phase = Phase::Awake(Open { ran_out, ..open }, back);
                }
            }
        }
    }

    /// When `take_gil` began to count the switch interval that runs out now. A sleep shorter than that is not the first of its round: glibc has
    /// gone back to sleep meanwhile.
    fn counted_from(&self, open: &Open, now: Nanos) -> Option<Nanos> {
        let first = self.interval.map_or(open.slept, |interval| open.slept.min(now - interval));
        Some(first).filter(|_| open.spot == Spot::Cond)
    }

    /// Whether a wake-up is of a sleeper that got a later one's signal, and not of somebody that lets go.
    fn passes_on(&self, at: Nanos, tid: Tid, did: Did) -> bool {
        let phase = self.threads.get(&tid).map(|t| t.phase);
        matches!((did, phase), (Did::Wake(gil, Spot::Cond), Some(Phase::Awake(open, back)))
            if open.gil == gil && open.spot == Spot::Cond && open.due && at.since(back.since) <= MOST_DOUBT)
    }

    /// Whether a thread that goes to sleep now is still in the wait that its last sleep belongs to.
    fn goes_on(&self, at: Nanos, tid: Tid, gil: GilId, spot: Spot, turn: Option<Turn>) -> bool {
        let Some(thread) = self.threads.get(&tid) else { return false };
        let Phase::Awake(open, back) = thread.phase else { return false };
        if open.gil != gil || open.take && spot == Spot::SwitchCond {
            return false;
        }
        if open.take && !open.due && !matches!(spot, Spot::Cond | Spot::Mutex) {
            return false; // it signals `cond`, or waits for who was signalled: it is in `drop_gil`
        }
        if open.due || back.switches.is_some() && back.switches == turn.map(|t| t.switch_number) {
            return at.since(back.since) <= MOST_DOUBT;
        }
        if thread.had_it_last(turn) {
            return false;
        }
        let patience = open.patience(&back);
        at.since(back.end()) <= patience || spot == Spot::Cond && open.take && self.bare(&open, &back, at) <= patience
    }

    /// How long since its last sleep a thread could have let go of the GIL unseen.
    fn bare(&self, open: &Open, back: &Back, now: Nanos) -> Nanos {
        self.cover.get(&open.gil).map_or(Nanos::ZERO, |cover| cover.bare(now).since(back.bare))
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
            Phase::Awake(open, back) => Standing::Between { begin: open.begin, since: back.end(), inside: open.due },
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
    /// since, unseen because nobody had it; or it let go of its own accord just when it was asked to. Looks are told late: the thread may have
    /// asked again since. When it was forced, if it was.
    pub fn forget_force(&mut self, tid: Tid, at: Nanos) -> Option<Nanos> {
        let thread = self.threads.get_mut(&tid)?;
        let waits = thread.let_go.take_if(|(let_go, _)| *let_go < at).filter(|(_, forced)| *forced).map(|(let_go, _)| let_go);
        let (Phase::Asleep(open) | Phase::Awake(open, ..)) = &mut thread.phase else { return waits };
        let before = open.begin;
        open.begin = begin_without_force((before, open.sure), at);
        waits.or((open.begin != before).then_some(before))
    }

    /// A look found the thread asleep on a GIL when the watch had just begun. The next event says whether it still waits.
    pub fn found_asleep(&mut self, tid: Tid, gil: GilId, begin: Nanos) {
        if self.threads.len() < MOST_THREADS {
            let thread = self.threads.entry(tid).or_default();
            if matches!(thread.phase, Phase::Out) {
                thread.phase =
                    Phase::Found(Open { take: true, mutex_only: false, spot: Spot::Cond, due: true, ..Open::new(gil, begin, begin) });
            }
        }
    }

    /// Tells the waits that were over long enough before `now` that nothing can join them.
    pub fn settle(&mut self, now: Nanos, tell: &mut dyn FnMut(Told)) {
        let late: Vec<_> = self.threads.iter().filter_map(|(tid, thread)| late(*tid, thread, now)).collect();
        for (tid, open, back) in late {
            let switches = self.cover.get(&open.gil).and_then(|cover| cover.switches);
            let taken = back.switches.is_none() || back.switches != switches;
            let over = now.since(back.since) > MOST_DOUBT || taken && self.bare(&open, &back, now) > open.patience(&back);
            if let Some(thread) = self.threads.get_mut(&tid).filter(|_| over) {
                thread.over(tid, open, back.end(), tell);
            }
        }
    }

    /// The window ends: what is under way counts up to `now`.
    pub fn finish(&mut self, now: Nanos, tell: &mut dyn FnMut(Told)) {
        for (tid, thread) in &mut self.threads {
            match thread.phase {
                Phase::Asleep(open) | Phase::Awake(open, ..) if open.begin >= now => {}
                Phase::Out | Phase::Found(_) => {}
                Phase::Asleep(open) => thread.over(*tid, open, now, tell),
                Phase::Awake(open, back) => thread.over(*tid, open, if open.due { now } else { back.end().min(now) }, tell),
            }
        }
        self.threads.clear();
        self.cover.clear();
        self.let_go.clear();
    }
}

/// When a wait began of whose thread a look at `at` knew better than that it was forced to let go.
pub fn begin_without_force((begin, sure): (Nanos, Nanos), at: Nanos) -> Nanos {
    if begin < at && at <= sure {
        sure
    } else {
        begin
    }
}

/// A thread that gave up the mutex and has not gone back to sleep for longer than one does on its way round the loop; or one silent for too long.
fn late(tid: Tid, thread: &Thread, now: Nanos) -> Option<(Tid, Open, Back)> {
    match thread.phase {
        Phase::Awake(open, back) if now.since(back.end()) > if open.due { MOST_DOUBT } else { open.patience(&back) } => {
            Some((tid, open, back))
        }
        _ => None,
    }
}

impl Thread {
    /// Whether nobody else has had the GIL since this thread had it.
    fn had_it_last(&self, turn: Option<Turn>) -> bool {
        self.state.is_some() && self.state == turn.map(|t| t.last_holder)
    }

    fn sleep(&mut self, at: Nanos, tid: Tid, gil: GilId, spot: Spot, goes_on: bool, tell: &mut dyn FnMut(Told)) {
        let before = match self.phase {
            Phase::Awake(open, back) if goes_on => {
                // Who signals `cond` may have to wait for `Groups` there, and has the mutex meanwhile.
                let before = if spot == Spot::Groups { open.gave_up } else { back.gave_up };
                Some(Open { gave_up: before.filter(|_| open.take && matches!(spot, Spot::Mutex | Spot::Groups)), ..open })
            }
            Phase::Awake(open, back) => {
                self.over(tid, open, back.end(), tell);
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
        // `drop_gil` lets go, then waits for its taker; the one it wakes may push it off its core in between.
        let waits_on = |(let_go, forced): &(Nanos, bool)| spot == Spot::SwitchCond || *forced && at.since(*let_go) < MOST_FORCED;
        let begin = self.let_go.take().filter(waits_on).map_or(at, |(let_go, _)| let_go);
        let open = before.unwrap_or(Open::new(gil, begin, if spot == Spot::SwitchCond { begin } else { at }));
        let mutex_last = if spot == Spot::Groups { open.mutex_last } else { spot == Spot::Mutex };
        let mutex_only = open.mutex_only && matches!(spot, Spot::Mutex | Spot::Groups);
        // A holder that sleeps on the mutex is on its way out: only letting go will tell.
        let taking = matches!(spot, Spot::Cond | Spot::Mutex);
        self.phase =
            Phase::Asleep(Open { take: open.take || taking, mutex_only, slept: at, spot, mutex_last, due: open.due || taking, ..open });
    }

    fn wake(&mut self, at: Nanos, tid: Tid, gil: GilId, spot: Spot, around: Around, tell: &mut dyn FnMut(Told)) {
        if spot == Spot::Groups {
            return;
        }
        let awake = match self.phase {
            Phase::Awake(open, back) => Some((open, back)),
            Phase::Found(open) if spot == Spot::Mutex => {
                Some((open, Back { since: at, timed_out: true, gave_up: None, switches: None, bare: around.bare }))
            }
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
                if let Some((open, back)) = awake {
                    self.over(tid, open, back.gave_up.unwrap_or(at), tell);
                }
                self.held = Some(at);
                self.state = around.turn.map(|t| t.last_holder);
            }
            // It lets go, so it had it.
            Spot::Cond => {
                match awake {
                    Some((open, back)) if open.due && open.mutex_last => self.dropped(tid, open, back.since, tell),
                    Some((open, back)) => self.over(tid, open, back.end(), tell),
                    None => {}
                }
                self.lets_go(at, tid, gil, tell);
                self.let_go = Some((at, around.forced));
                self.state = around.turn.map(|t| t.last_holder);
            }
            Spot::Mutex => match awake.filter(|(open, _)| open.due) {
                Some((open, _)) if self.had_it_last(around.turn) => self.over(tid, open, at, tell),
                Some((open, back)) => {
                    let (switches, bare) = (around.turn.map(|t| t.switch_number), around.bare);
                    self.phase = Phase::Awake(Open { due: false, ..open }, Back { gave_up: Some(at), switches, bare, ..back });
                }
                None => {}
            },
            Spot::SwitchMutex | Spot::Groups => {}
        }
    }

    /// It let go right after a sleep for the mutex that ended then, so that sleep was in `drop_gil`: no wait, or no part of the one before it. Whoever
    /// had the mutex then could not have the GIL, so that somebody is there to be woken.
    fn dropped(&mut self, tid: Tid, open: Open, end: Nanos, tell: &mut dyn FnMut(Told)) {
        if open.mutex_only {
            return self.over(tid, Open { take: false, ..open }, end, tell);
        }
        let Some(taken) = open.gave_up else { return self.over(tid, open, end, tell) };
        self.over(tid, open, taken, tell);
        tell(Told { tid, gil: open.gil, stretch: Stretch::HandOver, begin: open.slept, sure: open.slept, end });
    }

    fn over(&mut self, tid: Tid, open: Open, end: Nanos, tell: &mut dyn FnMut(Told)) {
        let stretch = if open.take { Stretch::Wait } else { Stretch::HandOver };
        tell(Told { tid, gil: open.gil, stretch, begin: open.begin, sure: open.sure, end });
        self.phase = Phase::Out;
        if open.take {
            self.held = Some(end);
        }
    }

    fn lets_go(&mut self, at: Nanos, tid: Tid, gil: GilId, tell: &mut dyn FnMut(Told)) {
        if let Some(begin) = self.held.take() {
            tell(Told { tid, gil, stretch: Stretch::Hold, begin, sure: begin, end: at });
        }
    }
}

mod open;
#[cfg(test)]
mod tests;
