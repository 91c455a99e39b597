//! The JSON of attach, dump and gate of a live program is valid by the published schemas,
//! `docs/schemas/*.schema.json`.

#[path = "support/schema.rs"]
mod schema;
mod support;

use schema::{assert_valid, stdout};
use support::{interpreters, Interpreter, Target};

/// The newest that needs no other root.
fn python() -> Option<Interpreter> {
    interpreters().into_iter().rfind(|interpreter| interpreter.root.is_none())
}

#[test]
fn attach_dump_and_gate_of_a_live_program_are_valid() {
    let Some(python) = python() else { return };
    let _alone = support::serial_guard();
    let target = Target::start(&python, "cpu.py", &["--threads", "3"]);
    let pid = target.pid().to_string();
    assert_valid("dump", &stdout(&["dump", "--pid", &pid, "--format", "json"], &[0]));
    assert_valid("report", &stdout(&["attach", "--pid", &pid, "--duration", "500ms", "--format", "json"], &[0]));
    let gate = ["gate", "--pid", &pid, "--duration", "1s", "--max", "waiting <= 1%", "--format", "json"];
    assert_valid("gate", &stdout(&gate, &[1, 3]));
}
