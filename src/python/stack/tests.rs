//! Stacks of one code object in memory made by hand.

use super::*;
use crate::process::replay::ReplayMemory;
use crate::python::code::tests::{layout, put_bytes, put_code, world, AT, LINES};
use crate::python::layout::Anchor;

const TSTATE: Addr = Addr(0x30_000);
const CFRAME: Addr = Addr(0x38_000);
const FRAMES: Addr = Addr(0x40_000);

/// The address of a frame; the innermost is 0.
fn frame(n: u64) -> Addr {
    FRAMES.offset(n * 0x1000)
}

/// A thread with so many frames of the code object, and the position of the innermost one.
fn thread(layout: &Layout, depth: u64, position: u64) -> ReplayMemory {
    let mut mem = world(layout);
    mem.map(TSTATE, vec![0; layout.thread.size as usize]).map(CFRAME, vec![0; 0x100]);
    let innermost = match layout.thread.anchor {
        Anchor::Direct(field) => TSTATE.offset(field.offset() as u64),
        Anchor::CFrame(field, inner) => {
            mem.poke_u64(TSTATE.offset(field.offset() as u64), CFRAME.0);
            CFRAME.offset(inner.offset() as u64)
        }
    };
    mem.poke_u64(innermost, FRAMES.0);
    for n in 0..depth {
        mem.map(frame(n), vec![0; 0x1000]);
        mem.poke_u64(frame(n).offset(layout.frame.back.offset() as u64), if n + 1 == depth { 0 } else { frame(n + 1).0 });
        mem.poke_u64(frame(n).offset(layout.frame.code.offset() as u64), AT.0);
    }
    poke_position(&mut mem, layout, position);
    mem
}

fn poke_position(mem: &mut ReplayMemory, layout: &Layout, position: u64) {
    match layout.frame.position {
        Position::LastByte(field) | Position::LastUnit(field) => {
            mem.poke(FRAMES.offset(field.offset() as u64), &(position as i32).to_le_bytes())
        }
        Position::Pointer(field) => mem.poke_u64(FRAMES.offset(field.offset() as u64), position),
    };
}

fn read(mem: &dyn Memory, layout: &Layout) -> ThreadStack {
    let mut stack = ThreadStack::new(&Arc::new(Stack::empty()));
    stack.read(mem, layout, &mut Symbols::default(), TSTATE, true).unwrap();
    stack
}

#[test]
fn the_leaf_of_a_stack_without_its_root_may_be_in_a_call() {
    let layout = layout(8);
    // The first instruction is a call, the second is not.
    for (position, expected) in [(0, true), (2, false)] {
        let mut mem = thread(layout, 3, position);
        assert_eq!(read(&mem, layout).in_c_call(), expected);
        // A loop of frames has no root.
        mem.poke_u64(frame(2).offset(layout.frame.back.offset() as u64), FRAMES.0);
        let stack = read(&mem, layout);
        assert_eq!((stack.stack().status, stack.in_c_call()), (StackStatus::Truncated, expected));
    }
}

/// Free-threaded builds from 3.14 on run a thread's own copy of the bytecode, which may lie before
/// or behind the code object.
#[test]
fn a_copy_of_the_bytecode_has_opcodes_and_no_lines() {
    let layout = layout(11);
    let call = (0..=255).find(|&opcode| layout.is_call(opcode)).unwrap();
    let start = world_start(layout);
    let copies = [AT.0 - 0x1000, AT.0 + 0x1_0000, start + (1 << 33)];
    for copy in copies {
        let mut mem = thread(layout, 1, copy);
        let stack = read(&mem, layout);
        assert_eq!((stack.stack().frames[0].line, stack.in_c_call()), (0, false), "{copy:#x} is not there");
        mem.map(Addr(copy), vec![call, 0]);
        let stack = read(&mem, layout);
        assert_eq!((stack.stack().frames[0].line, stack.in_c_call()), (0, true), "{copy:#x}");
    }
    // A frame that has not run yet is before its first instruction.
    let stack = read(&thread(layout, 1, start - 2), layout);
    assert_eq!((stack.stack().frames[0].line, stack.in_c_call()), (7, false));
}

#[test]
fn an_opcode_that_could_not_be_read_is_read_again() {
    let layout = layout(11);
    let call = (0..=255).find(|&opcode| layout.is_call(opcode)).unwrap();
    let copy = AT.0 + 0x1_0000;
    let mut mem = thread(layout, 2, copy);
    let (mut stack, mut symbols) = (ThreadStack::new(&Arc::new(Stack::empty())), Symbols::default());
    let mut read = |mem: &ReplayMemory| {
        stack.read(mem, layout, &mut symbols, TSTATE, true).unwrap();
        stack.in_c_call()
    };
    assert!(!read(&mem));
    mem.map(Addr(copy), vec![call, 0]);
    // The leaf leaves the instruction and comes back.
    poke_position(&mut mem, layout, world_start(layout));
    read(&mem);
    poke_position(&mut mem, layout, copy);
    assert!(read(&mem));
}

/// The address of the code object's first instruction.
fn world_start(layout: &Layout) -> u64 {
    match layout.code.bytecode {
        crate::python::layout::Bytecode::Inline(offset) => AT.0 + u64::from(offset),
        crate::python::layout::Bytecode::Object(_) => panic!("3.11 and later have it inline"),
    }
}

#[test]
fn frames_beyond_the_budget_of_a_sample_are_resolved_by_the_next() {
    let layout = layout(8);
    let mut mem = thread(layout, 3, 0);
    put_bytes(&mut mem, layout, LINES, &vec![0; 1 << 20]);
    for n in 0..3 {
        let code = AT.offset(n * 0x1000);
        put_code(&mut mem, layout, code, 7);
        mem.poke_u64(frame(n).offset(layout.frame.code.offset() as u64), code.0);
    }
    let (mut stack, mut symbols) = (ThreadStack::new(&Arc::new(Stack::empty())), Symbols::default());
    let mut names = || {
        symbols.codes.begin_sample();
        stack.read(&mem, layout, &mut symbols, TSTATE, true).unwrap();
        stack.stack().frames.iter().map(|frame| frame.function.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["work", "work", Function::UNREADABLE]);
    assert_eq!(names(), ["work"; 3]);
    assert_eq!(symbols.codes.postponed(), 1);
}
