//! The CPU time of each process below the target, from one poll to the next.
//!
//! A process that a poll saw is counted by its own CPU time, and the polls know what it ran
//! meanwhile. The CPU time of a process that no poll saw reaches the count of its parent, once the
//! parent has waited for it: what a parent has gained beyond its children that were seen to end is
//! of unknown kind. A process that no poll saw, and that neither the target nor a process below it
//! waited for, is not counted.

use crate::ids::Pid;
use crate::process::proc_info::{self, CpuTicks, StartTime};
use crate::python::diagnose;
use crate::sample::{Descendant, DescendantCpu, ProcessKind};
use crate::units::Nanos;
use std::collections::BTreeMap;

/// The largest number of descendants that are followed at once.
const MAX_PROCESSES: usize = 512;
/// The largest number of generations that are followed.
const MAX_DEPTH: u8 = 8;
/// The largest number of processes that are listed.
const MAX_LISTED: usize = 16;

/// The kernel's data of processes.
pub(super) trait ProcessSource {
    /// The children of a process.
    fn children(&self, pid: Pid) -> Vec<Pid>;
    /// The CPU times of a process; `None` when it is gone.
    fn cpu(&self, pid: Pid) -> Option<CpuTicks>;
    /// The path of its executable.
    fn executable(&self, pid: Pid) -> Option<String>;
    /// Whether it is Python, if that can be read.
    fn is_python(&self, pid: Pid) -> Option<bool>;
    /// Its command, for a sentence.
    fn command(&self, pid: Pid) -> String;
    /// The time since boot in ticks.
    fn now(&self) -> Option<u64>;
}

/// The processes of this machine.
#[derive(Debug)]
pub(super) struct LiveProcesses;

impl ProcessSource for LiveProcesses {
    fn children(&self, pid: Pid) -> Vec<Pid> {
        proc_info::children(pid)
    }
    fn cpu(&self, pid: Pid) -> Option<CpuTicks> {
        CpuTicks::from_pid(pid)
    }
    fn executable(&self, pid: Pid) -> Option<String> {
        proc_info::exe(pid)
    }
    fn is_python(&self, pid: Pid) -> Option<bool> {
        diagnose::is_python(pid)
    }
    fn command(&self, pid: Pid) -> String {
        diagnose::brief_command(pid)
    }
    fn now(&self) -> Option<u64> {
        Some(proc_info::uptime()?.as_nanos() / proc_info::TICK.as_nanos())
    }
}

/// A process below the target.
#[derive(Debug)]
struct TrackedProcess {
    depth: u8,
    /// The times at the latest poll.
    last: CpuTicks,
    /// What it runs, and the executable for which that is known: `exec` changes both.
    kind: ProcessKind,
    executable: Option<String>,
    command: String,
    /// Ticks in the window as Python, as another program, as an unknown one.
    used: [u64; 3],
    /// As [`DescendantTracker::unseen`].
    unseen: i64,
}

impl TrackedProcess {
    fn total(&self) -> u64 {
        self.used.iter().sum()
    }

    fn describe(&self, pid: Pid, ended: bool) -> Descendant {
        let kinds = [ProcessKind::Python, ProcessKind::Other, ProcessKind::Unknown];
        let most = kinds.into_iter().zip(self.used).max_by_key(|&(kind, used)| (used, std::cmp::Reverse(kind)));
        let kind = most.map_or(ProcessKind::Unknown, |(kind, _)| kind);
        Descendant { pid: pid.0, command: self.command.clone(), kind, cpu: duration(self.total()), ended }
    }
}

/// The sums over the processes that have ended.
#[derive(Debug, Default)]
struct EndedProcesses {
    used: [u64; 3],
    python: u32,
    other: u32,
    largest: Vec<Descendant>,
    /// What they gained beyond their children, where no process below the target waited for them.
    unseen: u64,
}

