//! The Python processes of the host, by `/proc`.
//!
//! Whether a process is Python is read from the files that it has mapped, once for each program. A
//! program that loads its Python late is found when it is read again.

use super::lists::processes::HostRow;
use crate::ids::Pid;
use crate::process::proc_info::{self, CpuTicks, StartTime};
use crate::process::sys_linux;
use crate::python::diagnose;
use crate::units::Nanos;
use rustc_hash::FxHashMap;

/// Every so many readings, programs that were not Python are read again.
const RECHECK_EVERY: u64 = 10;
/// Processes above one that are searched for its nearest Python.
const MAX_ANCESTRY: usize = 64;

/// What is known of a process from earlier readings.
#[derive(Debug)]
struct KnownProcess {
    start: StartTime,
    executable: Option<String>,
    /// `None`: its maps may not be read.
    python: Option<bool>,
    command: String,
    user: String,
    container: Option<String>,
    /// Its CPU time at the last reading.
    ticks: Option<u64>,
}

/// The processes of the host.
#[derive(Debug, Default)]
pub struct Host {
    known: FxHashMap<Pid, KnownProcess>,
    users: FxHashMap<u32, String>,
    readings: u64,
    read_at: Option<Nanos>,
    /// Processes of others, of which it cannot be read whether they are Python.
    pub unreadable: usize,
}

impl Host {
    /// Reads all processes.
    pub fn read(&mut self) -> Vec<HostRow> {
        let now = sys_linux::monotonic();
        let elapsed = self.read_at.replace(now).map(|before| now.saturating_since(before));
        if self.readings == 0 {
            self.users = proc_info::user_names();
        }
        let recheck = self.readings.is_multiple_of(RECHECK_EVERY);
        self.readings += 1;
        let all: FxHashMap<Pid, CpuTicks> = proc_info::pids().into_iter().filter_map(|pid| Some((pid, CpuTicks::from_pid(pid)?))).collect();
        self.known.retain(|pid, known| all.get(pid).is_some_and(|ticks| ticks.start == known.start));
        for (&pid, ticks) in &all {
            self.learn(pid, ticks, recheck);
        }
        self.unreadable = self.known.values().filter(|known| known.python.is_none()).count();
        let mut pids: Vec<Pid> = all.keys().copied().filter(|pid| self.is_python(*pid)).collect();
        pids.sort();
        pids.into_iter().filter_map(|pid| self.row(pid, &all, elapsed)).collect()
    }

    fn is_python(&self, pid: Pid) -> bool {
        self.known.get(&pid).is_some_and(|known| known.python == Some(true))
    }

    fn learn(&mut self, pid: Pid, ticks: &CpuTicks, recheck: bool) {
        let executable = proc_info::exe(pid);
        let known = self.known.get(&pid).filter(|known| known.executable == executable && (known.python == Some(true) || !recheck));
        if known.is_some() {
            return;
        }
        let python = if executable.is_some() { diagnose::is_python(pid) } else { kernel_thread_or_unreadable(pid) };
        let ticks_before = self.known.get(&pid).and_then(|known| known.ticks);
        let (mut command, mut user, mut container) = Default::default();
        if python == Some(true) {
            command = diagnose::brief_command(pid);
            user = proc_info::user(pid).map(|id| self.users.get(&id).cloned().unwrap_or_else(|| id.to_string())).unwrap_or_default();
            container = proc_info::container(pid);
        }
        self.known.insert(pid, KnownProcess { start: ticks.start, executable, python, command, user, container, ticks: ticks_before });
    }

    fn row(&mut self, pid: Pid, all: &FxHashMap<Pid, CpuTicks>, elapsed: Option<Nanos>) -> Option<HostRow> {
        let parent = self.python_above(pid, all);
        let own = all.get(&pid)?.own;
        let known = self.known.get_mut(&pid)?;
        let before = known.ticks.replace(own);
        let cpu = before
            .zip(elapsed)
            .filter(|(_, elapsed)| *elapsed > Nanos::ZERO)
            .map(|(before, elapsed)| own.saturating_sub(before) as f64 * proc_info::TICK.as_secs_f64() / elapsed.as_secs_f64());
        let (user, container, command) = (known.user.clone(), known.container.clone(), known.command.clone());
        Some(HostRow { pid: pid.0, parent: parent.map(|pid| pid.0), user, container, command, cpu, gil_busy: None, waiting: None })
    }

    /// The nearest process above it that is Python.
    fn python_above(&self, pid: Pid, all: &FxHashMap<Pid, CpuTicks>) -> Option<Pid> {
        let parent = |pid: &Pid| all.get(pid).map(|ticks| ticks.parent);
        std::iter::successors(parent(&pid), parent).take(MAX_ANCESTRY).find(|above| self.is_python(*above))
    }
}

/// A process whose executable cannot be read: a kernel thread, which is not Python, or one of
/// another user.
fn kernel_thread_or_unreadable(pid: Pid) -> Option<bool> {
    proc_info::command(pid).first().is_some_and(|name| name.starts_with('[')).then_some(false)
}

/// The Python processes whose command line has this text.
pub fn find(text: &str) -> Vec<(Pid, String)> {
    let mut pids = proc_info::pids();
    pids.sort();
    let named = |pid: &Pid| proc_info::command(*pid).join(" ").contains(text) && diagnose::is_python(*pid) == Some(true);
    pids.into_iter().filter(named).map(|pid| (pid, diagnose::command(pid))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read_and_is_no_python() {
        let mut host = Host::default();
        let rows = host.read();
        let me = Pid(std::process::id() as i32);
        assert!(host.known.contains_key(&me) && rows.iter().all(|row| row.pid != me.0));
        assert_eq!(host.known[&me].python, Some(false));
        host.read();
        assert!(host.known.contains_key(&me), "what is known stays");
    }
}
