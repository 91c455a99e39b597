//! Another process as bytes, maps and OS threads; no Python here.
pub mod access;
mod cgroup;
pub mod elf;
pub mod facts;
pub mod find;
pub mod futex_program;
pub mod futex_watch;
pub mod live;
pub mod maps;
pub mod memory;
pub mod pod;
mod procfs;
pub mod pthread;
pub mod replay;
pub mod sys_linux;
pub mod threads;
pub mod tracepoints;
