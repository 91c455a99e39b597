//! Many hostile threads or code objects instead of one: the memory that gilprof keeps of each from
//! sample to sample must stay small, whatever size the object claims.

use super::heap;
use super::picture::{Map, Picture};
use gilprof::ids::Addr;
use gilprof::process::maps::Maps;
use gilprof::process::memory::{Memory, ReadError};
use gilprof::python::code::CodeCache;
use gilprof::python::frames::FrameReader;
use gilprof::python::interpreters::RuntimeState;
use gilprof::python::layout::{for_version, validate::THREAD_CAP, Layout, LayoutTable, Minor};
use std::io::{BufReader, Read};

const THREADS: u64 = 500;
/// Possible beginnings of chunks.
const CHUNK: u64 = 1 << 20;

/// Every chunk claims this size, is completely in use, and has a predecessor, which may be itself.
/// Every other pointer leads to a frame outside all chunks.
struct Endless {
    layout: &'static Layout,
    chunk_size: u64,
    /// From a chunk to its predecessor.
    step: u64,
}

impl Memory for Endless {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        into.fill(0);
        let data = self.layout.thread.datastack.unwrap();
        if at.0.is_multiple_of(CHUNK) {
            put(into, data.previous.offset(), at.0 + self.step);
            put(into, data.chunk_size.offset(), self.chunk_size);
        } else {
            (0..into.len() / 8).for_each(|word| put(into, word * 8, 0x7000_0008));
            put(into, data.chunk.offset(), CHUNK);
        }
        Ok(())
    }
}

fn put(into: &mut [u8], at: usize, value: u64) {
    if let Some(place) = into.get_mut(at..at + 8) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

#[test]
fn many_threads_with_endless_stacks() {
    let shapes = [(u64::MAX, CHUNK), (u64::MAX, 0), (64, CHUNK), (1, 0), (0, CHUNK), (0, 0)];
    for (minor, (chunk_size, step)) in [11, 12].into_iter().flat_map(|minor| shapes.map(|shape| (minor, shape))) {
        let Some(LayoutTable::Complete(layout)) = for_version(Minor(3, minor)) else { panic!("3.{minor} has a whole table") };
        let memory = Endless { layout, chunk_size, step };
        let mut readers: Vec<FrameReader> = Vec::new();
        let (frames, peak) = heap::peak_of(|| {
            let mut frames = 0;
            for thread in 0..THREADS {
                let mut reader = FrameReader::default();
                frames += reader.read(&memory, layout, Addr(0x9000_0010 + thread * 8), thread % 2 == 0).unwrap().frames.len();
                readers.push(reader);
            }
            frames
        });
        assert!(peak < super::harness::MOST_BYTES, "3.{minor}: {peak} bytes for {THREADS} threads, {frames} frames");
    }
}

/// Code objects whose line tables change the line with every byte.
const CODES: u64 = 60;
const CODE: u64 = 0x100_0000;
const TYPE: u64 = 0x10_0000;
const NAME: u64 = 0x20_0000;
const TEXT: u64 = 0x30_0000;
const TABLE: u64 = 0x1000_0000;

#[test]
fn many_code_objects_with_long_line_tables() {
    let Some(LayoutTable::Complete(layout)) = for_version(Minor(3, 11)) else { panic!("3.11 has a whole table") };
    let (code, object) = (&layout.code, &layout.object);
    let mut type_ = vec![0xff; layout.containers.type_.size as usize];
    put(&mut type_, layout.containers.type_.name.offset(), NAME);
    let mut text = vec![0; 256];
    let state = 1 << object.unicode_kind_shift | 1 << object.unicode_compact_bit | 1 << object.unicode_ascii_bit;
    put(&mut text, object.type_.offset(), TYPE);
    put(&mut text, object.unicode_state.offset(), state);
    put(&mut text, object.unicode_length.offset(), 9);
    // Kind 11 of the location table: one code unit, one line further.
    let mut table = vec![0x80 | 11 << 3; 2 << 20];
    put(&mut table, object.type_.offset(), TYPE);
    put(&mut table, object.bytes_size.offset(), 1 << 31);
    let mut one = vec![0; 512];
    for (field, to) in [(object.type_, TYPE), (code.filename, TEXT), (code.name, TEXT), (code.qualname.unwrap(), TEXT), (code.lines, TABLE)]
    {
        put(&mut one, field.offset(), to);
    }
    let name = [b"code".as_slice(), &[0; 252]].concat();
    let mut ranges = vec![(TYPE, type_.as_slice()), (NAME, &name), (TEXT, &text)];
    ranges.extend((0..CODES).map(|n| (CODE + n * 0x1000, one.as_slice())));
    ranges.push((TABLE, &table));
    let (map, bytes) = Map::of(ranges);
    let memory = Picture::new(&map, bytes.as_slice(), 1 << 30);
    let (known, peak) = heap::peak_of(|| {
        let mut cache = CodeCache::new();
        let known = |n: u64, cache: &mut CodeCache| {
            cache.begin_sample();
            cache.get(&memory, layout, Addr(CODE + n * 0x1000), None).is_ok()
        };
        (0..CODES).filter(|&n| known(n, &mut cache)).count()
    });
    assert_eq!(known, CODES as usize);
    assert!(peak < super::harness::MOST_BYTES, "{peak} bytes for {CODES} code objects");
}

/// An interpreter with an endless list of thread states, each of the largest size that a target may
/// publish.
struct List(Layout);

const INTERPRETER: u64 = 0x100;
const THREAD: u64 = 0x1_0000;

impl Memory for List {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        into.fill(0);
        let (layout, head) = (&self.0, self.0.interpreter.threads_head.offset() as u64);
        if at.0.is_multiple_of(THREAD) {
            put(into, layout.thread.next.offset(), at.0 + THREAD);
            put(into, layout.thread.interp.offset(), INTERPRETER);
        } else if at.0 == INTERPRETER + head {
            put(into, 0, THREAD);
        } else if at.0 >= RUNTIME && at.0 < RUNTIME + 0x8000 {
            put(into, 0, INTERPRETER);
        }
        Ok(())
    }
}

