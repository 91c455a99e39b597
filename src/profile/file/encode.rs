//! What the capture side tells, as records.
//!
//! | tag | record | holds |
//! |---|---|---|
//! | 0x80 and up | slice | the low bits say what follows, see [`slice`]; state and evidence in a byte |
//! | 1 | GIL look | which, bits, time, span, holder, switches, waiters |
//! | 2 | thread | its facts |
//! | 3 | exact stretch | thread, GIL, kind, begin, length |
//! | 4 | thread's end | its totals |
//! | 5, 6, 7 | string, function, frame | told once, then by number, from 0 (frames from 1: 0 is the empty stack) |
//! | 8 | anew | all numbers of strings, functions and frames are forgotten |
//! | 9 | facts | target and window so far, as JSON: there are few, and fields will be added |
//! | 10 | the last | the measuring ended by itself |
//!
//! A frame is its outer frame's number, its function's and its line: a stack is the number of its innermost frame and how far it can be
//! relied on. Times are steps from the last one of their kind.

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
pub(super) const EXACT: u8 = 3;
pub(super) const THREAD_END: u8 = 4;
pub(super) const STRING: u8 = 5;
pub(super) const FUNCTION: u8 = 6;
pub(super) const FRAME: u8 = 7;
pub(super) const ANEW: u8 = 8;
pub(super) const FACTS: u8 = 9;
pub(super) const LAST: u8 = 10;

/// Bits of a slice's tag.
pub mod slice {
    /// A slice at all.
    pub const SLICE: u8 = 0x80;
    /// It ends at the last look at a GIL; else the step from the last slice's end follows.
    pub const AT_LOOK: u8 = 0x01;
    /// It begins where the thread's last one ended; else its length follows.
    pub const GOES_ON: u8 = 0x02;
    /// The thread's last stack; else a stack follows.
    pub const SAME_STACK: u8 = 0x04;
    /// Somebody else held.
    pub const BEHIND: u8 = 0x08;
    /// The last holder that was told of, on the last stack; else a thread and a stack follow.
    pub const SAME_HOLDER: u8 = 0x10;
    /// In the place of the only state: several, a bit each and their times follow. Bit [`super::SENSELESS`]: parts that are no time.
    pub const MIXED: u8 = 0x0f;
}

/// Bits of a GIL look.
pub mod look {
    /// Somebody holds it who is no known thread.
    pub const UNMATCHED: u8 = 0x01;
    /// A thread holds it, which follows.
    pub const HELD: u8 = 0x02;
    /// The count of switches follows, as a step.
    pub const SWITCHES: u8 = 0x04;
    /// Whether the collector works is known.
    pub const KNOWN: u8 = 0x08;
    /// It does.
    pub const COLLECTING: u8 = 0x10;
}

/// The bit of a slice's states for time that is none.
pub const SENSELESS: usize = State::COUNT;

/// How many frames, functions and bytes of strings are kept before all begins anew.
pub(super) const MOST_FRAMES: usize = 1 << 18;
pub(super) const MOST_FUNCTIONS: usize = 1 << 17;
pub(super) const MOST_TEXT: usize = 16 << 20;
/// The deepest stack that is written and read; twice what a look reads. Of a deeper one the innermost frames are kept.
pub(super) const DEEPEST: usize = 1 << 12;

/// All evidence, by number. Only ever added to.
pub(super) const EVIDENCE: [Evidence; 12] = [
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
];

/// What is known of the whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Facts {
    pub target: TargetFacts,
    pub window: WindowFacts,
}

/// Turns what it is told into records.
#[derive(Debug)]
pub struct Encoder {
    out: Vec<u8>,
    names: Names,
    threads: FxHashMap<ThreadId, (u64, u64)>,
    gils: FxHashMap<GilId, u64>,
    holder: (u32, u64),
    last_thread: u64,
    last_end: u64,
    last_look: u64,
    last_span: u64,
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder {
            out: Vec::new(),
            names: Names::default(),
            threads: FxHashMap::default(),
            gils: FxHashMap::default(),
            holder: (u32::MAX, u64::MAX),
            last_thread: 0,
            last_end: 0,
            last_look: 0,
            last_span: 0,
        }
    }
}

impl Encoder {
    /// The records so far; they go on in what is taken next.
    pub fn take(&mut self) -> Vec<u8> {
        let next = Vec::with_capacity(self.out.len());
        std::mem::replace(&mut self.out, next)
    }

    /// Their length in bytes.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// What is known of the whole by now; replaces what was said before.
    pub fn facts(&mut self, target: &TargetFacts, window: &WindowFacts) {
        let facts = Facts { target: target.clone(), window: window.clone() };
        if let Ok(json) = serde_json::to_vec(&facts) {
            self.out.push(FACTS);
            put_bytes(&mut self.out, &json);
        }
    }

    /// Nothing more will come.
    pub fn last(&mut self) {
        self.out.push(LAST);
    }

    /// Forgets all names when there are too many.
    fn bound(&mut self) {
        if self.names.is_full() {
            self.out.push(ANEW);
            self.names = Names::default();
            // What was said to be the same as before has no number any more.
            self.threads.values_mut().for_each(|(_, stack)| *stack = u64::MAX);
            self.holder = (u32::MAX, u64::MAX);
        }
    }

    /// The number of a stack with its trust.
    fn stack(&mut self, stack: &Arc<Stack>) -> u64 {
        let trust = match stack.trust {
            Trust::Whole => 0,
            Trust::Moving => 1,
            Trust::Cut => 2,
        };
        u64::from(self.names.stack(stack, &mut self.out)) << 2 | trust
    }
}

