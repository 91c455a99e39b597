//! Hostile memory: built by hand, truncated, looped, or random. No reader may panic, loop or
//! allocate without a bound, and unreadable memory must not count as read.

use gilprof::ids::Addr;
use gilprof::process::c_library::CLibrary;
use gilprof::process::memory::{Memory, Part, ReadError};
use gilprof::process::replay::ReplayMemory;
use gilprof::python::frames::{FrameReader, MAX_DEPTH};
use gilprof::python::gil;
use gilprof::python::gil_waits::{FutexOwner, GilWaits};
use gilprof::python::interpreters::RuntimeState;
use gilprof::python::layout::debug_offsets::layout_from_target;
use gilprof::python::layout::{for_version, Anchor, Layout, LayoutTable, Minor};
use gilprof::python::stack::{Symbols, ThreadStack};
use gilprof::python::thread_names;
use gilprof::sample::{Stack, StackStatus};
use proptest::prelude::*;
use std::cell::Cell;
use std::sync::Arc;

fn layout(minor: u8) -> &'static Layout {
    match for_version(Minor(3, minor)) {
        Some(LayoutTable::Complete(layout)) => layout,
        _ => panic!("3.{minor} has no whole table"),
    }
}

const RUNTIME: Addr = Addr(0x10_000);
const TSTATE: Addr = Addr(0x30_000);
const FRAMES: u64 = 0x100_000;

fn page(len: usize) -> Vec<u8> {
    vec![0; len]
}

/// A thread of 3.8 with `depth` frames, the innermost first in memory. Each frame is on its own
/// page.
fn heap_frames(layout: &Layout, depth: u64) -> ReplayMemory {
    let Anchor::Direct(anchor) = layout.thread.anchor else { panic!("3.8 is direct") };
    let mut memory = ReplayMemory::new();
    memory.map(TSTATE, page(0x1000));
    memory.poke_u64(TSTATE.offset(anchor.offset() as u64), FRAMES);
    for i in 0..depth {
        let at = Addr(FRAMES + i * 0x1000);
        memory.map(at, page(0x1000));
        let back = if i + 1 == depth { 0 } else { at.0 + 0x1000 };
        memory.poke_u64(at.offset(layout.frame.back.offset() as u64), back);
        memory.poke_u64(at.offset(layout.frame.code.offset() as u64), 0x900_000 + i);
    }
    memory
}

#[test]
fn frames_are_read_to_the_root_or_the_bound() {
    let layout = layout(8);
    for (depth, frames, status) in [
        (1, 1, StackStatus::Complete),
        (3, 3, StackStatus::Complete),
        (1000, 1000, StackStatus::Complete),
        (MAX_DEPTH as u64 - 1, MAX_DEPTH - 1, StackStatus::Complete),
    ] {
        let memory = heap_frames(layout, depth);
        let mut reader = FrameReader::default();
        let stack = reader.read(&memory, layout, TSTATE, false).unwrap().clone();
        assert_eq!((stack.frames.len(), stack.status), (frames, status), "{depth} frames");
        // The second read uses the prefetch plan of the first.
        assert_eq!(*reader.read(&memory, layout, TSTATE, false).unwrap(), stack);
    }
}

#[test]
fn a_loop_of_frames_ends() {
    let layout = layout(8);
    let mut memory = heap_frames(layout, 4);
    memory.poke_u64(Addr(FRAMES + 3 * 0x1000 + layout.frame.back.offset() as u64), FRAMES);
    let stack = FrameReader::default().read(&memory, layout, TSTATE, false).unwrap().clone();
    assert_eq!((stack.frames.len(), stack.status), (MAX_DEPTH, StackStatus::Truncated));
    for layout in [11, 12].map(|minor| self::layout(minor).clone()).into_iter().chain(published()) {
        let memory = chunk_frames(&layout, 4);
        let stack = FrameReader::default().read(&memory, &layout, TSTATE, false).unwrap().clone();
        assert_eq!((stack.frames.len(), stack.status), (MAX_DEPTH, StackStatus::Truncated), "{:?}", layout.minor);
    }
}

