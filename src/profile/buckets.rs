//! A window cut into a fixed number of buckets of equal length, with the figures that the
//! comparison of two windows needs.
//!
//! The spread of a figure over the buckets estimates how much of a difference between two windows
//! is chance. The window's length must be known, so this is a second pass over a recording.

use super::gils::GilProfile;
use super::histogram::Histogram;
use super::threads::ThreadProfile;
use crate::ids::{GilId, ThreadId};
use crate::sample::{
    Evidence, Function, GilSample, Holder, IntervalKind, MeasuredInterval, Sink, State, StateSlice, StateTimes, ThreadInfo, ThreadTotals,
};
use crate::units::Nanos;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The number of buckets.
pub const BUCKETS: usize = 16;
/// The largest numbers of threads and functions with figures of their own; the rest share a row.
const MAX_THREADS: usize = 4096;
const MAX_FUNCTIONS: usize = 1 << 14;
/// The largest number of GILs with figures; further GILs have none.
const MAX_GILS: usize = 256;

/// One figure per bucket.
pub type Series = [f64; BUCKETS];

/// A function's figures, in nanoseconds of thread time.
#[derive(Clone, Debug, Default)]
pub struct FunctionSeries {
    /// Its first line in the last sample that saw it; lines move from one version of a program to
    /// the next.
    pub line: u32,
    /// Time as the leaf function of the holder.
    pub holding: Series,
    /// Time as the leaf function of a waiting thread.
    pub waiting: Series,
    /// Waiting of other threads while this function held the GIL.
    pub inflicted: Series,
    /// Time as the leaf function of a thread on a CPU without the GIL.
    pub native: Series,
}

/// One GIL's figures. Times in nanoseconds.
#[derive(Clone, Debug)]
pub struct GilSeries {
    /// The time that samples of this GIL stand for.
    pub observed: Series,
    /// The part of `observed` in which some thread held the GIL.
    pub busy: Series,
    /// The part of `observed` in which at least one thread waited, as in [`GilProfile::contended`].
    pub contended: Series,
    /// Waiting of all its threads together.
    pub waiting: Series,
    /// GIL switches by CPython's own count; `None` where the count was never read.
    pub switches: Option<Series>,
    /// Uninterrupted holds that ended in the bucket, estimated from consecutive samples.
    pub holds: Vec<Histogram>,
    /// Uninterrupted waits that ended in the bucket, estimated likewise.
    pub waits: Vec<Histogram>,
    /// Holds measured by kernel events.
    pub exact_holds: Vec<Histogram>,
    /// Waits measured by kernel events.
    pub exact_waits: Vec<Histogram>,
    last_switches: Option<u64>,
    profile: GilProfile,
}

impl GilSeries {
    fn new(id: GilId) -> GilSeries {
        let none = || vec![Histogram::default(); BUCKETS];
        GilSeries {
            observed: [0.0; BUCKETS],
            busy: [0.0; BUCKETS],
            contended: [0.0; BUCKETS],
            waiting: [0.0; BUCKETS],
            switches: None,
            holds: none(),
            waits: none(),
            exact_holds: none(),
            exact_waits: none(),
            last_switches: None,
            profile: GilProfile::new(id),
        }
    }

    fn add_sample(&mut self, sample: &GilSample, index: usize) {
        let span = sample.span.as_nanos() as f64;
        self.observed[index] += span;
        if sample.holder != Holder::Nobody {
            self.busy[index] += span;
        }
        let before = self.profile.contended;
        self.profile.add_sample(sample);
        self.contended[index] += self.profile.contended - before;
        if let Some(now) = sample.switches {
            let since = self.last_switches.replace(now).map_or(0, |last| now.saturating_sub(last));
            self.switches.get_or_insert([0.0; BUCKETS])[index] += since as f64;
        }
    }

    fn add_wait(&mut self, end: Nanos, waiting: f64, total: f64, index: usize) {
        let before = self.profile.contended;
        self.profile.add_wait(end, waiting, total);
        self.contended[index] += self.profile.contended - before;
        self.waiting[index] += waiting;
    }

