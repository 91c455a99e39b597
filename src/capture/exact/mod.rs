//! Exact mode: waits measured from kernel events instead of samples.
//!
//! `waits` turns events into waits. `merger` merges the waits into the sampler's slices, so that
//! the waiting of each slice is the measured one. `correction` adjusts the other states of the
//! slice. This file connects the three with the futex tracer. Sampling continues as before: samples
//! supply the stacks, the holder and every other state.

pub mod correction;
pub mod gil_futex;
pub mod merger;
mod release_visibility;
pub mod waits;

use super::sampler::{SampleOutcome, Sampler};
use crate::error::ReadError;
use crate::ids::{Addr, GilId};
use crate::process::c_library::CLibrary;
use crate::process::futex_program::{GilFields, MAX_GILS};
use crate::process::futex_tracer::{FutexCall, FutexEvent, FutexTracer, Unavailable};
use crate::process::live::LiveMemory;
use crate::process::sys_linux;
use crate::python::attach::PythonProcess;
use crate::python::interpreters::RuntimeState;
use crate::python::layout::{ByteRange, GilLayout};
use crate::sample::{CaptureStats, EventCounts, Evidence, Sink, State};
use crate::units::Nanos;
use gil_futex::{FutexOp, GilFutex};
use merger::{MergingSink, WaitMerger};

/// Two of CPython's default switch intervals; a waiter goes to sleep anew after each.
const WARM_UP: Nanos = Nanos::from_millis(11);

/// How long after a wait a sample may still report its thread: the maximum delay of a slice.
const MAX_SLICE_DELAY: Nanos = Nanos::from_millis(250);

/// A futex tracer and the state built from its events.
#[derive(Debug)]
pub struct ExactMode {
    tracer: FutexTracer,
    layout: GilLayout,
    /// The GILs with their ids.
    gils: Vec<(GilId, Addr)>,
    merger: WaitMerger,
    /// Time of the first sample.
    first_sample: Option<Nanos>,
    /// No sample has been taken since the GILs were found.
    gils_unsampled: bool,
    events: u64,
    /// Events lost by earlier tracers; `None` if that could not be read.
    lost_before: Option<u64>,
    tracing_failed: bool,
}

/// The futexes of a GIL, in the order of their offsets.
fn gil_futexes(layout: &GilLayout) -> [(GilFutex, ByteRange); 4] {
    [
        (GilFutex::Cond, layout.cond),
        (GilFutex::Mutex, layout.mutex),
        (GilFutex::SwitchCond, layout.switch_cond),
        (GilFutex::SwitchMutex, layout.switch_mutex),
    ]
}

/// Offset of the first futex.
fn first_offset(layout: &GilLayout) -> u32 {
    gil_futexes(layout).iter().map(|(_, s)| s.offset).min().unwrap_or(0)
}

/// The traced fields, relative to the first futex.
fn traced_fields(layout: &GilLayout) -> GilFields {
    let end = gil_futexes(layout).iter().map(|(_, s)| s.offset.saturating_add(s.len)).max().unwrap_or(0);
    let relative = |offset: usize| (offset as i64 - i64::from(first_offset(layout))) as i32;
    let (last_holder, switch_number) = (relative(layout.last_holder.offset()), relative(layout.switch_number.offset()));
    GilFields { len: relative(end as usize), last_holder, switch_number }
}

impl ExactMode {
    /// Starts to trace a process. Events are selected by their addresses in the GIL, and only with
    /// glibc do all threads wait for the GIL there.
    pub fn open(python: &PythonProcess) -> Result<ExactMode, Unavailable> {
        if python.abi.c_library != CLibrary::Glibc {
            return Err(Unavailable::WaitsElsewhere(python.abi.c_library));
        }
        let layout = python.layout.gil;
        let mut mode = ExactMode {
            tracer: FutexTracer::open(python.pid, traced_fields(&layout))?,
            layout,
            gils: Vec::new(),
            merger: WaitMerger::default(),
            first_sample: None,
            gils_unsampled: true,
            events: 0,
            lost_before: Some(0),
            tracing_failed: false,
        };
        mode.warm_up(python);
        Ok(mode)
    }

    /// Gives threads that already wait the time to go to sleep once more, so that the events cover
    /// them from the first sample on. If that takes longer (a longer switch interval), or the GIL
    /// cannot be read yet, the first sample shows which threads sleep.
    fn warm_up(&mut self, python: &PythonProcess) {
        let mut runtime_state = RuntimeState::default();
        if runtime_state.walk(&LiveMemory::new(python.pid), &python.layout, python.runtime).is_ok() && !runtime_state.gils.is_empty() {
            self.trace_gils(runtime_state.gils.iter().enumerate().map(|(n, (at, _))| (GilId(n as u32), *at)).collect());
            sys_linux::sleep_until(sys_linux::monotonic() + WARM_UP);
        }
    }

