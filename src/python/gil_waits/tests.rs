//! Lists of waiters as musl builds them, and damaged ones.

use super::*;
use crate::process::c_library::Abi;
use crate::process::elf::Machine;
use crate::process::memory::ReadError;
use crate::process::replay::ReplayMemory;
use crate::python::layout::{for_version, LayoutTable, Minor};
use proptest::prelude::*;
use std::cell::Cell;

const GIL: Addr = Addr(0x10_000);
const OTHER_GIL: Addr = Addr(0x20_000);
const STACKS: u64 = 0x7f00_0000;

fn layout() -> GilLayout {
    let Some(LayoutTable::Complete(layout)) = for_version(Minor(3, 11)) else { panic!("3.11 has a whole table") };
    layout.gil
}

/// The node of the nth thread, on its stack.
fn node(n: u64) -> Addr {
    Addr(STACKS + n * 0x1000 + 0x7e8)
}

fn futex(node: Addr) -> Addr {
    node.offset(BARRIER)
}

/// Memory with two GILs, and this many stacks.
fn process(stacks: u64) -> ReplayMemory {
    let mut memory = ReplayMemory::new();
    for gil in [GIL, OTHER_GIL] {
        memory.map(gil, vec![0; layout().size as usize]);
    }
    for n in 0..stacks {
        memory.map(Addr(STACKS + n * 0x1000), vec![0; 0x1000]);
    }
    memory
}

/// Makes a list of these nodes, the newest first.
fn list(memory: &mut ReplayMemory, cond: Addr, nodes: &[Addr]) {
    let at = |n: usize| nodes.get(n).map_or(0, |node| node.0);
    assert!(memory.poke_u64(cond.offset(HEAD), at(0)));
    for (n, node) in nodes.iter().enumerate() {
        assert!(memory.poke_u64(*node, n.checked_sub(1).map_or(0, at)) && memory.poke_u64(node.offset(8), at(n + 1)));
    }
}

fn cond(gil: Addr) -> Addr {
    gil.offset(layout().cond.offset.into())
}

fn switch_cond(gil: Addr) -> Addr {
    gil.offset(layout().switch_cond.offset.into())
}

fn owner(memory: &dyn Memory, futex: Addr) -> FutexOwner {
    GilWaits::new(CLibrary::Musl).owner(memory, &layout(), &[(GIL, None), (OTHER_GIL, None)], futex)
}

/// Memory that counts its reads.
struct Counted<'a>(&'a ReplayMemory, Cell<usize>);

impl Memory for Counted<'_> {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        self.1.set(self.1.get() + 1);
        self.0.read(at, into)
    }
}

#[test]
fn waiters_belong_to_the_gil_of_their_list() {
    let mut memory = process(6);
    list(&mut memory, cond(GIL), &[node(2), node(0), node(1)]);
    list(&mut memory, switch_cond(GIL), &[node(3)]);
    list(&mut memory, cond(OTHER_GIL), &[node(4)]);
    for n in 0..4 {
        assert_eq!(owner(&memory, futex(node(n))), FutexOwner::Gil(GIL), "{n}");
    }
    assert_eq!(owner(&memory, futex(node(4))), FutexOwner::Gil(OTHER_GIL));
    assert_eq!(owner(&memory, futex(node(5))), FutexOwner::Unlisted);
    // The mutexes, and the lock of a condition variable, are inside the GIL.
    assert_eq!(owner(&memory, OTHER_GIL.offset(84)), FutexOwner::Gil(OTHER_GIL));
    assert_eq!(owner(&memory, cond(GIL).offset(32)), FutexOwner::Gil(GIL));
}

#[test]
fn with_glibc_only_the_gil_itself_counts() {
    let mut memory = process(1);
    list(&mut memory, cond(GIL), &[node(0)]);
    let of = |library, futex| GilWaits::new(library).owner(&memory, &layout(), &[(GIL, None)], futex);
    assert_eq!(of(CLibrary::Glibc, futex(node(0))), FutexOwner::Other);
    assert_eq!(of(CLibrary::Glibc, cond(GIL).offset(12)), FutexOwner::Gil(GIL));
    assert_eq!(of(CLibrary::Unknown, futex(node(0))), FutexOwner::Gil(GIL), "a static executable with musl");
}

