//! Frames that change while they are read, one change at a time.

use super::*;
use crate::process::replay::ReplayMemory;
use crate::python::layout::{for_version, LayoutTable, Minor};
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
}