/// Follows the processes below one process.
#[derive(Debug)]
pub(super) struct DescendantTracker<S> {
    source: S,
    target: Pid,
    /// The target's times at the first and at the latest poll.
    first: Option<CpuTicks>,
    last: Option<CpuTicks>,
    /// When the first poll began. A process that started later used all its CPU time in the window.
    began: Option<u64>,
    tracked: BTreeMap<Pid, TrackedProcess>,
    ended: EndedProcesses,
    /// What the target gained by waiting for children, less the times of its children seen to end.
    /// Below zero where it has not waited for them: it ignores SIGCHLD.
    unseen: i64,
}

impl<S: ProcessSource> DescendantTracker<S> {
    pub(super) fn new(target: Pid, source: S) -> DescendantTracker<S> {
        DescendantTracker {
            source,
            target,
            first: None,
            last: None,
            began: None,
            tracked: BTreeMap::new(),
            ended: EndedProcesses::default(),
            unseen: 0,
        }
    }

    /// Reads all processes. Returns whether there are descendants, or have been since the last
    /// poll.
    pub(super) fn poll(&mut self) -> bool {
        let reaped = self.poll_target();
        self.find_new();
        let pids: Vec<Pid> = self.tracked.keys().copied().collect();
        let mut ended: Vec<Pid> = pids.into_iter().filter(|&pid| !self.poll_descendant(pid)).collect();
        // Children before their parents, which hand on what they gained.
        ended.sort_by_key(|pid| std::cmp::Reverse(self.tracked.get(pid).map(|process| process.depth)));
        ended.into_iter().for_each(|pid| self.remove_ended(pid));
        reaped || !self.tracked.is_empty()
    }

    /// Returns whether the target has waited for children since the last poll.
    fn poll_target(&mut self) -> bool {
        let Some(now) = self.source.cpu(self.target) else { return false };
        let Some(before) = self.last.filter(|last| last.start == now.start) else {
            if self.first.is_none() {
                self.began = self.source.now();
                (self.first, self.last) = (Some(now), Some(now));
            }
            return false;
        };
        self.unseen += difference(now.reaped, before.reaped);
        self.last = Some(now);
        now.reaped > before.reaped
    }

    /// Adds processes that the target or a tracked process has started. A tracked process stays
    /// tracked after its parent has ended.
    fn find_new(&mut self) {
        if self.first.is_none() {
            return;
        }
        let mut parents: Vec<(Pid, u8)> = self.tracked.iter().map(|(&pid, process)| (pid, process.depth)).collect();
        parents.push((self.target, 0));
        while let Some((parent, depth)) = parents.pop() {
            if depth >= MAX_DEPTH {
                continue;
            }
            for child in self.source.children(parent) {
                if self.tracked.len() >= MAX_PROCESSES {
                    return;
                }
                if child == self.target || self.tracked.contains_key(&child) {
                    continue;
                }
                if let Some(now) = self.source.cpu(child) {
                    self.tracked.insert(child, self.new_process(now, depth + 1));
                    parents.push((child, depth + 1));
                }
            }
        }
    }

    fn new_process(&self, now: CpuTicks, depth: u8) -> TrackedProcess {
        let is_new = self.began.is_some_and(|began| now.start > StartTime(began));
        let last = if is_new { CpuTicks { own: 0, reaped: 0, ..now } } else { now };
        TrackedProcess { depth, last, kind: ProcessKind::Unknown, executable: None, command: String::new(), used: [0; 3], unseen: 0 }
    }

    /// Returns false for a process that has ended.
    fn poll_descendant(&mut self, pid: Pid) -> bool {
        let now = self.source.cpu(pid);
        let Some(process) = self.tracked.get_mut(&pid) else { return true };
        let Some(now) = now.filter(|now| now.start == process.last.start) else { return false };
        let used = now.own.saturating_sub(process.last.own);
        process.unseen += difference(now.reaped, process.last.reaped);
        process.last = now;
        if used > 0 {
            self.identify(pid);
            if let Some(process) = self.tracked.get_mut(&pid) {
                process.used[process.kind as usize] += used;
            }
        }
        true
    }

