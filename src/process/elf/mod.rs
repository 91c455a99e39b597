//! ELF images, in files and in memory.

mod image;
mod machine;
mod symbols;

pub use image::{ElfError, Image};
pub use machine::Machine;
pub use symbols::{Depth, Symbol};
