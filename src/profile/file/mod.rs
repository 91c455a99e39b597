//! The recording: everything a report or a timeline needs, written during the capture, so that the
//! data survive however the capture ends.
//!
//! A file is a header and chunks. The header is `gilprof\0`, the format's [`VERSION`] and two zero
//! bytes; all numbers are little endian. A chunk is a mark, the packed length of its payload, the
//! unpacked length, a CRC-32 over the two lengths and the payload, and the payload: records,
//! compressed by deflate.
//!
//! The records are what the capture side sends to a [`Sink`](crate::sample::Sink) ([`encode`] lists
//! them), so a replay builds the same profile as the capture did, to the last bit. Numbers are
//! varints, most of them differences to the previous value. Strings, functions and stacks are
//! written once and then referred to by number. A reset record forgets all numbers, which bounds
//! the memory of both sides.
//!
//! A chunk is written and synced at least twice a second. A truncated file, or a file with a chunk
//! whose checksum is wrong, can be read up to that chunk. Each chunk holds the target's facts and
//! the capture statistics so far; the last chunk is marked as the last.
//!
//! A chunk depends on the chunks before it, so nothing after a broken one can be read. A version
//! newer than [`VERSION`] is refused.

mod bytes;
pub mod chunk;
pub mod decode;
pub mod encode;
mod read;
mod recorder;
#[cfg(test)]
mod tests;

pub use read::{Playback, Recording, ReplaySummary};
pub use recorder::Recorder;

/// The version written. Older versions stay readable; each has a golden file.
pub const VERSION: u16 = 1;
