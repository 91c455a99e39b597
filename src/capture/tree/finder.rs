//! Finds the Python processes below one process, on a thread of its own: to search the files of an
//! interpreter takes longer than the time between two samples.
//!
//! While the kernel has given no new process or thread its id, none has started; and a process that
//! has used no CPU time since the last poll has started no other. So most polls cost next to
//! nothing.

use crate::error::Error;
use crate::ids::Pid;
use crate::process::proc_info::{self, StartTime};
use crate::process::sys_linux;
use crate::python::attach::Attached;
use crate::python::diagnose;
use crate::python::runtimes::RuntimeChoice;
use crate::python::starting::{mapped_code, KnownPython, StartingProcess};
use crate::sample::RefusedProcess;
use crate::units::Nanos;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::time::Duration;

/// The period of polls, and while a process is about to become a Python that can be read.
const PERIOD: Nanos = Nanos::from_millis(20);
const STARTING_PERIOD: Nanos = Nanos::from_millis(1);
/// So long a new process may be about to become Python.
const NEW: Nanos = Nanos::from_millis(100);
/// So long a Python may need to create its interpreter. One that has not by then, or has ended it,
/// is tried more and more rarely.
const CREATING: Nanos = Nanos::from_millis(2_000);
/// A child between its fork and its `exec` is a copy of its parent, and no process of its own. So
/// a child is tried only after this time.
const FORK_TO_EXEC: Nanos = Nanos::from_millis(8);
/// The shortest rest after a poll, as a multiple of what the poll took; while a process is about to
/// become Python, its first samples matter more.
const REST: u64 = 20;
const STARTING_REST: u64 = 1;
/// A process that is not Python is tried again after a fraction of its age, but not later than
/// this.
const RETRY_AGE_FRACTION: u64 = 4;
const MAX_RETRY: Nanos = Nanos::from_millis(500);
/// After so many polls each process is checked for having ended without its parent's notice: a
/// zombie keeps its id.
const CHECK_ZOMBIES_EVERY: u32 = 50;
/// Pythons whose copies are known at once.
const MAX_KNOWN: usize = 8;
/// The largest number of processes that are followed at once.
const MAX_PROCESSES: usize = 4096;

/// What the search has found.
#[derive(Debug)]
pub enum Found {
    /// A Python process that can be read.
    Python(Pid, Attached),
    /// A Python process that cannot be read, and why.
    Refused(RefusedProcess, Error),
}

/// Where the search begins.
#[derive(Debug)]
pub enum SearchFrom {
    /// A process, and all below it. `known`: it is measured already.
    Root { root: Pid, known: bool },
    /// The processes that come here, without those below them.
    Given(Receiver<Pid>),
}

/// The search, which ends when this is dropped.
#[derive(Debug)]
pub struct Finder {
    /// What was found.
    pub found: Receiver<Found>,
    /// Set once none of the processes exists any more.
    over: Arc<AtomicBool>,
    _stop: Sender<()>,
}

impl Finder {
    /// Starts to search.
    pub fn start(from: SearchFrom, runtime: RuntimeChoice) -> Finder {
        let (found_by, found) = mpsc::channel();
        let (stop, asked) = mpsc::channel::<()>();
        let over = Arc::new(AtomicBool::new(false));
        // Set by the end of the thread, or if it cannot be started.
        let ends = EndsSearch(Arc::clone(&over));
        let search = move || {
            let _ends = ends;
            let mut search = ProcessSearch {
                runtime,
                found: found_by,
                processes: BTreeMap::new(),
                known: VecDeque::new(),
                given: None,
                polls: 0,
                newest: None,
            };
            match from {
                SearchFrom::Root { root, known } => search.add(root, known, Nanos::ZERO),
                SearchFrom::Given(pids) => search.given = Some(pids),
            }
            search.run(&asked);
        };
        // Without a thread nothing is found, and the channel is closed at once.
        let _ = std::thread::Builder::new().name("finder".into()).spawn(search);
        Finder { found, over, _stop: stop }
    }

    /// Whether none of the processes exists any more.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// Says that nothing more will be found, when it is dropped.
struct EndsSearch(Arc<AtomicBool>);

impl Drop for EndsSearch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A process that exists.
#[derive(Debug)]
struct KnownProcess {
    start: Option<StartTime>,
    /// Its CPU time at the last poll.
    cpu: Option<Nanos>,
    met_at: Nanos,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// It may be Python, or become it.
    Candidate { starting: StartingProcess, executable: Option<String>, retry_at: Nanos },
    /// It is measured, or cannot be.
    Settled,
}

struct ProcessSearch {
    runtime: RuntimeChoice,
    found: Sender<Found>,
    processes: BTreeMap<Pid, KnownProcess>,
    /// The latest Pythons that were found, whose copies are known at once.
    known: VecDeque<KnownPython>,
    /// Processes that are given instead of found.
    given: Option<Receiver<Pid>>,
    polls: u32,
    /// The newest process or thread of the machine at the last poll.
    newest: Option<u64>,
}

impl ProcessSearch {
    fn add(&mut self, pid: Pid, is_known: bool, after: Nanos) {
        if self.processes.len() >= MAX_PROCESSES {
            return;
        }
        let now = sys_linux::monotonic();
        let candidate = || Kind::Candidate { starting: StartingProcess::new(pid), executable: proc_info::exe(pid), retry_at: now + after };
        let kind = if is_known { Kind::Settled } else { candidate() };
        self.processes.insert(pid, KnownProcess { start: proc_info::start_time(pid), cpu: None, met_at: now, kind });
    }

