//! What is said of several processes together, beside a report of each.

use crate::analysis::report::{Code, ProcessRole, Verdict, WhatIf};
use crate::sample::RefusedProcess;
use serde::Serialize;

/// The service: a verdict on all processes together, and a table of them.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceReport {
    /// What to do about the service as a whole.
    pub verdict: Verdict,
    /// How many processes were measured.
    pub processes: usize,
    /// Share of the CPU time of the measured processes, and of all processes below them, that the
    /// measured ones used. `None` where the kernel did not say.
    pub measured_share: Option<f64>,
    /// Cores that Python processes used which were not measured; `None` likewise.
    pub unmeasured_python_cores: Option<f64>,
    /// Cores that other programs below the measured processes used; `None` likewise.
    pub other_cores: Option<f64>,
    /// Python processes that could not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedProcess>,
    /// The processes, each below the one that started it.
    pub table: Vec<ProcessRow>,
    /// Answers to `--what-if` about the service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub what_if: Vec<WhatIf>,
    /// The role of each report's process, in the order of the reports.
    #[serde(skip)]
    pub roles: Vec<ProcessRole>,
    /// Reports by the time for which their threads waited for a GIL, longest first, without those
    /// that hardly did.
    #[serde(skip)]
    pub most_waiting: Vec<usize>,
}

/// One process, or a group of short-lived ones of one kind.
///
/// Shares of a group are means over the time of its processes: nothing is summed over GILs.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessRow {
    /// Of a group, the first one.
    pub pid: i32,
    /// As far as the kernel said.
    pub parent: Option<i32>,
    /// How many of its ancestors are in the table.
    pub depth: usize,
    /// What it is in the service.
    pub role: ProcessRole,
    /// Index into the reports; of a group, that of the first one.
    pub report: usize,
    /// Which of multiprocessing's helpers it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helper: Option<&'static str>,
    /// 1, or the size of the group.
    pub processes: usize,
    /// For how long it was measured; of a group, the sum.
    pub seconds: f64,
    /// Python threads; of a group, the mean.
    pub threads: f64,
    /// Share of the time in which a thread held the GIL.
    pub busy: f64,
    /// Mean share of their time for which the threads waited that use the GIL.
    pub waiting: f64,
    /// Cores that it used while it was measured.
    pub cpu: f64,
    /// Of the process; of a group, the one that most of its time has.
    pub verdict: Code,
}
