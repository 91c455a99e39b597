//! Interpreters and thread states, found by walking CPython's lists and then read in one batch per
//! sample.
//!
//! The lists may change while they are read. CPython inserts a new thread state at the head of its
//! list, so most samples read only the GILs and the heads. Now and then, and while some thread
//! state is not yet bound to its thread, every link is read and compared with the known lists.
//! Where a list of thread states differs, it is linked anew from what the batch has read, and only
//! thread states at unknown addresses are read singly. Where the interpreters differ, everything is
//! walked again. Every walk is bounded.

use super::gil;
use super::layout::Layout;
use crate::ids::Addr;
use crate::process::memory::{Memory, Part, ReadError};
use crate::sample::GilReading;
use std::collections::{HashMap, HashSet};

/// The largest number of interpreters.
const MAX_INTERPRETERS: usize = 256;
/// The largest number of thread states over all interpreters.
const MAX_THREAD_STATES: usize = 16_384;
/// The size of `gc.collecting`, an int.
const COLLECTING: usize = 4;
/// The largest memory for thread states: a layout that the target publishes may claim that a thread
/// state has 16 KiB.
const MAX_THREAD_BYTES: usize = 16 << 20;

/// One interpreter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterpreterState {
    /// Its `PyInterpreterState`.
    pub at: Addr,
    /// Its GIL, which several interpreters may share. Null while it is being made.
    pub gil: Addr,
    /// Whether the cyclic garbage collector runs; `None` where that is not known or could not be
    /// read.
    pub collecting: Option<bool>,
    /// Its first thread state.
    head: Addr,
    /// The next interpreter.
    next: Addr,
}

/// A thread state as last read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadState {
    /// Its `PyThreadState`.
    pub at: Addr,
    /// The index of its interpreter in [`RuntimeState::interpreters`].
    pub interpreter: usize,
    /// `pthread_self()` of its thread.
    pub pthread: u64,
    /// The kernel's thread id as the target itself sees it, 3.11+.
    pub native_id: Option<u64>,
    next: Addr,
    readable: bool,
}

/// All interpreters and thread states of a process.
#[derive(Debug, Default)]
pub struct RuntimeState {
    /// Newest first, as CPython links them.
    pub interpreters: Vec<InterpreterState>,
    /// Grouped by interpreter, newest first.
    pub threads: Vec<ThreadState>,
    /// The GILs, each once, with their last readings; the main interpreter's GIL first.
    pub gils: Vec<(Addr, Option<GilReading>)>,
    /// Whether the list of interpreters was walked to its end, so that no GIL is missing.
    pub complete: bool,
    /// The last batch showed other interpreters or other GILs, or could not read their links.
    interpreters_changed: bool,
    /// Changes whenever `threads` may have changed.
    generation: u64,
    /// The index into `threads` of each list's first, so that a sample touches no others.
    firsts: Vec<usize>,
    /// The indices into `threads` that the last batch read.
    selected: Vec<usize>,
    parts: Vec<Part>,
    bytes: Vec<u8>,
    /// How many of the last batch's parts and bytes were not the caller's.
    own_len: (usize, usize),
}

impl RuntimeState {
    /// Walks the lists from `_PyRuntime`. Empty when there is no interpreter (not yet, or no
    /// longer), and when the list of interpreters could not be read.
    pub fn walk(&mut self, mem: &dyn Memory, layout: &Layout, runtime: Addr) -> Result<(), ReadError> {
        self.interpreters.clear();
        self.threads.clear();
        self.gils.clear();
        self.complete = false;
        self.threads_changed();
        let main = mem.read_ptr(runtime.offset(layout.runtime.interpreters_main.offset() as u64))?;
        let mut at = mem.read_ptr(runtime.offset(layout.runtime.interpreters_head.offset() as u64))?;
        let mut interpreters: Vec<InterpreterState> = Vec::new();
        while !at.is_null() && interpreters.len() < MAX_INTERPRETERS && !interpreters.iter().any(|i| i.at == at) {
            let interpreter = InterpreterState {
                at,
                gil: gil_of(mem, layout, runtime, at)?,
                collecting: None,
                head: mem.read_ptr(at.offset(layout.interpreter.threads_head.offset() as u64))?,
                next: mem.read_ptr(at.offset(layout.interpreter.next.offset() as u64))?,
            };
            at = interpreter.next;
            interpreters.push(interpreter);
        }
        self.complete = at.is_null();
        self.interpreters = interpreters;
        self.link_threads(mem, layout, HashMap::new());
        let mut gils: Vec<&InterpreterState> = self.interpreters.iter().filter(|i| !i.gil.is_null()).collect();
        gils.sort_by_key(|i| i.at != main);
        for interpreter in gils {
            if !self.gils.iter().any(|(at, _)| *at == interpreter.gil) {
                self.gils.push((interpreter.gil, None));
            }
        }
        Ok(())
    }

