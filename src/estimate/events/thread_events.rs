//! One thread's events: a state machine from runs and ticks to pieces of its time. `position` has
//! its part for the time between events.

use super::gil_timeline::GilTimelines;
use super::input::{Found, InputFaults, Tick};
use super::open_wait::{LastHolder, OpenWait, Outcome, Resumed, RunTicks, EARLY, MAX_TAKE_GIL_CPU};
use super::phase::{run_end, Phase};
use super::pieces::{Kind, Output, Pieces};
use super::rules::{EventRule, EventRules};
use super::strata::{tick_evidence, RunEnd, Shares, Stratum};
use crate::ids::{Addr, GilId, ThreadId};
use crate::sample::{CpuRun, Evidence, GilView, IntervalKind, MeasuredInterval, OffCpu, Sink, Stack, State, ThreadTotals, Wakeup};
use crate::units::Nanos;
use std::collections::VecDeque;
use std::sync::Arc;

/// An event is no later than this after the last drain. Any later time is garbage.
const MAX_AHEAD: Nanos = Nanos::from_millis(60_000);
/// Pieces that wait to be emitted; when there are more, they leave undecided.
const MAX_PIECES: usize = 1 << 12;
/// Ticks of a run whose end is not known.
const MAX_RUN_TICKS: usize = 1 << 11;

/// What all threads share.
pub(super) struct Shared<'a> {
    pub gils: &'a mut GilTimelines,
    pub pooled: &'a mut Shares,
    pub faults: &'a mut InputFaults,
    pub rules: EventRules,
    pub sink: &'a mut dyn Sink,
}

/// What a tick found.
#[derive(Clone, Debug)]
pub(super) struct TickState {
    pub at: Nanos,
    pub state: State,
    pub stack: Arc<Stack>,
}

/// One thread's events.
#[derive(Debug)]
pub(super) struct ThreadEvents {
    pub(super) id: ThreadId,
    pub(super) begin: Nanos,
    pub(super) python: bool,
    pub(super) pieces: Pieces,
    pub(super) phase: Phase,
    /// The number of the last run.
    pub(super) number: Option<u32>,
    /// A later run has ended, as was first known then, and its event is not here.
    pub(super) missing_since: Option<Nanos>,
    /// It may still wait, and is on a CPU since then, in a run that has not ended.
    pub(super) runs_since: Option<Nanos>,
    /// The last drain.
    pub(super) drained: Nanos,
    /// Ticks that are not accounted for: those of the run in progress.
    pub(super) ticks: VecDeque<TickState>,
    /// Its thread state, and the GIL with which it was seen.
    pub(super) tstate: Option<(GilId, Addr)>,
    /// It has held this GIL since then, after a wait.
    pub(super) held_since: Option<(GilId, Nanos)>,
    /// The end of its last run, if it seemed to hold the GIL then.
    held_at_end: Option<(OffCpu, GilView)>,
    shares: Shares,
    pub(super) stack: Arc<Stack>,
    pub(super) totals: ThreadTotals,
}

impl ThreadEvents {
    pub fn new(id: ThreadId, at: Nanos, python: bool, found: Found) -> ThreadEvents {
        let phase = match found {
            Found::Running => Phase::Unknown,
            Found::Started => Phase::queued(State::Starved, Evidence::WokenNotRun, false),
        };
        ThreadEvents {
            id,
            begin: at,
            python,
            pieces: Pieces::new(at),
            phase,
            number: None,
            missing_since: None,
            runs_since: None,
            drained: at,
            ticks: VecDeque::new(),
            tstate: None,
            held_since: None,
            held_at_end: None,
            shares: Shares::default(),
            stack: Arc::new(Stack::empty()),
            totals: ThreadTotals::default(),
        }
    }

    /// It was asleep since before its first event, for this reason, with the GIL in this state.
    pub fn assume(&mut self, off: OffCpu, view: &GilView, stack: &Arc<Stack>) {
        if self.number.is_none() && matches!(self.phase, Phase::Unknown) {
            self.stack = stack.clone();
            self.phase = Phase::after(self.pieces.until(), off, view, None, LastHolder::Unmatched);
        }
    }

