//! Builds that are not among the installed interpreters: free-threaded ones, another glibc, musl.
//! The memory that gilprof would read of them is built by hand.
//!
//! The free-threaded interpreter is made from the published layout of a real one of the same
//! version. The GIL's members are 8 bytes further (an `int enabled` comes first), as in its
//! headers. A real build may differ in more than that; then gilprof refuses it, which layouts.rs
//! tests.

use crate::support::{self, recorded::Replay};
use gilprof::analysis::{self, report::Code, report::Report};
use gilprof::capture::tid_resolver::TidResolver;
use gilprof::ids::{Addr, GilId, ThreadId, Tid};
use gilprof::process::c_library::Abi;
use gilprof::process::memory_dump::{DumpHead, DumpedTask, MemoryDump};
use gilprof::process::replay::{ReplayMemory, ReplayTarget};
use gilprof::profile::ProfileBuilder;
use gilprof::python::interpreters::{RuntimeState, ThreadState};
use gilprof::python::layout::debug_offsets::layout_from_target;
use gilprof::python::layout::validate::PublishedField;
use gilprof::python::layout::{for_version, Anchor, Layout, LayoutTable, Minor};
use gilprof::sample::{
    CaptureStats, Evidence, Frame, Function, GilSample, Holder, SampleCounts, Sink, Stack, StackStatus, State, StateSlice, StateTimes,
    TargetInfo, ThreadInfo, ThreadTotals,
};
use gilprof::units::Nanos;
use std::sync::Arc;

const DUMPS: [(u8, &[u8]); 3] = [
    (13, include_bytes!("../dumps/debug-offsets-3.13.0.bin")),
    (14, include_bytes!("../dumps/debug-offsets-3.14.10.bin")),
    (15, include_bytes!("../dumps/debug-offsets-3.15.2.bin")),
];
const RUNTIME: u64 = 0x10_000;
const INTERPRETER: u64 = 0x100_000;
const THREADS: [u64; 2] = [0x500_000, 0x600_000];

/// The layout that a free-threaded build of this version would publish.
fn free_threaded(minor: u8, published: &[u8]) -> Vec<u8> {
    let Some(LayoutTable::Partial { free_threaded, .. }) = for_version(Minor(3, minor)) else { panic!("3.{minor} has no rest") };
    let mut bytes = published.to_vec();
    bytes[16] = 1;
    for (fact, place) in free_threaded.published {
        if matches!(fact, PublishedField::InterpreterOwnGilLocked | PublishedField::InterpreterOwnGilHolder) {
            let place = usize::from(*place);
            let value = u64::from_le_bytes(bytes[place..place + 8].try_into().unwrap()) + 8;
            bytes[place..place + 8].copy_from_slice(&value.to_le_bytes());
        }
    }
    bytes
}

/// An interpreter of that build with two threads. The first one is the last holder of its GIL.
fn process(layout: &Layout, enabled: i32, locked: i32) -> (ReplayMemory, u64) {
    let mut memory = ReplayMemory::new();
    memory.map(Addr(RUNTIME), vec![0; 0x4000]).map(Addr(INTERPRETER), vec![0; 0x80_000]);
    let gil = INTERPRETER + 0x40_000;
    let poke = |memory: &mut ReplayMemory, at: u64, value: u64| assert!(memory.poke_u64(Addr(at), value));
    poke(&mut memory, RUNTIME + layout.runtime.interpreters_head.offset() as u64, INTERPRETER);
    poke(&mut memory, RUNTIME + layout.runtime.interpreters_main.offset() as u64, INTERPRETER);
    poke(&mut memory, INTERPRETER + layout.interpreter.gil.unwrap().offset() as u64, gil);
    poke(&mut memory, INTERPRETER + layout.interpreter.threads_head.offset() as u64, THREADS[0]);
    for (i, &at) in THREADS.iter().enumerate() {
        memory.map(Addr(at), vec![0; 0x1000]);
        poke(&mut memory, at + layout.thread.next.offset() as u64, THREADS.get(i + 1).copied().unwrap_or(0));
        poke(&mut memory, at + layout.thread.interp.offset() as u64, INTERPRETER);
        poke(&mut memory, at + layout.thread.native_thread_id.unwrap().offset() as u64, 40 + i as u64);
    }
    memory.poke(Addr(gil + layout.gil.enabled.unwrap().offset() as u64), &enabled.to_le_bytes());
    memory.poke(Addr(gil + layout.gil.locked.offset() as u64), &locked.to_le_bytes());
    poke(&mut memory, gil + layout.gil.interval.offset() as u64, 5000);
    poke(&mut memory, gil + layout.gil.last_holder.offset() as u64, THREADS[0]);
    poke(&mut memory, gil + layout.gil.switch_number.offset() as u64, 77);
    (memory, gil)
}

