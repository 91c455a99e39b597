//! The state of one thread's waits.

use super::open_wait::{OpenWait, Resumed};
use super::{CompletedInterval, MAX_DOUBT, MAX_FORCED_WAIT};
use crate::capture::exact::gil_futex::GilFutex;
use crate::ids::{Addr, GilId, Tid};
use crate::process::futex_tracer::GilSnapshot;
use crate::sample::IntervalKind;
use crate::units::Nanos;

#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Phase {
    #[default]
    NotWaiting,
    Asleep(OpenWait),
    /// Runs again; whether the wait continues is not known yet.
    Awake(OpenWait, Resumed),
    /// A sample found it asleep since before tracing began: there will be no event for its return.
    FoundAsleep(OpenWait),
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ThreadWaitState {
    pub phase: Phase,
    /// Since when it holds the GIL, if that is known.
    pub held_since: Option<Nanos>,
    /// When it released the GIL and whether the release was forced; cleared by its next event.
    pub released: Option<(Nanos, bool)>,
    /// Its `PyThreadState`: the value of `last_holder` when it last certainly held the GIL.
    pub tstate: Option<Addr>,
}

/// Circumstances of a wakeup call.
#[derive(Clone, Copy, Debug)]
pub(super) struct WakeContext {
    pub snapshot: Option<GilSnapshot>,
    /// Whether the release was forced by a drop request.
    pub forced: bool,
    /// As in [`Resumed`].
    pub unobserved: Nanos,
}

/// A thread that did not sleep again within its rejoin window, or had no event for too long.
pub(super) fn stale(tid: Tid, thread: &ThreadWaitState, now: Nanos) -> Option<(Tid, OpenWait, Resumed)> {
    match thread.phase {
        Phase::Awake(open, resumed)
            if now.saturating_since(resumed.end()) > if open.release_pending { MAX_DOUBT } else { open.rejoin_window(&resumed) } =>
        {
            Some((tid, open, resumed))
        }
        _ => None,
    }
}

impl ThreadWaitState {
    /// Whether no other thread has held the GIL since this thread held it.
    pub(super) fn was_last_holder(&self, snapshot: Option<GilSnapshot>) -> bool {
        self.tstate.is_some() && self.tstate == snapshot.map(|t| t.last_holder)
    }

    pub(super) fn sleep(
        &mut self,
        at: Nanos,
        tid: Tid,
        gil: GilId,
        futex: GilFutex,
        continues_wait: bool,
        emit: &mut dyn FnMut(CompletedInterval),
    ) {
        let before = match self.phase {
            Phase::Awake(open, resumed) if continues_wait => {
                // A signaller of `cond` holds the mutex, and may have to wait on `CondInternal`.
                let before = if futex == GilFutex::CondInternal { open.mutex_released_at } else { resumed.mutex_released_at };
                Some(OpenWait {
                    mutex_released_at: before.filter(|_| open.take_gil_slept && matches!(futex, GilFutex::Mutex | GilFutex::CondInternal)),
                    ..open
                })
            }
            Phase::Awake(open, resumed) => {
                self.close(tid, open, resumed.end(), emit);
                None
            }
            Phase::FoundAsleep(open) => Some(open).filter(|_| futex == GilFutex::Cond),
            // Its return event was lost, and with it the length of the wait.
            Phase::Asleep(_) | Phase::NotWaiting => None,
        };
        match futex {
            // It sleeps for the GIL, so it does not hold it; the release was not visible.
            GilFutex::Cond => self.held_since = None,
            GilFutex::SwitchCond => self.release(at, tid, gil, emit),
            GilFutex::Mutex | GilFutex::SwitchMutex | GilFutex::CondInternal => {}
        }
        // `drop_gil` releases, then waits for the taker; the thread that it wakes may preempt it.
        let waits_on =
            |(time, forced): &(Nanos, bool)| futex == GilFutex::SwitchCond || *forced && at.saturating_since(*time) < MAX_FORCED_WAIT;
        let begin = self.released.take().filter(waits_on).map_or(at, |(time, _)| time);
        let open = before.unwrap_or(OpenWait::new(gil, begin, if futex == GilFutex::SwitchCond { begin } else { at }));
        let mutex_last = if futex == GilFutex::CondInternal { open.mutex_last } else { futex == GilFutex::Mutex };
        let mutex_only = open.mutex_only && matches!(futex, GilFutex::Mutex | GilFutex::CondInternal);
        // A holder that sleeps on the mutex is in `drop_gil`: the release that follows shows it.
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

    pub(super) fn wake(
        &mut self,
        at: Nanos,
        tid: Tid,
        gil: GilId,
        futex: GilFutex,
        context: WakeContext,
        emit: &mut dyn FnMut(CompletedInterval),
    ) {
        if futex == GilFutex::CondInternal {
            return;
        }
        let awake = match self.phase {
            Phase::Awake(open, resumed) => Some((open, resumed)),
            Phase::FoundAsleep(open) if futex == GilFutex::Mutex => Some((
                open,
                Resumed { since: at, timed_out: true, mutex_released_at: None, switches: None, unobserved: context.unobserved },
            )),
            // It runs, so a return event was lost, and with it the length of the sleep.
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
                if let Some((open, resumed)) = awake {
                    self.close(tid, open, resumed.mutex_released_at.unwrap_or(at), emit);
                }
                self.held_since = Some(at);
                self.tstate = context.snapshot.map(|t| t.last_holder);
            }
            // It releases the GIL, so it held it.
            GilFutex::Cond => {
                match awake {
                    Some((open, resumed)) if open.release_pending && open.mutex_last => self.end_as_release(tid, open, resumed.since, emit),
                    Some((open, resumed)) => self.close(tid, open, resumed.end(), emit),
                    None => {}
                }
                self.release(at, tid, gil, emit);
                self.released = Some((at, context.forced));
                self.tstate = context.snapshot.map(|t| t.last_holder);
            }
            GilFutex::Mutex => match awake.filter(|(open, _)| open.release_pending) {
                Some((open, _)) if self.was_last_holder(context.snapshot) => self.close(tid, open, at, emit),
                Some((open, resumed)) => {
                    let (switches, unobserved) = (context.snapshot.map(|t| t.switch_number), context.unobserved);
                    self.phase = Phase::Awake(
                        OpenWait { release_pending: false, ..open },
                        Resumed { mutex_released_at: Some(at), switches, unobserved, ..resumed },
                    );
                }
                None => {}
            },
            GilFutex::SwitchMutex | GilFutex::CondInternal => {}
        }
    }

    /// Ends a sleep on the mutex before a release, so that the sleep was in `drop_gil`: no wait, or
    /// no part of the wait before. The mutex's owner did not get the GIL: there is a sleeper to
    /// wake.
    fn end_as_release(&mut self, tid: Tid, open: OpenWait, end: Nanos, emit: &mut dyn FnMut(CompletedInterval)) {
        if open.mutex_only {
            return self.close(tid, OpenWait { take_gil_slept: false, ..open }, end, emit);
        }
        let Some(taken) = open.mutex_released_at else { return self.close(tid, open, end, emit) };
        self.close(tid, open, taken, emit);
        emit(CompletedInterval { tid, gil: open.gil, kind: IntervalKind::ForcedSwitch, begin: open.slept, certain_begin: open.slept, end });
    }

    pub(super) fn close(&mut self, tid: Tid, open: OpenWait, end: Nanos, emit: &mut dyn FnMut(CompletedInterval)) {
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
