//! The one way by which foreign bytes come in. Live, recorded and faulty memory look the same to everything above.
//!
//! Unreadable is never zero: a read either fills its buffer whole or is an error. Batches go to the kernel in one call where the
//! implementation can; each part of a batch fails or succeeds on its own.

use crate::ids::Addr;

/// A read that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The address is not mapped, or only part of the range is.
    #[error("{len} bytes at {at} are not readable")]
    Unmapped {
        /// Where.
        at: Addr,
        /// How many bytes were asked for.
        len: usize,
    },
    /// The process is gone.
    #[error("the process is gone")]
    Gone,
    /// The kernel refuses: a matter of permission.
    #[error("the kernel refuses to read the process's memory")]
    Refused,
}

/// One part of a batch: where to read from, where to put it, and whether it worked.
#[derive(Debug)]
pub struct Part<'a> {
    /// The target's address.
    pub at: Addr,
    /// Filled whole on success; unspecified contents on failure.
    pub into: &'a mut [u8],
    /// Set by [`Memory::read_batch`]; true when `into` was filled whole.
    pub ok: bool,
}

impl<'a> Part<'a> {
    /// A part that has not been read yet.
    pub fn new(at: Addr, into: &'a mut [u8]) -> Part<'a> {
        Part { at, into, ok: false }
    }
}

/// Another process's memory.
pub trait Memory {
    /// Fills `into` from `at`, whole or not at all.
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError>;

    /// Reads many ranges, in order, as close together in time as can be. A part that cannot be read does not spoil the others.
    /// An error means that the process as a whole cannot be read (gone, refused).
    fn read_batch(&self, parts: &mut [Part<'_>]) -> Result<(), ReadError> {
        for part in parts {
            part.ok = match self.read(part.at, part.into) {
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
    fn read_batch(&self, parts: &mut [Part<'_>]) -> Result<(), ReadError> {
        (**self).read_batch(parts)
    }
}
