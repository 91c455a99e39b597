//! The kernel engine: the kernel reports what happens, and gilprof asks nothing.
//!
//! Programs in the kernel report every run of every thread on a CPU, and what a clock on each CPU
//! finds ([`KernelEvents`]). The estimator judges these events alone ([`EventEstimator`]). The
//! sampler goes on, ten times a second: it finds threads, thread states, GILs and names, and the
//! programs' ends and successors. Its slices are dropped.

mod brake;
mod gil_samples;
mod threads;

use super::sampler::{SampleOutcome, Sampler};
use crate::error::ReadError;
use crate::estimate::events::{EventEstimator, Found, Tick};
use crate::ids::{Addr, GilId, ThreadId, Tid};
use crate::process::kernel_events::{KernelEvents, NoKernelEvents, Record, WalkedStack};
use crate::process::sys_linux;
use crate::python::attach::PythonProcess;
use crate::python::frames::{RawFrame, RawStack};
use crate::python::kernel_config::kernel_config;
use crate::python::stack::ThreadStack;
use crate::sample::{
    CaptureStats, CpuRun, EventCounts, GilSample, GilView, OffCpu, Sink, Stack, StackStatus, State, StateSlice, ThreadInfo, ThreadTotals,
};
use crate::units::Nanos;
use brake::{Brake, Excess};
use gil_samples::GilSampler;
use std::collections::HashMap;
use std::sync::Arc;
use threads::KnownThreads;

/// How often the sampler runs, in Hz.
pub const POLL_RATE_HZ: f64 = 10.0;
/// How long after its time a slice may come.
const LAG: Nanos = Nanos::from_millis(1_000);
/// The most records that are kept of threads that the sampler has not found yet.
const MAX_EARLY: usize = 1 << 16;

/// A record, with its own copy of the frames.
#[derive(Clone, Debug)]
enum OwnRecord {
    Run(CpuRun, Option<RawStack>),
    Tick { at: Nanos, view: GilView, stack: Option<RawStack> },
    Exited(Nanos),
}

/// The kernel events of one process, and what is made of them.
pub struct KernelEngine {
    events: KernelEvents,
    python: PythonProcess,
    gils: Vec<(GilId, Addr)>,
    stack_interval: Nanos,
    estimator: EventEstimator,
    threads: KnownThreads,
    gil_samples: GilSampler,
    early: HashMap<Tid, Vec<OwnRecord>>,
    early_count: usize,
    dropped: u64,
    /// The time of the first sample.
    first_sample: Option<Nanos>,
    ticks: u64,
    brake: Brake,
    excess: Option<Excess>,
    /// Why the process, or a GIL of it, could not be watched.
    unwatched: Option<String>,
    empty_stack: Arc<Stack>,
}

impl KernelEngine {
    /// Starts to watch a process, with a clock of this rate.
    pub fn open(python: &PythonProcess, rate_hz: f64) -> Result<KernelEngine, NoKernelEvents> {
        let events = KernelEvents::open(rate_hz)?;
        let mut engine = KernelEngine {
            brake: Brake::default(),
            excess: None,
            events,
            python: python.clone(),
            gils: Vec::new(),
            stack_interval: Nanos::from_nanos((1e9 / rate_hz) as u64),
            estimator: EventEstimator::default(),
            threads: KnownThreads::default(),
            gil_samples: GilSampler::default(),
            early: HashMap::new(),
            early_count: 0,
            dropped: 0,
            first_sample: None,
            ticks: 0,
            unwatched: None,
            empty_stack: Arc::new(Stack::empty()),
        };
        engine.watch();
        Ok(engine)
    }

    /// Watches the program that the process has switched to by `exec`.
    pub fn switch_program(&mut self, python: &PythonProcess) {
        self.python = python.clone();
        self.gils.clear();
        self.estimator.new_program();
        self.watch();
    }

    fn watch(&mut self) {
        let config = kernel_config(&self.python.layout, self.python.abi, &self.gils, self.stack_interval);
        if let Err(why) = self.events.watch(self.python.pid, &config) {
            self.unwatched = Some(why.to_string());
        }
    }

    /// As [`Sampler::prepare`].
    pub fn prepare(
        &mut self,
        sampler: &mut Sampler,
        now: Nanos,
        may_go_on: &dyn Fn() -> bool,
        sink: &mut dyn Sink,
    ) -> Result<(), ReadError> {
        sampler.prepare(now, may_go_on, &mut Registry { engine: self, sink, now, ended: Vec::new() })
    }

    /// The window begins: threads that were found before begin with it.
    fn begin(&mut self, now: Nanos) -> Nanos {
        self.first_sample = Some(now);
        for known in self.threads.by_tid.values() {
            self.estimator.start(known.info.id, now, known.info.python, Found::Running);
        }
        now
    }

