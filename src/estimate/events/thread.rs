//! One thread: from its runs on a CPU and the ticks in them to pieces of its time.

use super::pieces::{Known, Pieces, RunClass, RunEnd, TickFinding};
use super::Tick;
use crate::ids::{Addr, GilId};
use crate::sample::{CpuRun, Evidence, GilView, IntervalKind, OffCpu, Stack, State, ThreadNow, Wakeup};
use crate::units::Nanos;
use std::sync::Arc;

/// A thread that did not get the GIL goes back to sleep within this CPU time; one that got it and
/// released it again takes longer.
const FRUITLESS: Nanos = Nanos::from_micros(12);
/// A thread that was forced to release the GIL waits for it within this CPU time, and one that was
/// woken in take_gil sleeps again; one that runs longer has left the GIL's functions.
const FORCED: Nanos = Nanos::from_micros(100);
/// Ticks of one run that are kept until the run ends.
const MAX_TICKS: usize = 1 << 12;

/// Where a thread is since the end of its last piece.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// Nothing is known yet, or events were lost.
    Unknown,
    /// On a CPU.
    OnCpu(Begun),
    /// Off the CPU.
    Off {
        why: OffCpu,
        /// It holds the GIL.
        holds: bool,
    },
}

/// A GIL, as the last event of any thread showed it.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeenGil {
    pub at: Nanos,
    pub last_holder: Addr,
    pub switches: u64,
}

/// A run that has not ended.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Begun {
    number: u32,
    at: Nanos,
    /// It held the GIL when it got the CPU.
    held: bool,
}

/// A wait for the GIL.
#[derive(Clone, Copy, Debug)]
struct OpenWait {
    gil: GilId,
    begin: Nanos,
    /// `switch_number` when the thread last went to sleep for it.
    switches: u64,
    /// It slept in `take_gil`, and not only until another thread took the GIL that it released.
    takes: bool,
}

/// A wait that has ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct EndedWait {
    pub gil: GilId,
    pub kind: IntervalKind,
    pub begin: Nanos,
    pub end: Nanos,
}

/// One thread.
#[derive(Debug)]
pub(super) struct ThreadTrack {
    pub pieces: Pieces,
    place: Place,
    /// The number of its last run that ended.
    number: Option<u32>,
    wait: Option<OpenWait>,
    ticks: Vec<TickFinding>,
    /// Its stack, as last read.
    stack: Arc<Stack>,
    /// Its thread state, known since it held a GIL.
    tstate: Addr,
    /// A tick has found it holding the GIL, in C.
    held_in_c: bool,
    /// When it got the GIL at the earliest.
    held_since: Nanos,
    /// `switch_number` at the end of its last run.
    switches: u64,
    /// Runs that are missing.
    pub lost_runs: u64,
    /// Waits that have ended and not been reported.
    pub waits: Vec<EndedWait>,
}

impl ThreadTrack {
    pub fn new(at: Nanos, stack: Arc<Stack>) -> ThreadTrack {
        ThreadTrack {
            pieces: Pieces::new(at),
            place: Place::Unknown,
            number: None,
            wait: None,
            ticks: Vec::new(),
            stack,
            tstate: Addr(0),
            held_in_c: false,
            held_since: at,
            switches: 0,
            lost_runs: 0,
            waits: Vec::new(),
        }
    }

    /// Where the thread was found when no event had come of it yet.
    pub fn assume(&mut self, why: OffCpu, holds: bool, gil: GilId, stack: &Arc<Stack>) {
        if self.place != Place::Unknown || self.number.is_some() {
            return;
        }
        self.stack = stack.clone();
        self.place = Place::Off { why, holds };
        if is_gil_sleep(why) && !holds {
            self.wait = Some(OpenWait { gil, begin: self.pieces.until, switches: 0, takes: true });
        }
    }

    /// Whether any event has come.
    pub fn has_events(&self) -> bool {
        self.number.is_some() || matches!(self.place, Place::OnCpu(_))
    }

    /// The evident state of pieces in limbo that are emitted before the next run tells.
    pub fn limbo_prior(&self) -> (State, Evidence) {
        if self.held_in_c {
            (State::Starved, Evidence::KernelStack)
        } else {
            (State::Waiting, Evidence::PushedOff)
        }
    }

