//! The one way by which foreign bytes come in. Live, recorded and faulty memory look the same to everything above.
//!
//! Unreadable is never zero: a read either fills its buffer whole or is an error. Batches go to the kernel in one call where the
//! implementation can; each part of a batch fails or succeeds on its own.

pub use crate::error::ReadError;
use crate::ids::Addr;

/// One part of a batch: where to read from, how much, and whether it worked. What the parts read lies one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The target's address.
    pub at: Addr,
    /// How many bytes.
    pub len: usize,
    /// Set by [`Memory::read_batch`]; true when all of them came. Else what lies in their place is unspecified.
    pub ok: bool,
}

impl Part {
    /// A part that has not been read yet.
    pub fn new(at: Addr, len: usize) -> Part {
        Part { at, len, ok: false }
    }
}

/// The parts of a batch, each with its place in `bytes`. It ends at a part for which there is no room.
pub fn split_parts<'a>(parts: &'a [Part], mut bytes: &'a [u8]) -> impl Iterator<Item = (&'a Part, &'a [u8])> {
    parts.iter().map_while(move |part| {
        let (piece, rest) = bytes.split_at_checked(part.len)?;
        bytes = rest;
        Some((part, piece))
    })
}

/// Another process's memory.
pub trait Memory {
    /// Fills `into` from `at`, whole or not at all.
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError>;

    /// Reads many ranges, in order, as close together in time as can be, to one behind the other in `into`. A part that cannot be read, or for
    /// which there is no room, does not spoil the others. An error means that the process as a whole cannot be read (gone, refused).
    fn read_batch(&self, parts: &mut [Part], mut into: &mut [u8]) -> Result<(), ReadError> {
        for part in parts {
            part.ok = false;
            let Some((piece, rest)) = into.split_at_mut_checked(part.len) else { break };
            into = rest;
            part.ok = match self.read(part.at, piece) {
                Ok(()) => true,
                Err(ReadError::Unmapped { .. }) => false,
                Err(e) => return Err(e),
            };
        }
        Ok(())
    }

    /// A little-endian u64.
    fn read_u64(&self, at: Addr) -> Result<u64, ReadError> {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A little-endian u32.
    fn read_u32(&self, at: Addr) -> Result<u32, ReadError> {
        let mut bytes = [0; 4];
        self.read(at, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// A pointer.
    fn read_ptr(&self, at: Addr) -> Result<Addr, ReadError> {
        self.read_u64(at).map(Addr)
    }
}

impl<M: Memory + ?Sized> Memory for &M {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        (**self).read(at, into)
    }
    fn read_batch(&self, parts: &mut [Part], into: &mut [u8]) -> Result<(), ReadError> {
        (**self).read_batch(parts, into)
    }
}
