//! A live interpreter whose tables are found without a search: the target itself prints the address
//! of its `_PyRuntime`, if it has ctypes.
//!
//! For tests of readers of the tables, so that a failure of the search does not make them fail.

use crate::support::{Interpreter, Target};
use gilprof::ids::{Addr, Pid};
use gilprof::process::live::LiveMemory;
use gilprof::process::memory::{Memory, ReadError};
use gilprof::python::attach::PythonProcess;
use gilprof::python::layout::debug_offsets::{layout_from_target, READ_LEN};
use gilprof::python::layout::{for_version, Layout, LayoutTable, Minor};

/// An idle target with its layout.
pub struct LayoutProbe {
    pub target: Target,
    memory: LiveMemory,
    pub layout: Layout,
    pub runtime: Addr,
    /// The main interpreter, the only one in the workloads.
    pub interpreter: Addr,
}

impl LayoutProbe {
    /// Starts a workload that prints `runtime`. Without ctypes it prints 0, and gilprof
    /// searches for the address.
    pub fn start(interpreter: &Interpreter, workload: &str) -> LayoutProbe {
        let target = Target::start(interpreter, workload, &["--facts"]);
        let runtime = match Addr(target.fact("runtime").as_u64().unwrap()) {
            Addr(0) => PythonProcess::open(Pid(target.pid())).unwrap().runtime,
            printed => printed,
        };
        let memory = LiveMemory::new(Pid(target.pid()));
        let layout = layout(interpreter, &memory, runtime);
        let main = memory.read_ptr(runtime.offset(layout.runtime.interpreters_head.offset() as u64)).unwrap();
        LayoutProbe { target, memory, layout, runtime, interpreter: main }
    }
}

impl Memory for LayoutProbe {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        self.memory.read(at, into)
    }
}

fn layout(interpreter: &Interpreter, memory: &LiveMemory, runtime: Addr) -> Layout {
    let (major, minor) = interpreter.minor();
    let known = for_version(Minor(major.try_into().unwrap(), minor.try_into().unwrap()));
    match known.unwrap_or_else(|| panic!("{}: no table for {}", interpreter.label, interpreter.version)) {
        LayoutTable::Complete(layout) => layout.clone(),
        LayoutTable::Partial { .. } => {
            let mut bytes = vec![0; READ_LEN];
            memory.read(runtime, &mut bytes).unwrap();
            layout_from_target(&bytes).unwrap().0
        }
    }
}