    /// A number that changes whenever `threads` may have changed.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn threads_changed(&mut self) {
        self.generation += 1;
        let first = |i: usize| i == 0 || self.threads[i - 1].interpreter != self.threads[i].interpreter;
        self.firsts.clear();
        self.firsts.extend((0..self.threads.len()).filter(|&i| first(i)));
    }

    /// Follows the changes that the last batch showed. After a batch without `all`, whether the
    /// links between known thread states are unchanged is for the next batch with `all` to find. An
    /// error if the process as a whole cannot be read.
    pub fn follow(&mut self, mem: &dyn Memory, layout: &Layout, runtime: Addr) -> Result<(), ReadError> {
        if self.interpreters.is_empty() || self.interpreters_changed {
            return match self.walk(mem, layout, runtime) {
                Err(ReadError::Unmapped { .. }) => Ok(()),
                walked => walked,
            };
        }
        let heads = BatchOffsets::new(self, layout, 0, false).heads;
        for index in 0..self.interpreters.len() {
            if let Some(head) = self.pointer(heads + index * 8) {
                self.interpreters[index].head = head;
            }
        }
        let known = self.threads.drain(..).filter(|thread| thread.readable).map(|thread| (thread.at, thread)).collect();
        self.link_threads(mem, layout, known);
        Ok(())
    }

    /// Makes the lists of thread states from the interpreters' heads. `known`: thread states that
    /// need not be read again.
    fn link_threads(&mut self, mem: &dyn Memory, layout: &Layout, mut known: HashMap<Addr, ThreadState>) {
        self.threads.clear();
        for index in 0..self.interpreters.len() {
            self.link_list(mem, layout, index, &mut known);
        }
        self.threads_changed();
    }

    /// Follows one interpreter's list. It ends at the first link that cannot be read or leads back;
    /// the threads before it still count.
    fn link_list(&mut self, mem: &dyn Memory, layout: &Layout, interpreter: usize, known: &mut HashMap<Addr, ThreadState>) {
        let mut at = self.interpreters[interpreter].head;
        let mut bytes = vec![0; layout.thread.size as usize];
        let mut linked = HashSet::new();
        while !at.is_null() && self.threads.len() < max_threads(layout) && linked.insert(at) {
            let thread = known.remove(&at).filter(|thread| thread.interpreter == interpreter).or_else(|| {
                mem.read(at, &mut bytes).ok()?;
                let is_listed = layout.thread.interp.read_from(&bytes) == Some(self.interpreters[interpreter].at);
                parse_thread(layout, at, interpreter, &bytes).filter(|_| is_listed)
            });
            let Some(thread) = thread else { break };
            at = thread.next;
            self.threads.push(thread);
        }
    }

    /// Reads, in one batch, the GILs and the list heads with the first thread state of each list,
    /// or everything known if `all` is set. `Ok(false)`: some link, or the thread of a first thread
    /// state, has changed, so the lists should be followed again. What a batch with `all` read is
    /// stored in either case.
    pub fn read(&mut self, mem: &dyn Memory, layout: &Layout, runtime: Addr, all: bool) -> Result<bool, ReadError> {
        self.read_with_prefetch(mem, layout, runtime, all, &[])
    }

    /// As [`RuntimeState::read`], with the caller's parts at the end of the batch;
    /// [`RuntimeState::prefetched`] returns their bytes.
    pub fn read_with_prefetch(
        &mut self,
        mem: &dyn Memory,
        layout: &Layout,
        runtime: Addr,
        all: bool,
        extra: &[Part],
    ) -> Result<bool, ReadError> {
        self.selected.clear();
        if all {
            self.selected.extend(0..self.threads.len());
        } else {
            // A new thread state is inserted first, and may reuse the address of an exited one that
            // was first.
            self.selected.extend_from_slice(&self.firsts);
        }
        let offsets = BatchOffsets::new(self, layout, self.selected.len(), all);
        self.bytes.resize(offsets.end + extra.iter().map(|part| part.len).sum::<usize>(), 0);
        let mut parts = std::mem::take(&mut self.parts);
        parts.clear();
        // The GILs first: the threads' states are classified by the holder at that moment.
        parts.extend(self.gils.iter().map(|gil| Part::new(gil.0, layout.gil.size as usize)));
        parts.extend(self.interpreters.iter().map(|i| Part::new(i.at.offset(layout.interpreter.threads_head.offset() as u64), 8)));
        parts.extend(self.interpreters.iter().filter_map(|i| Some(Part::new(collecting_at(layout, runtime, i.at)?, COLLECTING))));
        parts.extend(self.selected.iter().map(|&i| Part::new(self.threads[i].at, layout.thread.size as usize)));
        parts.push(Part::new(runtime.offset(layout.runtime.interpreters_head.offset() as u64), 8));
        if all {
            for interpreter in &self.interpreters {
                parts.push(Part::new(interpreter.at.offset(layout.interpreter.next.offset() as u64), 8));
                parts.extend(layout.interpreter.gil.map(|field| Part::new(interpreter.at.offset(field.offset() as u64), 8)));
            }
        }
        self.own_len = (parts.len(), offsets.end);
        parts.extend(extra);
        let read = mem.read_batch(&mut parts, &mut self.bytes).map(|()| self.parse(layout, &offsets, &parts[..self.own_len.0], all));
        self.parts = parts;
        read
    }

    /// The caller's parts of the last batch, with their bytes.
    pub fn prefetched(&self) -> (&[Part], &[u8]) {
        let (parts, bytes) = self.own_len;
        (self.parts.get(parts..).unwrap_or_default(), self.bytes.get(bytes..).unwrap_or_default())
    }

    /// Stores the bytes of a batch; see [`RuntimeState::read`].
    fn parse(&mut self, layout: &Layout, offsets: &BatchOffsets, parts: &[Part], all: bool) -> bool {
        let (gils, rest) = parts.split_at(self.gils.len());
        let (heads, rest) = rest.split_at(self.interpreters.len());
        let (collecting, rest) = rest.split_at(collecting_flags(layout, self.interpreters.len()));
        let (threads, links) = rest.split_at(self.selected.len());
        let all_read = |parts: &[Part]| parts.iter().all(|part| part.ok);
        self.parse_gils(layout, gils);
        for (n, part) in collecting.iter().enumerate() {
            let flag = crate::process::pod::at::<i32>(&self.bytes, offsets.collecting + n * COLLECTING);
            self.interpreters[n].collecting = flag.filter(|_| part.ok).map(|flag| flag != 0);
        }
        let threads_same = self.parse_threads(layout, offsets, threads);
        let first = self.interpreters.first().map(|i| i.at);
        let links_read = all_read(heads) && all_read(links) && first.is_some();
        self.interpreters_changed =
            !links_read || self.pointer(offsets.links) != first || all && !self.interpreters_unchanged(layout, offsets);
        let heads_same = self.interpreters.iter().enumerate().all(|(i, it)| self.pointer(offsets.heads + i * 8) == Some(it.head));
        !self.interpreters_changed && heads_same && if all { self.lists_unchanged(layout) } else { threads_same }
    }

    fn parse_gils(&mut self, layout: &Layout, parts: &[Part]) {
        for ((gil, bytes), part) in self.gils.iter_mut().zip(self.bytes.chunks(layout.gil.size as usize)).zip(parts) {
            gil.1 = part.ok.then(|| gil::parse(&layout.gil, bytes)).flatten();
        }
    }

    /// Stores the thread states of a batch. Returns whether all were read and are as before.
    fn parse_threads(&mut self, layout: &Layout, offsets: &BatchOffsets, parts: &[Part]) -> bool {
        let bytes = self.bytes[offsets.threads..].chunks(layout.thread.size as usize);
        let mut same = true;
        for ((&index, bytes), part) in self.selected.iter().zip(bytes).zip(parts) {
            let thread = &mut self.threads[index];
            let new = parse_thread(layout, thread.at, thread.interpreter, bytes).filter(|_| part.ok);
            thread.readable = new.is_some();
            same &= new.as_ref() == Some(thread);
            if let Some(new) = new.filter(|new| new != thread) {
                *thread = new;
                self.generation += 1;
            }
        }
        same
    }

    fn pointer(&self, at: usize) -> Option<Addr> {
        crate::process::pod::at::<Addr>(&self.bytes, at)
    }

    /// Whether the links of the interpreters, just read, and their GILs agree with the known ones.
    fn interpreters_unchanged(&self, layout: &Layout, offsets: &BatchOffsets) -> bool {
        let mut expected = self.interpreters.first().map(|i| i.at);
        for (index, interpreter) in self.interpreters.iter().enumerate() {
            let at = offsets.links + 8 + index * offsets.link;
            let gil_same = layout.interpreter.gil.is_none() || self.pointer(at + 8) == Some(interpreter.gil);
            if expected != Some(interpreter.at) || !gil_same {
                return false;
            }
            expected = self.pointer(at);
        }
        expected == Some(Addr(0)) || self.interpreters.len() == MAX_INTERPRETERS
    }

    /// Whether the links of the thread states, just read, agree with the known lists.
    fn lists_unchanged(&self, layout: &Layout) -> bool {
        let mut threads = self.threads.iter().peekable();
        self.interpreters.iter().enumerate().all(|(index, interpreter)| {
            let mut next = interpreter.head;
            while let Some(thread) = threads.next_if(|thread| thread.interpreter == index) {
                if !thread.readable || thread.at != next {
                    return false;
                }
                next = thread.next;
            }
            next.is_null() || self.threads.len() >= max_threads(layout)
        })
    }

    /// Whether some GIL names this thread state as its holder.
    pub fn is_holder(&self, tstate: Addr) -> bool {
        self.gils.iter().any(|(_, reading)| reading.is_some_and(|r| r.holder == Some(tstate)))
    }

    /// Whether garbage is being collected under a GIL, that is, in some interpreter that uses it.
    pub fn is_collecting(&self, gil: Addr) -> Option<bool> {
        let its = self.interpreters.iter().filter(|i| i.gil == gil);
        its.map(|i| i.collecting).reduce(|a, b| Some(a? || b?)).flatten()
    }

    /// Restores earlier readings of the same GILs, where there are any.
    pub fn restore_readings(&mut self, previous: &[(Addr, Option<GilReading>)]) {
        for (gil, previous) in self.gils.iter_mut().zip(previous) {
            if gil.0 == previous.0 && previous.1.is_some() {
                *gil = *previous;
            }
        }
    }
}

