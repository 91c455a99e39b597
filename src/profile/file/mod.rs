//! The recording: everything a report or a timeline needs, written during the capture, so that the
//! data survive however the capture ends.
//!
//! A file is a header and chunks. The header is `gilprof\0`, the format's [`VERSION`] and two zero
//! bytes; all numbers are little endian. A chunk is a mark, the packed length of its payload, the
//! unpacked length, the number of the process that it is about, a CRC-32 over these numbers and the
//! payload, and the payload: records, compressed by deflate.
//!
//! A file may hold several processes, whose chunks alternate. Each process has its own strings,
//! threads and times, and can be read without the others.
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
//! A chunk depends on the chunks of its process before it, so nothing after a broken one can be
//! read. Version 1 had one process and no number of it. A version newer than [`VERSION`] is
//! refused.

mod bytes;
pub mod chunk;
pub mod decode;
pub mod encode;
mod read;
mod recorder;
#[cfg(test)]
mod tests;

pub use read::{Playback, Recording, ReplaySummary};
pub use recorder::{Recorder, RecordingWriter};

/// The version written. Older versions stay readable; each has a golden file.
pub const VERSION: u16 = 2;
