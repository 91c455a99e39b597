//! Another process as bytes, maps and OS threads; no Python here.
pub mod memory;
