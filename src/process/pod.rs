//! Reads plain numbers from foreign bytes: bounds checked, alignment ignored, little-endian like
//! every machine that gilprof runs on.

use crate::ids::Addr;

/// A number for which any bytes of its size are valid.
pub trait Plain: Copy {
    /// Reads from the start of `bytes`; `None` if they are too short.
    fn parse(bytes: &[u8]) -> Option<Self>;
}

macro_rules! plain {
    ($($t:ty),*) => {$(
        impl Plain for $t {
            fn parse(bytes: &[u8]) -> Option<Self> {
                bytes.first_chunk().map(|b| <$t>::from_le_bytes(*b))
            }
        }
    )*};
}

plain!(u8, i8, u16, i32, u32, i64, u64);

impl Plain for Addr {
    fn parse(bytes: &[u8]) -> Option<Self> {
        u64::parse(bytes).map(Addr)
    }
}

/// The number `offset` bytes into `bytes`.
pub fn at<T: Plain>(bytes: &[u8], offset: usize) -> Option<T> {
    T::parse(bytes.get(offset..)?)
}
