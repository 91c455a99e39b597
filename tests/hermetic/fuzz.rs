//! Every parser of foreign bytes, on inputs made from real ones: no input leads to a panic, a hang,
//! or more than 64 MiB on the heap.
//!
//! This is a short run with the other tests; `scripts/fuzz` is the long one. Inputs are numbered,
//! and a number always means the same input, as long as the seeds and the mutator stay. A failure
//! prints its input.

mod crowd;
mod harness;
pub mod heap;
mod images;
mod interpreters;
mod mutate;
mod objects;
mod picture;
mod records;
mod texts;

use gilprof::python::layout::LineFormat;
use harness::{fuzz, run, Fuzz};
use mutate::Mutator;

macro_rules! parsers {
    ($($name:ident: $parser:expr;)*) => {$(
        #[test]
        fn $name() {
            fuzz($parser);
        }
    )*};
}

parsers! {
    maps: texts::maps();
    status: texts::status();
    stat: texts::stat();
    schedstat: texts::schedstat();
    syscall: texts::syscall();
    kernel_stack: texts::kernel_stack();
    cgroup: texts::cgroup();
    cpu_list: texts::cpu_list();
    versions: texts::versions();
    arguments: texts::arguments();
    limits: texts::limits();
    limits_files: texts::limits_files();
    baselines: texts::baselines();
    elf_in_memory: images::in_memory();
    elf_in_file: images::in_file();
    published_head: images::published_head();
    debug_offsets: objects::published();
    lnotab: objects::lines("lnotab", LineFormat::Lnotab);
    linetable310: objects::lines("linetable 3.10", LineFormat::Linetable310);
    locations: objects::lines("locations", LineFormat::Locations);
    objects: objects::objects();
    recordings: objects::recordings();
    gil: interpreters::gils();
    waits: interpreters::waits();
    lists: interpreters::lists();
    stacks: interpreters::stacks();
    thread_names: interpreters::names();
    pthread: interpreters::pthreads();
    whole_sample: interpreters::samples();
    records: records::chunks();
}

/// The harness itself must be able to fail.
mod able_to_fail {
    use super::*;

    fn parser<'a>(parse: impl FnMut(usize, &[u8]) -> bool + 'a) -> Fuzz<'a> {
        Fuzz { name: "a test", cost: 1, inputs: Mutator::free(vec![b"seed 17".to_vec(), b"other".to_vec()]), parse: Box::new(parse) }
    }

    #[test]
    fn a_panic_is_found_and_comes_again_by_its_number() {
        let check = |input: &[u8]| assert!(!input.contains(&b'!'), "an exclamation mark");
        let failure = run(
            parser(|_, input| {
                input.is_ascii() && {
                    check(input);
                    true
                }
            }),
            0..1_000_000,
        )
        .unwrap_err();
        assert!(failure.why.contains("panics: an exclamation mark") && failure.input.contains(&b'!'), "{failure:?}");
        let again = run(
            parser(|_, input| {
                check(input);
                true
            }),
            failure.number..failure.number + 1,
        )
        .unwrap_err();
        assert_eq!(again, failure);
    }

    #[test]
    fn too_much_on_the_heap_is_found_even_when_it_is_freed_again() {
        let failure = run(parser(|_, _| vec![1u8; harness::MOST_BYTES + 1].len() > 3), 0..10).unwrap_err();
        assert!(failure.number == 0 && failure.why.contains("allocates 6710886"), "{failure:?}");
        let table = run(parser(|_, input| vec![0u8; 1 << 20].len() > input.len()), 0..10).unwrap();
        assert!((table.inputs, table.accepted) == (10, 10) && (1 << 20..1 << 21).contains(&table.peak), "{table:?}");
        let grown = run(
            parser(|_, _| {
                let mut all = Vec::new();
                (0..9u32 << 20).for_each(|n| all.push(u64::from(n)));
                all.is_empty()
            }),
            0..1,
        );
        assert!(grown.unwrap_err().why.contains("allocates"));
    }

    #[test]
    fn too_many_reads_are_found() {
        use gilprof::{ids::Addr, process::memory::Memory};
        let (map, bytes) = picture::Map::of([(16, [7u8; 32].as_slice())]);
        let mut into = [0; 4];
        let read = |times: u64| {
            let memory = picture::Picture::new(&map, bytes.as_slice(), 100);
            (0..times).filter(|_| memory.read(Addr(20), &mut [0; 4]).is_ok()).count()
        };
        assert_eq!(read(100), 100);
        let failure = run(parser(|_, _| read(101) > 0), 0..1).unwrap_err();
        assert!(failure.why.contains("more than 100 reads"), "{failure:?}");
        let memory = picture::Picture::new(&map, bytes.as_slice(), 100);
        assert!(memory.read(Addr(45), &mut into).is_err() && memory.read(Addr(44), &mut into).is_ok() && into == [7; 4]);
    }

    #[test]
    fn inputs_differ_from_each_other_and_from_their_seeds() {
        let seeds = vec![b"0123456789".repeat(8), vec![0; 64]];
        let shapes = vec![mutate::Shape::Free, mutate::Shape::Fixed { places: vec![(8, 40)], words: vec![0xabcd] }];
        let mut mutator = Mutator::new(seeds.clone(), shapes);
        let mut all = std::collections::BTreeSet::new();
        for number in 0..10_000 {
            let (seed, input) = mutator.input(number);
            assert!(seed == 0 || (input.len() == 64 && input[..8] == [0; 8] && input[56..] == [0; 8]), "{input:?}");
            all.insert(input.to_vec());
        }
        assert!(all.len() > 6000, "{}", all.len());
        assert!(all.iter().any(|input| input.windows(2).any(|pair| pair == [0xcd, 0xab])));
        let one = mutator.input(77).1.to_vec();
        mutator.input(9999);
        assert_eq!(mutator.input(77).1, one);
    }
}
