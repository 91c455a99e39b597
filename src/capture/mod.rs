//! Looks at a live interpreter, judges what it saw, and keeps time.
pub mod address_space;
pub mod backend;
pub mod bindings;
pub mod classify;
pub mod cpu_attribution;
pub mod exact;
pub mod off_gil;
pub mod recorded_sample;
pub mod sampler;
pub mod schedule;
pub mod session;
pub mod state_machine;
pub mod stop_detector;
pub mod thread_tracker;
pub mod tid_resolver;
