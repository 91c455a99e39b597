//! CPython's own data, read through `Memory`.
pub mod attach;
pub mod binary;
pub mod code;
pub mod diagnose;
pub mod frames;
pub mod gil;
pub mod gil_waits;
pub mod interpreters;
pub mod kernel_config;
pub mod layout;
pub mod lines;
pub mod objects;
pub mod runtimes;
pub mod stack;
pub mod starting;
pub mod thread_names;
pub mod version;