    fn run(&mut self, asked: &Receiver<()>) {
        while !self.processes.is_empty() || self.given.is_some() {
            let began = sys_linux::monotonic();
            self.poll(began);
            let took = sys_linux::monotonic().saturating_since(began).as_nanos();
            let is_starting = self.processes.values().any(|process| process.is_starting(began));
            let (period, factor) = if is_starting { (STARTING_PERIOD, STARTING_REST) } else { (PERIOD, REST) };
            let rest = period.as_nanos().saturating_sub(took).max(took.saturating_mul(factor));
            if asked.recv_timeout(Duration::from_nanos(rest)) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    fn poll(&mut self, now: Nanos) {
        let given: Vec<Pid> = self.given.iter().flat_map(|given| given.try_iter()).collect();
        given.into_iter().for_each(|pid| self.add(pid, false, Nanos::ZERO));
        let (runtime, found) = (&self.runtime, &self.found);
        let known = &mut self.known;
        self.processes.iter_mut().for_each(|(&pid, process)| process.try_candidate(pid, now, runtime, known, found));
        // Read first: what starts from now on changes it for the next poll.
        let newest = proc_info::newest_pid();
        let none_started = newest.is_some() && newest == self.newest;
        self.newest = newest;
        let mut ran = Vec::new();
        self.polls = self.polls.wrapping_add(1);
        let check_zombies = self.polls.is_multiple_of(CHECK_ZOMBIES_EVERY);
        self.processes.retain(|&pid, process| {
            let cpu = sys_linux::cpu_time_of(pid);
            let has_run = !none_started && (process.cpu.is_none() || cpu != process.cpu);
            process.cpu = if none_started { process.cpu } else { cpu };
            if has_run && cpu.is_some() {
                ran.push(pid);
            }
            cpu.is_some() && (!has_run || proc_info::start_time(pid) == process.start) && (!check_zombies || proc_info::is_running(pid))
        });
        while let Some(parent) = ran.pop().filter(|_| self.given.is_none()) {
            for child in proc_info::children(parent) {
                if !self.processes.contains_key(&child) {
                    self.add(child, false, FORK_TO_EXEC);
                    ran.push(child);
                }
            }
            if self.processes.len() >= MAX_PROCESSES {
                return;
            }
        }
    }
}

impl KnownProcess {
    /// Whether it may be a Python that can be read in a moment.
    fn is_starting(&self, now: Nanos) -> bool {
        match &self.kind {
            Kind::Candidate { starting, .. } => now.saturating_since(self.met_at) < if starting.is_python() { CREATING } else { NEW },
            Kind::Settled => false,
        }
    }

    fn try_candidate(&mut self, pid: Pid, now: Nanos, runtime: &RuntimeChoice, known: &mut VecDeque<KnownPython>, found: &Sender<Found>) {
        let Kind::Candidate { starting, executable, retry_at } = &mut self.kind else { return };
        if now < *retry_at && sys_linux::cpu_time_of(pid) == self.cpu {
            return;
        }
        let runs_now = proc_info::exe(pid);
        if runs_now != *executable {
            // `exec` happened: the next poll tries the new program.
            (*executable, self.met_at, *retry_at) = (runs_now, now, now);
            return;
        }
        if now < *retry_at {
            return;
        }
        let mapped = if known.is_empty() { None } else { mapped_code(pid) };
        let copy = mapped.and_then(|mapped| known.iter().find_map(|known| known.in_copy(pid, &mapped)));
        let is_copy = copy.is_some();
        match copy.map_or_else(|| starting.poll(runtime), |copy| Ok(Some(copy))) {
            // The receiver is gone only when the capture ends.
            Ok(Some(attached)) => {
                if let (Attached::Python(python), false) = (&attached, is_copy) {
                    known.truncate(MAX_KNOWN - 1);
                    if let Some(python) = KnownPython::new(python) {
                        known.push_front(python);
                    }
                }
                let _ = found.send(Found::Python(pid, attached));
                self.kind = Kind::Settled;
            }
            Ok(None) => {
                let age = now.saturating_since(self.met_at);
                if age >= if starting.is_python() { CREATING } else { NEW } {
                    *retry_at = now + Nanos::from_nanos(age.as_nanos() / RETRY_AGE_FRACTION).min(MAX_RETRY);
                }
            }
            Err(why) => {
                let process = RefusedProcess::new(pid.0, diagnose::brief_command(pid), &why);
                let _ = found.send(Found::Refused(process, why));
                self.kind = Kind::Settled;
            }
        }
    }
}
