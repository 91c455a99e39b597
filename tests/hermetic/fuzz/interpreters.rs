//! Readers of the interpreter's memory, on the recorded samples: lists, stacks with their code,
//! names of threads, and a whole sample.
//!
//! Only bytes that a reader reads are changed, with equal probability for each read, often into
//! addresses of other objects.

use super::harness::Fuzz;
use super::mutate::{Mutator, Shape};
use super::picture::{Map, Picture};
use crate::support::recorded::{recorded, Replay};
use gilprof::ids::{Addr, Pid};
use gilprof::process::c_library::CLibrary;
use gilprof::process::memory::Memory;
use gilprof::process::memory_dump::{DumpHead, MemoryDump};
use gilprof::process::pthread;
use gilprof::process::replay::ReplayTarget;
use gilprof::python::attach::PythonProcess;
use gilprof::python::frames::MAX_DEPTH;
use gilprof::python::gil;
use gilprof::python::gil_waits::{FutexOwner, GilWaits};
use gilprof::python::interpreters::RuntimeState;
use gilprof::python::stack::{Symbols, ThreadStack};
use gilprof::python::thread_names;
use gilprof::python::version::Version;
use gilprof::sample::Stack;
use std::sync::Arc;

/// The most reads of one input, counted as [`Picture::new`] does. A list of 16 384 thread states is
/// walked three times; a stack is copied up to 8 MiB.
const MOST: u64 = 1 << 20;

/// A recorded sample, ready for repeated reads.
struct Seed {
    head: DumpHead,
    map: Map,
    bytes: Vec<u8>,
    python: PythonProcess,
    runtime_state: RuntimeState,
}

impl Seed {
    fn of(recording: MemoryDump) -> Seed {
        let (map, bytes) = Map::of(recording.ranges.iter().map(|(at, bytes)| (at.0, bytes.as_slice())));
        let head = recording.head;
        let picture = Picture::new(&map, bytes.as_slice(), MOST);
        let minor = Version::from_text(&head.python).unwrap().minor;
        let python =
            PythonProcess::from_runtime(Pid(head.pid), &picture, head.abi, minor, head.python.clone(), Addr(head.runtime)).unwrap();
        let mut runtime_state = RuntimeState::default();
        runtime_state.walk(&picture, &python.layout, python.runtime).unwrap();
        drop(picture);
        Seed { head, map, bytes, python, runtime_state }
    }

    /// Addresses that the sample's memory contains: the targets of useful hostile pointers.
    fn addresses(&self) -> Vec<u64> {
        let words = self.bytes.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes));
        words.filter(|&word| self.map.knows(word)).take(4096).collect()
    }
}

/// A reader that is tried on every sample for which `fits` holds.
fn reader(name: &'static str, cost: u64, fits: fn(&Seed) -> bool, read: fn(&Seed, &Picture<&[u8]>) -> bool) -> Fuzz<'static> {
    let mut seeds: Vec<Seed> = recorded().into_iter().map(|sample| Seed::of(sample.recording)).collect();
    seeds.retain(fits);
    let shape = |seed: &Seed| {
        let picture = Picture::new(&seed.map, seed.bytes.as_slice(), MOST).tracing();
        assert!(read(seed, &picture), "{name}: {} does not read as it is", seed.head.python);
        let places = picture.places();
        Shape::Fixed { places, words: seed.addresses() }
    };
    let shapes = seeds.iter().map(shape).collect();
    let inputs = Mutator::new(seeds.iter().map(|seed| seed.bytes.clone()).collect(), shapes);
    let parse = move |which: usize, input: &[u8]| read(&seeds[which], &Picture::new(&seeds[which].map, input, MOST));
    Fuzz { name, cost, inputs, parse: Box::new(parse) }
}

pub fn gils() -> Fuzz<'static> {
    reader(
        "GIL",
        2,
        |_| true,
        |seed, mem| {
            let gil = seed.python.layout.gil;
            let mut bytes = vec![0; gil.size as usize];
            mem.read(seed.runtime_state.gils[0].0, &mut bytes).unwrap();
            gil::parse(&gil, &bytes).is_some_and(|reading| {
                assert!(reading.interval_us > 0 && reading.holder.is_none_or(|holder| !holder.is_null()));
                true
            })
        },
    )
}