#[test]
fn a_free_threaded_build_is_recognised_and_its_gil_read() {
    for (minor, published) in DUMPS {
        let (layout, build) = layout_from_target(&free_threaded(minor, published)).unwrap();
        assert!(build.free_threaded, "3.{minor}");
        for (enabled, locked, expected) in [(0, 0, None), (0, 1, None), (1, 0, None), (1, 1, Some(Addr(THREADS[0])))] {
            let (memory, gil) = process(&layout, enabled, locked);
            let mut runtime_state = RuntimeState::default();
            runtime_state.walk(&memory, &layout, Addr(RUNTIME)).unwrap();
            assert_eq!(runtime_state.read(&memory, &layout, Addr(RUNTIME), true), Ok(true));
            let reading = runtime_state.gils[0].1.unwrap();
            assert_eq!((runtime_state.gils[0].0, runtime_state.threads.len()), (Addr(gil), 2));
            assert_eq!((reading.enabled, reading.holder, reading.switches), (enabled == 1, expected, 77), "3.{minor}, {enabled} {locked}");
        }
    }
}

/// Two threads that compute for two seconds, in parallel or in turns.
fn computed(free_threaded: bool, gil_enabled: bool) -> Report {
    let mut builder = ProfileBuilder::new();
    let function = Arc::new(Function { name: "burn".into(), file: "app.py".into(), first_line: 3 });
    let stack = Arc::new(Stack { frames: vec![Frame { function, line: 4 }], status: StackStatus::Complete });
    for n in 0..2 {
        let (id, tid, name) = (ThreadId(n), Tid(40 + n as i32), format!("worker-{n}"));
        builder.thread(&ThreadInfo { id, tid, name, python: true, main: n == 0, gil: Some(GilId(0)) });
    }
    let millisecond = Nanos::from_millis(1);
    for ms in 1..=2000u64 {
        let (at, holder) = (Nanos::from_millis(ms), (ms / 5 % 2) as u32);
        for n in 0..2 {
            let state = match (gil_enabled, holder == n) {
                (false, _) => State::Native,
                (true, true) => State::HoldingPython,
                (true, false) => State::Waiting,
            };
            let behind = (state == State::Waiting).then_some((ThreadId(holder), &stack));
            let times = StateTimes::single(state, millisecond.as_nanos() as f64);
            builder.slice(&StateSlice {
                thread: ThreadId(n),
                end: at,
                times,
                evidence: Evidence::GilHolder,
                stack: &stack,
                holder: behind,
            });
        }
        let (holder, waiters) = if gil_enabled { (Holder::Thread(ThreadId(holder)), 1) } else { (Holder::Nobody, 0) };
        builder.gil(&GilSample { gil: GilId(0), at, span: millisecond, holder, switches: Some(ms / 5), waiters, collecting: None });
    }
    for n in 0..2 {
        let seen = Nanos::from_millis(2000);
        let cpu = if gil_enabled { Nanos::from_millis(1000) } else { seen };
        builder.thread_end(ThreadId(n), ThreadTotals { cpu, run_queue: Nanos::ZERO, seen });
    }
    let target = TargetInfo { python: "3.14.10".into(), free_threaded, gil_enabled, interpreters: 1, cpus: 2.0, ..TargetInfo::default() };
    let window = CaptureStats {
        seconds: 2.0,
        rate_hz: 1000.0,
        counts: SampleCounts { samples: 2000, ..SampleCounts::default() },
        ..CaptureStats::default()
    };
    analysis::report(&builder.finish(target, window))
}

#[test]
fn reports_of_a_gil_that_is_off_and_of_one_that_is_on_again() {
    let off = computed(true, false);
    assert_eq!(off.verdict.code, Code::GilDisabled);
    assert!(off.verdict.speedup.processes.is_none() && !off.target.gil_enabled, "{:#?}", off.verdict);

    let on = computed(true, true);
    assert_eq!(on.verdict.code, Code::SwitchToProcesses, "{:#?}", on.verdict);
    let finding = on.findings.iter().find(|f| f.code == Code::GilDisabled).unwrap();
    assert!(finding.evidence.contains("free-threaded Python") && finding.advice.contains("PYTHON_GIL"), "{finding:#?}");

    let ordinary = computed(false, true);
    assert_eq!(ordinary.verdict.code, Code::SwitchToProcesses);
    assert!(ordinary.findings.iter().all(|f| f.code != Code::GilDisabled));
}

