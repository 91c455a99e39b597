//! The recording: everything a report or a picture needs, written as it is measured, so that it is there whatever ends the measuring.
//!
//! A file is a header and chunks. The header is `gilprof\0`, the format's [`VERSION`] and two bytes of nothing, little endian like all
//! numbers here. A chunk is its mark, the length of its payload, the length of that unpacked, a CRC-32 of the two lengths and the
//! payload, and the payload: records, packed by deflate. The records are what the capture side tells its [`Sink`](crate::sample::Sink)
//! ([`encode`] lists them), so that a replay builds the same profile as the measuring did, to the last bit. Numbers are varints, most of
//! them differences to what came before; strings, functions and stacks are told once and then by number, until a record says to begin
//! anew, which bounds the memory of both sides.
//!
//! A chunk is written at least twice a second and brought to the disk. A file that breaks off, or has a chunk whose sum is wrong, is
//! good up to there. Each chunk holds the target's and the window's facts as of then; the last one is marked as the last.
//!
//! Chunks follow one another in their meaning, so nothing behind a broken one can be read; a newer version than [`VERSION`] is refused.

mod bytes;
pub mod chunk;
pub mod decode;
pub mod encode;
mod read;
mod recorder;
#[cfg(test)]
mod tests;

pub use read::{Recording, ReplaySummary};
pub use recorder::Recorder;

/// The version written. Older ones stay readable, a golden file each.
pub const VERSION: u16 = 1;