    pub fn tick(&mut self, tick: &Tick) {
        self.note_holder(&tick.view);
        let state = match (tick.view.holds.is_some(), tick.in_c_call) {
            (true, true) => State::HoldingNative,
            (true, false) => State::HoldingPython,
            (false, _) => State::Native,
        };
        if state.is_holding() {
            self.held_in_c = tick.in_c_call;
        }
        self.stack = tick.stack.clone();
        if self.ticks.len() < MAX_TICKS {
            self.ticks.push(TickFinding { at: tick.at, state, stack: tick.stack.clone() });
        }
    }

    /// Accounts the time up to `at`, where the thread is here.
    pub fn now(&mut self, at: Nanos, now: ThreadNow, seen: Option<&SeenGil>) {
        self.check_hold(seen);
        match now {
            ThreadNow::OffCpu { number, wakeup } if self.number == Some(number) && matches!(self.place, Place::Off { .. }) => {
                self.push_off(at, wakeup);
            }
            ThreadNow::OnCpu { number, wakeup, begin } if self.number.is_none_or(|last| last.wrapping_add(1) == number) && begin < at => {
                self.enter(number, begin, wakeup);
                self.push_ticks();
            }
            // What ended meanwhile is still to come.
            ThreadNow::OffCpu { .. } | ThreadNow::OnCpu { .. } => {}
        }
    }

    /// The same for a thread without events, or whose time ends.
    pub fn stay(&mut self, at: Nanos) {
        match self.place {
            Place::Unknown => self.pieces.push(at, Known::State(State::Unknown, Evidence::Unread), &self.stack),
            Place::Off { .. } => self.push_off(at, None),
            Place::OnCpu(begun) => {
                self.push_ticks();
                let class = RunClass { held: begun.held, end: RunEnd::Else };
                if self.wait.is_some() {
                    self.push_waiting(at);
                } else {
                    self.pieces.push(at, Known::Cpu(class), &self.stack);
                }
            }
        }
    }

    /// A thread that takes the GIL locks it just before it puts its own name there: for a moment
    /// the thread that released it seems to hold it still. If it went off its CPU in that moment,
    /// events of others have another holder soon.
    fn check_hold(&mut self, seen: Option<&SeenGil>) {
        let (Place::Off { why, holds: true }, Some(seen)) = (self.place, seen) else { return };
        let since = self.pieces.queue.iter().rev().take_while(|piece| is_off_with_gil(&piece.known)).last();
        let since = since.map_or(self.pieces.until, |piece| piece.begin);
        if seen.at <= since || seen.last_holder == self.tstate && seen.switches == self.switches {
            return;
        }
        self.place = Place::Off { why, holds: false };
        let (asleep, queued) = (off_cpu(why, false), Known::State(State::Starved, Evidence::WokenNotRun));
        for piece in self.pieces.queue.iter_mut().rev().take_while(|piece| is_off_with_gil(&piece.known)) {
            let was_queued = matches!(piece.known, Known::State(State::HoldingStarved, _)) && !matches!(why, OffCpu::Preempted);
            piece.known = if was_queued { queued } else { asleep };
        }
    }

    pub fn run(&mut self, run: &CpuRun, stack: Option<Arc<Stack>>, seen: Option<&SeenGil>, interval: Nanos) {
        self.check_hold(seen);
        if let Some(last) = self.number {
            let step = run.number.wrapping_sub(last);
            if step == 0 || step > u32::MAX / 2 {
                return;
            }
            if step > 1 {
                self.lose(u64::from(step - 1), run.begin);
            }
        }
        self.note_holder(&run.view);
        let begun = self.enter(run.number, run.begin, run.wakeup);
        let end = run.end.max(self.pieces.until);
        // Ticks of the next run have come already where it began on another CPU.
        let later = self.ticks.iter().position(|tick| tick.at > run.end).unwrap_or(self.ticks.len());
        let next_ticks = self.ticks.split_off(later);
        let cpu = run.end.saturating_since(begun.at);
        let ticks_held = self.ticks.iter().any(|tick| tick.state.is_holding());
        let held = match self.wait {
            Some(wait) if self.is_fruitless(&wait, run, cpu) => None,
            Some(_) => Some(self.close_wait(begun.at)),
            None => Some(begun.held),
        };
        let held_in_run = begun.held || ticks_held || held == Some(true);
        if !begun.held {
            self.held_since = begun.at;
        }
        match held {
            None => self.push_waiting(end),
            Some(held) => self.push_cpu(run, held || begun.held, cpu, end),
        }
        self.ticks = next_ticks;
        if let Some(stack) = stack {
            self.stack = stack;
        }
        let holds = run.view.holds.is_some();
        self.switches = run.view.switches;
        self.place = Place::Off { why: run.off, holds };
        self.number = Some(run.number);
        if holds {
            self.wait = None;
        } else if is_gil_sleep(run.off) {
            let begin = self.pieces.until;
            let wait = self.wait.get_or_insert(OpenWait { gil: run.view.gil, begin, switches: 0, takes: false });
            wait.switches = run.view.switches;
            wait.takes |= run.off == OffCpu::GilFutex;
        } else if self.wait.is_none() && matches!(run.off, OffCpu::Preempted | OffCpu::PreemptedInGilCall) {
            // No thread is forced to release the GIL before it has had it for a switch interval.
            let had_it_long = held_in_run && run.end.saturating_since(self.held_since) >= interval;
            let forced = had_it_long || self.pieces.queue.back().is_some_and(|piece| piece.known == Known::Limbo);
            self.place = Place::Off { why: if forced { OffCpu::PreemptedInGilCall } else { OffCpu::Preempted }, holds };
        }
    }