    /// Takes what happened since the last call, and lets the sampler find threads.
    pub fn sample(&mut self, sampler: &mut Sampler, now: Nanos, sink: &mut dyn Sink) -> Result<SampleOutcome, ReadError> {
        let first = self.first_sample.unwrap_or_else(|| self.begin(now));
        self.excess = self.events.cost().and_then(|cost| self.brake.check(now, cost));
        self.drain(sampler, first, sink);
        let mut found = Registry { engine: self, sink, now, ended: Vec::new() };
        let outcome = sampler.sample(now, now, &mut found);
        let ended = found.ended;
        self.follow_sampler(sampler, sink);
        self.take_early(sampler, sink);
        self.assume(sampler);
        self.account(now, sink);
        ended.into_iter().for_each(|id| self.end(id, now, sink));
        self.gil_samples.flush(now.saturating_since(LAG), sink);
        outcome
    }

    /// Ends this engine within the window, if it costs too much: the program is sampled from then
    /// on. Returns what to say of that.
    pub fn brake(&mut self, sampler: &mut Sampler, now: Nanos, sink: &mut dyn Sink) -> Option<String> {
        let excess = self.excess?;
        let first = self.first_sample.unwrap_or(now);
        self.drain(sampler, first, sink);
        let now = sys_linux::monotonic();
        self.account_all(sampler, now, sink);
        // The threads live on, in samples; here their time ends.
        let ids: Vec<ThreadId> = self.threads.by_tid.values().map(|known| known.info.id).collect();
        for id in ids {
            self.estimator.end(id, now, &mut Slices { threads: &self.threads, gil_samples: &mut self.gil_samples, sink: &mut *sink });
        }
        self.gil_samples.flush(now, sink);
        sampler.start_over(now, sink);
        let after = now.saturating_since(first).as_secs_f64();
        Some(format!("the kernel engine stopped after {after:.1} s: {excess}; sampled since"))
    }

    /// Ends the window, or the program.
    pub fn finish(&mut self, sampler: &mut Sampler, now: Nanos, sink: &mut dyn Sink) {
        let first = self.first_sample.unwrap_or(now);
        self.drain(sampler, first, sink);
        let mut found = Registry { engine: self, sink, now, ended: Vec::new() };
        sampler.finish(now, &mut found);
        let ended = found.ended;
        self.account_all(sampler, now, sink);
        ended.into_iter().for_each(|id| self.end(id, now, sink));
        self.gil_samples.flush(now, sink);
    }

    /// Accounts all events, and each thread's time up to `now`, which is not before the last event
    /// that was taken.
    fn account_all(&mut self, sampler: &mut Sampler, now: Nanos, sink: &mut dyn Sink) {
        self.take_early(sampler, sink);
        // Threads that live on, but that no sample has found.
        self.dropped += std::mem::take(&mut self.early_count) as u64;
        self.early.clear();
        self.account(now, sink);
    }

    /// Adds this engine's counts and warnings to the window's statistics.
    pub fn add_stats(&self, stats: &mut CaptureStats) {
        (stats.exact, stats.kernel_engine) = (true, true);
        stats.counts.samples = self.ticks;
        let lost = self.events.lost();
        stats.events = EventCounts { events: self.events.cost().map_or(0, |cost| cost.events), lost_events: lost };
        if let Some(why) = &self.unwatched {
            stats.warnings.push(format!("kernel engine: failed to watch the process: {why}; its events are missing"));
        }
        match lost {
            Some(0) => {}
            Some(lost) => {
                let runs = self.estimator.faults().lost_runs;
                stats
                    .warnings
                    .push(format!("kernel engine: {lost} events were lost, {runs} of them runs of threads, whose time is unknown"));
            }
            None => stats.warnings.push("kernel engine: failed to read how many events were made and lost".into()),
        }
        if self.dropped > 0 {
            stats.warnings.push(format!("kernel engine: {} events of threads that the sampler did not find were discarded", self.dropped));
        }
    }

    fn drain(&mut self, sampler: &mut Sampler, first: Nanos, sink: &mut dyn Sink) {
        let mut taken = Vec::new();
        let pid = self.python.pid;
        self.events.drain(&mut |process, tid, record| {
            if process == pid {
                taken.push((tid, OwnRecord::new(record)));
            }
        });
        sampler.begin_naming();
        for (tid, record) in taken {
            self.ticks += u64::from(matches!(record, OwnRecord::Tick { at, .. } if at > first));
            if self.threads.by_tid.contains_key(&tid) {
                self.take(tid, record, sampler, first, sink);
            } else if record.end() <= first {
                // It is not of the window, and its thread may have ended before.
            } else if self.early_count < MAX_EARLY {
                self.early_count += 1;
                self.early.entry(tid).or_default().push(record);
            } else {
                self.dropped += 1;
            }
        }
    }

