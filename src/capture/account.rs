//! What a thread was doing from look to look: the state machine between the decision table and the ledger. Pure: it reads nothing itself.

use super::classify::{self, Asked, Judgement, Place, Seen};
use super::ledger::{Entry, Kind, Ledger};
use crate::ids::ThreadId;
use crate::process::kernel_stack::Whereabouts;
use crate::process::threads::SchedStat;
use crate::sample::{Evidence, Split, Stack, State};
use crate::units::Nanos;
use std::sync::Arc;

/// A sleeper is not looked at for this part, at most, of the time for which it has slept. What it does when it wakes is met late by as much at
/// most: so the error in the sum is a 64th of the time at worst, and half of that where it wakes at any time.
const REST: u64 = 64;
/// Nor for longer than this.
const MOST_REST: Nanos = Nanos::from_millis(100);

/// First sleeps that are remembered in full.
const MANY_SLEEPS: u32 = 400;
/// One in this many for something other than the GIL and more make a habit.
const OTHER_SLEEPS: u32 = 4;

/// A thread that waits for its first CPU is booked at the latest after so long.
const MOST_UNBORN: Nanos = Nanos::from_millis(200);

/// One look at a thread, as far as the kernel goes.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Where it is.
    pub place: Place,
    /// The kernel was not asked for the place: it is where the thread was earlier in this look, before `stat` was read.
    pub supposed: bool,
    /// The kernel's counts; `None` where it keeps none.
    pub stat: Option<SchedStat>,
    /// Where in the kernel it is, if it is runnable and that was asked and can be told.
    pub whereabouts: Option<Whereabouts>,
}

/// What the interpreter says of the thread at the same look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claims {
    /// The GIL named it as the holder when the look began.
    pub held_before: bool,
    /// The GIL named it as the holder when the look ended.
    pub held_after: bool,
    /// 3.15: whether it has asked for the GIL and not got it.
    pub requested: Option<bool>,
    /// Its leaf instruction is a call of a C function.
    pub in_c_call: bool,
    /// If it has let go of the GIL: whether it can have been told to.
    pub asked: Asked,
    /// It may have had the GIL since the last look, by CPython's own count of its changes.
    pub may_have_held: bool,
    /// Its locks spin before they sleep (3.13+), so that one that has been woken from a lock seldom sleeps for another before it asks for the GIL.
    pub locks_spin: bool,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    at: Nanos,
    stat: Option<SchedStat>,
    /// What it did, if that was off the CPU.
    slept: Option<State>,
    /// When it was first met in the sleep that it is in.
    asleep_since: Nanos,
    near_wait: bool,
    /// Whether what it last slept for on a futex was the GIL; supposed of one that has not been met asleep yet. `None`: it has held since, or may
    /// have.
    wants_gil: Option<bool>,
    /// No look has met it asleep on a futex since one saw it hold.
    held: bool,
    /// That it waits is not only supposed: it was asleep on the GIL's futex, or had asked.
    surely_waits: bool,
}

/// One thread's account.
#[derive(Debug)]
pub struct Account {
    last: Last,
    /// When it was born, until it has left the run queue for the first time.
    born: Option<Nanos>,
    told: (State, Evidence),
    /// Once it has let go of the GIL within a call of a C function.
    after_hold: NextSleeps,
    /// Once it has run after a sleep for another lock.
    after_lock: NextSleeps,
    ledger: Ledger,
}

/// What a thread is found to sleep for next.
#[derive(Clone, Copy, Debug, Default)]
struct NextSleeps {
    gil: u32,
    other: u32,
}

impl NextSleeps {
    fn learn(&mut self, place: Place) {
        match place {
            Place::GilFutex => self.gil += 1,
            Place::OtherFutex => self.other += 1,
            _ => {}
        }
        if self.gil + self.other > MANY_SLEEPS {
            (self.gil, self.other) = (self.gil / 2, self.other / 2);
        }
    }