    /// The runs between are missing: what the thread did since its last one is not known.
    fn lose(&mut self, count: u64, until: Nanos) {
        self.lost_runs += count;
        self.wait = None;
        self.ticks.clear();
        self.pieces.leave_limbo(State::Unknown, Evidence::Unread);
        self.pieces.push(until, Known::State(State::Unknown, Evidence::Unread), &self.stack);
        self.place = Place::Unknown;
    }

    fn note_holder(&mut self, view: &GilView) {
        if view.holds.is_some() && !view.last_holder.is_null() {
            self.tstate = view.last_holder;
        }
    }

    /// The thread got a CPU: what it did before ends.
    fn enter(&mut self, number: u32, at: Nanos, wakeup: Option<Wakeup>) -> Begun {
        if let Place::OnCpu(begun) = self.place {
            return begun;
        }
        let held = matches!(self.place, Place::Off { holds: true, .. });
        match self.place {
            Place::Off { .. } => self.push_off(at, wakeup),
            Place::Unknown | Place::OnCpu(_) => self.pieces.push(at, Known::State(State::Unknown, Evidence::Unread), &self.stack),
        }
        let begun = Begun { number, at: at.max(self.pieces.until), held };
        self.place = Place::OnCpu(begun);
        begun
    }

    /// Whether a run that began in a wait for the GIL ended without having got it.
    fn is_fruitless(&self, wait: &OpenWait, run: &CpuRun, cpu: Nanos) -> bool {
        let view = &run.view;
        if view.holds.is_some() || cpu > FORCED || self.ticks.iter().any(|tick| tick.state.is_holding()) {
            return false;
        }
        match run.off {
            // Only one that has left take_gil sleeps or ends elsewhere.
            OffCpu::OtherFutex | OffCpu::Syscall | OffCpu::Exited => false,
            _ if !self.tstate.is_null() && view.last_holder == self.tstate => view.switches == wait.switches,
            _ if wait.switches > 0 && view.switches.wrapping_sub(wait.switches) <= 1 => true,
            _ => cpu < FRUITLESS,
        }
    }

    /// The thread has left its wait. Whether it has the GIL.
    fn close_wait(&mut self, end: Nanos) -> bool {
        let Some(wait) = self.wait.take() else { return false };
        let kind = if wait.takes { IntervalKind::Wait } else { IntervalKind::ForcedSwitch };
        self.waits.push(EndedWait { gil: wait.gil, kind, begin: wait.begin, end: end.max(wait.begin) });
        wait.takes
    }

    fn push_waiting(&mut self, end: Nanos) {
        let stack = self.stack.clone();
        self.pieces.push(end, Known::State(State::Waiting, Evidence::GilFutex), &stack);
    }

