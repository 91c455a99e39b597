//! CPython's own data, read through `Memory`.
pub mod code;
pub mod layout;
pub mod lines;
pub mod objects;
pub mod thread_names;
