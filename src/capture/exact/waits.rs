//! From futex calls to waits: the state machine of exact mode. Pure: events in, waits and holds out.
//!
//! One `take_gil` that has to sleep makes many calls: a sleep on `cond` ends every switch interval, and another follows at once. They are
//! one wait. Whoever slept on `cond` or `mutex` gets the mutex as one that others wait for, and tells by a call when it gives it up (glibc's
//! `lll_cond_lock` and `lll_lock_wait` leave a 2 in it; seen on 2.36 and 2.43). Until that call, however late it gets a CPU, it is inside `take_gil`. At it,
//! `last_holder` is this thread if it has taken the GIL. If not, it goes back to sleep on `cond`: at once, unless it is pushed off its CPU by the
//! thread it woke; or it finds that it has been signalled meanwhile, and may take the GIL without a call. It has not if `switch_number` is the
//! same when it sleeps again. Nor, where others have taken the GIL meanwhile, while some thread slept on `cond`, or had the GIL and did not let
//! go: then this one cannot have let go without a call that wakes (`release_visibility`). What is left is told by how soon it sleeps.
//!
//! WaitCorrection it gives up the mutex, a thread that wakes a sleeper on `cond` either came away from there with a signal meant for a later one, and
//! passes it on; or it slept for the mutex only, in `drop_gil`, and lets go. One that slept for the mutex and wakes nobody is in `take_gil`.
//!
//! The forced switch in `drop_gil` (a sleep on `switch_cond`) is the beginning of the wait that follows it, or a [`IntervalKind::ForcedSwitch`] of
//! its own when the thread then wants something else. Where the GIL has been taken by the time the thread gets a core again, it makes no such
//! sleep and asks at once. So who was forced to let go waits from then on. It was if another thread's sleep on `cond` ran out before without the GIL
//! having changed hands: that is when `take_gil` asks for a drop.
//!
//! A hold is told when both its ends are seen: it follows a wait, and somebody was waiting when it ended.

use super::gil_futex::{FutexOp, GilFutex};
use super::release_visibility::ReleaseVisibility;
use crate::ids::{Addr, GilId, Tid};
use crate::process::futex_tracer::GilSnapshot;
use crate::sample::IntervalKind;
use crate::units::Nanos;
pub use open_wait::WaitStatus;
use open_wait::{OpenWait, Resumed};
use std::collections::HashMap;

/// So long after a sleep it is not kept open whether the wait goes on, whoever else sleeps.
const MAX_DOUBT: Nanos = Nanos::from_millis(250);
/// So long after it was forced to let go a thread may have had no core, and not have asked again.
pub const MAX_FORCED_WAIT: Nanos = Nanos::from_millis(100);
/// Threads followed at once; those that are out are forgotten first.
const MAX_THREADS: usize = 32_768;

/// What has become plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedInterval {
    /// Of which thread.
    pub tid: Tid,
    /// And which GIL.
    pub gil: GilId,
    /// What.
    pub kind: IntervalKind,
    /// From when.
    pub begin: Nanos,
    /// From when for certain: before that, only that it was forced to let go says that it waited.
    pub certain_begin: Nanos,
    /// To when.
    pub end: Nanos,
}

#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    #[default]
    NotWaiting,
    Asleep(OpenWait),
    /// Runs again; whether the wait goes on is not plain yet.
    Awake(OpenWait, Resumed),
    /// A look found it asleep since before the watch began: its return will not be told.
    FoundAsleep(OpenWait),
}

#[derive(Clone, Copy, Debug, Default)]
struct ThreadWaitState {
    phase: Phase,
    /// Since when it has the GIL, when that is known.
    held_since: Option<Nanos>,
    /// When it let go, and whether because it was forced to, if it has done nothing since that events tell of.
    released: Option<(Nanos, bool)>,
    /// Its `PyThreadState`, as `last_holder` was when it surely had the GIL last.
    tstate: Option<Addr>,
}

/// What a thread that wakes others finds around it.
#[derive(Clone, Copy, Debug)]
struct WakeContext {
    snapshot: Option<GilSnapshot>,
    /// It was told to let go.
    forced: bool,
    /// As in [`Resumed`].
    unobserved: Nanos,
}

/// All threads.
#[derive(Debug, Default)]
pub struct Waits {
    threads: HashMap<Tid, ThreadWaitState>,
    /// When each GIL was last let go of with others waiting.
    released_at: HashMap<GilId, Nanos>,
    /// Who sleeps for each GIL and who is known to have it.
    visibility: HashMap<GilId, ReleaseVisibility>,
    /// The switch interval, as far as looks have found it.
    pub interval: Option<Nanos>,
}

