//! Another process as bytes, maps and OS threads; no Python here.
pub mod live;
pub mod access;
mod cgroup;
pub mod elf;
pub mod facts;
pub mod find;
pub mod maps;
pub mod memory;
pub mod pod;
pub mod replay;
pub mod sys_linux;
pub mod threads;