    /// Whether that is something other than the GIL. A short sleep for a lock is easily missed, so that the long one for the GIL behind it
    /// is often found first: a part of them is enough.
    fn are_for_others(self) -> bool {
        self.other * OTHER_SLEEPS > self.gil
    }

    /// Whether that is the GIL, with few exceptions. A sleep for the GIL is the longer one and so is met more often than it is the next.
    fn are_for_the_gil(self) -> bool {
        self.gil > OTHER_SLEEPS * self.other
    }
}

impl Account {
    /// Opens an account whose first slice begins at `began`. `newborn`: the thread itself did, so that all its counts lie in the account.
    pub fn open(began: Nanos, stat: Option<SchedStat>, newborn: bool) -> Account {
        let mut ledger = Ledger::default();
        ledger.open(if newborn { stat.map(|_| SchedStat::default()) } else { stat });
        // A newborn that has never had a CPU is starved until its count of runs moves: the run queue's time is only counted then.
        let slept = stat.is_some_and(|s| s.runs == 0).then_some(State::Starved);
        let last =
            Last { at: began, stat, slept, asleep_since: began, near_wait: false, wants_gil: Some(true), held: false, surely_waits: false };
        let told = (State::Unknown, Evidence::Unread);
        Account { last, born: newborn.then_some(began), told, after_hold: NextSleeps::default(), after_lock: NextSleeps::default(), ledger }
    }

    /// When it was last looked at.
    pub fn last_look(&self) -> Nanos {
        self.last.at
    }

    /// Whether it got a CPU since the last look; `None` where the kernel does not count.
    pub fn ran(&self, stat: Option<SchedStat>) -> Option<bool> {
        Some(self.last.stat?.runs != stat?.runs)
    }

    /// Whether the kernel need not be asked where the thread is: it slept and has not run since. A waiter for the GIL that was woken and has
    /// no CPU yet still waits, so that holds for it too. Not for a holder: where it is not the holder any more, it never was.
    pub fn sleeps_on(&self, stat: Option<SchedStat>) -> bool {
        self.ran(stat) == Some(false) && self.last.slept.is_some_and(|s| !matches!(s, State::Starved | State::HoldingBlocked))
    }

    /// Whether it is clear without asking the kernel what it does if it is runnable: it was woken and has not run.
    pub fn woken_at_most(&self, stat: Option<SchedStat>) -> bool {
        self.ran(stat) == Some(false) && self.last.slept.is_some()
    }

    /// Whether the last look found it waiting for the GIL, beyond doubt: one that was pushed off while it let go may want something else.
    pub fn waited(&self) -> bool {
        self.last.slept == Some(State::Waiting) && self.last.surely_waits && self.ledger.is_settled()
    }

    /// Books the time since the last look of one that [`Account::waited`] and still waits; its length, which is for the caller to tell of.
    pub fn still_waits(&mut self, at: Nanos) -> Nanos {
        let length = at.since(self.last.at);
        self.ledger.pass(State::Waiting, length);
        self.told = (State::Waiting, Evidence::SameHolder);
        (self.last.at, self.last.asleep_since) = (at, at);
        length
    }

