//! Parsers of single objects in the interpreter's memory: published layouts, line tables, strings,
//! numbers; and of recordings.

use super::harness::Fuzz;
use super::mutate::{Mutator, Shape};
use super::picture::{Map, Picture};
use crate::support::recorded::recorded;
use gilprof::ids::Addr;
use gilprof::process::memory_dump::MemoryDump;
use gilprof::python::code::fingerprint_span;
use gilprof::python::layout::debug_offsets::layout_from_target;
use gilprof::python::layout::validate::{FRAME_CAP, INTERPRETER_CAP, OBJECT_CAP, RUNTIME_CAP, THREAD_CAP};
use gilprof::python::layout::{containers::Digits, for_version, Layout, LayoutTable, LineFormat, Minor};
use gilprof::python::lines::{line_at, LineIndex};
use gilprof::python::objects::{read_bytes, read_str, read_type_name, read_u64_int};

const PUBLISHED: [&[u8]; 3] = [
    include_bytes!("../../dumps/debug-offsets-3.13.0.bin"),
    include_bytes!("../../dumps/debug-offsets-3.14.10.bin"),
    include_bytes!("../../dumps/debug-offsets-3.15.2.bin"),
];

pub fn published() -> Fuzz<'static> {
    let seeds: Vec<Vec<u8>> = PUBLISHED.iter().chain(&PUBLISHED).map(|bytes| bytes.to_vec()).collect();
    let caps = [OBJECT_CAP, INTERPRETER_CAP, THREAD_CAP, FRAME_CAP, u64::from(u32::MAX), u64::MAX - 7, 16, 24, 32, 40];
    let shape = |(i, seed): (usize, &Vec<u8>)| {
        let fixed = || Shape::Fixed { places: vec![(0, 24), (24, seed.len() - 24), (24, seed.len() - 24)], words: caps.to_vec() };
        if i < PUBLISHED.len() {
            Shape::Free
        } else {
            fixed()
        }
    };
    let shapes = seeds.iter().enumerate().map(shape).collect();
    let parse = |_, input: &[u8]| {
        layout_from_target(input).is_ok_and(|(layout, build)| {
            let sizes = [
                (layout.runtime.interpreters_main.offset() as u64 + 8, RUNTIME_CAP),
                (layout.thread.size.into(), THREAD_CAP),
                (layout.frame.size.into(), FRAME_CAP),
            ];
            assert!(sizes.iter().all(|(size, cap): &(u64, u64)| size <= cap), "{layout:?}");
            assert!(u64::from(fingerprint_span(&layout).len.max(layout.object.unicode_ascii_data)) <= OBJECT_CAP, "{layout:?}");
            build.minor == layout.minor
        })
    };
    Fuzz { name: "debug offsets", cost: 4, inputs: Mutator::new(seeds, shapes), parse: Box::new(parse) }
}

/// The line tables of real code objects: format, first line, table.
fn tables(format: LineFormat) -> Vec<(i32, Vec<u8>)> {
    let versions: &[&str] = match format {
        LineFormat::Lnotab => &["3.7", "3.8", "3.9"],
        LineFormat::Linetable310 => &["3.10"],
        LineFormat::Locations => &["3.11", "3.12", "3.13", "3.14", "3.15"],
    };
    let text = |version: &&str| {
        let file = crate::support::repository().join(format!("tests/dumps/lines/{version}.txt"));
        std::fs::read_to_string(file).unwrap()
    };
    let unhex = |text: &str| (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect();
    let table = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        (words[1].parse().unwrap(), unhex(words[3]))
    };
    versions.iter().map(text).flat_map(|text| text.lines().map(table).collect::<Vec<_>>()).collect()
}