#[test]
fn nodes_outside_of_a_list_are_unlisted() {
    let mut memory = process(4);
    list(&mut memory, cond(GIL), &[node(0), node(1)]);
    // Taken off the list by a signal: the oldest goes first.
    list(&mut memory, cond(GIL), &[node(0)]);
    memory.poke_u64(node(1), 0);
    assert_eq!(owner(&memory, futex(node(1))), FutexOwner::Unlisted);
    assert_eq!(owner(&memory, futex(node(0))), FutexOwner::Gil(GIL));
    // A condition variable of the program's own.
    memory.map(Addr(0x30_000), vec![0; 48]);
    list(&mut memory, Addr(0x30_000), &[node(2), node(3)]);
    assert_eq!(owner(&memory, futex(node(3))), FutexOwner::Unlisted);
}

#[test]
fn damaged_lists_end_the_walk() {
    let mut memory = process(3);
    list(&mut memory, cond(GIL), &[node(0), node(1), node(2)]);
    let with = |at: Addr, value: u64| {
        let mut damaged = memory.clone();
        assert!(damaged.poke_u64(at, value));
        owner(&damaged, futex(node(2)))
    };
    let next = |n| node(n).offset(8);
    assert_eq!(with(node(1), node(1).0), FutexOwner::Unlisted, "a node before itself");
    assert_eq!(with(node(0), node(2).0), FutexOwner::Unlisted, "a cycle");
    assert_eq!(with(node(1), 0), FutexOwner::Unlisted, "cut off before the head");
    assert_eq!(with(next(0), node(2).0), FutexOwner::Unlisted, "a newer node that names another");
    assert_eq!(with(node(1), 0xdead_0000), FutexOwner::Unlisted, "a node that is gone");
    assert_eq!(with(node(1), u64::MAX), FutexOwner::Unlisted, "beyond all memory");
    assert_eq!(with(cond(GIL).offset(HEAD), 0), FutexOwner::Unlisted, "an empty list");
    // Two nodes that name each other in both directions, and one that names itself.
    let mut cyclic = process(2);
    list(&mut cyclic, cond(GIL), &[node(0), node(1)]);
    cyclic.poke_u64(node(0), node(1).0);
    cyclic.poke_u64(next(1), node(0).0);
    assert_eq!(owner(&cyclic, futex(node(1))), FutexOwner::Unlisted);
    cyclic.poke_u64(node(0), node(0).0);
    cyclic.poke_u64(next(0), node(0).0);
    assert_eq!(owner(&cyclic, futex(node(0))), FutexOwner::Unlisted);
    // No node can be there.
    for at in [0, 1, BARRIER - 1, futex(node(0)).0 + 1, futex(node(0)).0 + 4] {
        assert_eq!(owner(&memory, Addr(at)), FutexOwner::Other, "{at:#x}");
    }
}

#[test]
fn a_node_is_read_once_in_a_sample() {
    const WAITERS: u64 = 300;
    let mut memory = process(WAITERS);
    list(&mut memory, cond(GIL), &(0..WAITERS).map(node).collect::<Vec<_>>());
    let counted = Counted(&memory, Cell::new(0));
    let mut waits = GilWaits::new(CLibrary::Musl);
    let mut find = |n: u64| waits.owner(&counted, &layout(), &[(GIL, None)], futex(node(n)));
    // The middle first, so that some are found on the way and others are not.
    for n in (WAITERS / 2..WAITERS).chain(0..WAITERS / 2) {
        assert_eq!(find(n), FutexOwner::Gil(GIL), "{n}");
    }
    // Each node, and the three heads that the GIL may have.
    assert_eq!(counted.1.get(), WAITERS as usize + 3);
    // The next sample knows nothing of this one.
    waits.begin_sample();
    list(&mut memory, cond(GIL), &[]);
    assert_eq!(waits.owner(&memory, &layout(), &[(GIL, None)], futex(node(0))), FutexOwner::Unlisted);
}

#[test]
fn a_long_list_of_the_program_costs_its_length() {
    const WAITERS: u64 = 1500;
    let mut memory = process(WAITERS);
    memory.map(Addr(0x30_000), vec![0; 48]);
    list(&mut memory, Addr(0x30_000), &(0..WAITERS).map(node).collect::<Vec<_>>());
    let counted = Counted(&memory, Cell::new(0));
    let mut waits = GilWaits::new(CLibrary::Musl);
    for n in 0..WAITERS {
        let found = waits.owner(&counted, &layout(), &[(GIL, None)], futex(node(n)));
        assert_eq!(found, FutexOwner::Unlisted, "{n}");
    }
    assert!(counted.1.get() as u64 <= 2 * WAITERS + 6, "{} reads", counted.1.get());
    // The newest has left that list meanwhile, and waits for the GIL at the same address.
    list(&mut memory, cond(GIL), &[node(0)]);
    assert_eq!(waits.owner(&memory, &layout(), &[(GIL, None)], futex(node(0))), FutexOwner::Gil(GIL));
}

