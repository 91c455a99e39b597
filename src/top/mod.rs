//! `gilprof top`: a live view of a process, or of a recording that is played.
//!
//! Three threads. The sampling thread collects records into pieces (`piece`). The analyst keeps the
//! history of them (`history`), makes pictures four times a second (`picture`) and writes files.
//! The screen (`app`) puts pictures and keys into the model and draws it. A slow or stopped
//! terminal delays only the screen.
//!
//! A figure is never computed here: a picture is the report of a window, as `gilprof attach` would
//! print it. The model is a value and drawing is a function of it, so screens are tested without a
//! terminal.

pub mod analyst;
pub mod app;
pub mod draw;
mod files;
pub mod filter;
pub mod history;
pub mod host;
pub mod host_sampler;
pub mod icicle;
pub mod lists;
pub mod measurement;
pub mod model;
pub mod picture;
pub mod piece;
mod stats;
pub mod terminal;