    /// It has this thread state.
    pub fn assign(&mut self, tstate: (GilId, Addr), shared: &mut Shared<'_>) {
        self.python = true;
        if self.tstate != Some(tstate) && !tstate.1.is_null() {
            shared.gils.assign(self.id, tstate, self.tstate.replace(tstate));
        }
    }

    /// A run has ended.
    pub fn run(&mut self, run: &CpuRun, stack: Option<Arc<Stack>>, shared: &mut Shared<'_>) {
        let Some(run) = self.admit(run, shared) else { return };
        self.see_holder(&run.view, stack.as_ref(), shared);
        if self.python {
            shared.gils.see(run.end, &run.view);
        }
        self.account_off(run.begin, run.wakeup, shared.gils);
        let ticks = self.take_ticks((run.begin, run.end), shared);
        if let Some(stack) = stack.or_else(|| ticks.last().map(|tick| tick.stack.clone())) {
            self.stack = stack;
        }
        let last_holder = self.last_holder(&run.view, shared.gils);
        self.phase = match self.phase {
            Phase::OffCpu { holds, .. } | Phase::OnCpu { holds } => self.account_run(&run, holds, &ticks, last_holder, shared),
            Phase::Unknown | Phase::Ended => self.account_run(&run, false, &ticks, last_holder, shared),
            Phase::Wants(wait) => self.resume(&run, wait, &ticks, last_holder, shared),
        };
        self.held_at_end = run.view.holds.map(|_| (run.off, run.view));
        if self.pieces.len() > MAX_PIECES {
            if let Phase::Wants(wait) = self.phase {
                self.settle_by_prior(&wait, shared);
            }
            self.emit(self.pieces.until(), shared);
        }
    }

    /// Checks a run against those before it. Time of which runs are lost is unknown.
    fn admit(&mut self, run: &CpuRun, shared: &mut Shared<'_>) -> Option<CpuRun> {
        let lost = self.number.map_or(0, |last| run.number.wrapping_sub(last.wrapping_add(1)));
        if lost > u32::MAX / 2 || matches!(self.phase, Phase::Ended) {
            shared.faults.repeated_runs += 1;
            return None;
        }
        if run.end.max(run.begin) > self.drained + MAX_AHEAD {
            shared.faults.clamped_runs += 1;
            return None;
        }
        if lost > 0 {
            shared.faults.lost_runs += u64::from(lost);
            self.lose_time(run.begin, shared);
        }
        let (is_first, until) = (self.number.is_none(), self.pieces.until());
        (self.number, self.missing_since, self.runs_since) = (Some(run.number), None, None);
        let mut run = *run;
        // The begin of a run in progress is accounted for, and so is that of one on a CPU at the
        // start.
        let may_overlap = matches!(self.phase, Phase::OnCpu { .. }) || is_first;
        shared.faults.clamped_runs += u64::from(run.end < run.begin || run.end < until || run.begin < until && !may_overlap);
        run.begin = if matches!(self.phase, Phase::OnCpu { .. }) { run.begin.min(until) } else { run.begin.max(until) };
        run.end = run.end.max(run.begin).max(until);
        Some(run)
    }

    /// The events up to then are lost. A wait that ends in that time is in no count.
    pub(super) fn lose_time(&mut self, until: Nanos, shared: &mut Shared<'_>) {
        if let Phase::Wants(wait) = self.phase {
            self.settle_by_prior(&wait, shared);
        }
        self.pieces.push(until, Kind::Known(State::Unknown, Evidence::Unread), &self.stack);
        (self.phase, self.held_since, self.runs_since) = (Phase::Unknown, None, None);
        shared.faults.dropped_ticks += self.drop_ticks(until);
    }

    /// A thread that takes the GIL locks it just before it puts its own name there, so that for a
    /// moment the one that released it seems to hold it still. If that one lost its CPU in that
    /// moment, the GIL switches while it is off the CPU.
    fn check_hold(&mut self, to: Nanos, gils: &GilTimelines) {
        let (Phase::OffCpu { holds: true, .. }, Some((off, view))) = (&self.phase, self.held_at_end) else { return };
        if gils.switches_at(view.gil, to).is_some_and(|switches| switches > view.switches) {
            let released = Some(view.switches);
            let view = GilView { holds: None, ..view };
            self.phase = Phase::after(self.pieces.until(), off, &view, released, LastHolder::Itself);
        }
    }