/// A list of waiters for the GIL as musl has them.
pub fn waits() -> Fuzz<'static> {
    const GIL: u64 = 0x10_000;
    const NODES: u64 = 12;
    let node = |n: u64| 0x7f00_0000 + n * 64;
    let layout = Seed::of(recorded().into_iter().next().unwrap().recording).python.layout.gil;
    let link = |n: Option<u64>| n.filter(|&n| n < NODES).map_or(0, node).to_le_bytes();
    let mut gil = vec![0; layout.size as usize];
    gil[layout.cond.offset as usize + 8..][..8].copy_from_slice(&link(Some(0)));
    let nodes: Vec<[u8; 16]> = (0..NODES).map(|n| [link(n.checked_sub(1)), link(Some(n + 1))].concat().try_into().unwrap()).collect();
    let stacks = nodes.iter().enumerate().map(|(n, bytes)| (node(n as u64), bytes.as_slice()));
    let (map, bytes) = Map::of([(GIL, gil.as_slice())].into_iter().chain(stacks));
    let words = (0..NODES).map(node).chain([GIL]).collect();
    let inputs = Mutator::new(vec![bytes.clone()], vec![Shape::Fixed { places: vec![(0, bytes.len())], words }]);
    let parse = move |_: usize, input: &[u8]| {
        let picture = Picture::new(&map, input, 2 * NODES * (NODES + 2));
        let mut waits = GilWaits::new(CLibrary::Musl);
        let found = (0..2 * NODES).map(|n| waits.owner(&picture, &layout, &[(Addr(GIL), None)], Addr(node(n % NODES) + 20)));
        found.filter(|owner| *owner == FutexOwner::Gil(Addr(GIL))).count() as u64 == 2 * NODES
    };
    Fuzz { name: "waiters with musl", cost: 2, inputs, parse: Box::new(parse) }
}

pub fn lists() -> Fuzz<'static> {
    reader(
        "lists",
        5,
        |_| true,
        |seed, mem| {
            let (layout, runtime) = (&seed.python.layout, seed.python.runtime);
            let mut runtime_state = RuntimeState::default();
            let walked = runtime_state.walk(mem, layout, runtime).is_ok();
            runtime_state.read(mem, layout, runtime, false).unwrap();
            let followed = runtime_state.follow(mem, layout, runtime).is_ok();
            let same = runtime_state.read(mem, layout, runtime, true) == Ok(true);
            walked && followed && same
        },
    )
}

pub fn stacks() -> Fuzz<'static> {
    reader(
        "stacks and code",
        50,
        |_| true,
        |seed, mem| {
            let mut symbols = Symbols::default();
            let empty = Arc::new(Stack::empty());
            let read = |at: Addr, symbols: &mut Symbols| {
                let mut stack = ThreadStack::new(&empty);
                for still in [false, true] {
                    symbols.codes.begin_sample();
                    stack.read(mem, &seed.python.layout, symbols, at, still).unwrap();
                    assert!(stack.stack().frames.len() <= MAX_DEPTH);
                }
                !stack.stack().frames.is_empty()
            };
            seed.runtime_state.threads.iter().take(2).all(|thread| read(thread.at, &mut symbols))
        },
    )
}

pub fn names() -> Fuzz<'static> {
    reader(
        "thread names",
        20,
        |_| true,
        |seed, mem| {
            let names = thread_names::read(mem, &seed.python.layout, seed.runtime_state.interpreters[0].at);
            assert!(names.values().all(|name| name.chars().count() <= 129));
            names.len() == seed.runtime_state.threads.len()
        },
    )
}

pub fn pthreads() -> Fuzz<'static> {
    reader(
        "pthread",
        10,
        |seed| seed.runtime_state.threads[0].native_id.is_none(),
        |seed, mem| {
            let pthreads: Vec<u64> = seed.runtime_state.threads.iter().map(|thread| thread.pthread).collect();
            let tids: Vec<i32> = seed.head.threads.iter().map(|task| task.tid).collect();
            let offset = pthread::calibrate(mem, &pthreads, &tids);
            offset.is_some_and(|found| pthreads.iter().any(|&at| pthread::tid(mem, at, found.offset).is_some()))
        },
    )
}

/// All readers together, as in `gilprof dump`, layout included.
pub fn samples() -> Fuzz<'static> {
    reader(
        "a whole sample",
        200,
        |_| true,
        |seed, mem| {
            let recording = MemoryDump { head: seed.head.clone(), ranges: Vec::new() };
            let again = Replay::by(&recording, Box::new(ReplayTarget { head: seed.head.clone(), memory: mem.owned() }));
            again.is_ok_and(|again| {
                assert!(again.views.iter().all(|view| view.stack.frames.len() <= MAX_DEPTH));
                again.views.iter().any(|view| !view.stack.frames.is_empty())
            })
        },
    )
}