impl Waits {
    /// Takes the next event. Those of one thread must come in order of time.
    pub fn handle(&mut self, at: Nanos, tid: Tid, op: FutexOp, snapshot: Option<GilSnapshot>, emit: &mut dyn FnMut(CompletedInterval)) {
        if self.threads.len() >= MAX_THREADS && !self.threads.contains_key(&tid) {
            self.threads.retain(|_, t| !matches!(t.phase, Phase::NotWaiting));
            if self.threads.len() >= MAX_THREADS {
                return;
            }
        }
        if self.passes_signal_on(at, tid, op) {
            return;
        }
        let asleep = match self.threads.entry(tid).or_default().phase {
            Phase::Asleep(open) => Some(open),
            Phase::NotWaiting | Phase::Awake(..) | Phase::FoundAsleep(_) => None,
        };
        let gil = match op {
            FutexOp::Sleep(gil, _) | FutexOp::Wake(gil, _) => Some(gil),
            FutexOp::Return { .. } => asleep.map(|open| open.gil),
        };
        if let Some(gil) = gil {
            self.visibility.entry(gil).or_default().switches = snapshot.map(|t| t.switch_number);
        }
        if let Some(open) = asleep {
            // It runs now, also if its return was not told.
            self.visibility.entry(open.gil).or_default().on_return(
                at,
                open.futex == GilFutex::Cond,
                op == FutexOp::Return { timed_out: true },
            );
        }
        match op {
            FutexOp::Sleep(gil, futex) => {
                let continues_wait = self.continues_wait(at, tid, gil, futex, snapshot);
                self.visibility.entry(gil).or_default().on_sleep(at, tid, futex);
                self.threads.entry(tid).or_default().sleep(at, tid, gil, futex, continues_wait, emit);
            }
            FutexOp::Wake(gil, futex) => {
                let forced = futex == GilFutex::Cond && self.was_forced(tid, gil);
                let visibility = self.visibility.entry(gil).or_default();
                let thread = self.threads.entry(tid).or_default();
                visibility.on_wake(at, tid, futex);
                thread.wake(at, tid, gil, futex, WakeContext { snapshot, forced, unobserved: visibility.unobserved(at) }, emit);
                if futex == GilFutex::Cond {
                    self.released_at.insert(gil, at);
                }
            }
            FutexOp::Return { timed_out } => {
                if let Some(open) = asleep {
                    let unobserved = self.visibility.entry(open.gil).or_default().unobserved(at);
                    let timed_out_since = self.interval_start(&open, at).filter(|_| timed_out);
                    let back = Resumed { since: at, timed_out, mutex_released_at: None, switches: None, unobserved };
                    self.threads.entry(tid).or_default().phase = Phase::Awake(OpenWait { timed_out_since, ..open }, back);
                }
            }
        }
    }

    /// When `take_gil` began to count the switch interval that runs out now. A sleep shorter than that is not the first of its round: glibc has
    /// gone back to sleep meanwhile.
    fn interval_start(&self, open: &OpenWait, now: Nanos) -> Option<Nanos> {
        let first = self.interval.map_or(open.slept, |interval| open.slept.min(now - interval));
        Some(first).filter(|_| open.futex == GilFutex::Cond)
    }

    /// Whether a wake-up is of a sleeper that got a later one's signal, and not of somebody that lets go.
    fn passes_signal_on(&self, at: Nanos, tid: Tid, op: FutexOp) -> bool {
        let phase = self.threads.get(&tid).map(|t| t.phase);
        matches!((op, phase), (FutexOp::Wake(gil, GilFutex::Cond), Some(Phase::Awake(open, back)))
            if open.gil == gil && open.futex == GilFutex::Cond && open.release_pending && at.saturating_since(back.since) <= MAX_DOUBT)
    }

