//! Exact mode: waits from kernel events instead of looks.
//!
//! `waits` turns events into waits; `merger` puts them under the looks' slices, so that each slice's waiting is the measured one, and
//! `correction` says what the rest of a slice was. This file holds them together with the watch in the kernel. The looks go on as before: they
//! know the stacks, the holder and every other state.

pub mod correction;
pub mod gil_futex;
pub mod merger;
mod release_visibility;
pub mod waits;

use super::sampler::{SampleOutcome, Sampler};
use crate::error::ReadError;
use crate::ids::{Addr, GilId};
use crate::process::futex_program::{GilFields, MAX_GILS};
use crate::process::futex_tracer::{FutexCall, FutexEvent, FutexTracer, Unavailable};
use crate::process::live::LiveMemory;
use crate::process::sys_linux;
use crate::python::attach::PythonProcess;
use crate::python::interpreters::RuntimeState;
use crate::python::layout::{ByteRange, GilLayout};
use crate::sample::{CaptureStats, Evidence, Sink, State};
use crate::units::Nanos;
use gil_futex::{FutexOp, GilFutex};
use merger::{MergingSink, WaitMerger};

/// Two of CPython's default switch intervals, after each of which a waiter goes to sleep anew.
const WARM_UP: Nanos = Nanos::from_millis(11);

/// So long after a wait its thread may still be met: slices come up to so late.
const MAX_SLICE_DELAY: Nanos = Nanos::from_millis(250);

/// A watch, and what came of it so far.
#[derive(Debug)]
pub struct ExactMode {
    watch: FutexTracer,
    layout: GilLayout,
    /// The GILs with their numbers.
    gils: Vec<(GilId, Addr)>,
    merger: WaitMerger,
    /// The first look.
    first_sample: Option<Nanos>,
    /// No look has been made since the GILs were found.
    gils_unsampled: bool,
    events: u64,
    /// Lost by watches before this one; `None` when that could not be read.
    lost_before: Option<u64>,
    watch_failed: bool,
}

/// The futexes of a GIL, in the order in which they lie there.
fn gil_futexes(layout: &GilLayout) -> [(GilFutex, ByteRange); 4] {
    [
        (GilFutex::Cond, layout.cond),
        (GilFutex::Mutex, layout.mutex),
        (GilFutex::SwitchCond, layout.switch_cond),
        (GilFutex::SwitchMutex, layout.switch_mutex),
    ]
}

/// Where the futexes begin.
fn first_offset(layout: &GilLayout) -> u32 {
    gil_futexes(layout).iter().map(|(_, s)| s.offset).min().unwrap_or(0)
}

/// What is watched from there on.
fn watched_fields(layout: &GilLayout) -> GilFields {
    let end = gil_futexes(layout).iter().map(|(_, s)| s.offset.saturating_add(s.len)).max().unwrap_or(0);
    let from_there = |offset: usize| (offset as i64 - i64::from(first_offset(layout))) as i32;
    let (last_holder, switch_number) = (from_there(layout.last_holder.offset()), from_there(layout.switch_number.offset()));
    GilFields { len: from_there(end as usize), last_holder, switch_number }
}

impl ExactMode {
    /// Begins to watch a process.
    pub fn open(python: &PythonProcess) -> Result<ExactMode, Unavailable> {
        let layout = python.layout.gil;
        let mut mode = ExactMode {
            watch: FutexTracer::open(python.pid, watched_fields(&layout))?,
            layout,
            gils: Vec::new(),
            merger: WaitMerger::default(),
            first_sample: None,
            gils_unsampled: true,
            events: 0,
            lost_before: Some(0),
            watch_failed: false,
        };
        mode.warm_up(python);
        Ok(mode)
    }

    /// Lets the threads that wait already go to sleep once more, so that events tell of them from the first look on. Where that takes
    /// longer (another switch interval), or the GIL cannot be read yet, the first look says who sleeps.
    fn warm_up(&mut self, python: &PythonProcess) {
        let mut runtime_state = RuntimeState::default();
        if runtime_state.walk(&LiveMemory::new(python.pid), &python.layout, python.runtime).is_ok() && !runtime_state.gils.is_empty() {
            self.watch_gils(runtime_state.gils.iter().enumerate().map(|(n, (at, _))| (GilId(n as u32), *at)).collect());
            sys_linux::sleep_until(sys_linux::monotonic() + WARM_UP);
        }
    }

    /// Watches the program that the process runs now, and goes on counting.
    pub fn for_new_program(self, python: &PythonProcess) -> Result<ExactMode, Unavailable> {
        let lost_before = self.lost();
        let (first_sample, events, merger) = (self.first_sample, self.events, self.merger);
        Ok(ExactMode { first_sample, events, merger, lost_before, ..ExactMode::open(python)? })
    }

