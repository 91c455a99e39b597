//! The file's header and its chunks: lengths, checksums, compression. This layer does not interpret
//! the records.

use super::bytes::Broken;
use super::VERSION;
use flate2::{Compression, Crc, Decompress, FlushDecompress, Status};
use std::io::{self, Read, Write};

/// The first bytes of a file.
pub const MAGIC: &[u8; 8] = b"gilprof\0";
/// The first bytes of a chunk.
const MARK: &[u8; 4] = b"GPCK";
/// The length of a chunk's head: mark, packed length, unpacked length, process, checksum. Version 1
/// has no process.
const HEAD: usize = 20;
const HEAD_V1: usize = 16;
/// The longest chunk that is read, packed or unpacked. Chunks are written much shorter.
pub const MAX_CHUNK: usize = 16 << 20;
/// The compression level: a higher one costs more time than its smaller files are worth.
const LEVEL: u32 = 6;

/// What the first bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A version that this gilprof reads.
    Readable(u16),
    /// The version of a newer gilprof.
    Newer(u16),
    /// Not a recording.
    Foreign,
}

/// The header, as bytes.
pub fn header() -> [u8; 12] {
    let mut out = [0; 12];
    out[..8].copy_from_slice(MAGIC);
    out[8..10].copy_from_slice(&VERSION.to_le_bytes());
    out
}

/// Reads the header.
pub fn read_header(from: &mut impl Read) -> io::Result<Header> {
    let mut head = [0; 12];
    let read = fill(from, &mut head)?;
    let version = u16::from_le_bytes([head[8], head[9]]);
    Ok(match version {
        _ if read < head.len() || !head.starts_with(MAGIC) => Header::Foreign,
        1..=VERSION => Header::Readable(version),
        0 => Header::Foreign,
        newer => Header::Newer(newer),
    })
}

/// A chunk of these records of a process, ready to be written.
pub fn pack(process: u32, records: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = vec![0; HEAD];
    let mut packer = flate2::write::DeflateEncoder::new(out.split_off(HEAD), Compression::new(LEVEL));
    packer.write_all(records)?;
    let payload = packer.finish()?;
    let numbers = [payload.len() as u32, records.len() as u32, process];
    out[..4].copy_from_slice(MARK);
    for (place, number) in out[4..16].chunks_exact_mut(4).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let checksum = checksum(&out[4..16], &payload);
    out[16..20].copy_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&payload);
    Ok(out)
}

/// What a chunk's head says.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHead {
    /// The number of the process whose records these are.
    pub process: u32,
    /// The length of the payload in the file.
    pub packed: usize,
    unpacked: usize,
    /// The numbers that the checksum covers, as bytes.
    numbers: [u8; 12],
    numbers_len: usize,
    checksum: u32,
}

/// Reads the next chunk's head; `None` at the end of the file. A head that is cut off or invalid is
/// an inner error.
pub fn read_head(from: &mut impl Read, version: u16) -> io::Result<Result<Option<ChunkHead>, Broken>> {
    let mut head = [0; HEAD];
    let len = if version == 1 { HEAD_V1 } else { HEAD };
    match fill(from, &mut head[..len])? {
        0 => return Ok(Ok(None)),
        read if read == len => {}
        _ => return Ok(Err(Broken("the file is truncated"))),
    }
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (packed, unpacked) = (word(4) as usize, word(8) as usize);
    if !head.starts_with(MARK) || packed > MAX_CHUNK || unpacked > MAX_CHUNK {
        return Ok(Err(Broken("a chunk's head is invalid")));
    }
    let process = if version == 1 { 0 } else { word(12) };
    let mut numbers = [0; 12];
    let numbers_len = len - 8;
    numbers[..numbers_len].copy_from_slice(&head[4..len - 4]);
    Ok(Ok(Some(ChunkHead { process, packed, unpacked, numbers, numbers_len, checksum: word(len - 4) })))
}

impl ChunkHead {
    /// Reads the payload, and checks it. An inner error if it is cut off or corrupt.
    pub fn read_payload(&self, from: &mut impl Read) -> io::Result<Result<Vec<u8>, Broken>> {
        // Grows only as far as there are bytes, however large the claimed length.
        let mut payload = Vec::new();
        from.by_ref().take(self.packed as u64).read_to_end(&mut payload)?;
        if payload.len() < self.packed {
            return Ok(Err(Broken("the file is truncated")));
        }
        if checksum(&self.numbers[..self.numbers_len], &payload) != self.checksum {
            return Ok(Err(Broken("a chunk's checksum is wrong")));
        }
        Ok(Ok(payload))
    }

    /// The records in a payload.
    pub fn unpack(&self, payload: &[u8]) -> Result<Vec<u8>, Broken> {
        let mut records = Vec::with_capacity(self.unpacked);
        let done = Decompress::new(false).decompress_vec(payload, &mut records, FlushDecompress::Finish);
        if !matches!(done, Ok(Status::StreamEnd)) || records.len() != self.unpacked {
            return Err(Broken("a chunk cannot be decompressed"));
        }
        Ok(records)
    }
}

fn checksum(numbers: &[u8], payload: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(numbers);
    crc.update(payload);
    crc.sum()
}

/// Reads until `into` is full or the input ends; returns the number of bytes read.
fn fill(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < into.len() {
        match from.read(&mut into[read..]) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_round_trip_and_every_cut_is_an_error() {
        let unpack = |from: &mut &[u8]| -> Result<Option<(u32, Vec<u8>)>, Broken> {
            let Some(head) = read_head(from, VERSION).unwrap()? else { return Ok(None) };
            Ok(Some((head.process, head.unpack(&head.read_payload(from).unwrap()?)?)))
        };
        let records: Vec<u8> = (0..5000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let chunk = pack(3, &records).unwrap();
        assert!(chunk.len() < records.len() / 2);
        let two = [&chunk[..], &chunk[..]].concat();
        let mut from = &two[..];
        for _ in 0..2 {
            assert_eq!(unpack(&mut from), Ok(Some((3, records.clone()))));
        }
        assert_eq!(unpack(&mut from), Ok(None));
        for cut in 1..chunk.len() {
            assert!(unpack(&mut &chunk[..cut]).is_err(), "{cut}");
        }
        for at in 0..chunk.len() {
            let mut wrong = chunk.clone();
            wrong[at] ^= 0x10;
            assert!(unpack(&mut &wrong[..]).is_err(), "{at}");
        }
    }

    #[test]
    fn headers() {
        let mut head = header();
        assert_eq!(read_header(&mut &head[..]).unwrap(), Header::Readable(VERSION));
        assert_eq!(read_header(&mut &head[..11]).unwrap(), Header::Foreign);
        head[8] = 9;
        assert_eq!(read_header(&mut &head[..]).unwrap(), Header::Newer(9));
        head[0] = b'G';
        assert_eq!(read_header(&mut &head[..]).unwrap(), Header::Foreign);
    }
}
