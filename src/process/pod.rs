//! Plain numbers out of foreign bytes: bounds checked, alignment ignored, little-endian like every machine gilprof runs on.

use crate::ids::Addr;

/// A number that any bytes of its size make.
pub trait Plain: Copy {
    /// From the start of `bytes`; `None` when they are too few.
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
