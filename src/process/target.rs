//! A process as the sampler reads it: its memory, and a few small files of `/proc`. Live, recorded
//! and replayed processes have the same interface.

use super::affinity::CpuSet;
use super::live::LiveMemory;
use super::memory::Memory;
use super::proc_info;
use super::procfs::state_letter;
use super::task_list::TaskList;
use super::threads::{self, TaskFiles};
use crate::ids::{Pid, Tid};
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;

/// The source of everything that a sample reads.
pub trait Target {
    /// The process id.
    fn pid(&self) -> Pid;

    /// Its memory.
    fn memory(&self) -> &dyn Memory;

    /// The ids of its threads, as in [`TaskList::read`]. An error if the process is gone.
    fn tids(&self, into: &mut Vec<Tid>, check_leader: bool) -> io::Result<()>;

    /// The number of its threads, if that is cheaper than the list. If it changes, the list has
    /// changed.
    fn task_count(&self) -> Option<u64> {
        None
    }

    /// Opens the kernel's files of one thread. `NotFound` if the thread has exited.
    fn open(&self, tid: Tid) -> io::Result<TaskFiles>;

    /// The kernel's name of a thread.
    fn comm(&self, tid: Tid) -> Option<String>;

    /// The CPUs that a thread may use; `None` if it has exited or was recorded.
    fn cpus(&self, _tid: Tid) -> Option<CpuSet> {
        None
    }

    /// Whether it is stopped by a signal or a debugger. A recorded process is not.
    fn stopped(&self) -> bool {
        false
    }

    /// Its threads by their ids in its own PID namespace; `None` if that is gilprof's.
    fn inner_tids(&self) -> Option<BTreeMap<i32, Tid>>;
}

/// A live process.
#[derive(Debug)]
pub struct LiveTarget {
    memory: LiveMemory,
    tasks: TaskList,
    /// The `stat` file of any live thread: all threads stop together. The main thread may exit
    /// before the others.
    any_stat: RefCell<Option<File>>,
    /// Whether its ids differ from gilprof's. That never changes: only children enter another PID
    /// namespace.
    inner: OnceCell<bool>,
}

impl LiveTarget {
    /// The process with this id. Nothing is checked until something is read.
    pub fn new(pid: Pid) -> LiveTarget {
        LiveTarget { memory: LiveMemory::new(pid), tasks: TaskList::new(pid), any_stat: RefCell::new(None), inner: OnceCell::new() }
    }
}

impl Target for LiveTarget {
    fn pid(&self) -> Pid {
        self.memory.pid()
    }
    fn memory(&self) -> &dyn Memory {
        &self.memory
    }
    fn tids(&self, into: &mut Vec<Tid>, check_leader: bool) -> io::Result<()> {
        self.tasks.read(into, check_leader)
    }
    fn task_count(&self) -> Option<u64> {
        self.tasks.count()
    }
    fn open(&self, tid: Tid) -> io::Result<TaskFiles> {
        TaskFiles::open(self.pid(), tid)
    }
    fn comm(&self, tid: Tid) -> Option<String> {
        threads::comm(self.pid(), tid)
    }
    fn cpus(&self, tid: Tid) -> Option<CpuSet> {
        CpuSet::of_thread(tid)
    }
    fn stopped(&self) -> bool {
        let mut any = self.any_stat.borrow_mut();
        let letter = match any.as_ref().and_then(state_letter) {
            Some(letter) if !matches!(letter, 'Z' | 'X') => Some(letter),
            _ => {
                *any = File::open(format!("/proc/{0}/task/{1}/stat", self.pid(), proc_info::live_task(self.pid()))).ok();
                any.as_ref().and_then(state_letter)
            }
        };
        matches!(letter, Some('T' | 't'))
    }
    fn inner_tids(&self) -> Option<BTreeMap<i32, Tid>> {
        self.inner.get_or_init(|| proc_info::is_in_inner_namespace(self.pid()) == Some(true)).then(|| proc_info::outer_tids(self.pid()))
    }
}
