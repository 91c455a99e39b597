//! The tables of `python::layout` against the truth: published layouts as real interpreters have them, hostile ones, and live interpreters.
//!
//! The live test follows the tables with a reader of its own, through two threads that are at rest.

#![allow(clippy::unwrap_used)] // test code throughout, which the lint sees only inside #[test]

#[path = "support/known.rs"]
mod known;
#[path = "layouts/reader.rs"]
mod reader;
mod support;

use gilprof::process::memory::Memory;
use gilprof::python::layout::debug_offsets::{layout_from_target, COOKIE};
use gilprof::python::layout::validate::{LayoutError, FRAME_CAP, INTERPRETER_CAP, OBJECT_CAP, RUNTIME_PREFIX, THREAD_CAP};
use gilprof::python::layout::{for_version, Layout, Minor, Table};
use known::Known;
use proptest::prelude::*;
use reader::asleep_in_read;
use support::{alone, interpreters};

const DUMPS: [(&str, &[u8]); 3] = [
    ("3.13.0", include_bytes!("dumps/debug-offsets-3.13.0.bin")),
    ("3.14.10", include_bytes!("dumps/debug-offsets-3.14.10.bin")),
    ("3.15.2", include_bytes!("dumps/debug-offsets-3.15.2.bin")),
];

#[test]
fn what_real_interpreters_publish_is_accepted() {
    for (version, bytes) in DUMPS {
        let (layout, facts) = layout_from_target(bytes).unwrap();
        assert_eq!((facts.version.as_str(), facts.free_threaded), (version, false));
        assert_eq!(layout.minor, facts.minor);
        assert_eq!((layout.gil.interval.offset(), layout.gil.cond.offset, layout.gil.size), (0, 32, 208));
        assert!(layout.thread.datastack.is_some());
        assert_eq!(layout.thread.gil_requested.is_some(), facts.minor >= Minor(3, 15));
        assert!(layout.thread.eval_breaker.is_some());
        assert_within_caps(&layout);
    }
}

#[test]
fn a_cut_one_is_refused_or_read_whole() {
    for (_, bytes) in DUMPS {
        let whole = layout_from_target(bytes);
        let enough = (0..=bytes.len()).find(|&len| layout_from_target(&bytes[..len]).is_ok()).unwrap();
        assert!(enough > 500);
        assert!((enough..bytes.len()).all(|len| layout_from_target(&bytes[..len]) == whole));
    }
}

#[test]
fn other_versions_and_prereleases_are_named() {
    let with = |hex: u64| {
        let mut bytes = DUMPS[0].1.to_vec();
        bytes[8..16].copy_from_slice(&hex.to_le_bytes());
        layout_from_target(&bytes).map(|(_, facts)| facts.version)
    };
    assert_eq!(with(0x030d_07f0), Ok("3.13.7".into()));
    assert_eq!(with(0x030d_00c2), Ok("3.13.0rc2".into()));
    assert_eq!(with(0x030d_00b1), Err(LayoutError::PreRelease("3.13.0b1".into())));
    assert_eq!(with(0x0363_00f0), Err(LayoutError::UnknownVersion(Minor(3, 99))));
    assert_eq!(with(0x030b_00f0), Err(LayoutError::UnknownVersion(Minor(3, 11))));
    assert_eq!(layout_from_target(b"xdebugpx").err(), Some(LayoutError::NoCookie));
}

/// No free-threaded build is at hand here: its head, on a default build's offsets, must at least not be taken for one (the GIL is 8 further).
#[test]
fn a_default_layout_is_not_believed_of_a_free_threaded_build() {
    for (_, bytes) in DUMPS {
        let mut bytes = bytes.to_vec();
        bytes[16] = 1;
        assert!(matches!(layout_from_target(&bytes), Err(LayoutError::Disagrees(_))));
    }
}

#[test]
fn free_threaded_tables_start_the_gil_with_enabled() {
    for minor in 13..=15 {
        let Some(Table::Rest { default, free_threaded }) = for_version(Minor(3, minor)) else { panic!("3.{minor} has no rest") };
        assert_eq!(free_threaded.gil.enabled.map(|f| f.offset()), Some(0));
        assert_eq!(free_threaded.gil.cond.offset, default.gil.cond.offset + 8);
        assert_eq!(free_threaded.published, default.published);
    }
}

