//! CPython's own data, read through `Memory`.
pub mod layout;