    /// Accounts for the time off the CPU up to `to`, where the thread got one or is still without.
    pub(super) fn account_off(&mut self, to: Nanos, wakeup: Option<Wakeup>, gils: &GilTimelines) {
        self.check_hold(to, gils);
        let woken = wakeup.map_or(to, |wakeup| wakeup.at.min(to));
        let until = self.pieces.until();
        let (known, queued_from) = match self.phase {
            Phase::Unknown => (Kind::Known(State::Unknown, Evidence::Unread), woken.max(until)),
            Phase::OffCpu { asleep, runnable, .. } => {
                if let Some((state, evidence)) = asleep {
                    self.pieces.push(woken, Kind::Known(state, evidence), &self.stack);
                }
                (Kind::Known(runnable.0, runnable.1), if asleep.is_some() { woken.max(until) } else { until })
            }
            Phase::Wants(ref mut wait) if wait.signals => {
                // It wants the GIL from then on only if it was forced to release it.
                wait.doubt_since = wakeup.map(|_| woken);
                self.pieces.push(woken, Kind::Waiting(wait.gil, Evidence::GilFutex), &self.stack);
                (Kind::WaitingOrStarved(wait.gil), woken.max(until))
            }
            Phase::Wants(wait) if wait.is_stopped => (Kind::Known(State::Unknown, Evidence::Stopped), to),
            Phase::Wants(wait) if wait.is_certain() => {
                (Kind::Waiting(wait.gil, wait.evidence()), if wait.is_asleep { woken.max(until) } else { until })
            }
            Phase::Wants(wait) => (Kind::WaitingOrStarved(wait.gil), until),
            Phase::OnCpu { .. } | Phase::Ended => return,
        };
        self.pieces.push(to, known, &self.stack);
        self.totals.run_queue += to - queued_from;
    }

    /// Accounts for time on a CPU.
    pub(super) fn account_cpu(&mut self, to: Nanos, kind: Kind) {
        self.totals.cpu += to - self.pieces.until();
        self.pieces.push(to, kind, &self.stack);
    }

    /// What is known of time on a CPU that no tick has represented.
    pub(super) fn on_cpu(&self, held_at_begin: bool, end: RunEnd, rules: EventRules) -> Kind {
        match self.python {
            true => Kind::OnCpu(stratum(held_at_begin, end, rules)),
            false => Kind::Known(State::Native, Evidence::Conservation),
        }
    }

    /// Accounts for a run after a wait, certain or possible. Returns where it left the thread.
    fn resume(&mut self, run: &CpuRun, wait: OpenWait, ticks: &[TickState], last_holder: LastHolder, shared: &mut Shared<'_>) -> Phase {
        let wait = OpenWait { is_stopped: false, ..wait };
        let is_unforced = is_unforced(&wait, shared);
        let resumed = Resumed {
            is_forced: wait.released.is_some() && !wait.has_slept_for_it() && !is_unforced,
            off: run.off,
            view: &run.view,
            last_holder,
            switches_at_begin: shared.gils.switches_at(wait.gil, run.begin),
            cpu: run.end - run.begin,
            by_peer: run.wakeup.is_some_and(|wakeup| wakeup.by_peer),
            ticks: run_ticks(run.begin, ticks),
        };
        let outcome = if is_unforced { Outcome::Left } else { wait.outcome(&resumed, shared.rules) };
        match outcome {
            Outcome::StillWaits => {
                self.pieces.settle(true);
                if !resumed.by_peer && run.view.switches == wait.switches {
                    shared.gils.see_drop_request(wait.gil, wait.switches);
                }
                self.account_cpu(run.end, Kind::Waiting(wait.gil, Evidence::GilFutex));
                Phase::still_waits(wait, run, last_holder)
            }
            Outcome::Undecided => {
                let end = run_end(run, false, last_holder);
                self.account_cpu(run.end, Kind::WaitingOrOnCpu(wait.gil, stratum(false, end, shared.rules)));
                Phase::undecided(wait, run)
            }
            ended => {
                let holds = self.end_wait(wait, ended, run.begin, shared);
                self.account_run(run, holds, ticks, last_holder, shared)
            }
        }
    }