/// Offsets into `bytes`: the GILs are at 0, then these.
struct BatchOffsets {
    heads: usize,
    collecting: usize,
    threads: usize,
    links: usize,
    /// The size of one interpreter's links.
    link: usize,
    end: usize,
}

impl BatchOffsets {
    fn new(runtime_state: &RuntimeState, layout: &Layout, threads_read: usize, all: bool) -> BatchOffsets {
        let heads = runtime_state.gils.len() * layout.gil.size as usize;
        let collecting = heads + runtime_state.interpreters.len() * 8;
        let threads = collecting + collecting_flags(layout, runtime_state.interpreters.len()) * COLLECTING;
        let links = threads + threads_read * layout.thread.size as usize;
        let link = if layout.interpreter.gil.is_some() { 16 } else { 8 };
        BatchOffsets {
            heads,
            collecting,
            threads,
            links,
            link,
            end: links + 8 + if all { runtime_state.interpreters.len() * link } else { 0 },
        }
    }
}

/// The largest number of thread states for this layout.
fn max_threads(layout: &Layout) -> usize {
    MAX_THREAD_STATES.min(MAX_THREAD_BYTES / (layout.thread.size as usize).max(1))
}

/// Where `gc.collecting` of an interpreter is.
fn collecting_at(layout: &Layout, runtime: Addr, interpreter: Addr) -> Option<Addr> {
    let of_runtime = || Some(runtime.offset(layout.runtime.gc_collecting?.offset() as u64));
    layout.interpreter.gc_collecting.map(|field| interpreter.offset(field.offset() as u64)).or_else(of_runtime)
}

/// How many such flags a batch reads.
fn collecting_flags(layout: &Layout, interpreters: usize) -> usize {
    if layout.interpreter.gc_collecting.or(layout.runtime.gc_collecting).is_some() {
        interpreters
    } else {
        0
    }
}

fn gil_of(mem: &dyn Memory, layout: &Layout, runtime: Addr, interpreter: Addr) -> Result<Addr, ReadError> {
    match (layout.interpreter.gil, layout.runtime.gil) {
        (Some(field), _) => mem.read_ptr(interpreter.offset(field.offset() as u64)),
        (None, Some(offset)) => Ok(runtime.offset(u64::from(offset))),
        (None, None) => Ok(Addr(0)),
    }
}

fn parse_thread(layout: &Layout, at: Addr, interpreter: usize, bytes: &[u8]) -> Option<ThreadState> {
    let thread = &layout.thread;
    Some(ThreadState {
        at,
        interpreter,
        pthread: thread.thread_id.read_from(bytes)?,
        native_id: match thread.native_thread_id {
            Some(field) => Some(field.read_from(bytes)?),
            None => None,
        },
        next: thread.next.read_from(bytes)?,
        readable: true,
    })
}
