//! Encodes what the capture side emits into records.
//!
//! | tag | record | holds |
//! |---|---|---|
//! | 0x80 and up | slice | tag bits as in [`mod@slice`]; state and evidence in a byte; the fields |
//! | 1 | GIL sample | GIL, bits, time, span, holder, switches, waiters |
//! | 2 | thread | its [`ThreadInfo`] |
//! | 3 | interval (kernel engine) | thread, GIL, kind, begin, length |
//! | 4 | thread end | its totals |
//! | 5, 6, 7 | string, function, frame | numbered from 0 (frames from 1: 0 is the empty stack) |
//! | 8 | reset | forgets all numbers of strings, functions and frames |
//! | 9 | capture info | target and statistics so far, as JSON: rare, and fields will be added |
//! | 10 | last | the recording is complete |
//!
//! A frame is the number of its outer frame, the number of its function, and its line. A stack is
//! the number of its leaf frame and its status. Times are differences to the previous time of the
//! same kind.

use super::bytes::{put, put_bytes, put_step};
use crate::ids::{GilId, ThreadId};
use crate::profile::intern::PointerCache;
use crate::sample::*;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

pub(super) const GIL: u8 = 1;
pub(super) const THREAD: u8 = 2;
pub(super) const INTERVAL: u8 = 3;
pub(super) const THREAD_END: u8 = 4;
pub(super) const STRING: u8 = 5;
pub(super) const FUNCTION: u8 = 6;
pub(super) const FRAME: u8 = 7;
pub(super) const RESET: u8 = 8;
pub(super) const CAPTURE_INFO: u8 = 9;
pub(super) const LAST: u8 = 10;

/// Bits of a slice's tag.
pub mod slice {
    /// Marks a slice.
    pub const SLICE: u8 = 0x80;
    /// The slice ends at the last GIL sample; else the difference to the last slice's end follows.
    pub const AT_SAMPLE: u8 = 0x01;
    /// The slice begins where the thread's last slice ended; else its length follows.
    pub const CONTIGUOUS: u8 = 0x02;
    /// The thread's last stack; else a stack follows.
    pub const SAME_STACK: u8 = 0x04;
    /// Another thread held the GIL.
    pub const WAITED_ON: u8 = 0x08;
    /// The last holder encoded, on the same stack; else a thread and a stack follow.
    pub const SAME_HOLDER: u8 = 0x10;
    /// In place of the state: several states; a bit for each and their times follow. Bit
    /// [`super::INVALID_TIME`] stands for invalid times.
    pub const MIXED: u8 = 0x0f;
}

/// Bits of a GIL sample.
pub mod gil_sample {
    /// The holder could not be matched with a thread.
    pub const UNMATCHED: u8 = 0x01;
    /// The holder follows.
    pub const HELD: u8 = 0x02;
    /// The count of GIL switches follows, as a difference.
    pub const SWITCHES: u8 = 0x04;
    /// It is known whether the garbage collector runs.
    pub const KNOWN: u8 = 0x08;
    /// The garbage collector runs.
    pub const COLLECTING: u8 = 0x10;
}

/// The bit of a slice's states that stands for invalid times.
pub const INVALID_TIME: usize = State::COUNT;

/// Bounds on the numbered frames, functions and bytes of strings; at a bound all numbers are reset.
pub(super) const MAX_FRAMES: usize = 1 << 18;
pub(super) const MAX_FUNCTIONS: usize = 1 << 17;
pub(super) const MAX_TEXT: usize = 16 << 20;
/// The deepest stack that is written and read, twice the depth that a sample reads. A deeper stack
/// keeps its innermost frames.
pub(super) const MAX_DEPTH: usize = 1 << 12;

/// All evidence, by number. The order is part of the format: append only.
pub(super) const EVIDENCE: [Evidence; 15] = [
    Evidence::GilHolder,
    Evidence::GilFutex,
    Evidence::GilRequested,
    Evidence::WokenNotRun,
    Evidence::KernelStack,
    Evidence::PushedOff,
    Evidence::Syscall,
    Evidence::NotRunSince,
    Evidence::SameHolder,
    Evidence::Conservation,
    Evidence::Stopped,
    Evidence::Unread,
    Evidence::HolderFault,
    Evidence::HolderLock,
    Evidence::SwitchCounts,
];
const UNREAD: usize = 11;

/// The target and the capture statistics, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CaptureInfo {
    pub target: TargetInfo,
    pub window: CaptureStats,
}

