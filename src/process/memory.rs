//! The only way by which bytes of another process come in. Live, recorded and faulty memory have
//! the same interface.
//!
//! Unreadable is never zero: a read either fills its whole buffer or is an error. A batch goes to
//! the kernel in one call if the implementation can do that; each part of a batch fails or succeeds
//! on its own.

pub use crate::error::ReadError;
use crate::ids::Addr;

/// One part of a batch: the address, the length, and whether the read succeeded. The bytes of the
/// parts are concatenated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The target's address.
    pub at: Addr,
    /// Length in bytes.
    pub len: usize,
    /// Set by [`Memory::read_batch`]: whether all bytes were read. If not, the bytes in their place
    /// are unspecified.
    pub ok: bool,
}

impl Part {
    /// A part to be read.
    pub fn new(at: Addr, len: usize) -> Part {
        Part { at, len, ok: false }
    }
}

/// Splits `bytes` into the bytes of each part. Ends at the first part that does not fit.
pub fn split_parts<'a>(parts: &'a [Part], mut bytes: &'a [u8]) -> impl Iterator<Item = (&'a Part, &'a [u8])> {
    parts.iter().map_while(move |part| {
        let (piece, rest) = bytes.split_at_checked(part.len)?;
        bytes = rest;
        Some((part, piece))
    })
}

/// The memory of another process.
pub trait Memory {
    /// Fills `into` from `at`, completely or not at all.
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError>;

    /// Reads many ranges in order, as close together in time as possible, and concatenates them in
    /// `into`. A part that cannot be read, or for which `into` has no room, does not affect the
    /// others. An error means that the process as a whole cannot be read (gone, refused).
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

    /// Reads a little-endian u64.
    fn read_u64(&self, at: Addr) -> Result<u64, ReadError> {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Reads a little-endian u32.
    fn read_u32(&self, at: Addr) -> Result<u32, ReadError> {
        let mut bytes = [0; 4];
        self.read(at, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Reads a pointer.
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