    fn add_runs(&mut self, (holds, waits): (Histogram, Histogram), index: usize) {
        self.holds[index].merge(&holds);
        self.waits[index].merge(&waits);
    }
}

/// One thread's figures.
#[derive(Clone, Debug)]
pub struct ThreadSeries {
    /// Its name.
    pub name: String,
    /// Whether it has a `PyThreadState`, without which it cannot wait for the GIL.
    pub python: bool,
    /// Nanoseconds per state.
    pub times: [StateTimes; BUCKETS],
    /// The unfinished runs of holding and waiting; `None` for the row that stands for many threads.
    runs: Option<Box<ThreadProfile>>,
}

impl ThreadSeries {
    /// The share of the thread's time in which it held or wanted the GIL. It weights the thread in
    /// figures of the whole process: a thread that never uses the GIL has no part in them, a thread
    /// that uses it briefly a small one. A threshold would flip between two windows; a weight does
    /// not.
    pub fn gil_weight(&self) -> f64 {
        let wanted: f64 = self.times.iter().map(|times| times.holding() + times.get(State::Waiting)).sum();
        let total: f64 = self.times.iter().map(StateTimes::total).sum();
        if total > 0.0 {
            wanted / total
        } else {
            0.0
        }
    }
}

/// The buckets of one window.
#[derive(Debug)]
pub struct Buckets {
    begin: u64,
    length: u64,
    /// By thread.
    pub threads: FxHashMap<ThreadId, ThreadSeries>,
    /// By name and file.
    pub functions: HashMap<(String, String), FunctionSeries>,
    /// The time that samples of all GILs stand for.
    pub observed: Series,
    /// The part of `observed` in which a GIL was held.
    pub busy: Series,
    /// Figures of each GIL.
    pub gils: BTreeMap<GilId, GilSeries>,
    latest: usize,
    keys: FxHashMap<usize, (Arc<Function>, (String, String))>,
}

impl Buckets {
    /// Buckets for a window that begins at `begin` and lasts `seconds`.
    pub fn new(begin: Nanos, seconds: f64) -> Buckets {
        let length = (seconds * 1e9 / BUCKETS as f64) as u64;
        Buckets {
            begin: begin.as_nanos(),
            length: length.max(1),
            threads: FxHashMap::default(),
            functions: HashMap::new(),
            observed: [0.0; BUCKETS],
            busy: [0.0; BUCKETS],
            gils: BTreeMap::new(),
            latest: 0,
            keys: FxHashMap::default(),
        }
    }

    /// The length of one bucket, in nanoseconds.
    pub fn length(&self) -> f64 {
        self.length as f64
    }

    /// The bucket of a time. Slices are short compared with buckets, so a slice counts in the
    /// bucket of its middle.
    fn index(&self, at: u64) -> usize {
        (at.saturating_sub(self.begin) / self.length).min(BUCKETS as u64 - 1) as usize
    }

    fn gil_row(&mut self, id: GilId) -> Option<&mut GilSeries> {
        if self.gils.len() >= MAX_GILS && !self.gils.contains_key(&id) {
            return None;
        }
        Some(self.gils.entry(id).or_insert_with(|| GilSeries::new(id)))
    }

    fn function(&mut self, function: &Arc<Function>) -> &mut FunctionSeries {
        if self.keys.len() > MAX_FUNCTIONS {
            self.keys.clear();
        }
        let make = || (Arc::clone(function), (function.name.clone(), function.file.clone()));
        let (_, key) = self.keys.entry(Arc::as_ptr(function) as usize).or_insert_with(make);
        let full = self.functions.len() >= MAX_FUNCTIONS && !self.functions.contains_key(key);
        let key = if full { ("(other functions)".into(), String::new()) } else { key.clone() };
        let series = self.functions.entry(key).or_default();
        series.line = function.first_line;
        series
    }
}

