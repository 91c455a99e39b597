//! Another process as bytes, maps and OS threads; no Python here.
pub mod access;
pub mod affinity;
pub mod c_library;
mod cgroup;
pub mod elf;
mod freezer;
pub mod idle_cpus;
pub mod inner_tids;
pub mod kernel_events;
pub mod kernel_stack;
pub mod live;
pub mod mapped_file;
pub mod maps;
pub mod memory;
pub mod memory_dump;
pub mod pod;
pub mod proc_info;
mod procfs;
pub mod pthread;
#[cfg(any(test, feature = "internals"))]
pub mod replay;
pub mod runnable;
pub mod sys_linux;
pub mod target;
pub mod task_list;
pub mod threads;