pub fn lines(name: &'static str, format: LineFormat) -> Fuzz<'static> {
    let seeds = tables(format);
    let inputs = Mutator::free(seeds.iter().map(|(_, table)| table.clone()).collect());
    let parse = move |seed: usize, input: &[u8]| {
        // Sometimes a first line that no file has.
        let first = if input.first() == Some(&0xff) { i32::MAX } else { seeds[seed].0 };
        let index = LineIndex::new(format, input, first);
        assert!(index.weight() <= 64 + 16 * input.len());
        for at in [0, 2, 130, 4000, u32::MAX] {
            let line = line_at(format, input, first, at);
            assert_eq!(line, index.line_at(at));
            assert!(line.is_none_or(|line| line <= i32::MAX as u32));
        }
        index.line_at(0).is_some()
    };
    Fuzz { name, cost: 4, inputs, parse: Box::new(parse) }
}

/// Every layout that gilprof knows, and the published ones of real targets.
fn layouts() -> Vec<Layout> {
    let whole = (7..=12).filter_map(|minor| match for_version(Minor(3, minor)) {
        Some(LayoutTable::Complete(layout)) => Some(layout.clone()),
        _ => None,
    });
    whole.chain(PUBLISHED.iter().map(|bytes| layout_from_target(bytes).unwrap().0)).collect()
}

const TYPE: u64 = 0x10000;
const TYPE_NAME: u64 = 0x11000;
const OBJECT: u64 = 0x20000;
const ELSEWHERE: u64 = 0x30000;

/// Writes an object's fields into its bytes.
type Make<'a> = &'a dyn Fn(&Layout, &mut Vec<u8>);

/// An object, and its characters elsewhere, with a type that claims to be every type at once.
fn object(layout: &Layout, make: Make<'_>) -> (Map, Vec<u8>) {
    let mut type_ = vec![0; layout.containers.type_.size as usize];
    put(&mut type_, layout.containers.type_.flags.offset(), &u64::MAX.to_le_bytes());
    put(&mut type_, layout.containers.type_.name.offset(), &TYPE_NAME.to_le_bytes());
    let mut object = vec![0; 256];
    put(&mut object, layout.object.type_.offset(), &TYPE.to_le_bytes());
    make(layout, &mut object);
    let name = [b"threading.Thread\0".as_slice(), &[0; 200]].concat();
    Map::of([(TYPE, type_.as_slice()), (TYPE_NAME, &name), (OBJECT, &object), (ELSEWHERE, "größe".repeat(40).as_bytes())])
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

/// A `str` of characters of this width.
fn text(layout: &Layout, object: &mut [u8], width: u32, compact: bool, bytes: &[u8]) {
    let o = &layout.object;
    let ascii = width == 1 && bytes.is_ascii() && compact;
    let state = width << o.unicode_kind_shift | u32::from(compact) << o.unicode_compact_bit | u32::from(ascii) << o.unicode_ascii_bit;
    put(object, o.unicode_length.offset(), &(bytes.len() as i64 / i64::from(width)).to_le_bytes());
    put(object, o.unicode_state.offset(), &state.to_le_bytes());
    match (compact, ascii) {
        (true, true) => put(object, o.unicode_ascii_data as usize, bytes),
        (true, false) => put(object, o.unicode_compact_data as usize, bytes),
        (false, _) => put(object, o.unicode_compact_data as usize, &ELSEWHERE.to_le_bytes()),
    }
}

fn int(layout: &Layout, object: &mut [u8], digits: &[u32]) {
    match layout.containers.int.digits {
        Digits::Signed(size) => put(object, size.offset(), &(digits.len() as i64).to_le_bytes()),
        Digits::Tag(tag) => put(object, tag.offset(), &((digits.len() as u64) << 3).to_le_bytes()),
    }
    for (i, digit) in digits.iter().enumerate() {
        put(object, layout.containers.int.data as usize + i * 4, &digit.to_le_bytes());
    }
}

pub fn objects() -> Fuzz<'static> {
    let makes: [Make<'_>; 6] = [
        &|layout, object| text(layout, object, 1, true, b"Thread-1 (worker)"),
        &|layout, object| text(layout, object, 1, true, b"w\xf6rker"),
        &|layout, object| text(layout, object, 2, true, &[0xa9, 0x03, 0x00, 0xd8]),
        &|layout, object| text(layout, object, 4, true, &[0x0d, 0xf4, 1, 0]),
        &|layout, object| text(layout, object, 1, false, b"elsewhere"),
        &|layout, object| {
            put(object, layout.object.bytes_size.offset(), &20i64.to_le_bytes());
            int(layout, object, &[0x3fff_ffff, 5]);
        },
    ];
    let mut seeds = Vec::new();
    for layout in layouts() {
        seeds.extend(makes.iter().map(|make| (layout.clone(), object(&layout, make))));
    }
    let shape = |(layout, (_, bytes)): &(Layout, (Map, Vec<u8>))| {
        let type_ = layout.containers.type_;
        let object = type_.size as usize + 217;
        let places = vec![(type_.flags.offset(), 8), (type_.name.offset(), 8), (object, 64), (object, 64), (object, 256), (0, bytes.len())];
        Shape::Fixed { places, words: vec![TYPE, TYPE_NAME, OBJECT, ELSEWHERE, 1 << 32, (1 << 32) + 1, 512, 0x3fff_ffff] }
    };
    let inputs = Mutator::new(seeds.iter().map(|seed| seed.1 .1.clone()).collect(), seeds.iter().map(shape).collect());
    let parse = move |seed: usize, input: &[u8]| {
        let (layout, (map, _)) = &seeds[seed];
        let mem = Picture::new(map, input, 1 << 14);
        let text = read_str(&mem, layout, Addr(OBJECT), 512);
        assert!(text.as_ref().map_or(true, |text| text.chars().count() <= 513));
        let bytes = read_bytes(&mem, layout, Addr(OBJECT), 1 << 20);
        assert!(bytes.as_ref().map_or(true, |bytes| bytes.len() <= 1 << 20));
        let name = read_type_name(&mem, layout, Addr(OBJECT));
        text.is_ok() || bytes.is_ok() || name.is_ok() && read_u64_int(&mem, layout, Addr(OBJECT)).is_ok()
    };
    Fuzz { name: "objects", cost: 4, inputs, parse: Box::new(parse) }
}

/// The files of `gilprof dump --record-memory`, cut to their first ranges.
pub fn recordings() -> Fuzz<'static> {
    let cut = |mut recording: MemoryDump| {
        recording.ranges.truncate(3);
        recording.ranges.iter_mut().for_each(|(_, bytes)| bytes.truncate(100));
        recording.to_bytes().unwrap()
    };
    let inputs = Mutator::free(recorded().into_iter().map(|sample| cut(sample.recording)).collect());
    let parse = |_, input: &[u8]| {
        MemoryDump::parse(input).is_ok_and(|recording| {
            assert!(recording.ranges.windows(2).all(|pair| pair[0].0 .0 + pair[0].1.len() as u64 <= pair[1].0 .0));
            assert_eq!(MemoryDump::parse(&recording.to_bytes().unwrap()).unwrap(), recording);
            true
        })
    };
    Fuzz { name: "recordings", cost: 10, inputs, parse: Box::new(parse) }
}
