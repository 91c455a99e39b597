//! CPython's own data, read through `Memory`.
pub mod binary;
mod explain;
pub mod layout;
pub mod version;
