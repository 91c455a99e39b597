//! ELF images, in files and in memory.

mod image;
mod symbols;

pub use image::{ElfError, Image, Section, Segment};
pub use symbols::{Depth, Symbol};
