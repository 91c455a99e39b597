//! Recorded memory with a chosen fault, which keeps a list of its reads; and recorded processes
//! whose number of threads grows.

use gilprof::ids::{Addr, Pid, Tid};
use gilprof::process::memory::{Memory, ReadError};
use gilprof::process::memory_dump::MemoryDump;
use gilprof::process::replay::{ReplayMemory, ReplayTarget};
use gilprof::process::target::ProcessAccess;
use gilprof::process::threads::TaskFiles;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

/// The fault of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The read with this number fails. The parts of a batch count singly.
    Nth(usize),
    /// Every read that contains this byte fails.
    At(Addr),
    /// Every read must find this many additional bytes.
    Longer(usize),
}

/// The memory. Clones share it.
#[derive(Clone)]
pub struct Faulty(Rc<Inner>);

struct Inner {
    memory: ReplayMemory,
    fault: Fault,
    reads: RefCell<Vec<Addr>>,
}

impl Faulty {
    pub fn new(recording: &MemoryDump, fault: Fault) -> Faulty {
        Faulty(Rc::new(Inner { memory: ReplayTarget::from_dump(recording).memory, fault, reads: RefCell::default() }))
    }

    /// A target with this memory.
    pub fn source(&self, recording: &MemoryDump) -> ReplayTarget<Faulty> {
        ReplayTarget { head: recording.head.clone(), memory: self.clone() }
    }

    /// The addresses of all reads, in order.
    pub fn reads(&self) -> Vec<Addr> {
        self.0.reads.borrow().clone()
    }
}

impl Memory for Faulty {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        let number = self.0.reads.borrow().len();
        self.0.reads.borrow_mut().push(at);
        let unmapped = ReadError::Unmapped { at, len: into.len() };
        match self.0.fault {
            Fault::Nth(n) if n == number => Err(unmapped),
            Fault::At(byte) if byte.within(at, into.len() as u64) => Err(unmapped),
            Fault::Longer(more) => {
                let mut longer = vec![0; into.len() + more];
                self.0.memory.read(at, &mut longer)?;
                into.copy_from_slice(&longer[..into.len()]);
                Ok(())
            }
            _ => self.0.memory.read(at, into),
        }
    }
}

/// A process that lists `listed` of its recorded threads at each step, and counts `counted`; and
/// the step, which the test sets.
pub fn growing(recording: &MemoryDump, listed: [usize; 3], counted: [u64; 3]) -> (Box<dyn ProcessAccess>, Rc<Cell<usize>>) {
    let step = Rc::new(Cell::new(0));
    (Box::new(Growing { source: ReplayTarget::from_dump(recording), listed, counted, step: step.clone() }), step)
}

struct Growing {
    source: ReplayTarget<ReplayMemory>,
    listed: [usize; 3],
    counted: [u64; 3],
    step: Rc<Cell<usize>>,
}

impl ProcessAccess for Growing {
    fn pid(&self) -> Pid {
        self.source.pid()
    }
    fn memory(&self) -> &dyn Memory {
        self.source.memory()
    }
    fn tids(&self, into: &mut Vec<Tid>, sure: bool) -> io::Result<()> {
        self.source.tids(into, sure)?;
        into.truncate(self.listed[self.step.get()]);
        Ok(())
    }
    fn task_count(&self) -> Option<u64> {
        Some(self.counted[self.step.get()])
    }
    fn open(&self, tid: Tid) -> io::Result<TaskFiles> {
        self.source.open(tid)
    }
    fn comm(&self, tid: Tid) -> Option<String> {
        self.source.comm(tid)
    }
    fn is_in_inner_namespace(&self) -> bool {
        self.source.is_in_inner_namespace()
    }
    fn inner_tid(&self, tid: Tid) -> Option<i32> {
        self.source.inner_tid(tid)
    }
}