const RUNTIME: u64 = 0x7f00_0000_0008;

#[test]
fn many_thread_states_of_the_largest_size() {
    let Some(LayoutTable::Complete(layout)) = for_version(Minor(3, 12)) else { panic!("3.12 has a whole table") };
    let mut layout = layout.clone();
    layout.thread.size = THREAD_CAP as u32;
    let memory = List(layout.clone());
    let (threads, peak) = heap::peak_of(|| {
        let mut runtime_state = RuntimeState::default();
        runtime_state.walk(&memory, &layout, Addr(RUNTIME)).unwrap();
        assert_eq!(runtime_state.read(&memory, &layout, Addr(RUNTIME), true), Ok(true), "cut at the bound, it is the same list again");
        runtime_state.threads.len()
    });
    assert!(threads >= 1000, "{threads} threads");
    assert!(peak < super::harness::MOST_BYTES, "{peak} bytes for {threads} threads");
}

#[test]
fn many_mappings_with_long_paths() {
    let line = format!("7f0000000000-7f0000001000 r-xp 00000000 fe:10 7 /{}\n", "x".repeat(4000));
    for (line, kept) in [(line.as_str(), 4000), ("1-2 r--p 0 0:0 0\n", 250_000)] {
        let mut text = BufReader::new(Cycle { line: line.as_bytes(), at: 0 }.take(40 << 20));
        let (maps, peak) = heap::peak_of(|| Maps::read(&mut text).unwrap());
        assert!(maps.mappings.len() >= kept && maps.skipped > 1000, "{} and {}", maps.mappings.len(), maps.skipped);
        assert!(peak < super::harness::MOST_BYTES, "{peak} bytes for {} mappings", maps.mappings.len());
    }
}

/// The same line, endlessly.
struct Cycle<'a> {
    line: &'a [u8],
    at: usize,
}

impl Read for Cycle<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = into.len().min(self.line.len() - self.at);
        into[..n].copy_from_slice(&self.line[self.at..self.at + n]);
        self.at = (self.at + n) % self.line.len();
        Ok(n)
    }
}