impl Sink for Buckets {
    fn thread(&mut self, info: &ThreadInfo) {
        if let Some(thread) = self.threads.get_mut(&info.id) {
            thread.name.clone_from(&info.name);
            thread.python = info.python;
            if let Some(runs) = &mut thread.runs {
                runs.info.gil = info.gil;
            }
        } else if self.threads.len() < MAX_THREADS {
            let runs = Some(Box::new(ThreadProfile::new(info.clone())));
            let series = ThreadSeries { name: info.name.clone(), python: info.python, times: [StateTimes::default(); BUCKETS], runs };
            self.threads.insert(info.id, series);
        }
    }

    fn slice(&mut self, slice: &StateSlice<'_>) {
        let (times, _) = super::sanitize(&slice.times);
        let total = times.total();
        // Time in which the program was stopped says nothing of what it does.
        if total <= 0.0 || slice.evidence == Evidence::Stopped {
            return;
        }
        let index = self.index(slice.end.as_nanos().saturating_sub((total / 2.0) as u64));
        self.latest = self.latest.max(index);
        let other = || ThreadSeries { name: "(other threads)".into(), python: true, times: [StateTimes::default(); BUCKETS], runs: None };
        let row = if self.threads.contains_key(&slice.thread) { slice.thread } else { ThreadId(u32::MAX) };
        let thread = self.threads.entry(row).or_insert_with(other);
        thread.times[index].merge(&times);
        let mut ended = None;
        let mut id = GilId::default();
        if let Some(runs) = &mut thread.runs {
            id = runs.info.gil.unwrap_or_default();
            let gil = self.gils.get_mut(&id).into_iter();
            let unseen_turns = |of_waiter| gil.flat_map(move |gil| gil.profile.unseen_turns(slice.end, total, of_waiter));
            runs.extend_run(&times, slice.evidence, unseen_turns);
            ended = runs.take_runs();
        }
        let (holding, waiting, native) = (times.holding(), times.get(State::Waiting), times.get(State::Native));
        if ended.is_some() || waiting > 0.0 {
            if let Some(gil) = self.gil_row(id) {
                ended.into_iter().for_each(|runs| gil.add_runs(runs, index));
                if waiting > 0.0 {
                    gil.add_wait(slice.end, waiting, total, index);
                }
            }
        }
        if let Some(leaf) = slice.stack.leaf().filter(|_| holding + waiting + native > 0.0) {
            let series = self.function(&leaf.function);
            series.holding[index] += holding;
            series.waiting[index] += waiting;
            series.native[index] += native;
        }
        if let Some(leaf) = slice.holder.and_then(|(_, stack)| stack.leaf()).filter(|_| waiting > 0.0) {
            self.function(&leaf.function).inflicted[index] += waiting;
        }
    }

    fn gil(&mut self, sample: &GilSample) {
        let index = self.index(sample.at.as_nanos());
        let span = sample.span.as_nanos() as f64;
        self.observed[index] += span;
        if sample.holder != Holder::Nobody {
            self.busy[index] += span;
        }
        if let Some(gil) = self.gil_row(sample.gil) {
            gil.add_sample(sample, index);
        }
    }

    fn interval(&mut self, measured: &MeasuredInterval) {
        let index = self.index(measured.end.as_nanos());
        let nanos = measured.end.saturating_since(measured.begin).as_nanos() as f64;
        if let Some(gil) = self.gil_row(measured.gil) {
            match measured.kind {
                IntervalKind::Wait => gil.exact_waits[index].record(nanos),
                IntervalKind::Hold => gil.exact_holds[index].record(nanos),
                IntervalKind::ForcedSwitch => {}
            }
        }
    }

    fn thread_end(&mut self, thread: ThreadId, _: ThreadTotals) {
        let Some(mut runs) = self.threads.get_mut(&thread).and_then(|thread| thread.runs.take()) else { return };
        // The unfinished run counts with its length so far, as in a profile.
        runs.close(false);
        let (latest, id) = (self.latest, runs.info.gil.unwrap_or_default());
        if let (Some(ended), Some(gil)) = (runs.take_runs(), self.gil_row(id)) {
            gil.add_runs(ended, latest);
        }
    }
}
