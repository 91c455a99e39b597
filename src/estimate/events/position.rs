//! The part of [`ThreadEvents`] between events: where the thread is at a drain, and its end.

use super::open_wait::{OpenWait, Outcome, MAX_TAKE_GIL_CPU};
use super::phase::Phase;
use super::pieces::Kind;
use super::strata::{tick_evidence, RunEnd};
use super::thread_events::{is_unforced, Shared, ThreadEvents, TickState};
use crate::sample::{Evidence, State, ThreadNow, ThreadTotals, Wakeup};
use crate::units::Nanos;

/// Longest time for which a state may stay undecided.
const MAX_DOUBT: Nanos = Nanos::from_millis(250);
/// An event that is not there after this time is lost.
const MAX_DELIVERY: Nanos = Nanos::from_millis(50);

impl ThreadEvents {
    /// Where the thread is at a drain: accounts for its time up to then.
    pub fn now(&mut self, at: Nanos, now: ThreadNow, shared: &mut Shared<'_>) {
        self.drained = self.drained.max(at);
        // The run that must have ended, and until when the thread's time is lost if its event is.
        let (ended, until) = match now {
            ThreadNow::OffCpu { number, .. } => (number, at),
            ThreadNow::OnCpu { number, begin, .. } => (number.wrapping_sub(1), begin.min(at)),
        };
        if self.number == Some(ended) || self.is_overdue(ended, at) {
            if let Some(lost) = self.number.replace(ended).map(|last| ended.wrapping_sub(last)).filter(|lost| *lost > 0) {
                shared.faults.lost_runs += u64::from(lost);
                self.lose_time(until, shared);
            }
            self.missing_since = None;
            match now {
                ThreadNow::OffCpu { wakeup, .. } => self.account_off(at, wakeup.filter(|wakeup| wakeup.at <= at), shared.gils),
                ThreadNow::OnCpu { wakeup, begin, .. } => self.run_in_progress((begin.min(at), at), wakeup, shared),
            }
        }
        self.give_up(at, shared);
        self.emit(at - MAX_DOUBT, shared);
    }

    /// Accounts for its time up to `at`, if no event has come of it.
    pub fn rest(&mut self, at: Nanos, shared: &mut Shared<'_>) {
        if self.number.is_none() && self.drained < at && !matches!(self.phase, Phase::OnCpu { .. }) {
            self.drained = at;
            self.account_off(at, None, shared.gils);
            self.emit(at - MAX_DOUBT, shared);
        }
    }

    /// Whether the event of this run's end should be there by now, and is not.
    fn is_overdue(&mut self, ended: u32, at: Nanos) -> bool {
        let is_older = self.number.is_some_and(|last| ended.wrapping_sub(last) > u32::MAX / 2);
        !is_older && at.saturating_since(*self.missing_since.get_or_insert(at)) >= MAX_DELIVERY
    }

    /// Ends a doubt that has lasted too long, by the prior.
    fn give_up(&mut self, at: Nanos, shared: &mut Shared<'_>) {
        let Phase::Wants(wait) = self.phase else { return };
        let since = wait.doubt_since.unwrap_or(wait.begin);
        if wait.is_certain() || at.saturating_since(since) <= MAX_DOUBT {
            return;
        }
        self.phase = if self.settle_by_prior(&wait, shared) {
            Phase::Wants(OpenWait { doubt_since: None, is_assumed: true, ..wait })
        } else {
            self.end_wait(wait, Outcome::Left, at, shared);
            Phase::queued(State::Starved, Evidence::Conservation, false)
        };
    }