    /// Adds a run outside of take_gil.
    fn push_cpu(&mut self, run: &CpuRun, held: bool, cpu: Nanos, end: Nanos) {
        let waits = is_gil_sleep(run.off) && run.view.holds.is_none();
        let class = RunClass {
            held,
            end: match (run.view.holds.is_some(), waits) {
                (true, _) => RunEnd::Holds,
                (false, true) => RunEnd::Waits,
                (false, false) => RunEnd::Else,
            },
        };
        let in_limbo = self.pieces.queue.back().is_some_and(|piece| piece.known == Known::Limbo);
        if in_limbo {
            let first_holds = self.ticks.first().map(|tick| tick.state.is_holding()).or(run.view.holds.map(|_| true));
            if waits && cpu <= FORCED {
                let begin = self.pieces.leave_limbo(State::Waiting, Evidence::PushedOff).unwrap_or(run.begin);
                self.push_waiting(end);
                self.wait = Some(OpenWait { gil: run.view.gil, begin, switches: 0, takes: false });
                return;
            }
            if run.view.holds.is_none() && matches!(run.off, OffCpu::Preempted | OffCpu::PreemptedInGilCall) && cpu <= FORCED {
                self.pieces.push(end, Known::Limbo, &self.stack);
                return;
            }
            let (state, evidence) = if first_holds == Some(true) { self.limbo_prior() } else { (State::Starved, Evidence::KernelStack) };
            self.pieces.leave_limbo(state, evidence);
        }
        let ticks = std::mem::take(&mut self.ticks);
        self.pieces.push_run(end, class, &ticks, &self.stack);
    }

    /// Adds the time up to the last tick of a run that goes on.
    fn push_ticks(&mut self) {
        let Place::OnCpu(mut begun) = self.place else { return };
        if self.wait.is_some() {
            let has_left = |tick: &TickFinding| tick.state.is_holding() || tick.at > begun.at + FORCED;
            if !self.ticks.iter().any(has_left) {
                return;
            }
            begun.held = self.close_wait(begun.at);
            self.place = Place::OnCpu(begun);
        }
        if self.pieces.queue.back().is_some_and(|piece| piece.known == Known::Limbo) {
            return;
        }
        for tick in std::mem::take(&mut self.ticks) {
            let evidence = if tick.state.is_holding() { Evidence::GilHolder } else { Evidence::Conservation };
            self.pieces.push(tick.at, Known::State(tick.state, evidence), &tick.stack);
        }
    }

    /// Adds the time off the CPU up to `end`, in which the thread was woken.
    fn push_off(&mut self, end: Nanos, wakeup: Option<Wakeup>) {
        let Place::Off { why, holds } = self.place else { return };
        if self.wait.is_some() {
            return self.push_waiting(end);
        }
        if why == OffCpu::Exited {
            return;
        }
        let asleep = off_cpu(why, holds);
        let woken = wakeup.map_or(end, |wakeup| wakeup.at).min(end);
        self.pieces.push(woken, asleep, &self.stack);
        let queued = match (why, holds) {
            (OffCpu::Stopped | OffCpu::Preempted | OffCpu::PreemptedInGilCall, _) => asleep,
            (_, true) => Known::State(State::HoldingStarved, Evidence::GilHolder),
            (_, false) => Known::State(State::Starved, Evidence::WokenNotRun),
        };
        self.pieces.push(end, queued, &self.stack);
    }
}

/// What a thread does that is off the CPU, until it is woken.
fn off_cpu(why: OffCpu, holds: bool) -> Known {
    let (state, evidence) = match (why, holds) {
        (OffCpu::PreemptedInGilCall, false) => return Known::Limbo,
        (OffCpu::Preempted | OffCpu::PreemptedInGilCall, true) => (State::HoldingStarved, Evidence::GilHolder),
        (OffCpu::Preempted, false) => (State::Starved, Evidence::KernelStack),
        (OffCpu::OtherFutex | OffCpu::GilFutex | OffCpu::SwitchFutex | OffCpu::SignalFutex, true) => (State::HoldingBlocked, Evidence::HolderLock),
        (OffCpu::Syscall, true) => (State::HoldingBlocked, Evidence::GilHolder),
        (OffCpu::Fault, true) => (State::HoldingBlocked, Evidence::HolderFault),
        (OffCpu::OtherFutex, false) => (State::Lock, Evidence::Syscall),
        (OffCpu::GilFutex | OffCpu::SwitchFutex | OffCpu::SignalFutex, false) => (State::Waiting, Evidence::GilFutex),
        (OffCpu::Syscall | OffCpu::Fault, false) => (State::Io, Evidence::Syscall),
        (OffCpu::Stopped | OffCpu::Exited, _) => (State::Unknown, Evidence::Stopped),
    };
    Known::State(state, evidence)
}

fn is_off_with_gil(known: &Known) -> bool {
    matches!(known, Known::State(State::HoldingBlocked | State::HoldingStarved, _))
}

fn is_gil_sleep(off: OffCpu) -> bool {
    matches!(off, OffCpu::GilFutex | OffCpu::SwitchFutex | OffCpu::SignalFutex)
}
