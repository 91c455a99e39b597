//! `pip install .` and `cargo install --path .` install what the README promises.
//! `packaging/check_install.py` runs them in fresh folders, with the build of the tests.

use crate::harness::Suite;
use crate::once;
use crate::support::{self, repository, skip};
use std::path::Path;
use std::process::Command;

/// The checks of this file, which need no particular interpreter.
pub fn cases(suite: &mut Suite) {
    // Each compiles the crate once more.
    if support::all() {
        once!(suite, [pip_install_brings_the_program_and_the_pytest_plugin, cargo_install_brings_the_program]);
    }
}

/// The exit code of `check_install.py` when a package that the build needs cannot be fetched.
const SKIPPED: i32 = 77;

fn check(what: &str) {
    // The folder of target/debug/gilprof: the build of the tests serves again.
    let target = Path::new(env!("CARGO_BIN_EXE_gilprof")).ancestors().nth(2).unwrap();
    let mut command = Command::new("python3");
    command.arg(repository().join("tests/live/packaging/check_install.py")).arg(what).env("CARGO_TARGET_DIR", target);
    let out = command.output().unwrap();
    let output = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    match out.status.code() {
        Some(0) => {}
        Some(SKIPPED) => skip(output.trim().trim_start_matches("skipped: ")),
        _ => panic!("{output}"),
    }
}

fn pip_install_brings_the_program_and_the_pytest_plugin() {
    check("pip");
}

fn cargo_install_brings_the_program() {
    check("cargo");
}