#[test]
fn on_aarch64_an_unknown_c_library_may_be_musl() {
    let layout_of = |c_library| {
        let Some(LayoutTable::Complete(layout)) = for_version(Minor(3, 11)) else { panic!("3.11 has a whole table") };
        layout.clone().for_abi(Abi { machine: Machine::Aarch64, c_library }).gil
    };
    let (musl, unknown) = (layout_of(CLibrary::Musl), layout_of(CLibrary::Unknown));
    for condition in [musl.cond, musl.switch_cond] {
        let mut memory = process(2);
        memory.map(GIL, vec![0; unknown.size as usize]);
        list(&mut memory, GIL.offset(condition.offset.into()), &[node(0), node(1)]);
        for (c_library, layout) in [(CLibrary::Musl, musl), (CLibrary::Unknown, unknown)] {
            let found = GilWaits::new(c_library).owner(&memory, &layout, &[(GIL, None)], futex(node(1)));
            assert_eq!(found, FutexOwner::Gil(GIL), "{c_library:?} {condition:?}");
        }
    }
}

#[test]
fn lists_beyond_the_limit_are_unknown() {
    let waiters = MAX_READS as u64 + 1;
    let mut memory = process(waiters);
    list(&mut memory, cond(GIL), &(0..waiters).map(node).collect::<Vec<_>>());
    let mut waits = GilWaits::new(CLibrary::Musl);
    let mut find = |n: u64| waits.owner(&memory, &layout(), &[(GIL, None)], futex(node(n)));
    assert_eq!(find(0), FutexOwner::Gil(GIL));
    assert_eq!(find(waiters - 1), FutexOwner::Unknown);
    assert_eq!(find(waiters - 1), FutexOwner::Unknown, "and costs nothing more");
    assert_eq!(find(0), FutexOwner::Gil(GIL));
}

proptest! {
    /// Threads in any order on the lists of two GILs, of a condition variable of the program, or on
    /// none.
    #[test]
    fn every_waiter_is_found_and_nothing_else(places in proptest::collection::vec(0usize..6, 1..40)) {
        let mut memory = process(places.len() as u64);
        memory.map(Addr(0x30_000), vec![0; 48]);
        let conds = [cond(GIL), switch_cond(GIL), cond(OTHER_GIL), switch_cond(OTHER_GIL), Addr(0x30_000)];
        for (place, cond) in conds.iter().enumerate() {
            let nodes: Vec<Addr> = (0..places.len()).filter(|&n| places[n] == place).map(|n| node(n as u64)).collect();
            list(&mut memory, *cond, &nodes);
        }
        let mut waits = GilWaits::new(CLibrary::Musl);
        for (n, place) in places.iter().enumerate() {
            let expected = match place {
                0 | 1 => FutexOwner::Gil(GIL),
                2 | 3 => FutexOwner::Gil(OTHER_GIL),
                _ => FutexOwner::Unlisted,
            };
            let found = waits.owner(&memory, &layout(), &[(GIL, None), (OTHER_GIL, None)], futex(node(n as u64)));
            prop_assert_eq!(found, expected, "{} of {:?}", n, places);
        }
    }

    /// Links that lead anywhere among a few nodes and the condition variables. The walk ends, and a
    /// GIL is found only through a head.
    #[test]
    fn any_links_end_within_the_limit(links in proptest::collection::vec((0u64..9, 0u64..9), 8), heads in proptest::array::uniform2(0u64..9), rounds in 1usize..300) {
        let mut memory = process(8);
        let target = |n: u64| if n == 8 { 0 } else { node(n).0 };
        for (n, (prev, next)) in links.iter().enumerate() {
            memory.poke_u64(node(n as u64), target(*prev));
            memory.poke_u64(node(n as u64).offset(8), target(*next));
        }
        memory.poke_u64(cond(GIL).offset(HEAD), target(heads[0]));
        memory.poke_u64(switch_cond(GIL).offset(HEAD), target(heads[1]));
        let counted = Counted(&memory, Cell::new(0));
        let mut waits = GilWaits::new(CLibrary::Musl);
        for round in 0..rounds {
            let n = round as u64 % 8;
            let found = waits.owner(&counted, &layout(), &[(GIL, None)], futex(node(n)));
            let reachable = |head: u64| head != 8 && links[head as usize].0 == 8;
            prop_assert!(found != FutexOwner::Gil(GIL) || heads.iter().any(|&head| reachable(head)));
        }
        // Each round reads at most the eight nodes and three heads.
        prop_assert!(counted.1.get() <= rounds * 11);
    }
}