proptest! {
    /// A few words of a real one replaced by anything.
    #[test]
    fn damaged_ones_never_pass_the_caps(which in 0usize..3, damage in prop::collection::vec((3usize..100, word()), 1..6)) {
        let mut bytes = DUMPS[which].1.to_vec();
        for (at, value) in damage {
            if let Some(place) = bytes.get_mut(at * 8..at * 8 + 8) {
                place.copy_from_slice(&value.to_le_bytes());
            }
        }
        if let Ok((layout, _)) = layout_from_target(&bytes) {
            assert_within_caps(&layout);
        }
    }

    /// Anything at all behind a good head.
    #[test]
    fn noise_never_panics(minor in 13u64..16, words in prop::collection::vec(word(), 0..130)) {
        let mut bytes = COOKIE.to_vec();
        bytes.extend((0x0300_00f0 | minor << 16).to_le_bytes());
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        if let Ok((layout, _)) = layout_from_target(&bytes) {
            assert_within_caps(&layout);
        }
    }
}

/// Numbers around which the checks turn, and any other.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..1024,
        (0u64..64).prop_map(|n| n * 8),
        Just(OBJECT_CAP),
        Just(INTERPRETER_CAP),
        Just(INTERPRETER_CAP - 8),
        Just(u64::from(u32::MAX) - 7),
        Just(u64::MAX - 7),
        any::<u64>()
    ]
}

fn assert_within_caps(layout: &Layout) {
    let within = |end: u64, cap: u64| assert!(end <= cap, "{end} passes {cap} in {layout:?}");
    within(layout.runtime.size.into(), RUNTIME_PREFIX.into());
    within(layout.runtime.interpreters_main.offset() as u64 + 8, layout.runtime.size.into());
    within(layout.thread.size.into(), THREAD_CAP);
    within(layout.frame.size.into(), FRAME_CAP);
    let i = &layout.interpreter;
    for field in [Some(i.next), Some(i.threads_head), i.gil, i.modules].into_iter().flatten() {
        within(field.offset() as u64 + 8, INTERPRETER_CAP);
    }
    within(i.gc_collecting.unwrap().offset() as u64 + 4, INTERPRETER_CAP);
    let (o, k) = (&layout.object, &layout.containers);
    for end in [layout.code.size, k.dict.size, k.type_.size, k.int.data, o.bytes_data, o.unicode_ascii_data] {
        within(end.into(), OBJECT_CAP);
    }
    within(o.unicode_compact_data.into(), OBJECT_CAP + 16);
    within(k.type_.cached_keys.offset() as u64, OBJECT_CAP * 2);
}

#[test]
fn live_interpreters_are_as_the_tables_say() {
    let _alone = alone();
    for interpreter in interpreters() {
        eprintln!("{}", interpreter.label);
        let target = Known::start(&interpreter, "resting");
        asleep_in_read(target.target.pid());
        the_runtime_is_ready(&target);
        the_gil_is_at_rest(&target);
        the_threads_are_the_kernels(&target);
        the_stacks_are_known(&target);
        the_names_are_found(&target);
    }
}

fn the_runtime_is_ready(t: &Known) {
    let runtime = t.layout.runtime;
    assert_eq!(t.read_u32(t.runtime.offset(runtime.initialized.unwrap().offset() as u64)), Ok(1));
    assert!(t.ptr(t.runtime, runtime.finalizing.unwrap()).is_null());
    assert_eq!(t.ptr(t.runtime, runtime.interpreters_head), t.ptr(t.runtime, runtime.interpreters_main));
    assert!(t.ptr(t.interpreter, t.layout.interpreter.next).is_null());
    assert_eq!(t.read_u64(t.interpreter.offset(t.layout.interpreter.id.offset() as u64)), Ok(0));
    if let Some(collecting) = t.layout.interpreter.gc_collecting {
        assert_eq!(t.read_u32(t.interpreter.offset(collecting.offset() as u64)), Ok(0));
    }
}

