//! The tables of `python::layout` on published layouts of real interpreters, and on hostile ones.
//!
//! `live::reads::layouts` uses the tables on live interpreters.

use gilprof::python::layout::debug_offsets::{layout_from_target, COOKIE};
use gilprof::python::layout::validate::{LayoutError, FRAME_CAP, INTERPRETER_CAP, OBJECT_CAP, RUNTIME_CAP, THREAD_CAP};
use gilprof::python::layout::{for_version, Layout, LayoutTable, Minor};
use proptest::prelude::*;

const DUMPS: [(&str, &[u8]); 3] = [
    ("3.13.0", include_bytes!("../dumps/debug-offsets-3.13.0.bin")),
    ("3.14.10", include_bytes!("../dumps/debug-offsets-3.14.10.bin")),
    ("3.15.2", include_bytes!("../dumps/debug-offsets-3.15.2.bin")),
];

#[test]
fn layouts_of_real_interpreters_are_accepted() {
    for (version, bytes) in DUMPS {
        let (layout, build) = layout_from_target(bytes).unwrap();
        assert_eq!((build.version.as_str(), build.free_threaded), (version, false));
        assert_eq!(layout.minor, build.minor);
        assert_eq!((layout.gil.interval.offset(), layout.gil.cond.offset, layout.gil.size), (0, 32, 208));
        assert!(layout.thread.datastack.is_some());
        assert_eq!(layout.thread.gil_requested.is_some(), build.minor >= Minor(3, 15));
        assert!(layout.thread.eval_breaker.is_some());
        assert_within_caps(&layout);
    }
}

#[test]
fn a_truncated_layout_is_refused_or_read_completely() {
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
        layout_from_target(&bytes).map(|(_, build)| build.version)
    };
    assert_eq!(with(0x030d_07f0), Ok("3.13.7".into()));
    assert_eq!(with(0x030d_00c2), Ok("3.13.0rc2".into()));
    assert_eq!(with(0x030d_00b1), Err(LayoutError::PreRelease("3.13.0b1".into())));
    assert_eq!(with(0x0363_00f0), Err(LayoutError::UnknownVersion(Minor(3, 99))));
    assert_eq!(with(0x030b_00f0), Err(LayoutError::UnknownVersion(Minor(3, 11))));
    assert_eq!(layout_from_target(b"xdebugpx").err(), Some(LayoutError::NoCookie));
}

/// No published layout of a free-threaded build is at hand. Its head with the offsets of a default
/// build must not be accepted as one (the GIL is 8 bytes further).
#[test]
fn a_default_layout_is_refused_for_a_free_threaded_build() {
    for (_, bytes) in DUMPS {
        let mut bytes = bytes.to_vec();
        bytes[16] = 1;
        assert!(matches!(layout_from_target(&bytes), Err(LayoutError::Disagrees(_))));
    }
}

#[test]
fn free_threaded_tables_start_the_gil_with_enabled() {
    for minor in 13..=15 {
        let Some(LayoutTable::Partial { default, free_threaded }) = for_version(Minor(3, minor)) else { panic!("3.{minor} has no rest") };
        assert_eq!(free_threaded.gil.enabled.map(|f| f.offset()), Some(0));
        assert_eq!(free_threaded.gil.cond.offset, default.gil.cond.offset + 8);
        assert_eq!(free_threaded.published, default.published);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::support::cases(256)))]

    /// A real layout with some words replaced.
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

    /// Arbitrary words after a valid head.
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

/// Numbers around the bounds of the checks, and any other.
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
    within(layout.runtime.interpreters_main.offset() as u64 + 8, RUNTIME_CAP);
    within(layout.thread.size.into(), THREAD_CAP);
    within(layout.frame.size.into(), FRAME_CAP);
    let i = &layout.interpreter;
    for field in [Some(i.next), Some(i.threads_head), i.gil, i.modules].into_iter().flatten() {
        within(field.offset() as u64 + 8, INTERPRETER_CAP);
    }
    within(i.gc_collecting.unwrap().offset() as u64 + 4, INTERPRETER_CAP);
    let (o, k) = (&layout.object, &layout.containers);
    let (code, dict) = (layout.code.first_line.offset() as u32 + 4, k.dict.keys.offset().max(k.dict.values.offset()) as u32 + 8);
    for end in [code, dict, k.type_.size, k.int.data, o.bytes_data, o.unicode_ascii_data] {
        within(end.into(), OBJECT_CAP);
    }
    within(o.unicode_compact_data.into(), OBJECT_CAP + 16);
    within(k.type_.cached_keys.offset() as u64, OBJECT_CAP * 2);
}
