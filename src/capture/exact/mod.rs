//! Exact mode: waits from kernel events instead of looks.
//!
//! `waits` turns events into waits; `joined` puts them under the looks' slices, so that each slice's waiting is the measured one, and
//! `correct` says what the rest of a slice was. This file holds them together with the watch in the kernel. The looks go on as before: they
//! know the stacks, the holder and every other state.

pub mod correct;
mod cover;
pub mod joined;
pub mod spot;
pub mod waits;

use super::observe::{Looked, Observer};
use crate::error::ReadError;
use crate::ids::{Addr, GilId};
use crate::process::futex_program::{Watched, MAX_GILS};
use crate::process::futex_watch::{Call, FutexEvent, FutexWatch, Unavailable};
use crate::process::live::LiveMemory;
use crate::process::sys_linux;
use crate::python::attach::Python;
use crate::python::interpreters::Roster;
use crate::python::layout::{Gil, Span};
use crate::sample::{Evidence, Sink, State, WindowFacts};
use crate::units::Nanos;
use joined::{Join, Joined};
use spot::Spot;
use waits::Did;

/// Two of CPython's default switch intervals, after each of which a waiter goes to sleep anew.
const WARM_UP: Nanos = Nanos::from_millis(11);

/// So long after a wait its thread may still be met: slices come up to so late.
const MET_LATE: Nanos = Nanos::from_millis(250);

/// A watch, and what came of it so far.
#[derive(Debug)]
pub struct ExactMode {
    watch: FutexWatch,
    layout: Gil,
    /// The GILs with their numbers.
    gils: Vec<(GilId, Addr)>,
    join: Join,
    /// The first look.
    begun: Option<Nanos>,
    /// No look has been made since the GILs were found.
    fresh: bool,
    events: u64,
    /// Lost by watches before this one; `None` when that could not be read.
    lost_before: Option<u64>,
    failed: bool,
}

/// The futexes of a GIL, in the order in which they lie there.
fn spans(layout: &Gil) -> [(Spot, Span); 4] {
    [
        (Spot::Cond, layout.cond),
        (Spot::Mutex, layout.mutex),
        (Spot::SwitchCond, layout.switch_cond),
        (Spot::SwitchMutex, layout.switch_mutex),
    ]
}

/// Where the futexes begin.
fn begin(layout: &Gil) -> u32 {
    spans(layout).iter().map(|(_, s)| s.offset).min().unwrap_or(0)
}

/// What is watched from there on.
fn watched(layout: &Gil) -> Watched {
    let end = spans(layout).iter().map(|(_, s)| s.offset.saturating_add(s.len)).max().unwrap_or(0);
    let from_there = |offset: usize| (offset as i64 - i64::from(begin(layout))) as i32;
    let (last_holder, switch_number) = (from_there(layout.last_holder.offset()), from_there(layout.switch_number.offset()));
    Watched { len: from_there(end as usize), last_holder, switch_number }
}

impl ExactMode {
    /// Begins to watch a process.
    pub fn open(python: &Python) -> Result<ExactMode, Unavailable> {
        let layout = python.layout.gil;
        let mut mode = ExactMode {
            watch: FutexWatch::open(python.pid, watched(&layout))?,
            layout,
            gils: Vec::new(),
            join: Join::default(),
            begun: None,
            fresh: true,
            events: 0,
            lost_before: Some(0),
            failed: false,
        };
        mode.warm_up(python);
        Ok(mode)
    }

    /// Lets the threads that wait already go to sleep once more, so that events tell of them from the first look on. Where that takes
    /// longer (another switch interval), or the GIL cannot be read yet, the first look says who sleeps.
    fn warm_up(&mut self, python: &Python) {
        let mut roster = Roster::default();
        if roster.walk(&LiveMemory::new(python.pid), &python.layout, python.runtime).is_ok() && !roster.gils.is_empty() {
            self.watch_gils(roster.gils.iter().enumerate().map(|(n, (at, _))| (GilId(n as u32), *at)).collect());
            sys_linux::sleep_until(sys_linux::monotonic() + WARM_UP);
        }
    }

    /// Watches the program that the process runs now, and goes on counting.
    pub fn continued(self, python: &Python) -> Result<ExactMode, Unavailable> {
        let lost_before = self.lost();
        let (begun, events, join) = (self.begun, self.events, self.join);
        Ok(ExactMode { begun, events, join, lost_before, ..ExactMode::open(python)? })
    }

    /// One look, with the events up to it.
    pub fn look(&mut self, observer: &mut Observer, now: Nanos, sink: &mut dyn Sink) -> Result<Looked, ReadError> {
        self.drain(now, sink);
        self.join.strangers(now.since(MET_LATE), &mut || observer.number(), sink);
        self.join.bury(now.since(MET_LATE), sink);
        observer.waiting.clear();
        observer.waiting.extend(self.join.waits.asleep());
        let looked = observer.look(now, now, &mut Joined { join: &mut self.join, inner: sink, last: false });
        self.join.waits.interval = observer.interval_us.map(Nanos::from_micros);
        self.follow_gils(observer, now);
        looked
    }

