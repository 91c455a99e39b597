//! Another process as bytes, maps and OS threads; no Python here.
pub mod access;
mod cgroup;
pub mod elf;
pub mod facts;
pub mod find;
pub mod live;
pub mod maps;
pub mod memory;
pub mod pod;
mod procfs;
pub mod pthread;
pub mod recording;
pub mod replay;
pub mod source;
pub mod sys_linux;
pub mod threads;
