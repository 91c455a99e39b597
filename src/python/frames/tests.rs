//! Frames that change while they are read, one change at a time.

use super::*;
use crate::process::replay::ReplayMemory;
use crate::python::layout::{for_version, LayoutTable, Minor, Position};
use std::cell::Cell;

const TSTATE: Addr = Addr(0x30_000);
const FRAMES: u64 = 0x100_000;
const STEP: u64 = 0x1000;

fn layout() -> &'static Layout {
    match for_version(Minor(3, 8)) {
        Some(LayoutTable::Complete(layout)) => layout,
        _ => panic!("3.8 has a complete table"),
    }
}

/// The address of a frame; the innermost is 0.
fn frame(n: u64) -> Addr {
    Addr(FRAMES + n * STEP)
}

fn back() -> u64 {
    layout().frame.back.offset() as u64
}

fn code() -> u64 {
    layout().frame.code.offset() as u64
}

fn position() -> u64 {
    let (Position::LastByte(field) | Position::LastUnit(field)) = layout().frame.position else { panic!("3.8 counts") };
    field.offset() as u64
}

/// A thread of 3.8 with six frames, in which the bytes at `slot` are one of the `choices`, the next
/// one at each read.
struct Moving {
    memory: ReplayMemory,
    slot: Addr,
    choices: Vec<u64>,
    reads: Cell<usize>,
}

impl Moving {
    fn new(slot: Addr, choices: &[u64]) -> Moving {
        let Anchor::Direct(anchor) = layout().thread.anchor else { panic!("3.8 is direct") };
        let mut memory = ReplayMemory::new();
        memory.map(TSTATE, vec![0; STEP as usize]);
        memory.poke_u64(TSTATE.offset(anchor.offset() as u64), FRAMES);
        for n in 0..6 {
            memory.map(frame(n), vec![0; STEP as usize]);
            memory.poke_u64(frame(n).offset(back()), if n == 5 { 0 } else { frame(n + 1).0 });
            memory.poke_u64(frame(n).offset(code()), 0x900_000 + n);
        }
        Moving { memory, slot, choices: choices.to_vec(), reads: Cell::new(0) }
    }

    fn stack(&self, reader: &mut FrameReader) -> (usize, StackStatus) {
        let stack = reader.read(self, layout(), TSTATE, false).unwrap();
        let at_root = stack.frames.last().is_none_or(|last| last.at == frame(5));
        assert!(at_root || stack.status == StackStatus::Truncated, "the stack ends at the root or is marked as truncated");
        (stack.frames.len(), stack.status)
    }
}

impl Memory for Moving {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        self.memory.read(at, into)?;
        let offset = self.slot.0.wrapping_sub(at.0) as usize;
        if let Some(place) = into.get_mut(offset..).filter(|place| place.len() >= 4) {
            let read = self.reads.replace(self.reads.get() + 1);
            let choice = self.choices[read % self.choices.len()].to_le_bytes();
            let len = place.len().min(8);
            place[..len].copy_from_slice(&choice[..len]);
        }
        Ok(())
    }
}

#[test]
fn an_unchanged_stack_is_complete() {
    let memory = Moving::new(frame(9), &[0]);
    let mut reader = FrameReader::default();
    assert_eq!(memory.stack(&mut reader), (6, StackStatus::Complete));
    assert_eq!(memory.stack(&mut reader), (6, StackStatus::Complete));
}

#[test]
fn the_leaf_may_advance() {
    let memory = Moving::new(frame(0).offset(position()), &[2, 4]);
    assert_eq!(memory.stack(&mut FrameReader::default()), (6, StackStatus::Complete));
}

#[test]
fn frames_above_an_advanced_caller_are_dropped() {
    let memory = Moving::new(frame(2).offset(position()), &[2, 4]);
    let mut reader = FrameReader::default();
    for _ in 0..5 {
        assert_eq!(memory.stack(&mut reader), (4, StackStatus::Torn));
    }
}

