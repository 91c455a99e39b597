//! What the sampler keeps from sample to sample, by subject.

use super::poll_schedule::PollSchedule;
use crate::capture::bindings::ThreadStateBindings;
use crate::capture::thread_reader::ThreadReader;
use crate::capture::tid_resolver::TidResolver;
use crate::estimate::Estimator;
use crate::ids::{Addr, Tid};
use crate::process::affinity::WorkingCpus;
use crate::process::target::ProcessAccess;
use crate::python::attach::PythonProcess;
use crate::python::gil_waits::GilWaits;
use crate::python::interpreters::RuntimeState;
use crate::python::stack::Symbols;
use crate::sample::Stack;
use crate::units::Nanos;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// The interpreter, and what reads it.
pub(super) struct Interpreter {
    pub python: PythonProcess,
    pub target: Box<dyn ProcessAccess>,
    pub runtime_state: RuntimeState,
    pub symbols: Symbols,
    pub gil_waits: GilWaits,
}

impl Interpreter {
    pub fn new(target: Box<dyn ProcessAccess>, python: PythonProcess) -> Interpreter {
        let gil_waits = GilWaits::new(python.abi.c_library);
        Interpreter { python, target, runtime_state: RuntimeState::default(), symbols: Symbols::default(), gil_waits }
    }
}

/// The threads. Readers, their histories in the estimator, and the schedule have the same indices.
pub(super) struct ThreadTable {
    pub readers: Vec<ThreadReader>,
    pub estimator: Estimator,
    pub schedule: PollSchedule,
    /// The indices of threads that a sample polls in any case; empty between samples.
    pub wanted: Vec<usize>,
    pub next_id: u32,
    pub empty_stack: Arc<Stack>,
    /// The CPUs that the threads which have ended so far, or been finished, may use.
    pub working_cpus: WorkingCpus,
}

impl ThreadTable {
    pub fn new(next_id: u32) -> ThreadTable {
        ThreadTable {
            readers: Vec::new(),
            estimator: Estimator::default(),
            schedule: PollSchedule::default(),
            wanted: Vec::new(),
            next_id,
            empty_stack: Arc::new(Stack::empty()),
            working_cpus: WorkingCpus::default(),
        }
    }
}

/// The list of OS threads, as the kernel gave it.
#[derive(Debug, Default)]
pub(super) struct ListedTasks {
    pub tids: Vec<Tid>,
    /// The list of threads before `tids`.
    pub previous_tids: Vec<Tid>,
    /// Threads that were listed but started after the sample that read the list.
    pub started_during_sample: Vec<Tid>,
    /// How many threads the kernel counted at the last sample.
    pub task_count: Option<u64>,
    pub tids_read_at: Nanos,
    /// When the sampler last checked that the main thread is alive.
    pub leader_checked_at: Nanos,
    /// Threads were found before the first sample.
    pub prepared: bool,
}

/// Which thread state is which OS thread's.
#[derive(Debug, Default)]
pub(super) struct Binder {
    pub tid_resolver: TidResolver,
    pub by_tstate: FxHashMap<Addr, usize>,
    /// The thread states that were last matched with threads.
    pub bound_states: Vec<(Addr, u64, Option<u64>)>,
    /// The generation of the thread states that were last found equal to `bound_states`.
    pub bound_generation: Option<u64>,
    pub bindings: ThreadStateBindings,
    /// Some thread state's thread is not known yet, or two thread states of one interpreter name
    /// the same thread: their ids are about to change.
    pub bindings_pending: bool,
    /// When the thread states last changed.
    pub states_changed_at: Nanos,
}

/// When names are read.
#[derive(Debug, Default)]
pub(super) struct NameSchedule {
    /// Some thread's `comm` has not been read.
    pub comm_pending: bool,
    /// Some thread that runs Python may have a name there that has not been read.
    pub pending: bool,
    pub read_at: Nanos,
    /// The time between two reads of names.
    pub period: Nanos,
}

/// The time of the last sample, and what the samples stand for.
#[derive(Debug, Default)]
pub(super) struct SampleTimes {
    pub last_sample: Option<Nanos>,
    /// The end of the time that the last sample stands for.
    pub accounted_until: Nanos,
    /// The end of the time that the current sample stands for.
    pub weight_until: Nanos,
}

/// What the samples found, and what they cost.
#[derive(Clone, Copy, Debug)]
pub struct SamplerStats {
    /// How many times a thread's `/proc` files were read.
    pub tasks_polled: u64,
    /// Stacks that changed at the top while they were read.
    pub torn: u64,
    /// Stacks with frames left out because there was no time to read them.
    pub shortened: u64,
    /// The largest number of interpreters in one sample.
    pub interpreters: u32,
    /// The switch interval, as last read.
    pub interval_us: Option<u64>,
    /// Whether the main GIL was on when it was last read.
    pub gil_enabled: bool,
}

impl Default for SamplerStats {
    fn default() -> SamplerStats {
        SamplerStats { tasks_polled: 0, torn: 0, shortened: 0, interpreters: 0, interval_us: None, gil_enabled: true }
    }
}