    /// Whether a thread that goes to sleep now is still in the wait that its last sleep belongs to.
    fn continues_wait(&self, at: Nanos, tid: Tid, gil: GilId, futex: GilFutex, snapshot: Option<GilSnapshot>) -> bool {
        let Some(thread) = self.threads.get(&tid) else { return false };
        let Phase::Awake(open, back) = thread.phase else { return false };
        if open.gil != gil || open.take_gil_slept && futex == GilFutex::SwitchCond {
            return false;
        }
        if open.take_gil_slept && !open.release_pending && !matches!(futex, GilFutex::Cond | GilFutex::Mutex) {
            return false; // it signals `cond`, or waits for who was signalled: it is in `drop_gil`
        }
        if open.release_pending || back.switches.is_some() && back.switches == snapshot.map(|t| t.switch_number) {
            return at.saturating_since(back.since) <= MAX_DOUBT;
        }
        if thread.was_last_holder(snapshot) {
            return false;
        }
        let rejoin_window = open.rejoin_window(&back);
        at.saturating_since(back.end()) <= rejoin_window
            || futex == GilFutex::Cond && open.take_gil_slept && self.unobserved(&open, &back, at) <= rejoin_window
    }

    /// How long since its last sleep a thread could have let go of the GIL unseen.
    fn unobserved(&self, open: &OpenWait, back: &Resumed, now: Nanos) -> Nanos {
        self.visibility.get(&open.gil).map_or(Nanos::ZERO, |visibility| visibility.unobserved(now).saturating_since(back.unobserved))
    }

    /// Whether the holder that lets go now was told to.
    fn was_forced(&self, holder: Tid, gil: GilId) -> bool {
        let released_at = self.released_at.get(&gil).copied().unwrap_or(Nanos::ZERO);
        let requested = |open: &OpenWait| open.gil == gil && open.timed_out_since.is_some_and(|slept| slept >= released_at);
        let waits = |t: &ThreadWaitState| matches!(&t.phase, Phase::Asleep(open) | Phase::Awake(open, ..) if requested(open));
        self.threads.iter().any(|(other, t)| *other != holder && waits(t))
    }

    /// Where a thread is.
    pub fn status(&self, tid: Tid) -> WaitStatus {
        let Some(thread) = self.threads.get(&tid) else { return WaitStatus::NotWaiting };
        match thread.phase {
            Phase::NotWaiting => {
                thread.released.filter(|(_, forced)| *forced).map_or(WaitStatus::NotWaiting, |(at, _)| WaitStatus::ForcedSince(at))
            }
            Phase::Asleep(open) => WaitStatus::WaitingSince(open.begin),
            Phase::Awake(open, back) => WaitStatus::Resumed { begin: open.begin, since: back.end(), in_take_gil: open.release_pending },
            Phase::FoundAsleep(_) => WaitStatus::Unknown,
        }
    }

    /// The threads that sleep for a GIL now.
    pub fn asleep(&self) -> impl Iterator<Item = Tid> + '_ {
        self.threads.iter().filter(|(_, t)| matches!(t.phase, Phase::Asleep(_))).map(|(tid, _)| *tid)
    }

    /// A look found the thread busy with something else at `at`: it has let go of the GIL, unseen because nobody waited.
    pub fn forget_hold(&mut self, tid: Tid, at: Nanos) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.held_since = thread.held_since.filter(|&held| held >= at);
        }
    }

    /// A look found the thread at `at` to have the GIL, or to sleep for something else: if it was forced to let go before, it has had the GIL
    /// since, unseen because nobody had it; or it let go of its own accord just when it was asked to. Looks are told late: the thread may have
    /// asked again since. When it was forced, if it was.
    pub fn forget_forced_switch(&mut self, tid: Tid, at: Nanos) -> Option<Nanos> {
        let thread = self.threads.get_mut(&tid)?;
        let waits = thread.released.take_if(|(time, _)| *time < at).filter(|(_, forced)| *forced).map(|(time, _)| time);
        let (Phase::Asleep(open) | Phase::Awake(open, ..)) = &mut thread.phase else { return waits };
        let before = open.begin;
        open.begin = unforced_begin((before, open.certain_begin), at);
        waits.or((open.begin != before).then_some(before))
    }

    /// A look found the thread asleep on a GIL when the watch had just begun. The next event says whether it still waits.
    pub fn found_asleep(&mut self, tid: Tid, gil: GilId, begin: Nanos) {
        if self.threads.len() < MAX_THREADS {
            let thread = self.threads.entry(tid).or_default();
            if matches!(thread.phase, Phase::NotWaiting) {
                thread.phase = Phase::FoundAsleep(OpenWait {
                    take_gil_slept: true,
                    mutex_only: false,
                    futex: GilFutex::Cond,
                    release_pending: true,
                    ..OpenWait::new(gil, begin, begin)
                });
            }
        }
    }

    /// Tells the waits that were over long enough before `now` that nothing can join them.
    pub fn close_stale(&mut self, now: Nanos, emit: &mut dyn FnMut(CompletedInterval)) {
        let stale: Vec<_> = self.threads.iter().filter_map(|(tid, thread)| stale(*tid, thread, now)).collect();
        for (tid, open, back) in stale {
            let switches = self.visibility.get(&open.gil).and_then(|visibility| visibility.switches);
            let taken = back.switches.is_none() || back.switches != switches;
            let over =
                now.saturating_since(back.since) > MAX_DOUBT || taken && self.unobserved(&open, &back, now) > open.rejoin_window(&back);
            if let Some(thread) = self.threads.get_mut(&tid).filter(|_| over) {
                thread.close(tid, open, back.end(), emit);
            }
        }
    }

    /// The window ends: what is under way counts up to `now`.
    pub fn finish(&mut self, now: Nanos, emit: &mut dyn FnMut(CompletedInterval)) {
        for (tid, thread) in &mut self.threads {
            match thread.phase {
                Phase::Asleep(open) | Phase::Awake(open, ..) if open.begin >= now => {}
                Phase::NotWaiting | Phase::FoundAsleep(_) => {}
                Phase::Asleep(open) => thread.close(*tid, open, now, emit),
                Phase::Awake(open, back) => thread.close(*tid, open, if open.release_pending { now } else { back.end().min(now) }, emit),
            }
        }
        self.threads.clear();
        self.visibility.clear();
        self.released_at.clear();
    }
}