#[test]
fn frames_below_a_cleared_frame_are_kept() {
    let memory = Moving::new(frame(1).offset(code()), &[0x900_001, 0]);
    let mut reader = FrameReader::default();
    for _ in 0..5 {
        assert_eq!(memory.stack(&mut reader), (4, StackStatus::Torn));
    }
    let cleared = Moving::new(frame(1).offset(code()), &[0]);
    assert_eq!(cleared.stack(&mut FrameReader::default()), (4, StackStatus::Torn), "both copies agree, and the stack is still torn");
}

#[test]
fn a_suspended_generator_is_not_the_root() {
    // Two walks of five end at the second frame, never at the same position in both copies.
    let memory = Moving::new(frame(1).offset(back()), &[frame(2).0, 0, frame(2).0, 0, frame(2).0]);
    let mut reader = FrameReader::default();
    for _ in 0..50 {
        let (depth, status) = memory.stack(&mut reader);
        assert!(depth == 6 && status != StackStatus::Truncated, "{depth} {status:?}");
    }
    let lost = Moving::new(frame(1).offset(back()), &[0]);
    assert_eq!(lost.stack(&mut reader), (2, StackStatus::Truncated), "a stuck walk gives the known frames, marked as truncated");
    let mut cleared = Moving::new(frame(2).offset(back()), &[0]);
    cleared.memory.poke_u64(frame(0).offset(code()), 0);
    let stack = reader.read(&cleared, layout(), TSTATE, false).unwrap();
    assert_eq!((stack.frames.len(), stack.status), (2, StackStatus::Torn), "the leaf of a stuck walk is not known below a cleared frame");
}

/// The distance of two frames of a recursion.
const NEIGHBOUR: u64 = 480;

/// A thread of 3.8 below so many calls of one function, in frames side by side, which counts its
/// reads.
struct Deep {
    memory: ReplayMemory,
    reads: Cell<usize>,
    parts: Cell<usize>,
}

impl Deep {
    fn new(depth: u64) -> Deep {
        let mut memory = ReplayMemory::new();
        memory.map(TSTATE, vec![0; STEP as usize]);
        memory.map(frame(0), vec![0; (depth * NEIGHBOUR + STEP) as usize]);
        let mut deep = Deep { memory, reads: Cell::new(0), parts: Cell::new(0) };
        (0..depth).for_each(|n| deep.put(n, if n == 0 { 0 } else { deep_frame(n - 1).0 }));
        deep.call(depth - 1);
        deep
    }

    fn put(&mut self, n: u64, caller: u64) {
        self.memory.poke_u64(deep_frame(n).offset(back()), caller);
        self.memory.poke_u64(deep_frame(n).offset(code()), 0x900_000);
    }

    /// Makes the frame the innermost.
    fn call(&mut self, n: u64) {
        let Anchor::Direct(anchor) = layout().thread.anchor else { panic!("3.8 is direct") };
        self.memory.poke_u64(TSTATE.offset(anchor.offset() as u64), deep_frame(n).0);
    }

    /// The stack, and the reads and parts that it took.
    fn stack(&self, reader: &mut FrameReader) -> (RawStack, usize, usize) {
        self.reads.set(0);
        self.parts.set(0);
        let stack = reader.read(self, layout(), TSTATE, false).unwrap().clone();
        assert!(stack.frames.len() <= MAX_DEPTH);
        assert_eq!(stack.frames.last().map(|last| last.at), Some(deep_frame(0)), "the stack has its root");
        (stack, self.reads.get(), self.parts.get())
    }
}

/// The address of a frame; the root is 0.
fn deep_frame(n: u64) -> Addr {
    frame(0).offset(n * NEIGHBOUR)
}

impl Memory for Deep {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        self.reads.set(self.reads.get() + 1);
        self.memory.read(at, into)
    }
    fn read_batch(&self, parts: &mut [Part], into: &mut [u8]) -> Result<(), ReadError> {
        self.reads.set(self.reads.get() + 1);
        self.parts.set(self.parts.get() + parts.len());
        self.memory.read_batch(parts, into)
    }
}

