//! Looks at a live interpreter, judges what it saw, and keeps time.
pub mod account;
pub mod bind;
pub mod claims;
pub mod classify;
pub mod clock;
pub mod exact;
pub mod habit;
pub mod halt;
pub mod ledger;
pub mod observe;
pub mod peers;
pub mod program;
pub mod record;
pub mod sampler;
pub mod tracked;
