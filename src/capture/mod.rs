//! Looks at a live interpreter, judges what it saw, and keeps time.