    /// Until when it, thread `who`, need not be looked at: it has slept for so long that it sleeps on, most likely, and is met soon if it does
    /// not. Zero when the next look must.
    pub fn rests_until(&self, who: ThreadId) -> Nanos {
        if !self.slept() || self.last.stat.is_none() {
            return Nanos::ZERO;
        }
        let asleep = self.last.at.since(self.last.asleep_since).as_nanos();
        // Between half of it and all, or those that fell asleep together would all be looked at together for ever.
        let dice = (self.last.at.as_nanos() ^ u64::from(who.0) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let part = 512 + (dice >> 55);
        self.last.at + Nanos::from_nanos(asleep / REST / 1024 * part).min(MOST_REST)
    }

    /// Books the time in which it rested.
    pub fn rest_until(&mut self, at: Nanos, stack: &Arc<Stack>, emit: &mut dyn FnMut(&Entry, Split, Evidence)) {
        let Some(state) = self.last.slept.filter(|_| self.slept() && at > self.last.at) else { return };
        let kind = Kind::Told(state, Evidence::NotRunSince);
        let entry = Entry { end: at, length: at.since(self.last.at), kind, stack: stack.clone(), holder: None };
        self.ledger.add(entry, self.last.stat, true, emit);
        self.last.at = at;
    }

    /// Whether the last look found it asleep, and not for the GIL.
    pub fn slept(&self) -> bool {
        matches!(self.last.slept, Some(State::Io | State::Lock))
    }

    /// Whether its stack may have changed since the last look.
    pub fn may_have_moved(&self, stat: Option<SchedStat>) -> bool {
        self.ran(stat) != Some(false) || self.last.slept.is_none()
    }

    /// What the last look told.
    pub fn told(&self) -> (State, Evidence) {
        self.told
    }

    /// Judges one look.
    pub fn judge(&mut self, now: &Now, claims: &Claims) -> Judgement {
        // Who says that it does not ask for the GIL (3.15) has had it since it slept for it, and has not slept for it since it slept for a lock.
        let asks_not = claims.requested == Some(false);
        // It may have got what it waited for, let go, and slept for something else since.
        if claims.may_have_held && self.last.wants_gil == Some(true) && self.ran(now.stat) != Some(false) {
            self.last.wants_gil = None;
        }
        let last_wants = self.last.wants_gil.filter(|wants| !(*wants && asks_not));
        // It has run since a look met it asleep on another lock, and may have slept for the GIL since.
        let since_lock = claims.locks_spin && self.last.slept == Some(State::Lock) && self.ran(now.stat) == Some(true);
        if !claims.held_before && !now.supposed {
            if self.last.held && claims.in_c_call {
                self.after_hold.learn(now.place);
            } else if since_lock {
                self.after_lock.learn(now.place);
            }
        }
        let supposed = !claims.in_c_call || !self.after_hold.are_for_others();
        let wants_gil = last_wants.unwrap_or(supposed) || since_lock && !asks_not && self.after_lock.are_for_the_gil();
        classify::judge(&Seen {
            place: now.place,
            held_before: claims.held_before,
            held_after: claims.held_after,
            requested: claims.requested,
            in_c_call: claims.in_c_call,
            asked: claims.asked,
            slept: self.last.slept,
            near_wait: self.last.near_wait,
            wants_gil,
            whereabouts: now.whereabouts,
            ran: self.ran(now.stat),
        })
    }

    /// Books the time since the last look. What can be settled now is handed to `emit`.
    pub fn book(
        &mut self,
        at: Nanos,
        now: &Now,
        judgement: Judgement,
        stack: &Arc<Stack>,
        holder: Option<(ThreadId, Arc<Stack>)>,
        emit: &mut dyn FnMut(&Entry, Split, Evidence),
    ) {
        let asleep = !matches!(now.place, Place::Runnable | Place::Unread);
        let (kind, told) = match judgement {
            Judgement::Told(State::Starved, Evidence::KernelStack) => (Kind::Queued, (State::Starved, Evidence::KernelStack)),
            Judgement::Told(state, evidence) => (Kind::Told(state, evidence), (state, evidence)),
            Judgement::HoldingOnCpu(state) => (Kind::HoldingOnCpu(state), (state, Evidence::GilHolder)),
            Judgement::Released => (Kind::Released, (State::Unknown, Evidence::Conservation)),
            Judgement::Undecided { near_wait } => (Kind::Open { near_wait }, (State::Unknown, Evidence::Conservation)),
        };
        self.told = told;
        if self.unborn(now.stat) && at.since(self.last.at) < MOST_UNBORN {
            return;
        }
        self.book_birth(at, now.stat, stack, emit);
        let entry = Entry { end: at, length: at.since(self.last.at), kind, stack: stack.clone(), holder };
        self.ledger.add(entry, now.stat, asleep, emit);
        // A thread that was woken and has not run keeps what it did before, until its count of runs moves.
        let woken = matches!(judgement, Judgement::Told(_, e) if e.in_run_queue());
        let slept = match (judgement, now.place) {
            // It let go and fell asleep within the look.
            (Judgement::HoldingOnCpu(_), Place::GilFutex) => Some(State::Waiting),
            (Judgement::HoldingOnCpu(_), Place::OtherFutex) => Some(State::Lock),
            (Judgement::HoldingOnCpu(_), Place::Syscall | Place::Elsewhere) => Some(State::Io),
            _ => (asleep || woken).then_some(told.0),
        };
        let near_wait = slept == Some(State::Waiting)
            || matches!(judgement, Judgement::Told(State::Waiting, _) | Judgement::Undecided { near_wait: true });
        let wants_gil = match told.0 {
            _ if told.1 == Evidence::KernelStack => self.last.wants_gil,
            State::Waiting => Some(true),
            State::Lock => Some(false),
            State::HoldingPython | State::HoldingNative | State::HoldingBlocked => None,
            _ => self.last.wants_gil,
        };
        let held = match told.0 {
            _ if told.1 == Evidence::KernelStack => self.last.held,
            State::Waiting | State::Lock => false,
            state => state.is_holding() || self.last.held,
        };
        let surely_waits = match told.1 {
            Evidence::KernelStack | Evidence::PushedOff => false,
            Evidence::NotRunSince | Evidence::WokenNotRun => self.last.surely_waits,
            _ => true,
        };
        // One that ran after it was supposed to sleep may sleep for something else by now: the next look must see that it ran.
        let stat = if now.supposed { self.last.stat } else { now.stat };
        let asleep_since = if told.1 == Evidence::NotRunSince { self.last.asleep_since } else { at };
        self.last = Last { at, stat, slept, asleep_since, near_wait, wants_gil, held, surely_waits };
    }

    /// Whether it has never had a CPU.
    fn unborn(&self, stat: Option<SchedStat>) -> bool {
        self.born.is_some() && stat.is_some_and(|s| s.runs == 0)
    }

    /// A thread begins in the run queue. Once it has left that, the kernel has counted how long it was there; until then nothing is booked.
    fn book_birth(&mut self, at: Nanos, stat: Option<SchedStat>, stack: &Arc<Stack>, emit: &mut dyn FnMut(&Entry, Split, Evidence)) {
        let Some((born, stat)) = self.born.zip(stat.filter(|s| s.runs > 0)) else { return };
        self.born = None;
        let queued = stat.run_queue.since(self.last.at.since(born));
        self.book_starved(queued.min(at.since(self.last.at)), Some(stat), stack, emit);
    }

    /// Books `length` in the run queue, which ends before anything else.
    fn book_starved(&mut self, length: Nanos, stat: Option<SchedStat>, stack: &Arc<Stack>, emit: &mut dyn FnMut(&Entry, Split, Evidence)) {
        self.last.at += length;
        let kind = Kind::Told(State::Starved, Evidence::WokenNotRun);
        self.ledger.add(Entry { end: self.last.at, length, kind, stack: stack.clone(), holder: None }, stat, false, emit);
    }

    /// Settles what is pending at the end. `stat` is the last count, where it could still be read.
    pub fn close(
        &mut self,
        at: Nanos,
        stat: Option<SchedStat>,
        stack: &Arc<Stack>,
        emit: &mut dyn FnMut(&Entry, Split, Evidence),
    ) -> Option<SchedStat> {
        let stat = stat.or(self.last.stat);
        if self.unborn(stat) && at > self.last.at {
            self.book_starved(at.since(self.last.at), stat, stack, emit);
        }
        self.ledger.close(stat, emit);
        stat
    }
}
