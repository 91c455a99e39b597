//! Parsers of ELF images, in memory and in files, and of the version in an image. The seeds are
//! output of a linker: `tests/dumps/elf`.

use super::harness::Fuzz;
use super::mutate::{Mutator, Shape};
use super::picture::{Map, Picture};
use gilprof::ids::Addr;
use gilprof::process::elf::{Depth, Image};
use gilprof::process::maps::{Device, Mapping};
use gilprof::process::memory::Memory;
use gilprof::python::version::{detect, published};
use std::fs::File;
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;

const IMAGES: [&[u8]; 5] = [
    include_bytes!("../../dumps/elf/shared.elf"),
    include_bytes!("../../dumps/elf/sysv.elf"),
    include_bytes!("../../dumps/elf/stripped.elf"),
    include_bytes!("../../dumps/elf/pie.elf"),
    include_bytes!("../../dumps/elf/fixed.elf"),
];
const NAMES: [&str; 4] = ["_PyRuntime", "Py_Version", "no_such_symbol", "Py_GetVersion"];
/// The address of an image that can be loaded anywhere.
const BASE: u64 = 0x7f00_0000_0000;
const PAGE: u64 = 4096;
/// The most reads of one image: for each name, the longest chain of the hash table.
const MOST: u64 = 4 << 20;

/// A seed's image as it is loaded: the address of its first byte, and all ranges.
fn loaded(bytes: &'static [u8]) -> (u64, Map, Vec<u8>) {
    let file = memory_file();
    file.write_all_at(bytes, 0).unwrap();
    let image = Image::from_file(file).unwrap();
    let first = image.segments()[0];
    let bias = if first.vaddr == 0 { BASE } else { 0 };
    let ranges = image.segments().iter().map(|segment| {
        let (from, to) = (segment.offset as usize, (segment.offset + segment.file_size) as usize);
        (bias + segment.vaddr, &bytes[from..to])
    });
    // A loaded image is readable by whole pages, and the first pages must be.
    let mut padded: Vec<(u64, Vec<u8>)> = ranges.map(|(at, bytes)| (at, bytes.to_vec())).collect();
    padded[0].1.resize(PAGE as usize, 0);
    let (map, all) = Map::of(padded.iter().map(|(at, bytes)| (*at, bytes.as_slice())));
    (padded[0].0, map, all)
}

fn mapping(start: u64, offset: u64, executable: bool) -> Mapping {
    let dev = Device::default();
    let (start, end) = (Addr(start), Addr(start + PAGE));
    Mapping { start, end, readable: true, writable: false, executable, offset, dev, inode: 1, path: Some("/x".into()), deleted: false }
}

/// Every query of an open image.
fn ask(image: &Image<'_>, mem: &dyn Memory, start: u64, depth: Depth) -> bool {
    let maps = [mapping(start, 0, false), mapping(start + PAGE, PAGE, true)];
    let maps: Vec<&Mapping> = maps.iter().collect();
    for bias in image.biases(&maps) {
        let _ = image.same_as_loaded(mem, bias);
    }
    let symbols = image.symbols(&NAMES, depth);
    assert_eq!(symbols[2], None);
    let version = detect(mem, image, start, symbols[1], &["libpython3.11.so.1.0"]);
    let _ = (image.runtime_section(), image.rodata(), image.build_id());
    symbols[0].is_some() && version.is_some()
}

pub fn in_memory() -> Fuzz<'static> {
    let seeds: Vec<(u64, Map, Vec<u8>)> = IMAGES.into_iter().map(loaded).collect();
    let shapes = seeds.iter().map(|(start, map, bytes)| {
        let picture = Picture::new(map, bytes, MOST).tracing();
        let image = Image::from_memory(&picture, Addr(*start)).unwrap();
        ask(&image, &picture, *start, Depth::Exported);
        let mut places = picture.places();
        // The page of headers is one read. The headers are at its beginning, and changes there find
        // most faults.
        places.extend(std::iter::repeat_n((0, 640), places.len().max(8)));
        Shape::Fixed { places, words: vec![*start, BASE, PAGE, 24, 64, 56, 640] }
    });
    let inputs = Mutator::new(seeds.iter().map(|seed| seed.2.clone()).collect(), shapes.collect());
    let parse = move |seed: usize, input: &[u8]| {
        let (start, map, _) = &seeds[seed];
        let picture = Picture::new(map, input, MOST);
        Image::from_memory(&picture, Addr(*start)).is_ok_and(|image| ask(&image, &picture, *start, Depth::Exported))
    };
    Fuzz { name: "ELF in memory", cost: 25, inputs, parse: Box::new(parse) }
}

pub fn in_file() -> Fuzz<'static> {
    let file = memory_file();
    let parse = move |_, input: &[u8]| {
        file.set_len(0).unwrap();
        file.write_all_at(input, 0).unwrap();
        let (nothing, _) = Map::of([]);
        let picture = Picture::new(&nothing, [], MOST);
        Image::from_file(file.try_clone().unwrap()).is_ok_and(|image| ask(&image, &picture, BASE, Depth::All))
    };
    // Half of the inputs keep every byte in its place, so that the offsets of the tables still lead
    // to them.
    let seeds: Vec<Vec<u8>> = IMAGES.iter().chain(&IMAGES).map(|image| image.to_vec()).collect();
    let shape = |(i, seed): (usize, &Vec<u8>)| {
        let places = vec![(0, 64), (64, 56 * 11), (0, seed.len()), (seed.len() - 64 * 20, 64 * 20)];
        if i < IMAGES.len() {
            Shape::Free
        } else {
            Shape::Fixed { places, words: vec![seed.len() as u64, 64, PAGE] }
        }
    };
    let shapes = seeds.iter().enumerate().map(shape).collect();
    Fuzz { name: "ELF file", cost: 50, inputs: Mutator::new(seeds, shapes), parse: Box::new(parse) }
}

/// The head of `_Py_DebugOffsets`, as the search for the interpreter reads it.
pub fn published_head() -> Fuzz<'static> {
    let seed = include_bytes!("../../dumps/debug-offsets-3.13.0.bin")[..48].to_vec();
    let (map, _) = Map::of([(PAGE, seed.as_slice())]);
    let parse = move |_, input: &[u8]| published(&Picture::new(&map, input, 10), Addr(PAGE)).is_ok_and(|found| found.is_some());
    let inputs = Mutator::new(vec![seed.clone(), seed], vec![Shape::Fixed { places: vec![(0, 48)], words: vec![] }, Shape::Free]);
    Fuzz { name: "published head", cost: 1, inputs, parse: Box::new(parse) }
}

/// A file that exists in memory only.
fn memory_file() -> File {
    // SAFETY: the name is a C string; the returned descriptor is new and has no other owner.
    unsafe {
        let descriptor = libc::memfd_create(c"image".as_ptr(), libc::MFD_CLOEXEC);
        assert!(descriptor >= 0, "memfd_create: {}", std::io::Error::last_os_error());
        File::from_raw_fd(descriptor)
    }
}
