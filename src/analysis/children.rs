//! The CPU time of the processes below the target, in cores.
//!
//! The kernel counted it, so that it has no interval.

use super::phrases;
use super::report::{ChildProcess, Children};
use crate::profile::Profile;
use crate::sample::ProcessKind;
use crate::units::Nanos;

/// Cores used together from which the child processes do work.
pub(super) const WORK: f64 = 0.05;
/// Share of all CPU time from which processes of unknown kind get a warning.
const UNKNOWN_SHARE: f64 = 0.1;
/// Most processes in a report.
const LISTED: usize = 16;
/// Most processes that one sentence names.
const NAMED: usize = 4;

/// The figures; `None` if no child process used CPU time, or that is not known.
pub(super) fn of(profile: &Profile) -> Option<Children> {
    let (cpu, seconds) = (profile.window.descendants.as_ref()?, profile.seconds());
    let cores = |time: Nanos| if seconds > 0.0 { time.as_secs_f64() / seconds } else { 0.0 };
    if cpu.python + cpu.other + cpu.unknown == Nanos::ZERO {
        return None;
    }
    let process = |process: &crate::sample::Descendant| ChildProcess {
        pid: process.pid,
        command: process.command.clone(),
        kind: process.kind,
        cores: cores(process.cpu),
        ended: process.ended,
    };
    Some(Children {
        attach_command: format!("gilprof attach --subprocesses --pid {}", profile.target.pid),
        own_cores: cores(cpu.own),
        python_cores: cores(cpu.python),
        other_cores: cores(cpu.other),
        unknown_cores: cores(cpu.unknown),
        python_processes: cpu.python_processes,
        other_processes: cpu.other_processes,
        processes: cpu.largest.iter().take(LISTED).map(process).collect(),
    })
}

impl Children {
    /// Whether Python processes below the target work.
    pub fn python_works(&self) -> bool {
        self.python_cores >= WORK
    }

    /// Whether processes that are not Python, or of unknown kind, work.
    pub fn others_work(&self) -> bool {
        self.other_cores + self.unknown_cores >= WORK
    }

    /// Share of the CPU time of the target and of all processes below it that Python processes
    /// below it used.
    pub fn python_share(&self) -> f64 {
        let all = self.own_cores + self.python_cores + self.other_cores + self.unknown_cores;
        if all > 0.0 {
            self.python_cores / all
        } else {
            0.0
        }
    }

    /// Without the Python processes.
    pub(super) fn without_python(self) -> Children {
        let processes = self.processes.into_iter().filter(|process| process.kind != ProcessKind::Python).collect();
        Children { python_cores: 0.0, python_processes: 0, processes, ..self }
    }

    /// "2 Python child processes used 1.9 cores".
    pub fn python_summary(&self) -> String {
        let noun = if self.python_processes == 1 { "process" } else { "processes" };
        format!("{} Python child {noun} used {}", self.python_processes, phrases::cores(self.python_cores))
    }

    /// "4243 (python app.py) 1 core, 4244 …": the Python processes with the most CPU time.
    pub(super) fn python_names(&self) -> String {
        let one = |process: &ChildProcess| {
            let ended = if process.ended { ", ended" } else { "" };
            format!("{} ({}{ended}) {}", process.pid, phrases::clean(&process.command), phrases::cores(process.cores))
        };
        let mut named: Vec<String> = self.python().take(NAMED).map(one).collect();
        let rest = (self.python_processes as usize).saturating_sub(named.len());
        if rest > 0 {
            named.push(format!("and {rest} more"));
        }
        named.join(", ")
    }

    /// A warning if much of the CPU time was of processes that ended before gilprof saw them.
    pub(super) fn unknown_warning(&self) -> Option<String> {
        let all = self.own_cores + self.python_cores + self.other_cores + self.unknown_cores;
        (self.unknown_cores >= WORK && self.unknown_cores >= UNKNOWN_SHARE * all).then(|| {
            let used = phrases::cores(self.unknown_cores);
            format!("child processes that ended soon after their start used {used}; whether they were Python is not known.")
        })
    }

    fn python(&self) -> impl Iterator<Item = &ChildProcess> {
        self.processes.iter().filter(|process| process.kind == ProcessKind::Python)
    }
}