/// The layouts of 3.13 and later, as real interpreters publish them.
fn published() -> impl Iterator<Item = Layout> {
    let dumps: [&[u8]; 3] = [
        include_bytes!("../dumps/debug-offsets-3.13.0.bin"),
        include_bytes!("../dumps/debug-offsets-3.14.10.bin"),
        include_bytes!("../dumps/debug-offsets-3.15.2.bin"),
    ];
    dumps.into_iter().map(|bytes| layout_from_target(bytes).unwrap().0)
}

/// A thread of 3.11 or later whose frames lie in one chunk and call each other in a circle.
fn chunk_frames(layout: &Layout, count: u64) -> ReplayMemory {
    const CFRAME: Addr = Addr(0x40_000);
    let data = layout.thread.datastack.unwrap();
    let frame = |n: u64| Addr(FRAMES + 0x100 * (n % count + 1));
    let mut memory = ReplayMemory::new();
    memory.map(TSTATE, page(0x1000)).map(CFRAME, page(0x100)).map(Addr(FRAMES), page(0x4000));
    let slot = match layout.thread.anchor {
        Anchor::Direct(field) => TSTATE.offset(field.offset() as u64),
        Anchor::CFrame(field, inner) => {
            memory.poke_u64(TSTATE.offset(field.offset() as u64), CFRAME.0);
            CFRAME.offset(inner.offset() as u64)
        }
    };
    memory.poke_u64(slot, frame(0).0);
    memory.poke_u64(TSTATE.offset(data.chunk.offset() as u64), FRAMES);
    memory.poke_u64(TSTATE.offset(data.top.offset() as u64), FRAMES + 0x2000);
    memory.poke_u64(Addr(FRAMES + data.chunk_size.offset() as u64), 0x4000);
    for n in 0..count {
        memory.poke_u64(frame(n).offset(layout.frame.back.offset() as u64), frame(n + 1).0);
        memory.poke_u64(frame(n).offset(layout.frame.code.offset() as u64), 0x900_000 + n * 8);
    }
    memory
}

#[test]
fn a_frame_that_cannot_be_read_makes_no_stack() {
    let layout = layout(8);
    let mut memory = heap_frames(layout, 4);
    memory.poke_u64(Addr(FRAMES + 0x1000 + layout.frame.back.offset() as u64), 0xdead_0000);
    let stack = FrameReader::default().read(&memory, layout, TSTATE, false).unwrap().clone();
    assert_eq!((stack.frames.len(), stack.status), (0, StackStatus::Torn));
}

/// Memory in which the caller of the first frame changes with every read: the target moves while it
/// is read.
struct Moving {
    memory: ReplayMemory,
    reads: Cell<u64>,
    slot: Addr,
    choices: [u64; 2],
}

impl Memory for Moving {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        self.memory.read(at, into)?;
        let offset = self.slot.0.wrapping_sub(at.0) as usize;
        if at.0 <= self.slot.0 && offset + 8 <= into.len() {
            let turn = self.reads.get();
            self.reads.set(turn + 1);
            into[offset..offset + 8].copy_from_slice(&self.choices[turn as usize % 2].to_le_bytes());
        }
        Ok(())
    }
}

#[test]
fn only_frames_on_which_two_copies_agree_are_reported() {
    let layout = layout(8);
    let memory = heap_frames(layout, 6);
    // The thread's innermost frame alternates between the first and the third: the roots agree, the
    // leaves do not.
    let Anchor::Direct(anchor) = layout.thread.anchor else { panic!("3.8 is direct") };
    let slot = TSTATE.offset(anchor.offset() as u64);
    let moving = Moving { memory, reads: Cell::new(0), slot, choices: [FRAMES, FRAMES + 2 * 0x1000] };
    let mut reader = FrameReader::default();
    for _ in 0..10 {
        let stack = reader.read(&moving, layout, TSTATE, false).unwrap();
        assert_eq!((stack.status, stack.frames.len()), (StackStatus::Torn, 4));
        assert_eq!(stack.frames[0].at, Addr(FRAMES + 2 * 0x1000));
    }
}

