//! The processes that the target started, with their own children, and the CPU time that they used.
//!
//! The kernel counts the CPU time of a process and, once its parent has waited for it, adds it to
//! the parent's count. So the sum is known even of processes that no poll saw; what kind they were
//! is not.

use crate::units::Nanos;
use serde::{Deserialize, Serialize};

/// What a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessKind {
    /// CPython, by the files that it has mapped.
    Python,
    /// Another program.
    Other,
    /// Not known: it ended before it was seen, or may not be read.
    Unknown,
}

/// The CPU time of the target and of the processes below it, in the window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DescendantCpu {
    /// Of the target itself.
    pub own: Nanos,
    /// Of Python processes.
    pub python: Nanos,
    /// Of processes that are not Python.
    pub other: Nanos,
    /// Of processes of unknown kind.
    pub unknown: Nanos,
    /// How many Python processes used CPU time.
    pub python_processes: u32,
    /// How many processes that are not Python used CPU time.
    pub other_processes: u32,
    /// Those with the most CPU time, most first.
    pub largest: Vec<Descendant>,
}

impl DescendantCpu {
    /// Of all these processes.
    pub fn total(&self) -> Nanos {
        self.own + self.python + self.other + self.unknown
    }
}

/// The processes of a capture of several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessTree {
    /// The CPU time of the process at the top and of all processes below it, measured or not, in
    /// the window of all; `None` where the kernel did not say.
    pub cpu: Option<DescendantCpu>,
    /// The CPU time of processes that were measured, but are not shown, because there are too many.
    pub not_shown: Nanos,
    /// Python processes that could not be read.
    pub refused: Vec<RefusedProcess>,
}

/// A Python process that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RefusedProcess {
    /// Its id, as gilprof sees it.
    pub pid: i32,
    /// Its command, shortened, without control characters.
    pub command: String,
    /// Why.
    pub why: String,
}

impl RefusedProcess {
    /// A process with the error of attaching to it.
    pub fn new(pid: i32, command: String, why: &impl std::fmt::Display) -> RefusedProcess {
        RefusedProcess { pid, command, why: why.to_string() }
    }
}

/// One process below the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descendant {
    /// Its id, as gilprof sees it.
    pub pid: i32,
    /// Its command, shortened, without control characters.
    pub command: String,
    /// What it ran for most of its CPU time.
    pub kind: ProcessKind,
    /// Its CPU time in the window.
    pub cpu: Nanos,
    /// Whether it ended in the window.
    pub ended: bool,
}