/// Encodes what a [`Sink`] receives into records.
#[derive(Debug)]
pub struct Encoder {
    out: Vec<u8>,
    tables: EncoderTables,
    threads: FxHashMap<ThreadId, (u64, u64)>,
    gils: FxHashMap<GilId, u64>,
    holder: (u32, u64),
    last_thread: u64,
    last_end: u64,
    last_sample: u64,
    last_span: u64,
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder {
            out: Vec::new(),
            tables: EncoderTables::default(),
            threads: FxHashMap::default(),
            gils: FxHashMap::default(),
            holder: (u32::MAX, u64::MAX),
            last_thread: 0,
            last_end: 0,
            last_sample: 0,
            last_span: 0,
        }
    }
}

impl Encoder {
    /// Takes the records so far. Numbers stay valid in the records that follow.
    pub fn take(&mut self) -> Vec<u8> {
        let next = Vec::with_capacity(self.out.len());
        std::mem::replace(&mut self.out, next)
    }

    /// Length of the pending records, in bytes.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether no records are pending.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Adds the target and the statistics so far; they replace earlier ones.
    pub fn capture_info(&mut self, target: &TargetInfo, window: &CaptureStats) {
        let info = CaptureInfo { target: target.clone(), window: window.clone() };
        if let Ok(json) = serde_json::to_vec(&info) {
            self.out.push(CAPTURE_INFO);
            put_bytes(&mut self.out, &json);
        }
    }

    /// Adds the record that completes the recording.
    pub fn last(&mut self) {
        self.out.push(LAST);
    }

    /// Resets all numbers when a table is full.
    fn reset_if_full(&mut self) {
        if self.tables.is_full() {
            self.out.push(RESET);
            self.tables = EncoderTables::default();
            // A stack that was "the same as before" has no number any more.
            self.threads.values_mut().for_each(|(_, stack)| *stack = u64::MAX);
            self.holder = (u32::MAX, u64::MAX);
        }
    }

    /// The number of a stack, which includes its status.
    fn stack(&mut self, stack: &Arc<Stack>) -> u64 {
        let status = match stack.status {
            StackStatus::Complete => 0,
            StackStatus::Torn => 1,
            StackStatus::Truncated => 2,
        };
        u64::from(self.tables.stack(stack, &mut self.out)) << 2 | status
    }
}

impl Sink for Encoder {
    fn thread(&mut self, info: &ThreadInfo) {
        self.out.push(THREAD);
        put(&mut self.out, info.id.0.into());
        put_step(&mut self.out, 0, info.tid.0 as u64);
        put_bytes(&mut self.out, info.name.as_bytes());
        self.out.push(u8::from(info.python) | u8::from(info.main) << 1);
        put(&mut self.out, info.gil.map_or(0, |gil| u64::from(gil.0) + 1));
    }

    fn slice(&mut self, event: &StateSlice<'_>) {
        self.reset_if_full();
        let stack = self.stack(event.stack);
        let waited_on = event.holder.map(|(id, stack)| (id.0, self.stack(stack)));
        let end = event.end.as_nanos();
        let total = event.times.total();
        let (last_end, last_stack) = self.threads.insert(event.thread, (end, stack)).unwrap_or((0, u64::MAX));
        let mut tag = slice::SLICE;
        let mut bit = |set: bool, bit: u8| {
            tag |= if set { bit } else { 0 };
            set
        };
        let at_sample = bit(end == self.last_sample, slice::AT_SAMPLE);
        let only = State::ALL.into_iter().position(|state| event.times.get(state) == total);
        let contiguous = bit(only.is_some() && end.checked_sub(last_end).is_some_and(|gap| gap as f64 == total), slice::CONTIGUOUS);
        let same_stack = bit(stack == last_stack, slice::SAME_STACK);
        bit(waited_on.is_some(), slice::WAITED_ON);
        let same_holder = waited_on.is_none_or(|waited_on| bit(waited_on == self.holder, slice::SAME_HOLDER));
        let out = &mut self.out;
        out.push(tag);
        let evidence = EVIDENCE.iter().position(|&e| e == event.evidence).unwrap_or(UNREAD) as u8;
        out.push(only.map_or(slice::MIXED, |state| state as u8) << 4 | evidence);
        // A difference, because consecutive slices tend to belong to consecutive threads, and equal
        // differences compress well.
        put_step(out, self.last_thread, event.thread.0.into());
        self.last_thread = event.thread.0.into();
        if !at_sample {
            put_step(out, self.last_end, end);
        }
        match only {
            Some(_) if contiguous => {}
            Some(_) => put(out, total as u64),
            None => mixed(out, &event.times),
        }
        if !same_stack {
            put(out, stack);
        }
        if let Some(waited_on) = waited_on.filter(|_| !same_holder) {
            put(out, waited_on.0.into());
            put(out, waited_on.1);
            self.holder = waited_on;
        }
        self.last_end = end;
    }

