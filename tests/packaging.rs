//! `pip install .` and `cargo install --path .` bring what the README says; `packaging/check_install.py`
//! does it in fresh folders, with the build of the tests.

mod support;

use std::path::Path;
use std::process::Command;
use support::{repository, skip};

/// Ends with this code when a package that the build needs cannot be fetched.
const SKIPPED: i32 = 77;

fn check(what: &str) {
    // target/debug/gilprof: what was built for the tests is built already.
    let target = Path::new(env!("CARGO_BIN_EXE_gilprof")).ancestors().nth(2).unwrap();
    let mut command = Command::new("python3");
    command.arg(repository().join("tests/packaging/check_install.py")).arg(what).env("CARGO_TARGET_DIR", target);
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    match out.status.code() {
        Some(0) => {}
        Some(SKIPPED) => skip(said.trim().trim_start_matches("skipped: ")),
        _ => panic!("{said}"),
    }
}

#[test]
fn pip_install_brings_the_program_and_the_pytest_plugin() {
    let _alone = support::serial_guard();
    check("pip");
}

#[test]
fn cargo_install_brings_the_program() {
    check("cargo");
}