    /// Ends a wait at the begin of a run. Returns whether the thread took the GIL.
    pub(super) fn end_wait(&mut self, wait: OpenWait, outcome: Outcome, at: Nanos, shared: &mut Shared<'_>) -> bool {
        let has_acquired = outcome == Outcome::Acquired;
        self.pieces.settle(has_acquired);
        if wait.slept || has_acquired {
            self.report_wait(&wait, if has_acquired { at } else { wait.doubt_since.unwrap_or(at) }, shared);
        }
        if has_acquired {
            self.held_since = Some((wait.gil, at));
            shared.gils.see_acquired(at, wait.gil, self.id);
        }
        has_acquired
    }

    /// Reports a wait that ends then. Without a sleep in `take_gil` it is a forced switch.
    pub(super) fn report_wait(&self, wait: &OpenWait, end: Nanos, shared: &mut Shared<'_>) {
        let kind = if wait.in_take_gil { IntervalKind::Wait } else { IntervalKind::ForcedSwitch };
        self.report(wait.gil, kind, (wait.begin, end), shared);
    }

    fn report(&self, gil: GilId, kind: IntervalKind, (begin, end): (Nanos, Nanos), shared: &mut Shared<'_>) {
        if begin < end {
            shared.sink.interval(&MeasuredInterval { thread: self.id, gil, kind, begin, end });
        }
    }

    /// Decides what is still possible by what is more likely: whether it waited.
    pub(super) fn settle_by_prior(&mut self, wait: &OpenWait, shared: &Shared<'_>) -> bool {
        let has_waited = wait.is_likely() && !is_unforced(wait, shared);
        self.pieces.settle(has_waited);
        has_waited
    }

    /// Accounts for a run that is in no wait. Returns where it left the thread.
    fn account_run(
        &mut self,
        run: &CpuRun,
        held_at_begin: bool,
        ticks: &[TickState],
        last_holder: LastHolder,
        shared: &mut Shared<'_>,
    ) -> Phase {
        let end = run_end(run, held_at_begin, last_holder);
        let stratum = stratum(held_at_begin, end, shared.rules);
        for tick in ticks {
            self.shares.record(stratum, tick.state);
            shared.pooled.record(stratum, tick.state);
            self.pieces.represent(stratum, tick.state, &tick.stack);
            self.totals.cpu += tick.at - self.pieces.until();
            self.pieces.push(tick.at, Kind::Known(tick.state, tick_evidence(tick.state)), &tick.stack);
        }
        self.account_cpu(run.end, self.on_cpu(held_at_begin, end, shared.rules));
        self.report_hold(run, ticks, last_holder, shared);
        // A free GIL in a call on it: the call releases it.
        let in_gil_call = matches!(run.off, OffCpu::PreemptedInGilCall | OffCpu::SignalFutex);
        let is_last = last_holder == LastHolder::Itself || in_gil_call && !run.view.locked;
        // A thread that runs native code for long was not forced to release the GIL.
        let left_long_ago = |tick: &TickState| !tick.state.is_holding() && run.end.saturating_since(tick.at) > MAX_TAKE_GIL_CPU;
        let held = match ticks.last() {
            _ if run.off == OffCpu::SignalFutex || in_gil_call && is_last => true,
            Some(tick) if left_long_ago(tick) => false,
            Some(tick) => is_last || tick.state.is_holding(),
            None => is_last || held_at_begin,
        };
        let may_want = shared.rules.has(EventRule::Limbo);
        let released = Some(run.view.switches.wrapping_sub(u64::from(!is_last))).filter(|_| held && may_want);
        let off = if run.off == OffCpu::PreemptedInGilCall && !may_want { OffCpu::Preempted } else { run.off };
        Phase::after(run.end, off, &run.view, released, last_holder)
    }

    /// Reports a hold after a wait if the run ended with its release.
    fn report_hold(&mut self, run: &CpuRun, ticks: &[TickState], last_holder: LastHolder, shared: &mut Shared<'_>) {
        let Some((gil, begin)) = self.held_since.filter(|_| ticks.iter().all(|tick| tick.state.is_holding())) else {
            self.held_since = None;
            return;
        };
        if run.view.holds == Some(gil) {
            return;
        }
        self.held_since = None;
        let by_drop_gil = matches!(run.off, OffCpu::SwitchFutex | OffCpu::SignalFutex | OffCpu::GilFutex | OffCpu::PreemptedInGilCall);
        if gil == run.view.gil && last_holder == LastHolder::Itself && by_drop_gil {
            self.report(gil, IntervalKind::Hold, (begin, run.end), shared);
        }
    }