    /// One look, with the events up to it.
    pub fn sample(&mut self, sampler: &mut Sampler, now: Nanos, sink: &mut dyn Sink) -> Result<SampleOutcome, ReadError> {
        self.drain(now, sink);
        self.merger.flush_unsampled(now.saturating_since(MAX_SLICE_DELAY), &mut || sampler.allocate_id(), sink);
        self.merger.flush_exited(now.saturating_since(MAX_SLICE_DELAY), sink);
        sampler.waiting_by_events.clear();
        sampler.waiting_by_events.extend(self.merger.waits.asleep());
        let outcome = sampler.sample(now, now, &mut MergingSink { merger: &mut self.merger, inner: sink, last: false });
        self.merger.waits.interval = sampler.interval_us.map(Nanos::from_micros);
        self.update_gils(sampler, now);
        outcome
    }

    /// The window, or the program, ends.
    pub fn finish(&mut self, sampler: &mut Sampler, now: Nanos, sink: &mut dyn Sink) {
        self.drain(now, sink);
        sampler.finish(now, &mut MergingSink { merger: &mut self.merger, inner: sink, last: true });
        self.merger.finish(now, &mut || sampler.allocate_id(), sink);
        self.merger.flush_exited(now, sink);
    }

    /// Says in the window's facts what this mode did.
    pub fn add_stats(&self, stats: &mut CaptureStats) {
        stats.exact = true;
        stats.events = self.events;
        stats.lost_events = self.lost();
        stats.unmet_waits = self.merger.dropped_waits;
        if stats.lost_events.is_none() {
            stats
                .warnings
                .push("exact mode: how many kernel events are missing could not be read; waits may be too short or too few".into());
        }
        let mut warn = |count: u64, what: &str| {
            if count > 0 {
                stats.warnings.push(format!("exact mode: {count} {what}"));
            }
        };
        warn(
            stats.lost_events.unwrap_or(0),
            "kernel events found no room and are missing; raise the rate of looks, which also empty the buffer",
        );
        warn(self.merger.dropped_waits, "waits of threads that no look had met found no room and are in no thread's figures");
        warn(u64::from(self.watch_failed), "time a new GIL could not be watched; its waits are sampled");
        warn(self.gils.len().saturating_sub(MAX_GILS) as u64, "GILs beyond those that can be watched have sampled waits");
    }

    fn lost(&self) -> Option<u64> {
        Some(self.lost_before? + self.watch.lost()?)
    }

    fn drain(&mut self, now: Nanos, sink: &mut dyn Sink) {
        let (mut completed, mut events) = (Vec::new(), 0);
        let (layout, gils, waits) = (&self.layout, &self.gils, &mut self.merger.waits);
        self.watch.drain(&mut |event| {
            events += 1;
            if let Some(op) = futex_op(layout, gils, &event) {
                waits.handle(event.at, event.tid, op, event.gil, &mut |t| completed.push(t));
            }
        });
        waits.close_stale(now, &mut |t| completed.push(t));
        self.events += events;
        let first_sample = *self.first_sample.get_or_insert(now);
        completed.into_iter().filter(|t| t.end > first_sample).for_each(|t| self.merger.add(t, sink));
    }

    /// Watches the GILs that the look has found.
    fn update_gils(&mut self, sampler: &Sampler, now: Nanos) {
        if !sampler.gils().eq(self.gils.iter().copied()) {
            self.watch_gils(sampler.gils().collect());
        }
        if std::mem::take(&mut self.gils_unsampled) {
            for thread in sampler.threads().iter().filter(|t| t.last_state() == (State::Waiting, Evidence::GilFutex)) {
                self.merger.waits.found_asleep(thread.facts.tid, thread.facts.gil.unwrap_or_default(), now);
            }
        }
    }

    fn watch_gils(&mut self, gils: Vec<(GilId, Addr)>) {
        let from = first_offset(&self.layout);
        let starts: Vec<Addr> = gils.iter().map(|(_, gil)| gil.offset(from.into())).collect();
        self.watch_failed |= self.watch.set_gils(&starts).is_err();
        self.gils = gils;
        self.gils_unsampled = true;
    }
}

/// `__g_refs` in glibc's `pthread_cond_t`, 2.25 - 2.40: at these bytes of it. Later versions have `__g_size` there, which nobody sleeps on.
const COND_INTERNAL: std::ops::Range<u64> = 16..24;

/// What an event says, by the address. `None` for an address that is no GIL's any more.
fn futex_op(layout: &GilLayout, gils: &[(GilId, Addr)], event: &FutexEvent) -> Option<FutexOp> {
    let futex = |gil: Addr, at: Addr| {
        gil_futexes(layout).into_iter().find_map(|(futex, span)| {
            let offset = at.0.wrapping_sub(gil.0).wrapping_sub(span.offset.into());
            let condition = matches!(futex, GilFutex::Cond | GilFutex::SwitchCond);
            let futex = if condition && COND_INTERNAL.contains(&offset) { GilFutex::CondInternal } else { futex };
            (offset < u64::from(span.len)).then_some(futex)
        })
    };
    let locate = |at: Addr| gils.iter().find_map(|(id, gil)| Some((*id, futex(*gil, at)?)));
    match event.call {
        FutexCall::Wait(at) => locate(at).map(|(gil, futex)| FutexOp::Sleep(gil, futex)),
        FutexCall::Wake(at) => locate(at).map(|(gil, futex)| FutexOp::Wake(gil, futex)),
        FutexCall::Return { timed_out } => Some(FutexOp::Return { timed_out }),
    }
}
