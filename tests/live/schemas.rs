//! The JSON of attach, dump and gate of a live program is valid by the published schemas,
//! `docs/schemas/*.schema.json`.

use crate::harness::{newest, Suite};
use crate::on;
use crate::support::schema::{assert_valid, stdout};
use crate::support::{interpreters, Interpreter, Target};

/// The checks of this file, and their interpreters: the newest that needs no other root.
pub fn cases(suite: &mut Suite) {
    let here = interpreters().into_iter().filter(|interpreter| interpreter.root.is_none()).collect();
    on!(suite, newest(here), [attach_dump_and_gate_are_valid]);
}

fn attach_dump_and_gate_are_valid(python: &Interpreter) {
    let target = Target::start(python, "cpu.py", &["--threads", "3"]);
    let pid = target.pid().to_string();
    assert_valid("dump", &stdout(&["dump", "--pid", &pid, "--format", "json"], &[0]));
    assert_valid("report", &stdout(&["attach", "--pid", &pid, "--duration", "500ms", "--format", "json"], &[0]));
    let gate = ["gate", "--pid", &pid, "--duration", "1s", "--max", "waiting <= 1%", "--format", "json"];
    assert_valid("gate", &stdout(&gate, &[1, 3]));
}
