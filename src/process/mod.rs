//! Another process as bytes, maps and OS threads; no Python here.
pub mod live;
pub mod memory;
pub mod pod;
pub mod replay;
pub mod sys_linux;
pub mod threads;