    /// A tick of the clock found the thread on a CPU.
    pub fn tick(&mut self, tick: Tick, shared: &mut Shared<'_>) {
        self.see_holder(&tick.view, Some(&tick.stack), shared);
        if !self.python {
            return;
        }
        shared.gils.see(tick.at, &tick.view);
        let is_late = tick.at < self.pieces.until() || self.ticks.back().is_some_and(|last| last.at > tick.at);
        let is_garbage = tick.at > self.drained + MAX_AHEAD || matches!(self.phase, Phase::Ended);
        if is_late || is_garbage || self.ticks.len() >= MAX_RUN_TICKS {
            shared.faults.dropped_ticks += 1;
            return;
        }
        let state = match (tick.view.holds, tick.in_c_call) {
            (Some(_), false) => State::HoldingPython,
            (Some(_), true) => State::HoldingNative,
            (None, _) => State::Native,
        };
        self.ticks.push_back(TickState { at: tick.at, state, stack: tick.stack });
    }

    /// A view in which the thread holds its GIL names its thread state.
    fn see_holder(&mut self, view: &GilView, stack: Option<&Arc<Stack>>, shared: &mut Shared<'_>) {
        if view.holds.is_none() {
            return;
        }
        if view.holds == Some(view.gil) {
            self.assign((view.gil, view.last_holder), shared);
        }
        if let Some(stack) = stack {
            shared.gils.see_stack(self.id, stack);
        }
    }

    /// Takes the ticks of a run. Those before it belong to a run that is lost.
    pub(super) fn take_ticks(&mut self, (begin, end): (Nanos, Nanos), shared: &mut Shared<'_>) -> Vec<TickState> {
        shared.faults.dropped_ticks += self.drop_ticks(begin);
        let count = self.ticks.iter().take_while(|tick| tick.at <= end).count();
        self.ticks.drain(..count).collect()
    }

    fn drop_ticks(&mut self, before: Nanos) -> u64 {
        let count = self.ticks.iter().take_while(|tick| tick.at < before).count();
        self.ticks.drain(..count);
        count as u64
    }

    pub(super) fn emit(&mut self, overdue: Nanos, shared: &mut Shared<'_>) {
        let mut out = Output { thread: self.id, own: &self.shares, pooled: shared.pooled, gils: shared.gils, sink: shared.sink };
        self.pieces.emit(overdue, &mut out);
    }

    fn last_holder(&self, view: &GilView, gils: &GilTimelines) -> LastHolder {
        match self.tstate {
            Some(own) if own == (view.gil, view.last_holder) => LastHolder::Itself,
            _ if gils.thread(view.gil, view.last_holder).is_some() => LastHolder::Other,
            Some((gil, _)) if gil == view.gil && !view.last_holder.is_null() => LastHolder::Other,
            _ => LastHolder::Unmatched,
        }
    }
}

/// Whether the thread released the GIL before this possible wait without a drop request. It did so
/// for native code, a call or a sleep, and no wait follows at once.
pub(super) fn is_unforced(wait: &OpenWait, shared: &Shared<'_>) -> bool {
    let number = wait.released.filter(|_| !wait.has_slept_for_it() && shared.rules.has(EventRule::Unforced));
    number.is_some_and(|number| !shared.gils.was_requested(wait.gil, number))
}

fn run_ticks(begin: Nanos, ticks: &[TickState]) -> RunTicks {
    let holds = |tick: &TickState| tick.state.is_holding();
    let is_early = ticks.first().is_some_and(|tick| tick.at.saturating_since(begin) <= EARLY);
    RunTicks { first: ticks.first().map(holds), is_early, any: ticks.iter().any(holds) }
}

fn stratum(held_at_begin: bool, end: RunEnd, rules: EventRules) -> Stratum {
    match rules.has(EventRule::Strata) {
        true => Stratum::new(held_at_begin, end),
        false => Stratum::new(false, RunEnd::Other),
    }
}