/// glibc's `struct pthread` with the thread's id at a place where no glibc so far has it, and the
/// process's id before it.
#[test]
fn the_thread_id_may_stand_elsewhere_in_glibc() {
    let Some(LayoutTable::Complete(layout)) = for_version(Minor(3, 8)) else { panic!("3.8 has no table") };
    let tids = [Tid(40), Tid(41)];
    let head =
        DumpHead { schema: String::new(), pid: 40, python: "3.8.0".into(), abi: Abi::default(), runtime: RUNTIME, threads: Vec::new() };
    let source = |memory: &ReplayMemory| ReplayTarget { head: head.clone(), memory: memory.clone() };
    for place in [704, 736, 1024] {
        let mut memory = ReplayMemory::new();
        memory.map(Addr(RUNTIME), vec![0; 0x4000]).map(Addr(INTERPRETER), vec![0; 0x4000]);
        let first = layout.runtime.interpreters_head.offset() as u64;
        memory.poke_u64(Addr(RUNTIME + first), INTERPRETER);
        memory.poke_u64(Addr(INTERPRETER + layout.interpreter.threads_head.offset() as u64), THREADS[0]);
        for (i, &at) in THREADS.iter().enumerate() {
            let pthread = Addr(at + 0x2000);
            memory.map(Addr(at), vec![0; 0x4000]);
            memory.poke_u64(Addr(at + layout.thread.interp.offset() as u64), INTERPRETER);
            memory.poke_u64(Addr(at + layout.thread.thread_id.offset() as u64), pthread.0);
            memory.poke(pthread.offset(64), &40i32.to_le_bytes());
            memory.poke(pthread.offset(place), &(40 + i as i32).to_le_bytes());
        }
        let (mut runtime_state, mut resolver) = (RuntimeState::default(), TidResolver::default());
        runtime_state.walk(&memory, layout, Addr(RUNTIME)).unwrap();
        resolver.calibrate(&source(&memory), &runtime_state, &tids);
        // A single thread: its id is that of the process, at either place.
        assert_eq!((runtime_state.threads.len(), resolver.tid(&memory, &runtime_state.threads[0])), (1, Some(Tid(40))), "at {place}");
        // The second thread is created: CPython puts it first.
        memory.poke_u64(Addr(INTERPRETER + layout.interpreter.threads_head.offset() as u64), THREADS[1]);
        memory.poke_u64(Addr(THREADS[1] + layout.thread.next.offset() as u64), THREADS[0]);
        runtime_state.walk(&memory, layout, Addr(RUNTIME)).unwrap();
        resolver.calibrate(&source(&memory), &runtime_state, &tids);
        let found: Vec<_> = runtime_state.threads.iter().map(|t| resolver.tid(&memory, t)).collect();
        assert_eq!(found, [Some(Tid(41)), Some(Tid(40))], "at {place}");
    }
}

/// A process forked by C code: its thread states have the parent's ids. The main thread is found by
/// the C library's descriptor. A descriptor of a thread that is gone may be reused by a new one.
#[test]
fn thread_states_of_a_process_that_c_code_forked() {
    let (pid, late) = (Tid(90), Tid(91));
    let (mut memory, size) = (ReplayMemory::new(), 0x1000);
    let mut descriptor = |at: u64, id: i32| {
        memory.map(Addr(at), vec![0; size]);
        memory.poke(Addr(at + 720), &id.to_le_bytes());
        at
    };
    let (main, reused) = (descriptor(0x10_0000, pid.0), descriptor(0x20_0000, late.0));
    let state = |at, pthread, native_id| {
        let mut state = ThreadState::default();
        (state.at, state.pthread, state.native_id) = (Addr(at), pthread, native_id);
        state
    };
    // Newest first: the new thread, the parent's two others, of which one has a reused descriptor
    // and one has none, and the thread that forked.
    let threads = vec![state(1, reused, Some(91)), state(2, reused, Some(42)), state(3, 0xdead_0000, Some(41)), state(4, main, Some(40))];
    let mut runtime_state = RuntimeState::default();
    runtime_state.threads = threads;
    let head = DumpHead { schema: String::new(), pid: 90, python: "3.13.0".into(), abi: Abi::default(), runtime: RUNTIME, threads: vec![] };
    let mut resolver = TidResolver::default();
    resolver.calibrate(&ReplayTarget { head, memory: memory.clone() }, &runtime_state, &[pid, late]);
    let tids = resolver.resolve(&memory, &runtime_state.threads, pid, |tid| [pid, late].contains(&tid));
    assert_eq!(tids, [Some(late), None, None, Some(pid)]);
    let stale: Vec<_> = runtime_state.threads.iter().map(|state| resolver.is_stale(state.at)).collect();
    assert_eq!(stale, [false, true, true, true]);
}

