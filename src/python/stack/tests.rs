//! Stacks of one code object in memory made by hand.

use super::*;
use crate::process::replay::ReplayMemory;
use crate::python::code::tests::{layout, world, AT};
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
