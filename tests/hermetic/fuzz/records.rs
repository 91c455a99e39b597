//! The records of a recording: the file may come from any source.

use super::harness::Fuzz;
use super::mutate::Mutator;
use gilprof::profile::file::{chunk, decode::Decoder};
use gilprof::profile::ProfileBuilder;
use gilprof::sample::{CaptureStats, TargetInfo};
use std::fs::File;

pub fn chunks() -> Fuzz<'static> {
    let mut file = File::open(crate::support::repository().join("tests/dumps/recordings/v1.gilprof")).unwrap();
    assert_eq!(chunk::read_header(&mut file).unwrap(), chunk::Header::Readable(1));
    let next = || {
        let head = chunk::read_head(&mut file, 1).unwrap().unwrap()?;
        Some(head.unpack(&head.read_payload(&mut file).unwrap().unwrap()).unwrap())
    };
    let seeds: Vec<Vec<u8>> = std::iter::from_fn(next).map(|records| records[..records.len().min(8192)].to_vec()).collect();
    let parse = |_, input: &[u8]| {
        let (mut decoder, mut builder) = (Decoder::default(), ProfileBuilder::new());
        let whole = decoder.chunk(input, &mut builder).is_ok();
        let profile = builder.finish(TargetInfo::default(), CaptureStats::default());
        assert!(profile.threads.iter().all(|thread| thread.times.total().is_finite()));
        whole
    };
    Fuzz { name: "records", cost: 5, inputs: Mutator::free(seeds), parse: Box::new(parse) }
}