#[test]
fn a_deep_stack_takes_one_read_of_a_few_ranges() {
    let deep = Deep::new(900);
    let mut reader = FrameReader::default();
    let (first, reads, _) = deep.stack(&mut reader);
    assert_eq!((first.frames.len(), first.status, first.below_gap), (900, StackStatus::Complete, None));
    assert!(reads < 150, "{reads} reads of a stack that is new");
    let (second, reads, parts) = deep.stack(&mut reader);
    assert_eq!((second, reads, parts), (first, 1, 4));
}

#[test]
fn neighbours_are_read_apart_where_the_memory_between_them_is_gone() {
    let mut deep = Deep::new(900);
    let mut memory = ReplayMemory::new();
    memory.map(TSTATE, vec![0; STEP as usize]);
    for n in 0..900 {
        memory.map(deep_frame(n), vec![0; layout().frame.size as usize]);
    }
    deep.memory = memory;
    (0..900).for_each(|n| deep.put(n, if n == 0 { 0 } else { deep_frame(n - 1).0 }));
    deep.call(899);
    let mut reader = FrameReader::default();
    for _ in 0..100 {
        let (stack, ..) = deep.stack(&mut reader);
        assert_eq!((stack.frames.len(), stack.status), (900, StackStatus::Complete));
    }
}

#[test]
fn a_stack_that_is_too_deep_loses_its_middle() {
    let mut deep = Deep::new(6000);
    let mut reader = FrameReader::default();
    deep.call(4999);
    let (first, ..) = deep.stack(&mut reader);
    assert_eq!((first.status, first.below_gap), (StackStatus::Complete, Some(MAX_BOTTOM)));
    let above = first.frames.len() - MAX_BOTTOM;
    assert!(above > 1000, "{above} frames above the gap");
    assert_eq!(first.frames[0].at, deep_frame(4999));
    assert_eq!(first.frames[above - 1].at, deep_frame(5000 - above as u64));
    assert_eq!(first.frames[above].at, deep_frame(MAX_BOTTOM as u64 - 1));
    // The cut stays where it is, and the root is not searched for again.
    deep.call(5099);
    deep.stack(&mut reader);
    let (grown, reads, _) = deep.stack(&mut reader);
    assert_eq!((grown.frames.len(), reads), (first.frames.len() + 100, 1));
    assert_eq!(grown.frames[100..], first.frames);
    // A stack that is no longer too deep is whole again.
    deep.call(1199);
    deep.stack(&mut reader);
    let (whole, ..) = deep.stack(&mut reader);
    assert_eq!((whole.frames.len(), whole.status, whole.below_gap), (1200, StackStatus::Complete, None));
}

#[test]
fn a_limit_of_depth_makes_a_gap_and_leaves_it_when_it_ends() {
    let deep = Deep::new(900);
    let mut reader = FrameReader::default();
    deep.stack(&mut reader);
    reader.limit_depth(Some(0));
    let (short, ..) = deep.stack(&mut reader);
    assert_eq!(short.status, StackStatus::Complete);
    assert!(short.below_gap.is_some() && short.frames.len() <= MIN_DEPTH, "{short:?}");
    reader.limit_depth(None);
    deep.stack(&mut reader);
    let (whole, ..) = deep.stack(&mut reader);
    assert_eq!((whole.frames.len(), whole.below_gap), (900, None));
}

#[test]
fn a_root_that_changed_is_searched_for_again() {
    let mut deep = Deep::new(6000);
    let mut reader = FrameReader::default();
    deep.call(4999);
    deep.stack(&mut reader);
    // Another function is called from the root, and goes as deep.
    deep.memory.poke_u64(deep_frame(20).offset(code()), 0x900_007);
    (0..=ROOT_PAUSE).for_each(|_| drop(deep.stack(&mut reader)));
    let (stack, ..) = deep.stack(&mut reader);
    assert_eq!(stack.frames[stack.frames.len() - 21].code, Addr(0x900_007), "{:?}", &stack.frames[stack.frames.len() - 40..]);
}