    /// Finds out what a process runs, again after `exec`.
    fn identify(&mut self, pid: Pid) {
        let executable = self.source.executable(pid);
        let Some(process) = self.tracked.get_mut(&pid) else { return };
        // A process that has just ended has no executable any more.
        if process.kind != ProcessKind::Unknown && (executable.is_none() || executable == process.executable) {
            return;
        }
        // A process forked by the target has the target's executable, whatever that is called.
        let is_forked = executable.is_some() && executable == self.source.executable(self.target);
        process.kind = match self.source.is_python(pid) {
            Some(true) => ProcessKind::Python,
            Some(false) if is_forked => ProcessKind::Python,
            Some(false) => ProcessKind::Other,
            None => ProcessKind::Unknown,
        };
        process.command = self.source.command(pid);
        process.executable = executable;
    }

    /// The parent has waited for the process and has gained its times, and those of its children.
    /// Where another process adopted it and waited for it, nothing was gained here.
    fn remove_ended(&mut self, pid: Pid) {
        let Some(process) = self.tracked.remove(&pid) else { return };
        let whole = process.last.own.saturating_add(process.last.reaped);
        let balance = process.unseen.saturating_sub_unsigned(whole);
        let ended = &mut self.ended;
        if process.last.parent == self.target {
            self.unseen = self.unseen.saturating_add(balance);
        } else if let Some(parent) = self.tracked.get_mut(&process.last.parent) {
            parent.unseen = parent.unseen.saturating_add(balance);
        } else {
            ended.unseen += u64::try_from(process.unseen).unwrap_or(0);
        }
        ended.used.iter_mut().zip(process.used).for_each(|(sum, used)| *sum += used);
        ended.python += u32::from(process.used[ProcessKind::Python as usize] > 0);
        ended.other += u32::from(process.used[ProcessKind::Other as usize] > 0);
        if process.total() > 0 {
            ended.largest.push(process.describe(pid, true));
            keep_largest(&mut ended.largest);
        }
    }

    /// The times since the first poll; `None` if the target could not be read.
    pub(super) fn cpu(&self) -> Option<DescendantCpu> {
        let (first, last) = (self.first?, self.last?);
        let (mut used, mut largest) = (self.ended.used, self.ended.largest.clone());
        for (&pid, process) in self.tracked.iter().filter(|(_, process)| process.total() > 0) {
            used.iter_mut().zip(process.used).for_each(|(sum, used)| *sum += used);
            largest.push(process.describe(pid, false));
        }
        keep_largest(&mut largest);
        let unseen = self.tracked.values().map(|process| process.unseen).chain([self.unseen]);
        let unseen = self.ended.unseen + unseen.map(|balance| u64::try_from(balance).unwrap_or(0)).sum::<u64>();
        let count = |kind: ProcessKind| self.tracked.values().filter(|process| process.used[kind as usize] > 0).count() as u32;
        let [python, other, unknown] = used;
        Some(DescendantCpu {
            own: duration(last.own.saturating_sub(first.own)),
            python: duration(python),
            other: duration(other),
            unknown: duration(unknown.saturating_add(unseen)),
            python_processes: self.ended.python + count(ProcessKind::Python),
            other_processes: self.ended.other + count(ProcessKind::Other),
            largest,
        })
    }
}

fn keep_largest(list: &mut Vec<Descendant>) {
    list.sort_by(|a, b| b.cpu.cmp(&a.cpu).then(a.pid.cmp(&b.pid)));
    list.truncate(MAX_LISTED);
}

fn difference(now: u64, before: u64) -> i64 {
    i64::try_from(now.saturating_sub(before)).unwrap_or(i64::MAX)
}

fn duration(ticks: u64) -> Nanos {
    Nanos::from_nanos(ticks.saturating_mul(proc_info::TICK.as_nanos()))
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