    /// The window, or the program, ends.
    pub fn finish(&mut self, observer: &mut Observer, now: Nanos, sink: &mut dyn Sink) {
        self.drain(now, sink);
        observer.finish(now, &mut Joined { join: &mut self.join, inner: sink, last: true });
        self.join.finish(now, &mut || observer.number(), sink);
        self.join.bury(now, sink);
    }

    /// Says in the window's facts what this mode did.
    pub fn describe(&self, facts: &mut WindowFacts) {
        facts.exact = true;
        facts.events = self.events;
        facts.lost_events = self.lost();
        facts.unmet_waits = self.join.unmet;
        if facts.lost_events.is_none() {
            facts
                .warnings
                .push("exact mode: how many kernel events are missing could not be read; waits may be too short or too few".into());
        }
        let mut warn = |count: u64, what: &str| {
            if count > 0 {
                facts.warnings.push(format!("exact mode: {count} {what}"));
            }
        };
        warn(
            facts.lost_events.unwrap_or(0),
            "kernel events found no room and are missing; raise the rate of looks, which also empty the buffer",
        );
        warn(self.join.unmet, "waits of threads that no look had met found no room and are in no thread's figures");
        warn(u64::from(self.failed), "time a new GIL could not be watched; its waits are sampled");
        warn(self.gils.len().saturating_sub(MAX_GILS) as u64, "GILs beyond those that can be watched have sampled waits");
    }

    fn lost(&self) -> Option<u64> {
        Some(self.lost_before? + self.watch.lost()?)
    }

    fn drain(&mut self, now: Nanos, sink: &mut dyn Sink) {
        let (mut told, mut events) = (Vec::new(), 0);
        let (layout, gils, waits) = (&self.layout, &self.gils, &mut self.join.waits);
        self.watch.drain(&mut |event| {
            events += 1;
            if let Some(did) = did(layout, gils, &event) {
                waits.take(event.at, event.tid, did, event.turn, &mut |t| told.push(t));
            }
        });
        waits.settle(now, &mut |t| told.push(t));
        self.events += events;
        let begun = *self.begun.get_or_insert(now);
        told.into_iter().filter(|t| t.end > begun).for_each(|t| self.join.told(t, sink));
    }

    /// Watches the GILs that the look has found.
    fn follow_gils(&mut self, observer: &Observer, now: Nanos) {
        if !observer.gils().eq(self.gils.iter().copied()) {
            self.watch_gils(observer.gils().collect());
        }
        if std::mem::take(&mut self.fresh) {
            for thread in observer.threads().iter().filter(|t| t.told() == (State::Waiting, Evidence::GilFutex)) {
                self.join.waits.found_asleep(thread.facts.tid, thread.facts.gil.unwrap_or_default(), now);
            }
        }
    }

    fn watch_gils(&mut self, gils: Vec<(GilId, Addr)>) {
        let from = begin(&self.layout);
        let starts: Vec<Addr> = gils.iter().map(|(_, gil)| gil.offset(from.into())).collect();
        self.failed |= self.watch.set_gils(&starts).is_err();
        self.gils = gils;
        self.fresh = true;
    }
}

/// `__g_refs` in glibc's `pthread_cond_t`, 2.25 - 2.40: at these bytes of it. Later versions have `__g_size` there, which nobody sleeps on.
const GROUPS: std::ops::Range<u64> = 16..24;

/// What an event says, by the address. `None` for an address that is no GIL's any more.
fn did(layout: &Gil, gils: &[(GilId, Addr)], event: &FutexEvent) -> Option<Did> {
    let spot = |gil: Addr, at: Addr| {
        spans(layout).into_iter().find_map(|(spot, span)| {
            let offset = at.0.wrapping_sub(gil.0).wrapping_sub(span.offset.into());
            let condition = matches!(spot, Spot::Cond | Spot::SwitchCond);
            let spot = if condition && GROUPS.contains(&offset) { Spot::Groups } else { spot };
            (offset < u64::from(span.len)).then_some(spot)
        })
    };
    let place = |at: Addr| gils.iter().find_map(|(id, gil)| Some((*id, spot(*gil, at)?)));
    match event.call {
        Call::Wait(at) => place(at).map(|(gil, spot)| Did::Sleep(gil, spot)),
        Call::Wake(at) => place(at).map(|(gil, spot)| Did::Wake(gil, spot)),
        Call::Return { timed_out } => Some(Did::Return { timed_out }),
    }
}