    /// The thread is on a CPU: accounts for the run as far as its ticks say what it does.
    fn run_in_progress(&mut self, (begin, at): (Nanos, Nanos), wakeup: Option<Wakeup>, shared: &mut Shared<'_>) {
        self.account_off(begin, wakeup, shared.gils);
        let mut holds = match self.phase {
            Phase::Ended => return,
            Phase::OffCpu { holds, .. } | Phase::OnCpu { holds } => holds,
            Phase::Unknown => false,
            Phase::Wants(wait) => {
                self.runs_since = Some(begin);
                let is_overdue = at.saturating_since(begin) > MAX_DOUBT;
                let Some(outcome) = self.outcome_in_progress(&wait, begin, is_overdue, shared) else { return };
                self.end_wait(wait, outcome, begin, shared)
            }
        };
        let ticks = self.take_ticks((begin, at), shared);
        for tick in &ticks {
            holds = tick.state.is_holding();
            self.held_since = self.held_since.filter(|_| holds);
            self.account_tick(tick);
        }
        self.phase = Phase::OnCpu { holds };
        if !self.python || ticks.is_empty() && at.saturating_since(self.pieces.until()) > MAX_DOUBT {
            self.account_cpu(at, self.on_cpu(holds, if holds { RunEnd::Held } else { RunEnd::Other }, shared.rules));
        }
    }

    /// How a wait went on, by the ticks of a run in progress; `None`: its end decides.
    fn outcome_in_progress(&self, wait: &OpenWait, begin: Nanos, is_overdue: bool, shared: &Shared<'_>) -> Option<Outcome> {
        if is_unforced(wait, shared) {
            return Some(Outcome::Left);
        }
        let left = |certainly: bool| if certainly { Outcome::Acquired } else { Outcome::Left };
        let ran_long = |tick: &TickState| tick.at.saturating_since(begin) > MAX_TAKE_GIL_CPU;
        let mut ticks = self.ticks.iter().filter(|tick| tick.at >= begin);
        match ticks.next() {
            Some(first) if first.state.is_holding() => Some(Outcome::Acquired),
            Some(first) => (ran_long(first) || ticks.any(ran_long)).then(|| left(wait.in_take_gil)),
            None => is_overdue.then(|| left(wait.is_likely())),
        }
    }

    /// The thread has ended, or the window ends.
    pub fn end(mut self, at: Nanos, shared: &mut Shared<'_>) -> ThreadTotals {
        if let (Phase::Wants(wait), Some(begin)) = (self.phase, self.runs_since) {
            let is_overdue = at.saturating_since(begin) > MAX_TAKE_GIL_CPU;
            match self.outcome_in_progress(&wait, begin, is_overdue, shared) {
                Some(outcome) => self.phase = Phase::OnCpu { holds: self.end_wait(wait, outcome, begin, shared) },
                None => self.account_cpu(at, Kind::Waiting(wait.gil, wait.evidence())),
            }
        }
        match self.phase {
            Phase::OnCpu { holds } => {
                self.take_ticks((Nanos::ZERO, at), shared).iter().for_each(|tick| self.account_tick(tick));
                self.account_cpu(at, self.on_cpu(holds, if holds { RunEnd::Held } else { RunEnd::Other }, shared.rules));
            }
            _ => self.account_off(at, None, shared.gils),
        }
        if let Phase::Wants(wait) = self.phase {
            let (has_waited, until) = (self.settle_by_prior(&wait, shared), self.pieces.until());
            if wait.slept || has_waited {
                self.report_wait(&wait, if has_waited { until } else { wait.doubt_since.unwrap_or(until) }, shared);
            }
        }
        self.emit(Nanos::from_nanos(u64::MAX), shared);
        if let Some(tstate) = self.tstate {
            shared.gils.release(self.id, tstate);
        }
        shared.gils.forget(self.id);
        ThreadTotals { seen: self.pieces.until() - self.begin, ..self.totals }
    }

    /// A tick stands for the time up to it, whatever the run will have been.
    fn account_tick(&mut self, tick: &TickState) {
        self.stack = tick.stack.clone();
        self.account_cpu(tick.at, Kind::Known(tick.state, tick_evidence(tick.state)));
    }
}