/// Interpreters and thread states of 3.8, linked as given.
fn lists(layout: &Layout, interpreters: &[u64], threads: &[u64]) -> ReplayMemory {
    let mut memory = ReplayMemory::new();
    memory.map(RUNTIME, page(0x2000));
    let link = |memory: &mut ReplayMemory, at: u64, offset: usize, to: u64| assert!(memory.poke_u64(Addr(at + offset as u64), to));
    link(&mut memory, RUNTIME.0, layout.runtime.interpreters_head.offset(), interpreters[0]);
    link(&mut memory, RUNTIME.0, layout.runtime.interpreters_main.offset(), interpreters[0]);
    for (i, &at) in interpreters.iter().enumerate() {
        memory.map(Addr(at), page(0x2000));
        link(&mut memory, at, layout.interpreter.next.offset(), interpreters.get(i + 1).copied().unwrap_or(0));
    }
    link(&mut memory, interpreters[0], layout.interpreter.threads_head.offset(), threads[0]);
    for (i, &at) in threads.iter().enumerate() {
        memory.map(Addr(at), page(0x1000));
        link(&mut memory, at, layout.thread.next.offset(), threads.get(i + 1).copied().unwrap_or(0));
        link(&mut memory, at, layout.thread.interp.offset(), interpreters[0]);
    }
    memory
}

#[test]
fn the_list_of_thread_states_is_walked_and_its_changes_are_noticed() {
    let layout = layout(8);
    let mut memory = lists(layout, &[0x50_000, 0x60_000], &[0x70_000, 0x80_000, 0x90_000]);
    let mut runtime_state = RuntimeState::default();
    runtime_state.walk(&memory, layout, RUNTIME).unwrap();
    assert_eq!((runtime_state.interpreters.len(), runtime_state.threads.len(), runtime_state.gils.len()), (2, 3, 1));
    assert_eq!(runtime_state.read(&memory, layout, RUNTIME, true), Ok(true));
    assert_eq!(runtime_state.read(&memory, layout, RUNTIME, false), Ok(true));
    // The last thread ends. The heads stay as they are; only the complete list shows it.
    memory.poke_u64(Addr(0x80_000 + layout.thread.next.offset() as u64), 0);
    assert_eq!(runtime_state.read(&memory, layout, RUNTIME, false), Ok(true));
    assert_eq!(runtime_state.read(&memory, layout, RUNTIME, true), Ok(false));
    // A thread is created, which changes the head. The rest of the list is that of the last
    // complete read.
    memory.map(Addr(0xa0_000), page(0x1000));
    memory.poke_u64(Addr(0xa0_000 + layout.thread.next.offset() as u64), 0x70_000);
    memory.poke_u64(Addr(0xa0_000 + layout.thread.interp.offset() as u64), 0x50_000);
    memory.poke_u64(Addr(0x50_000 + layout.interpreter.threads_head.offset() as u64), 0xa0_000);
    assert_eq!(runtime_state.read(&memory, layout, RUNTIME, false), Ok(false));
    runtime_state.follow(&memory, layout, RUNTIME).unwrap();
    assert_eq!(runtime_state.threads.iter().map(|t| t.at.0).collect::<Vec<_>>(), [0xa0_000, 0x70_000, 0x80_000]);
    assert_eq!(runtime_state.read(&memory, layout, RUNTIME, true), Ok(true));
    // An interpreter is created: everything is walked.
    let next = layout.interpreter.next.offset() as u64;
    memory.map(Addr(0x40_000), page(0x2000));
    memory.poke_u64(Addr(0x40_000 + next), 0x50_000);
    memory.poke_u64(RUNTIME.offset(layout.runtime.interpreters_head.offset() as u64), 0x40_000);
    assert_eq!(runtime_state.read(&memory, layout, RUNTIME, false), Ok(false));
    runtime_state.follow(&memory, layout, RUNTIME).unwrap();
    assert_eq!((runtime_state.read(&memory, layout, RUNTIME, true), runtime_state.interpreters.len()), (Ok(true), 3));
    assert_eq!(runtime_state.threads.len(), 3);
}

