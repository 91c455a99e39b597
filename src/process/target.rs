//! A process as the sampler reads it: its memory, and a few small files of `/proc`. Live, recorded
//! and replayed processes have the same interface.

use super::affinity::CpuSet;
use super::freezer::Freezer;
use super::live::LiveMemory;
use super::memory::Memory;
use super::proc_info;
use super::procfs::TaskStatus;
use super::task_list::TaskList;
use super::threads::{self, TaskFiles};
use crate::ids::{Pid, Tid};
use crate::sample::StopCause;
use std::cell::{OnceCell, RefCell};
use std::fs::File;
use std::io;

/// The source of everything that a sample reads.
pub trait ProcessAccess {
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

    /// The status of one of its threads, by default of any. `None` if unknown: a recorded process
    /// is not stopped.
    fn status(&self, _thread: Option<Tid>) -> Option<TaskStatus> {
        None
    }

    /// The cause, if its cgroup is frozen. `refresh`: it may have been moved to another cgroup.
    fn frozen(&self, _refresh: bool) -> Option<StopCause> {
        None
    }

    /// Whether its own PID namespace is another than gilprof's, so that its thread ids differ.
    fn is_in_inner_namespace(&self) -> bool;

    /// The id of one of its threads in its own PID namespace; `None` if it has exited.
    fn inner_tid(&self, tid: Tid) -> Option<i32>;
}

/// A live process.
#[derive(Debug)]
pub struct LiveTarget {
    memory: LiveMemory,
    tasks: TaskList,
    /// The `status` file of any live thread. The main thread may exit before the others.
    any_status: RefCell<Option<File>>,
    freezer: RefCell<Freezer>,
    /// Whether its ids differ from gilprof's. That never changes: only children enter another PID
    /// namespace.
    inner: OnceCell<bool>,
}

impl LiveTarget {
    /// The process with this id. Nothing is checked until something is read.
    pub fn new(pid: Pid) -> LiveTarget {
        LiveTarget {
            memory: LiveMemory::new(pid),
            tasks: TaskList::new(pid),
            any_status: RefCell::new(None),
            freezer: RefCell::default(),
            inner: OnceCell::new(),
        }
    }
}

impl ProcessAccess for LiveTarget {
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
    fn status(&self, thread: Option<Tid>) -> Option<TaskStatus> {
        let open = |task: i32| File::open(format!("/proc/{}/task/{task}/status", self.pid())).ok();
        if let Some(tid) = thread {
            return TaskStatus::read(&open(tid.0)?);
        }
        let mut any = self.any_status.borrow_mut();
        match any.as_ref().and_then(TaskStatus::read) {
            Some(status) if !matches!(status.letter, 'Z' | 'X') => Some(status),
            _ => {
                *any = open(proc_info::live_task(self.pid()).0);
                any.as_ref().and_then(TaskStatus::read)
            }
        }
    }
    fn frozen(&self, refresh: bool) -> Option<StopCause> {
        let mut freezer = self.freezer.borrow_mut();
        if refresh {
            // What cannot be read now leaves the files of the last refresh.
            let _ = freezer.refresh(self.pid());
        }
        freezer.frozen(self.pid())
    }
    fn is_in_inner_namespace(&self) -> bool {
        let known = self.inner.get().copied().or_else(|| proc_info::is_in_inner_namespace(self.pid()));
        // An answer that could not be read is not kept.
        known.is_some_and(|inner| *self.inner.get_or_init(|| inner))
    }
    fn inner_tid(&self, tid: Tid) -> Option<i32> {
        proc_info::inner_tid(tid)
    }
}