    fn gil(&mut self, event: &GilSample) {
        let out = &mut self.out;
        out.push(GIL);
        put(out, event.gil.0.into());
        let holder = match event.holder {
            Holder::Nobody => 0,
            Holder::Unmatched => gil_sample::UNMATCHED,
            Holder::Thread(_) => gil_sample::HELD,
        };
        let collecting = match event.collecting {
            None => 0,
            Some(false) => gil_sample::KNOWN,
            Some(true) => gil_sample::KNOWN | gil_sample::COLLECTING,
        };
        out.push(holder | collecting | if event.switches.is_some() { gil_sample::SWITCHES } else { 0 });
        let at = event.at.as_nanos();
        put_step(out, self.last_sample, at);
        put_step(out, self.last_span, event.span.as_nanos());
        if let Holder::Thread(id) = event.holder {
            put(out, id.0.into());
        }
        if let Some(switches) = event.switches {
            let last = self.gils.insert(event.gil, switches).unwrap_or(0);
            put_step(out, last, switches);
        }
        put(out, event.waiters.into());
        (self.last_sample, self.last_span) = (at, event.span.as_nanos());
    }

    fn interval(&mut self, event: &MeasuredInterval) {
        let out = &mut self.out;
        out.push(INTERVAL);
        put(out, event.thread.0.into());
        put(out, event.gil.0.into());
        out.push(event.kind as u8);
        put_step(out, self.last_sample, event.begin.as_nanos());
        put_step(out, event.begin.as_nanos(), event.end.as_nanos());
    }

    fn thread_end(&mut self, thread: ThreadId, totals: ThreadTotals) {
        self.threads.remove(&thread);
        self.out.push(THREAD_END);
        put(&mut self.out, thread.0.into());
        for time in [totals.cpu, totals.run_queue, totals.seen] {
            put(&mut self.out, time.as_nanos());
        }
    }
}

/// Writes several states, in whole nanoseconds.
fn mixed(out: &mut Vec<u8>, times: &StateTimes) {
    let is_valid = |nanos: f64| (0.0..=super::super::MAX_PART_NANOS).contains(&nanos);
    let present = |state: &State| is_valid(times.get(*state)) && times.get(*state) > 0.0;
    let invalid = State::ALL.iter().any(|&state| !is_valid(times.get(state)));
    let bits = State::ALL.iter().enumerate().filter(|(_, state)| present(state)).fold(0, |bits, (n, _)| bits | 1 << n);
    put(out, bits | u64::from(invalid) << INVALID_TIME);
    State::ALL.iter().filter(|state| present(state)).for_each(|&state| put(out, times.get(state) as u64));
}

/// The numbers of strings, functions and frames.
#[derive(Debug, Default)]
struct EncoderTables {
    stacks: PointerCache<Stack>,
    frames: FxHashMap<(u32, u32, u32), u32>,
    functions: PointerCache<Function>,
    by_content: HashMap<Arc<Function>, u32>,
    strings: HashMap<Box<str>, u32>,
    text: usize,
}

impl EncoderTables {
    fn is_full(&self) -> bool {
        self.frames.len() >= MAX_FRAMES || self.by_content.len() >= MAX_FUNCTIONS || self.text >= MAX_TEXT
    }

    fn stack(&mut self, stack: &Arc<Stack>, out: &mut Vec<u8>) -> u32 {
        if let Some(number) = self.stacks.get(stack) {
            return number;
        }
        let mut outer = 0;
        for frame in &stack.frames[stack.frames.len().saturating_sub(MAX_DEPTH)..] {
            let function = self.function(&frame.function, out);
            let next = self.frames.len() as u32 + 1;
            outer = *self.frames.entry((outer, function, frame.line)).or_insert_with_key(|&(outer, function, line)| {
                out.push(FRAME);
                [outer, function, line].into_iter().for_each(|n| put(out, n.into()));
                next
            });
        }
        self.stacks.put(stack, outer, stack.frames.len());
        outer
    }

    fn function(&mut self, function: &Arc<Function>, out: &mut Vec<u8>) -> u32 {
        if let Some(number) = self.functions.get(function) {
            return number;
        }
        let number = match self.by_content.get(function) {
            Some(&number) => number,
            None => {
                let (name, file) = (self.string(&function.name, out), self.string(&function.file, out));
                out.push(FUNCTION);
                [name, file, function.first_line].into_iter().for_each(|n| put(out, n.into()));
                let number = self.by_content.len() as u32;
                self.by_content.insert(Arc::clone(function), number);
                number
            }
        };
        self.functions.put(function, number, 1);
        number
    }

    fn string(&mut self, text: &str, out: &mut Vec<u8>) -> u32 {
        if let Some(&number) = self.strings.get(text) {
            return number;
        }
        out.push(STRING);
        put_bytes(out, text.as_bytes());
        self.text += text.len() + 64;
        let number = self.strings.len() as u32;
        self.strings.insert(text.into(), number);
        number
    }
}