#[test]
fn a_thread_state_at_the_address_of_an_ended_one_is_noticed() {
    let layout = layout(11);
    let mut memory = lists(layout, &[0x50_000], &[0x70_000, 0x80_000]);
    let mut runtime_state = RuntimeState::default();
    runtime_state.walk(&memory, layout, RUNTIME).unwrap();
    assert_eq!(runtime_state.read(&memory, layout, RUNTIME, false), Ok(true));
    let id = layout.thread.native_thread_id.unwrap().offset() as u64;
    memory.poke_u64(Addr(0x70_000 + id), 4711);
    assert_eq!(runtime_state.read(&memory, layout, RUNTIME, false), Ok(false));
    runtime_state.follow(&memory, layout, RUNTIME).unwrap();
    assert_eq!(runtime_state.read(&memory, layout, RUNTIME, true), Ok(true));
    assert_eq!(runtime_state.threads[0].native_id, Some(4711));
}

#[test]
fn interpreters_that_cannot_be_read_leave_no_lists() {
    let layout = layout(8);
    let mut memory = lists(layout, &[0x50_000, 0x60_000], &[0x70_000, 0x80_000]);
    let mut runtime_state = RuntimeState::default();
    runtime_state.walk(&memory, layout, RUNTIME).unwrap();
    memory.map(Addr(0x60_000), Vec::new());
    for all in [false, true, false] {
        assert!(runtime_state.walk(&memory, layout, RUNTIME).is_err());
        assert_eq!((runtime_state.interpreters.len(), runtime_state.threads.len(), runtime_state.gils.len()), (0, 0, 0));
        assert_eq!(runtime_state.read(&memory, layout, RUNTIME, all), Ok(false));
        runtime_state.follow(&memory, layout, RUNTIME).unwrap();
    }
    memory.map(Addr(0x60_000), page(0x2000));
    runtime_state.follow(&memory, layout, RUNTIME).unwrap();
    assert_eq!((runtime_state.read(&memory, layout, RUNTIME, true), runtime_state.threads.len()), (Ok(true), 2));
}

/// Memory that counts its reads; a batch counts once.
struct Counting(ReplayMemory, Cell<usize>);

impl Memory for Counting {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        self.1.set(self.1.get() + 1);
        self.0.read(at, into)
    }
    fn read_batch(&self, parts: &mut [Part], into: &mut [u8]) -> Result<(), ReadError> {
        self.1.set(self.1.get() + 1);
        self.0.read_batch(parts, into)
    }
}

#[test]
fn the_exit_of_a_thread_among_many_takes_two_batches() {
    let layout = layout(8);
    let states: Vec<u64> = (0..2000).map(|n| 0x100_000 + n * 0x1000).collect();
    let mut memory = Counting(lists(layout, &[0x50_000], &states), Cell::new(0));
    let mut runtime_state = RuntimeState::default();
    runtime_state.walk(&memory, layout, RUNTIME).unwrap();
    let next = layout.thread.next.offset() as u64;
    for exited in [1000, 1500, 1999] {
        memory.0.poke_u64(Addr(states[exited - 1] + next), states.get(exited + 1).copied().unwrap_or(0));
        memory.1.set(0);
        assert_eq!(runtime_state.read(&memory, layout, RUNTIME, true), Ok(false));
        runtime_state.follow(&memory, layout, RUNTIME).unwrap();
        assert_eq!(runtime_state.read(&memory, layout, RUNTIME, true), Ok(true));
        assert_eq!(memory.1.get(), 2);
        assert!(!runtime_state.threads.iter().any(|thread| thread.at.0 == states[exited]));
    }
    assert_eq!(runtime_state.threads.len(), 1997);
    // A list that leads back into its known part ends.
    memory.0.poke_u64(Addr(states[1998] + next), states[0]);
    assert_eq!(runtime_state.read(&memory, layout, RUNTIME, true), Ok(false));
    runtime_state.follow(&memory, layout, RUNTIME).unwrap();
    assert_eq!(runtime_state.threads.len(), 1997);
}

#[test]
fn circular_lists_end() {
    let layout = layout(8);
    let mut memory = lists(layout, &[0x50_000, 0x60_000], &[0x70_000, 0x80_000]);
    memory.poke_u64(Addr(0x80_000 + layout.thread.next.offset() as u64), 0x70_000);
    memory.poke_u64(Addr(0x60_000 + layout.interpreter.next.offset() as u64), 0x50_000);
    let mut runtime_state = RuntimeState::default();
    runtime_state.walk(&memory, layout, RUNTIME).unwrap();
    assert_eq!((runtime_state.interpreters.len(), runtime_state.threads.len()), (2, 2));
}