impl Sink for Encoder {
    fn thread(&mut self, facts: &ThreadFacts) {
        self.out.push(THREAD);
        put(&mut self.out, facts.id.0.into());
        put_step(&mut self.out, 0, facts.tid.0 as u64);
        put_bytes(&mut self.out, facts.name.as_bytes());
        self.out.push(u8::from(facts.python) | u8::from(facts.main) << 1);
        put(&mut self.out, facts.gil.map_or(0, |gil| u64::from(gil.0) + 1));
    }

    fn slice(&mut self, told: &Slice<'_>) {
        self.bound();
        let stack = self.stack(told.stack);
        let behind = told.holder.map(|(id, stack)| (id.0, self.stack(stack)));
        let end = told.end.as_nanos();
        let total = told.split.total();
        let (last_end, last_stack) = self.threads.insert(told.thread, (end, stack)).unwrap_or((0, u64::MAX));
        let mut tag = slice::SLICE;
        let mut bit = |set: bool, bit: u8| {
            tag |= if set { bit } else { 0 };
            set
        };
        let at_look = bit(end == self.last_look, slice::AT_LOOK);
        let only = State::ALL.into_iter().position(|state| told.split.get(state) == total);
        let goes_on = bit(only.is_some() && end.checked_sub(last_end).is_some_and(|gap| gap as f64 == total), slice::GOES_ON);
        let same_stack = bit(stack == last_stack, slice::SAME_STACK);
        bit(behind.is_some(), slice::BEHIND);
        let same_holder = behind.is_none_or(|behind| bit(behind == self.holder, slice::SAME_HOLDER));
        let out = &mut self.out;
        out.push(tag);
        let evidence = EVIDENCE.iter().position(|&e| e == told.evidence).unwrap_or(EVIDENCE.len() - 1) as u8;
        out.push(only.map_or(slice::MIXED, |state| state as u8) << 4 | evidence);
        // A step: threads that wait are told of one after another, and such records pack well when they are alike.
        put_step(out, self.last_thread, told.thread.0.into());
        self.last_thread = told.thread.0.into();
        if !at_look {
            put_step(out, self.last_end, end);
        }
        match only {
            Some(_) if goes_on => {}
            Some(_) => put(out, total as u64),
            None => mixed(out, &told.split),
        }
        if !same_stack {
            put(out, stack);
        }
        if let Some(behind) = behind.filter(|_| !same_holder) {
            put(out, behind.0.into());
            put(out, behind.1);
            self.holder = behind;
        }
        self.last_end = end;
    }

    fn gil(&mut self, told: &GilLook) {
        let out = &mut self.out;
        out.push(GIL);
        put(out, told.gil.0.into());
        let holder = match told.holder {
            Holder::Nobody => 0,
            Holder::Unmatched => look::UNMATCHED,
            Holder::Thread(_) => look::HELD,
        };
        let collecting = match told.collecting {
            None => 0,
            Some(false) => look::KNOWN,
            Some(true) => look::KNOWN | look::COLLECTING,
        };
        out.push(holder | collecting | if told.switches.is_some() { look::SWITCHES } else { 0 });
        let at = told.at.as_nanos();
        put_step(out, self.last_look, at);
        put_step(out, self.last_span, told.span.as_nanos());
        if let Holder::Thread(id) = told.holder {
            put(out, id.0.into());
        }
        if let Some(switches) = told.switches {
            let last = self.gils.insert(told.gil, switches).unwrap_or(0);
            put_step(out, last, switches);
        }
        put(out, told.waiters.into());
        (self.last_look, self.last_span) = (at, told.span.as_nanos());
    }

    fn exact(&mut self, told: &Exact) {
        let out = &mut self.out;
        out.push(EXACT);
        put(out, told.thread.0.into());
        put(out, told.gil.0.into());
        out.push(told.stretch as u8);
        put_step(out, self.last_look, told.begin.as_nanos());
        put_step(out, told.begin.as_nanos(), told.end.as_nanos());
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

/// Several states, in whole nanoseconds.
fn mixed(out: &mut Vec<u8>, split: &Split) {
    let is_time = |nanos: f64| (0.0..=super::super::LONGEST).contains(&nanos);
    let present = |state: &State| is_time(split.get(*state)) && split.get(*state) > 0.0;
    let senseless = State::ALL.iter().any(|&state| !is_time(split.get(state)));
    let bits = State::ALL.iter().enumerate().filter(|(_, state)| present(state)).fold(0, |bits, (n, _)| bits | 1 << n);
    put(out, bits | u64::from(senseless) << SENSELESS);
    State::ALL.iter().filter(|state| present(state)).for_each(|&state| put(out, split.get(state) as u64));
}

/// Strings, functions and frames that have a number.
#[derive(Debug, Default)]
struct Names {
    stacks: PointerCache<Stack>,
    frames: FxHashMap<(u32, u32, u32), u32>,
    functions: PointerCache<Function>,
    by_content: HashMap<Arc<Function>, u32>,
    strings: HashMap<Box<str>, u32>,
    text: usize,
}

impl Names {
    fn is_full(&self) -> bool {
        self.frames.len() >= MOST_FRAMES || self.by_content.len() >= MOST_FUNCTIONS || self.text >= MOST_TEXT
    }

    fn stack(&mut self, stack: &Arc<Stack>, out: &mut Vec<u8>) -> u32 {
        if let Some(number) = self.stacks.get(stack) {
            return number;
        }
        let mut outer = 0;
        for frame in &stack.frames[stack.frames.len().saturating_sub(DEEPEST)..] {
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