/// Both threads of the target are asleep: nobody holds it, and it was handed over a few times at least.
fn the_gil_is_at_rest(t: &Known) {
    let gil = t.layout.gil;
    assert_eq!(t.read_u64(t.gil().offset(gil.interval.offset() as u64)), Ok(5000));
    assert_eq!(t.read_u32(t.gil().offset(gil.locked.offset() as u64)), Ok(0));
    let switches = t.read_u64(t.gil().offset(gil.switch_number.offset() as u64)).unwrap();
    assert!((1..1_000_000).contains(&switches), "{switches} switches");
    let holder = t.ptr(t.gil(), gil.last_holder);
    assert!(t.threads().contains(&holder), "{holder} held it last, the threads are {:?}", t.threads());
}

fn the_threads_are_the_kernels(t: &Known) {
    let threads = t.threads();
    assert_eq!(threads.len(), 2);
    for thread in threads {
        assert_eq!(t.ptr(thread, t.layout.thread.interp), t.interpreter);
        if let Some(native) = t.layout.thread.native_thread_id {
            let id = t.ptr_u64(thread, native);
            assert!(t.tids().contains(&id), "{id} is not in {:?}", t.tids());
        }
        if let Some(stack) = t.layout.thread.datastack {
            let (chunk, top) = (t.ptr(thread, stack.chunk), t.ptr(thread, stack.top));
            assert!(top.within(chunk, t.ptr_u64(chunk, stack.chunk_size)) && top >= chunk.offset(stack.data.into()));
        }
        for asking in [t.layout.thread.holds_gil, t.layout.thread.gil_requested].into_iter().flatten() {
            assert_eq!(t.read_u32(thread.offset(asking.offset() as u64)), Ok(0));
        }
        if let Some(told) = t.layout.thread.eval_breaker {
            assert_eq!(t.ptr_u64(thread, told) & 1, 0, "a sleeper was told to let go");
        }
    }
}

/// Who computes while another waits is told to let go of the GIL every switch interval, and does so at once: mostly it is not.
#[test]
fn who_is_told_to_let_go_says_so() {
    let _alone = alone();
    for interpreter in interpreters() {
        let t = Known::start(&interpreter, "cpu");
        let Some(told) = t.layout.thread.eval_breaker else { continue };
        let mut seen = [0u32; 2];
        for _ in 0..4_000_000 {
            let holder = t.ptr(t.gil(), t.layout.gil.last_holder);
            seen[(t.ptr_u64(holder, told) & 1) as usize] += 1;
            if seen[1] > 20 && seen[0] > 1000 {
                break;
            }
        }
        eprintln!("{}: told {} of {} times", interpreter.label, seen[1], seen[0] + seen[1]);
        assert!(seen[1] > 20 && seen[0] > seen[1], "{}: {seen:?}", interpreter.label);
    }
}

/// The main thread is at module level, the other in `sleeper`; both inside a C call.
fn the_stacks_are_known(t: &Known) {
    let mut leaves: Vec<String> = t.threads().iter().map(|&thread| t.stack(thread)[0].name.clone()).collect();
    leaves.sort();
    assert_eq!(leaves, ["<module>", "sleeper"]);
    for thread in t.threads() {
        let stack = t.stack(thread);
        assert!(t.layout.is_call(stack[0].opcode), "leaf {:?} of {:?}", stack[0], t.layout.minor);
        assert_eq!(stack[0].file, t.target.source());
        assert_eq!(stack[0].line, t.target.fact("lines")[&stack[0].name]);
    }
}

fn the_names_are_found(t: &Known) {
    let threading = t.dict_get(t.ptr(t.interpreter, t.layout.interpreter.modules.unwrap()), "threading");
    let active = t.dict_get(t.ptr(threading, t.layout.containers.module_dict), "_active");
    let mut found: Vec<(u64, String)> =
        t.items(active).into_iter().map(|(ident, thread)| (t.int(ident), t.text(t.attribute(thread, "_name")))).collect();
    found.sort_by(|a, b| a.1.cmp(&b.1));
    let names: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["MainThread", "wörker"]);
    let mut idents: Vec<u64> = t.threads().iter().map(|&thread| t.ptr_u64(thread, t.layout.thread.thread_id)).collect();
    let mut keys: Vec<u64> = found.iter().map(|(ident, _)| *ident).collect();
    idents.sort();
    keys.sort();
    assert_eq!(idents, keys);
}
