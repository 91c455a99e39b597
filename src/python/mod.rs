//! CPython's own data, read through `Memory`.
pub mod binary;
mod explain;
pub mod layout;
pub mod version;
pub mod code;
pub mod lines;
pub mod objects;
pub mod thread_names;