/// When a wait began of whose thread a look at `at` knew better than that it was forced to let go.
pub fn unforced_begin((begin, certain_begin): (Nanos, Nanos), at: Nanos) -> Nanos {
    if begin < at && at <= certain_begin {
        certain_begin
    } else {
        begin
    }
}

/// A thread that gave up the mutex and has not gone back to sleep for longer than one does on its way round the loop; or one silent for too long.
fn stale(tid: Tid, thread: &ThreadWaitState, now: Nanos) -> Option<(Tid, OpenWait, Resumed)> {
    match thread.phase {
        Phase::Awake(open, back)
            if now.saturating_since(back.end()) > if open.release_pending { MAX_DOUBT } else { open.rejoin_window(&back) } =>
        {
            Some((tid, open, back))
        }
        _ => None,
    }
}

impl ThreadWaitState {
    /// Whether nobody else has had the GIL since this thread had it.
    fn was_last_holder(&self, snapshot: Option<GilSnapshot>) -> bool {
        self.tstate.is_some() && self.tstate == snapshot.map(|t| t.last_holder)
    }

    fn sleep(&mut self, at: Nanos, tid: Tid, gil: GilId, futex: GilFutex, continues_wait: bool, emit: &mut dyn FnMut(CompletedInterval)) {
        let before = match self.phase {
            Phase::Awake(open, back) if continues_wait => {
                // Who signals `cond` may have to wait for `CondInternal` there, and has the mutex meanwhile.
                let before = if futex == GilFutex::CondInternal { open.mutex_released_at } else { back.mutex_released_at };
                Some(OpenWait {
                    mutex_released_at: before.filter(|_| open.take_gil_slept && matches!(futex, GilFutex::Mutex | GilFutex::CondInternal)),
                    ..open
                })
            }
            Phase::Awake(open, back) => {
                self.close(tid, open, back.end(), emit);
                None
            }
            Phase::FoundAsleep(open) => Some(open).filter(|_| futex == GilFutex::Cond),
            // Its end was lost, and with it how long it was.
            Phase::Asleep(_) | Phase::NotWaiting => None,
        };
        match futex {
            // It sleeps for the GIL, so it does not have it; when it let go was not seen.
            GilFutex::Cond => self.held_since = None,
            GilFutex::SwitchCond => self.release(at, tid, gil, emit),
            GilFutex::Mutex | GilFutex::SwitchMutex | GilFutex::CondInternal => {}
        }
        // `drop_gil` lets go, then waits for its taker; the one it wakes may push it off its core in between.
        let waits_on =
            |(time, forced): &(Nanos, bool)| futex == GilFutex::SwitchCond || *forced && at.saturating_since(*time) < MAX_FORCED_WAIT;
        let begin = self.released.take().filter(waits_on).map_or(at, |(time, _)| time);
        let open = before.unwrap_or(OpenWait::new(gil, begin, if futex == GilFutex::SwitchCond { begin } else { at }));
        let mutex_last = if futex == GilFutex::CondInternal { open.mutex_last } else { futex == GilFutex::Mutex };
        let mutex_only = open.mutex_only && matches!(futex, GilFutex::Mutex | GilFutex::CondInternal);
        // A holder that sleeps on the mutex is on its way out: only letting go will tell.
        let taking = matches!(futex, GilFutex::Cond | GilFutex::Mutex);
        self.phase = Phase::Asleep(OpenWait {
            take_gil_slept: open.take_gil_slept || taking,
            mutex_only,
            slept: at,
            futex,
            mutex_last,
            release_pending: open.release_pending || taking,
            ..open
        });
    }