    /// Traces the program that the process has switched to by `exec`, and keeps the counts.
    pub fn for_new_program(self, python: &PythonProcess) -> Result<ExactMode, Unavailable> {
        let lost_before = self.lost();
        let (first_sample, events, merger, tracing_failed) = (self.first_sample, self.events, self.merger, self.tracing_failed);
        Ok(ExactMode { first_sample, events, merger, lost_before, tracing_failed, ..ExactMode::open(python)? })
    }

    /// As [`Sampler::prepare`].
    pub fn prepare(
        &mut self,
        sampler: &mut Sampler,
        now: Nanos,
        may_go_on: &dyn Fn() -> bool,
        sink: &mut dyn Sink,
    ) -> Result<(), ReadError> {
        sampler.prepare(now, may_go_on, &mut MergingSink { merger: &mut self.merger, inner: sink, last: false })
    }

    /// Takes one sample, after draining the events up to it.
    pub fn sample(&mut self, sampler: &mut Sampler, now: Nanos, sink: &mut dyn Sink) -> Result<SampleOutcome, ReadError> {
        self.drain(now, sink);
        self.merger.flush_unsampled(now.saturating_since(MAX_SLICE_DELAY), &mut || sampler.allocate_id(), sink);
        self.merger.flush_exited(now.saturating_since(MAX_SLICE_DELAY), sink);
        sampler.waiting_by_events.clear();
        sampler.waiting_by_events.extend(self.merger.waits.asleep());
        let outcome = sampler.sample(now, now, &mut MergingSink { merger: &mut self.merger, inner: sink, last: false });
        self.merger.waits.interval = sampler.stats.interval_us.map(Nanos::from_micros);
        self.update_gils(sampler, now);
        outcome
    }

    /// Ends the window, or the program.
    pub fn finish(&mut self, sampler: &mut Sampler, now: Nanos, sink: &mut dyn Sink) {
        self.drain(now, sink);
        sampler.finish(now, &mut MergingSink { merger: &mut self.merger, inner: sink, last: true });
        self.merger.finish(now, &mut || sampler.allocate_id(), sink);
        self.merger.flush_exited(now, sink);
    }

    /// Adds this mode's counts and warnings to the window's statistics.
    pub fn add_stats(&self, stats: &mut CaptureStats) {
        stats.exact = true;
        stats.events = EventCounts { events: self.events, lost_events: self.lost(), unmet_waits: self.merger.dropped_waits };
        if stats.events.lost_events.is_none() {
            stats.warnings.push("exact mode: failed to read the number of lost events; waits may be too short or too few".into());
        }
        let mut warn = |count: u64, what: &str| {
            if count > 0 {
                stats.warnings.push(format!("exact mode: {count} {what}"));
            }
        };
        warn(
            stats.events.lost_events.unwrap_or(0),
            "kernel events were lost: the buffer was full, or their threads exited before a sample found them; sample more often (--rate HZ)",
        );
        warn(
            self.merger.dropped_waits,
            "waits of unsampled threads were discarded because the table was full; no thread's figures have them",
        );
        if self.tracing_failed {
            stats.warnings.push("exact mode: failed to trace a new GIL; its waits are sampled".into());
        }
        let untraced = self.gils.len().saturating_sub(MAX_GILS);
        if untraced > 0 {
            stats.warnings.push(format!("exact mode: the waits of {untraced} GILs beyond the limit of {MAX_GILS} are sampled"));
        }
    }

    fn lost(&self) -> Option<u64> {
        Some(self.lost_before? + self.tracer.lost()?)
    }

    fn drain(&mut self, now: Nanos, sink: &mut dyn Sink) {
        let (mut completed, mut events) = (Vec::new(), 0);
        let (layout, gils, waits) = (&self.layout, &self.gils, &mut self.merger.waits);
        self.tracer.drain(&mut |event| {
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

    /// Traces the GILs that the sample found.
    fn update_gils(&mut self, sampler: &Sampler, now: Nanos) {
        if !sampler.gils().eq(self.gils.iter().copied()) {
            self.trace_gils(sampler.gils().collect());
        }
        if std::mem::take(&mut self.gils_unsampled) {
            for (info, _) in sampler.threads().filter(|(_, state)| *state == (State::Waiting, Evidence::GilFutex)) {
                self.merger.waits.found_asleep(info.tid, info.gil.unwrap_or_default(), now);
            }
        }
    }

    fn trace_gils(&mut self, gils: Vec<(GilId, Addr)>) {
        let from = first_offset(&self.layout);
        let starts: Vec<Addr> = gils.iter().map(|(_, gil)| gil.offset(from.into())).collect();
        self.tracing_failed |= self.tracer.set_gils(&starts).is_err();
        self.merger.waits.retain_gils(|id| gils.iter().any(|(gil, _)| *gil == id));
        self.gils = gils;
        self.gils_unsampled = true;
    }
}

/// Offsets of `__g_refs` in `pthread_cond_t` of glibc 2.25 - 2.40. Later versions have `__g_size`
/// there, on which no thread sleeps.
const COND_INTERNAL: std::ops::Range<u64> = 16..24;

/// The operation of an event, by its address. `None` for an address that no longer belongs to a
/// GIL.
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
