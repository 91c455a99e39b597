//! Recorded memory that fails where it is told to, and remembers what was asked of it.
#![allow(dead_code)] // each test file uses its own part of this

use gilprof::ids::Addr;
use gilprof::process::memory::{Memory, ReadError};
use gilprof::process::recording::Recording;
use gilprof::process::replay::{ReplayMemory, ReplaySource};
use std::cell::RefCell;
use std::rc::Rc;

/// What is wrong with the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The read with this number fails, parts of batches counted singly.
    Nth(usize),
    /// Every read that would bring this byte fails.
    At(Addr),
    /// Every read must find this many bytes more than it asks for.
    Longer(usize),
}

/// The memory; clones are the same one.
#[derive(Clone)]
pub struct Faulty(Rc<Inner>);

struct Inner {
    memory: ReplayMemory,
    fault: Fault,
    reads: RefCell<Vec<Addr>>,
}

impl Faulty {
    pub fn new(recording: &Recording, fault: Fault) -> Faulty {
        Faulty(Rc::new(Inner { memory: ReplaySource::of(recording).memory, fault, reads: RefCell::default() }))
    }

    /// A source with this memory.
    pub fn source(&self, recording: &Recording) -> ReplaySource<Faulty> {
        ReplaySource { recording: recording.head.clone(), memory: self.clone() }
    }

    /// Where it was read, in order.
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
