//! Looks at a live interpreter, judges what it saw, and keeps time.
pub mod state_machine;
pub mod tid_resolver;
pub mod bindings;
pub mod classify;
pub mod schedule;
pub mod exact;
pub mod off_gil;
pub mod stop_detector;
pub mod cpu_attribution;
pub mod session;
pub mod backend;
pub mod address_space;
pub mod recorded_sample;
pub mod sampler;
pub mod thread_tracker;