    /// Takes the records of threads that the sampler has found meanwhile, and of those that it will
    /// never find because they ended.
    fn take_early(&mut self, sampler: &mut Sampler, sink: &mut dyn Sink) {
        let first = self.first_sample.unwrap_or_default();
        for (tid, records) in std::mem::take(&mut self.early) {
            let has_ended = records.iter().any(OwnRecord::is_end);
            if !self.threads.by_tid.contains_key(&tid) && !has_ended {
                self.early.insert(tid, records);
                continue;
            }
            self.early_count = self.early_count.saturating_sub(records.len());
            let begin = records.first().map_or(first, OwnRecord::begin).max(first);
            if !self.threads.by_tid.contains_key(&tid) {
                let gil = records.iter().find_map(OwnRecord::gil);
                let info =
                    ThreadInfo { id: sampler.allocate_id(), tid, name: format!("thread {tid}"), python: gil.is_some(), main: false, gil };
                self.threads.insert(&info, &self.empty_stack);
                sink.thread(&info);
                self.estimator.start(info.id, begin, info.python, Found::Started);
            }
            records.into_iter().for_each(|record| self.take(tid, record, sampler, first, sink));
        }
    }

    fn take(&mut self, tid: Tid, record: OwnRecord, sampler: &mut Sampler, first: Nanos, sink: &mut dyn Sink) {
        let Some(known) = self.threads.by_tid.get_mut(&tid) else { return };
        let id = known.info.id;
        let mut name = |stack: &mut ThreadStack, raw: &RawStack| sampler.name_stack(stack, raw);
        let ended = match record {
            OwnRecord::Run(run, raw) if run.end > first => {
                let run = CpuRun { begin: run.begin.max(first), ..run };
                let stack = raw.and_then(|raw| name(&mut known.stack, &raw).then(|| known.stack.stack().clone()));
                let mut slices = Slices { threads: &self.threads, gil_samples: &mut self.gil_samples, sink: &mut *sink };
                self.estimator.run(id, &run, stack, &mut slices);
                (run.off == OffCpu::Exited).then_some(run.end)
            }
            OwnRecord::Tick { at, view, stack } if at > first => {
                let named = stack.is_some_and(|raw| name(&mut known.stack, &raw));
                let (stack, in_c_call) =
                    if named { (known.stack.stack().clone(), known.stack.in_c_call()) } else { (self.empty_stack.clone(), false) };
                let mut slices = Slices { threads: &self.threads, gil_samples: &mut self.gil_samples, sink: &mut *sink };
                self.estimator.tick(id, Tick { at, view, in_c_call, stack }, &mut slices);
                None
            }
            OwnRecord::Exited(at) => Some(at.max(first)),
            OwnRecord::Run(run, _) => (run.off == OffCpu::Exited).then_some(first),
            OwnRecord::Tick { .. } => None,
        };
        if let Some(at) = ended {
            self.end(id, at, sink);
        }
    }

    /// Accounts each thread's time up to `now`.
    fn account(&mut self, now: Nanos, sink: &mut dyn Sink) {
        let pid = self.python.pid;
        let KernelEngine { events, estimator, threads, gil_samples, .. } = self;
        let mut slices = Slices { threads, gil_samples, sink };
        events.now(&mut |process, tid, place| {
            if let Some(known) = threads.by_tid.get(&tid).filter(|_| process == pid) {
                estimator.now(known.info.id, now, place, &mut slices);
            }
        });
        estimator.rest(now, &mut slices);
    }

    /// Takes from the sampler where threads sleep of which no event has come.
    fn assume(&mut self, sampler: &Sampler) {
        for (info, (state, _), stack) in sampler.thread_stacks() {
            let why = match state {
                State::Waiting => OffCpu::GilFutex,
                State::Lock => OffCpu::OtherFutex,
                State::Io | State::HoldingBlocked => OffCpu::Syscall,
                _ => continue,
            };
            let gil = info.gil.unwrap_or_default();
            let switches = match (state, sampler.switches(gil)) {
                // By any later value the thread may have had the GIL since.
                (State::Waiting, None) => continue,
                (_, known) => known.unwrap_or_default(),
            };
            let view = GilView { holds: (state == State::HoldingBlocked).then_some(gil), gil, switches, ..GilView::default() };
            self.estimator.assume(info.id, why, &view, stack);
        }
    }

    fn end(&mut self, id: ThreadId, at: Nanos, sink: &mut dyn Sink) {
        let KernelEngine { estimator, threads, gil_samples, .. } = self;
        let totals = estimator.end(id, at, &mut Slices { threads, gil_samples, sink });
        threads.remove(id);
        if let Some(totals) = totals {
            sink.thread_end(id, totals);
        }
    }

