//! An offset with the type of the field, so that a table cannot be read with the wrong width.

use crate::process::pod::{self, Plain};
use std::fmt;
use std::marker::PhantomData;

/// The offset of a field of type `T` inside its struct, in bytes.
pub struct Field<T> {
    offset: u32,
    kind: PhantomData<fn() -> T>,
}

impl<T> Field<T> {
    /// A field `offset` bytes into its struct.
    pub const fn at(offset: u32) -> Field<T> {
        Field { offset, kind: PhantomData }
    }

    /// Bytes from the start of the struct.
    pub const fn offset(self) -> usize {
        self.offset as usize
    }
}

impl<T: Plain> Field<T> {
    /// The field's value in the bytes of its struct; `None` when they end before it.
    pub fn read_from(self, bytes: &[u8]) -> Option<T> {
        pod::at(bytes, self.offset())
    }
}

impl<T> Clone for Field<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Field<T> {}
impl<T> PartialEq for Field<T> {
    fn eq(&self, other: &Self) -> bool {
        self.offset == other.offset
    }
}
impl<T> Eq for Field<T> {}
impl<T> fmt::Debug for Field<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}", self.offset)
    }
}
