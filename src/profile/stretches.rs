//! A window cut into a fixed number of stretches of equal length, each with the figures that two windows are compared by.
//!
//! How much a figure differs from stretch to stretch says how much of a difference between two windows may be chance. The window's
//! length must be known, so this is a second pass over a recording.

use crate::ids::ThreadId;
use crate::sample::{Function, GilLook, Holder, Sink, Slice, Split, State, ThreadFacts, ThreadTotals};
use crate::units::Nanos;
use rustc_hash::FxHashMap;
use std::collections::HashMap;
use std::sync::Arc;

/// How many stretches.
pub const STRETCHES: usize = 16;
/// Threads and functions that have figures of their own; the rest share a row.
const MOST_THREADS: usize = 4096;
const MOST_FUNCTIONS: usize = 1 << 14;

/// One figure of each stretch.
pub type Series = [f64; STRETCHES];

/// What a function did, in nanoseconds of thread time.
#[derive(Clone, Debug, Default)]
pub struct FunctionSeries {
    /// Where it begins; the last that was met, since lines move from version to version.
    pub line: u32,
    /// As the innermost function of the holder.
    pub holding: Series,
    /// As the innermost function of one that waits.
    pub waiting: Series,
    /// Waiting of others while it held.
    pub inflicted: Series,
}

/// What a thread did.
#[derive(Clone, Debug)]
pub struct ThreadSeries {
    /// Its name.
    pub name: String,
    /// Nanoseconds per state.
    pub splits: [Split; STRETCHES],
}

/// The stretches of one window.
#[derive(Debug)]
pub struct Stretches {
    begin: u64,
    length: u64,
    /// By thread.
    pub threads: FxHashMap<ThreadId, ThreadSeries>,
    /// By name and file.
    pub functions: HashMap<(String, String), FunctionSeries>,
    /// Time that looks at GILs stand for, and the part in which one was held.
    pub observed: Series,
    /// See `observed`.
    pub busy: Series,
    keys: FxHashMap<usize, (Arc<Function>, (String, String))>,
}

impl Stretches {
    /// Of a window that begins then and lasts so long.
    pub fn of(begin: Nanos, seconds: f64) -> Stretches {
        let length = (seconds * 1e9 / STRETCHES as f64) as u64;
        Stretches {
            begin: begin.as_nanos(),
            length: length.max(1),
            threads: FxHashMap::default(),
            functions: HashMap::new(),
            observed: [0.0; STRETCHES],
            busy: [0.0; STRETCHES],
            keys: FxHashMap::default(),
        }
    }

    /// The length of one, in nanoseconds.
    pub fn length(&self) -> f64 {
        self.length as f64
    }

    /// In which one a time lies. Slices are short beside stretches: one counts where its middle is.
    fn index(&self, at: u64) -> usize {
        (at.saturating_sub(self.begin) / self.length).min(STRETCHES as u64 - 1) as usize
    }

    fn function(&mut self, function: &Arc<Function>) -> &mut FunctionSeries {
        if self.keys.len() > MOST_FUNCTIONS {
            self.keys.clear();
        }
        let make = || (Arc::clone(function), (function.name.clone(), function.file.clone()));
        let (_, key) = self.keys.entry(Arc::as_ptr(function) as usize).or_insert_with(make);
        let full = self.functions.len() >= MOST_FUNCTIONS && !self.functions.contains_key(key);
        let key = if full { ("(other functions)".into(), String::new()) } else { key.clone() };
        let series = self.functions.entry(key).or_default();
        series.line = function.first_line;
        series
    }
}

impl Sink for Stretches {
    fn thread(&mut self, facts: &ThreadFacts) {
        if let Some(thread) = self.threads.get_mut(&facts.id) {
            thread.name.clone_from(&facts.name);
        } else if self.threads.len() < MOST_THREADS {
            let series = ThreadSeries { name: facts.name.clone(), splits: [Split::default(); STRETCHES] };
            self.threads.insert(facts.id, series);
        }
    }

    fn slice(&mut self, slice: &Slice<'_>) {
        let (split, _) = super::sensible(&slice.split);
        let total = split.total();
        let index = self.index(slice.end.as_nanos().saturating_sub((total / 2.0) as u64));
        let other = || ThreadSeries { name: "(other threads)".into(), splits: [Split::default(); STRETCHES] };
        let row = if self.threads.contains_key(&slice.thread) { slice.thread } else { ThreadId(u32::MAX) };
        self.threads.entry(row).or_insert_with(other).splits[index].merge(&split);
        let (holding, waiting) = (split.holding(), split.get(State::Waiting));
        if let Some(leaf) = slice.stack.leaf().filter(|_| holding + waiting > 0.0) {
            let series = self.function(&leaf.function);
            series.holding[index] += holding;
            series.waiting[index] += waiting;
        }
        if let Some(leaf) = slice.holder.and_then(|(_, stack)| stack.leaf()).filter(|_| waiting > 0.0) {
            self.function(&leaf.function).inflicted[index] += waiting;
        }
    }

    fn gil(&mut self, look: &GilLook) {
        let index = self.index(look.at.as_nanos());
        let span = look.span.as_nanos() as f64;
        self.observed[index] += span;
        if look.holder != Holder::Nobody {
            self.busy[index] += span;
        }
    }

    fn thread_end(&mut self, _: ThreadId, _: ThreadTotals) {}
}