/// A `Py_TRACE_REFS` build of 3.9, whose objects all begin with two more words, as a dump of one
/// sample has it. The dump does not say so, but its memory does.
#[test]
fn a_recorded_sample_of_a_build_with_a_longer_object_header() {
    let Some(LayoutTable::Complete(plain)) = for_version(Minor(3, 9)) else { panic!("3.9 has no table") };
    let places: [u64; 8] = std::array::from_fn(|n| 0x700_000 + n as u64 * 0x1000);
    let [type_type, kind, modules, code, text, bytes, frame, pthread] = places;
    let mut memory = ReplayMemory::new();
    for at in places.into_iter().chain([THREADS[0]]) {
        memory.map(Addr(at), vec![0; 0x1000]);
    }
    memory.map(Addr(RUNTIME), vec![0; 0x4000]).map(Addr(INTERPRETER), vec![0; 0x4000]);
    let put = |memory: &mut ReplayMemory, at: u64, offset: usize, value: u64| assert!(memory.poke_u64(Addr(at + offset as u64), value));
    for (object, its_type) in [(type_type, type_type), (kind, type_type), (modules, kind), (code, kind), (text, kind), (bytes, kind)] {
        put(&mut memory, object, plain.object.type_.offset() + 16, its_type);
    }
    let layout = plain.clone().with_object_header(&memory, Addr(type_type));
    assert_eq!(layout.object.type_.offset(), plain.object.type_.offset() + 16);
    let (object, types) = (&layout.object, &layout.containers.type_);
    put(&mut memory, kind, types.flags.offset(), u64::MAX);
    put(&mut memory, kind, types.name.offset(), kind + 0x800);
    memory.poke(Addr(kind + 0x800), b"code");
    put(&mut memory, text, object.unicode_length.offset(), 4);
    let state = 1 << object.unicode_kind_shift | 1 << object.unicode_compact_bit | 1 << object.unicode_ascii_bit;
    put(&mut memory, text, object.unicode_state.offset(), state);
    memory.poke(Addr(text + u64::from(object.unicode_ascii_data)), b"burn");
    for (field, to) in [(layout.code.filename, text), (layout.code.name, text), (layout.code.lines, bytes)] {
        put(&mut memory, code, field.offset(), to);
    }
    let Anchor::Direct(anchor) = layout.thread.anchor else { panic!("3.9 is direct") };
    put(&mut memory, frame, layout.frame.code.offset(), code);
    put(&mut memory, THREADS[0], anchor.offset(), frame);
    put(&mut memory, THREADS[0], layout.thread.interp.offset(), INTERPRETER);
    put(&mut memory, THREADS[0], layout.thread.thread_id.offset(), pthread);
    memory.poke(Addr(pthread + 720), &40i32.to_le_bytes());
    put(&mut memory, INTERPRETER, layout.interpreter.threads_head.offset(), THREADS[0]);
    put(&mut memory, INTERPRETER, layout.interpreter.modules.unwrap().offset(), modules);
    put(&mut memory, RUNTIME, layout.runtime.interpreters_head.offset(), INTERPRETER);
    put(&mut memory, RUNTIME, layout.runtime.interpreters_main.offset(), INTERPRETER);
    put(&mut memory, RUNTIME + u64::from(layout.runtime.gil.unwrap()), layout.gil.interval.offset(), 5000);
    let task = DumpedTask { tid: 40, syscall: Some("0 0x0 0x0 0x0 0x0 0x0 0x0 0x0 0x0".into()), ..DumpedTask::default() };
    let head =
        DumpHead { schema: String::new(), pid: 40, python: "3.9.18".into(), abi: Abi::default(), runtime: RUNTIME, threads: vec![task] };
    let recording = MemoryDump { head: head.clone(), ranges: Vec::new() };
    let replay = Replay::by(&recording, Box::new(ReplayTarget { head, memory })).unwrap();
    let names: Vec<&str> = replay.views[0].stack.frames.iter().map(|frame| frame.function.name.as_str()).collect();
    assert_eq!(names, ["burn"], "{}", replay.text());
}

/// docs/support.md names a test for each of its rows, and these tests exist.
#[test]
fn the_tests_that_the_docs_name_exist() {
    let docs = std::fs::read_to_string(support::repository().join("docs/support.md")).unwrap();
    let named: Vec<(&str, &str)> = docs.split('`').skip(1).step_by(2).filter_map(|word| word.split_once(".rs::")).collect();
    assert!(named.len() > 25, "{named:?}");
    for (file, test) in named {
        let source = std::fs::read_to_string(support::repository().join("tests").join(file).with_extension("rs")).unwrap_or_default();
        assert!(source.contains(&format!("fn {test}(")), "docs/support.md names {file}.rs::{test}, which is not there");
    }
}