    fn wake(&mut self, at: Nanos, tid: Tid, gil: GilId, futex: GilFutex, context: WakeContext, emit: &mut dyn FnMut(CompletedInterval)) {
        if futex == GilFutex::CondInternal {
            return;
        }
        let awake = match self.phase {
            Phase::Awake(open, back) => Some((open, back)),
            Phase::FoundAsleep(open) if futex == GilFutex::Mutex => Some((
                open,
                Resumed { since: at, timed_out: true, mutex_released_at: None, switches: None, unobserved: context.unobserved },
            )),
            // It runs, so a return was not told, and with it how long the sleep was.
            Phase::FoundAsleep(_) | Phase::Asleep(_) => {
                self.phase = Phase::NotWaiting;
                None
            }
            Phase::NotWaiting => None,
        };
        match futex {
            // It has taken the GIL just now.
            GilFutex::SwitchCond => {
                self.released = None;
                if let Some((open, back)) = awake {
                    self.close(tid, open, back.mutex_released_at.unwrap_or(at), emit);
                }
                self.held_since = Some(at);
                self.tstate = context.snapshot.map(|t| t.last_holder);
            }
            // It lets go, so it had it.
            GilFutex::Cond => {
                match awake {
                    Some((open, back)) if open.release_pending && open.mutex_last => self.end_as_release(tid, open, back.since, emit),
                    Some((open, back)) => self.close(tid, open, back.end(), emit),
                    None => {}
                }
                self.release(at, tid, gil, emit);
                self.released = Some((at, context.forced));
                self.tstate = context.snapshot.map(|t| t.last_holder);
            }
            GilFutex::Mutex => match awake.filter(|(open, _)| open.release_pending) {
                Some((open, _)) if self.was_last_holder(context.snapshot) => self.close(tid, open, at, emit),
                Some((open, back)) => {
                    let (switches, unobserved) = (context.snapshot.map(|t| t.switch_number), context.unobserved);
                    self.phase = Phase::Awake(
                        OpenWait { release_pending: false, ..open },
                        Resumed { mutex_released_at: Some(at), switches, unobserved, ..back },
                    );
                }
                None => {}
            },
            GilFutex::SwitchMutex | GilFutex::CondInternal => {}
        }
    }

    /// It let go right after a sleep for the mutex that ended then, so that sleep was in `drop_gil`: no wait, or no part of the one before it. Whoever
    /// had the mutex then could not have the GIL, so that somebody is there to be woken.
    fn end_as_release(&mut self, tid: Tid, open: OpenWait, end: Nanos, emit: &mut dyn FnMut(CompletedInterval)) {
        if open.mutex_only {
            return self.close(tid, OpenWait { take_gil_slept: false, ..open }, end, emit);
        }
        let Some(taken) = open.mutex_released_at else { return self.close(tid, open, end, emit) };
        self.close(tid, open, taken, emit);
        emit(CompletedInterval { tid, gil: open.gil, kind: IntervalKind::ForcedSwitch, begin: open.slept, certain_begin: open.slept, end });
    }

    fn close(&mut self, tid: Tid, open: OpenWait, end: Nanos, emit: &mut dyn FnMut(CompletedInterval)) {
        let kind = if open.take_gil_slept { IntervalKind::Wait } else { IntervalKind::ForcedSwitch };
        emit(CompletedInterval { tid, gil: open.gil, kind, begin: open.begin, certain_begin: open.certain_begin, end });
        self.phase = Phase::NotWaiting;
        if open.take_gil_slept {
            self.held_since = Some(end);
        }
    }

    fn release(&mut self, at: Nanos, tid: Tid, gil: GilId, emit: &mut dyn FnMut(CompletedInterval)) {
        if let Some(begin) = self.held_since.take() {
            emit(CompletedInterval { tid, gil, kind: IntervalKind::Hold, begin, certain_begin: begin, end: at });
        }
    }
}

mod open_wait;
#[cfg(test)]
mod tests;
