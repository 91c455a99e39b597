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
/// The length of a chunk's head: mark, packed length, unpacked length, checksum.
const HEAD: usize = 16;
/// The longest chunk that is read, packed or unpacked. Chunks are written much shorter.
pub const MAX_CHUNK: usize = 16 << 20;
/// The compression level: a higher one costs more time than its smaller files are worth.
const LEVEL: u32 = 6;

/// What the first bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A version that this gilprof reads.
    Readable,
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
        1..=VERSION => Header::Readable,
        0 => Header::Foreign,
        newer => Header::Newer(newer),
    })
}

/// A chunk of these records, ready to be written.
pub fn pack(records: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = vec![0; HEAD];
    let mut packer = flate2::write::DeflateEncoder::new(out.split_off(HEAD), Compression::new(LEVEL));
    packer.write_all(records)?;
    let payload = packer.finish()?;
    let lengths = [payload.len() as u32, records.len() as u32].map(u32::to_le_bytes);
    out[..4].copy_from_slice(MARK);
    out[4..8].copy_from_slice(&lengths[0]);
    out[8..12].copy_from_slice(&lengths[1]);
    let checksum = checksum(&out[4..12], &payload);
    out[12..16].copy_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&payload);
    Ok(out)
}

/// The next chunk's records; `None` at the end of the file. A truncated or corrupt chunk is an
/// inner error.
pub fn unpack(from: &mut impl Read) -> io::Result<Result<Option<Vec<u8>>, Broken>> {
    let mut head = [0; HEAD];
    match fill(from, &mut head)? {
        0 => return Ok(Ok(None)),
        HEAD => {}
        _ => return Ok(Err(Broken("the file is truncated"))),
    }
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (packed, unpacked) = (word(4) as usize, word(8) as usize);
    if !head.starts_with(MARK) || packed > MAX_CHUNK || unpacked > MAX_CHUNK {
        return Ok(Err(Broken("a chunk's head is invalid")));
    }
    // Grows only as far as there are bytes, however large the claimed length.
    let mut payload = Vec::new();
    from.by_ref().take(packed as u64).read_to_end(&mut payload)?;
    if payload.len() < packed {
        return Ok(Err(Broken("the file is truncated")));
    }
    if checksum(&head[4..12], &payload) != word(12) {
        return Ok(Err(Broken("a chunk's checksum is wrong")));
    }
    let mut records = Vec::with_capacity(unpacked);
    let done = Decompress::new(false).decompress_vec(&payload, &mut records, FlushDecompress::Finish);
    if !matches!(done, Ok(Status::StreamEnd)) || records.len() != unpacked {
        return Ok(Err(Broken("a chunk cannot be decompressed")));
    }
    Ok(Ok(Some(records)))
}

fn checksum(lengths: &[u8], payload: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(lengths);
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
        let records: Vec<u8> = (0..5000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let chunk = pack(&records).unwrap();
        assert!(chunk.len() < records.len() / 2);
        let two = [&chunk[..], &chunk[..]].concat();
        let mut from = &two[..];
        for _ in 0..2 {
            assert_eq!(unpack(&mut from).unwrap(), Ok(Some(records.clone())));
        }
        assert_eq!(unpack(&mut from).unwrap(), Ok(None));
        for cut in 1..chunk.len() {
            assert!(unpack(&mut &chunk[..cut]).unwrap().is_err(), "{cut}");
        }
        for at in 0..chunk.len() {
            let mut wrong = chunk.clone();
            wrong[at] ^= 0x10;
            assert!(unpack(&mut &wrong[..]).unwrap().is_err(), "{at}");
        }
    }

    #[test]
    fn headers() {
        let mut head = header();
        assert_eq!(read_header(&mut &head[..]).unwrap(), Header::Readable);
        assert_eq!(read_header(&mut &head[..11]).unwrap(), Header::Foreign);
        head[8] = 9;
        assert_eq!(read_header(&mut &head[..]).unwrap(), Header::Newer(9));
        head[0] = b'G';
        assert_eq!(read_header(&mut &head[..]).unwrap(), Header::Foreign);
    }
}