#[test]
fn a_gil_with_impossible_values_is_refused() {
    let layout = &layout(11).gil;
    let mut bytes = page(layout.size as usize);
    assert_eq!(gil::parse(layout, &bytes), None, "an interval of 0");
    bytes[layout.interval.offset()..][..8].copy_from_slice(&5000u64.to_le_bytes());
    bytes[layout.last_holder.offset()..][..8].copy_from_slice(&TSTATE.0.to_le_bytes());
    bytes[layout.locked.offset()..][..4].copy_from_slice(&1i32.to_le_bytes());
    assert_eq!(gil::parse(layout, &bytes).unwrap().holder, Some(TSTATE));
    bytes[layout.locked.offset()..][..4].copy_from_slice(&0i32.to_le_bytes());
    assert_eq!(gil::parse(layout, &bytes).unwrap().holder, None, "last_holder is stale while nobody holds");
    for locked in [-1i32, 2, i32::MAX, i32::MIN] {
        bytes[layout.locked.offset()..][..4].copy_from_slice(&locked.to_le_bytes());
        assert_eq!(gil::parse(layout, &bytes), None, "locked is {locked}");
    }
    assert_eq!(gil::parse(layout, &bytes[..40]), None, "cut short");
}

#[test]
fn which_futexes_belong_to_the_gil() {
    let layout = &layout(11).gil;
    let (at, memory) = (Addr(0x1000), ReplayMemory::new());
    let owner = |futex| GilWaits::new(CLibrary::Glibc).owner(&memory, layout, &[(at, None)], futex);
    for (offset, wanted) in [(0, false), (24, false), (32, true), (79, true), (80, true), (120, true), (207, true), (208, false)] {
        let expected = if wanted { FutexOwner::Gil(at) } else { FutexOwner::Other };
        assert_eq!(owner(at.offset(offset)), expected, "+{offset}");
    }
    assert_eq!(owner(Addr(0xfff)), FutexOwner::Other);
}

/// Memory that answers every address with bytes derived from it, so that any pointer leads
/// somewhere.
#[derive(Clone, Copy)]
struct Noise {
    seed: u64,
    /// The number of reads of 256 that fail.
    holes: u64,
}

impl Noise {
    fn word(&self, at: u64) -> u64 {
        let mut x = (at / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.seed;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x ^= x >> 27;
        // Mostly small numbers, nulls and pointers: these get furthest into a parser.
        match x % 7 {
            0 => 0,
            1 => x >> 56,
            2 => x >> 40,
            3 => x,
            _ => (x >> 20) & !7,
        }
    }
}

impl Memory for Noise {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        if self.word(at.0 ^ 0x5555) % 256 < self.holes {
            return Err(ReadError::Unmapped { at, len: into.len() });
        }
        assert!(into.len() < 64 << 20, "{} bytes in one read", into.len());
        for (i, byte) in into.iter_mut().enumerate() {
            let at = at.0.wrapping_add(i as u64);
            *byte = (self.word(at & !7) >> (8 * (at & 7))) as u8;
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::support::cases(64), ..ProptestConfig::default() })]

    #[test]
    fn noise_neither_panics_nor_loops(seed in any::<u64>(), holes in 0u64..128, minor in 7u8..=12) {
        let (memory, layout) = (Noise { seed, holes }, layout(minor));
        let mut runtime_state = RuntimeState::default();
        if runtime_state.walk(&memory, layout, RUNTIME).is_ok() {
            let _ = runtime_state.read(&memory, layout, RUNTIME, true);
        }
        let mut symbols = Symbols::default();
        let mut stack = ThreadStack::new(&Arc::new(Stack::empty()));
        for turn in 0..3 {
            symbols.codes.begin_sample();
            stack.read(&memory, layout, &mut symbols, TSTATE.offset(turn * 8), turn == 1).unwrap();
            prop_assert!(stack.stack().frames.len() <= MAX_DEPTH);
        }
        thread_names::read(&memory, layout, Addr(0x50_000));
    }
}
