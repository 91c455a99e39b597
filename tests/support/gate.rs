//! Shared by the tests of `gilprof gate`: a folder for its files, and its outcome.

use super::cli::{Finished, Running};
use super::{gilprof_command, repository, scratch, Interpreter};
use std::path::PathBuf;
use std::process::Command;

/// A folder without limits, except for those that a test writes into it.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = scratch(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn put(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap()
    }

    /// `gilprof gate ARGS` in this folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = gilprof_command(&[&["gate"], args].concat());
        command.current_dir(&self.0);
        command
    }

    pub fn gate(&self, args: &[&str]) -> Finished {
        Running::spawn(self.command(args)).end()
    }

    /// `gilprof gate ARGS -- python tests/workloads/gate.py PROGRAM`.
    pub fn run(&self, python: &Interpreter, args: &[&str], program: &[&str]) -> Finished {
        let inner = python.command();
        let mut command = self.command(&[args, &["--"]].concat());
        let workload = repository().join("tests/workloads/gate.py");
        command.arg(inner.get_program()).args(inner.get_args()).args(["-B"]).arg(workload).args(program);
        Running::spawn(command).end()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The gate's JSON.
pub fn outcome(output: &str) -> serde_json::Value {
    serde_json::from_str(output).unwrap_or_else(|e| panic!("{e}: {output}"))
}