    /// Tells the programs of GILs and thread states that the sampler found.
    fn follow_sampler(&mut self, sampler: &Sampler, sink: &mut dyn Sink) {
        if !sampler.gils().eq(self.gils.iter().copied()) {
            self.gils = sampler.gils().collect();
            self.watch();
        }
        for (tid, tstate) in sampler.thread_states() {
            if let Some(known) = self.threads.by_tid.get_mut(&tid).filter(|known| known.tstate != tstate) {
                known.tstate = tstate;
                if let Some(gil) = known.info.gil {
                    self.estimator.thread_state(known.info.id, gil, tstate, sink);
                }
                // Where the table is full, its stacks are known once it holds the GIL.
                let _ = self.events.set_tstate(tid, tstate);
            }
        }
    }
}

impl OwnRecord {
    fn new(record: Record<'_>) -> OwnRecord {
        match record {
            Record::Run(run, stack) => OwnRecord::Run(run, stack.map(raw_stack)),
            Record::Tick { at, view, stack, .. } => OwnRecord::Tick { at, view, stack: stack.map(raw_stack) },
            Record::Exited { at } => OwnRecord::Exited(at),
        }
    }

    fn is_end(&self) -> bool {
        matches!(self, OwnRecord::Exited(_) | OwnRecord::Run(CpuRun { off: OffCpu::Exited, .. }, _))
    }

    fn begin(&self) -> Nanos {
        match self {
            OwnRecord::Run(run, _) => run.begin,
            OwnRecord::Tick { at, .. } | OwnRecord::Exited(at) => *at,
        }
    }

    fn end(&self) -> Nanos {
        match self {
            OwnRecord::Run(run, _) => run.end,
            OwnRecord::Tick { at, .. } | OwnRecord::Exited(at) => *at,
        }
    }

    /// The GIL that the thread held or waited for.
    fn gil(&self) -> Option<GilId> {
        match self {
            OwnRecord::Run(run, _) if matches!(run.off, OffCpu::GilFutex | OffCpu::SwitchFutex | OffCpu::SignalFutex) => Some(run.view.gil),
            OwnRecord::Run(CpuRun { view, .. }, _) | OwnRecord::Tick { view, .. } => view.holds,
            OwnRecord::Exited(_) => None,
        }
    }
}

fn raw_stack(walked: WalkedStack<'_>) -> RawStack {
    let frames = walked.frames.iter().map(|frame| RawFrame { at: frame.at, code: frame.code, position: frame.position }).collect();
    let status = match (walked.leaving, walked.truncated || walked.unreadable) {
        (true, _) => StackStatus::Torn,
        (false, true) => StackStatus::Truncated,
        (false, false) => StackStatus::Complete,
    };
    RawStack { frames, status, below_gap: None }
}

/// Passes on slices, and makes samples of the GILs from them.
struct Slices<'a> {
    threads: &'a KnownThreads,
    gil_samples: &'a mut GilSampler,
    sink: &'a mut dyn Sink,
}

impl Sink for Slices<'_> {
    fn thread(&mut self, info: &ThreadInfo) {
        self.sink.thread(info);
    }
    fn slice(&mut self, slice: &StateSlice<'_>) {
        let gil = self.threads.get(slice.thread).and_then(|known| known.info.gil).unwrap_or_default();
        self.gil_samples.add(gil, slice, self.sink);
        self.sink.slice(slice);
    }
    fn gil(&mut self, sample: &GilSample) {
        self.sink.gil(sample);
    }
    fn interval(&mut self, measured: &crate::sample::MeasuredInterval) {
        self.sink.interval(measured);
    }
    fn thread_end(&mut self, thread: ThreadId, totals: ThreadTotals) {
        self.sink.thread_end(thread, totals);
    }
}

/// Takes threads and GILs from the sampler, and drops its slices.
struct Registry<'a> {
    engine: &'a mut KernelEngine,
    sink: &'a mut dyn Sink,
    now: Nanos,
    ended: Vec<ThreadId>,
}

impl Sink for Registry<'_> {
    fn thread(&mut self, info: &ThreadInfo) {
        // A thread that was found later than the first sample started since the last one.
        let early = self.engine.early.get(&info.tid).and_then(|records| records.first()).map(OwnRecord::begin);
        let since = early.unwrap_or(self.now).max(self.engine.first_sample.unwrap_or(self.now));
        if self.engine.threads.insert(info, &self.engine.empty_stack) {
            let found = if early.is_some() { Found::Started } else { Found::Running };
            self.engine.estimator.start(info.id, since, info.python, found);
        }
        self.sink.thread(info);
    }
    fn slice(&mut self, _: &StateSlice<'_>) {}
    fn gil(&mut self, sample: &GilSample) {
        self.engine.gil_samples.read(sample.gil, sample.at, sample.switches, sample.collecting);
    }
    fn thread_end(&mut self, thread: ThreadId, _: ThreadTotals) {
        self.ended.push(thread);
    }
}
