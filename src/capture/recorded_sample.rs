//! One sample recorded with all memory that it read, and its replay without the process.

use super::sampler::Sampler;
use crate::error::{Error, Result};
use crate::ids::{Addr, Pid};
use crate::process::c_library::Abi;
use crate::process::memory::Memory;
use crate::process::memory_dump::{DumpRecorder, MemoryDump};
use crate::process::target::{LiveTarget, ProcessAccess};
use crate::python::attach::PythonProcess;
use crate::python::layout::Minor;
use crate::sample::Sink;
use crate::units::Nanos;
use std::rc::Rc;

/// The time of a recorded sample: late enough that everything that the sampler does periodically is
/// due.
pub const SAMPLE_TIME: Nanos = Nanos::from_millis(1000);

/// Takes one sample of a live process and records all that it read. The returned sampler is in the
/// state that the sample left.
pub fn record(python: &PythonProcess, sink: &mut dyn Sink) -> Result<(MemoryDump, Sampler)> {
    let recorder = Rc::new(DumpRecorder::new(Box::new(LiveTarget::new(python.pid))));
    // The layout is read again, so that the dump holds its data too.
    let minor = python.layout.minor;
    let reopened = opened(python.pid, recorder.memory(), python.abi, minor, &python.version, python.runtime)?;
    let mut sampler = Sampler::from_target(Box::new(recorder.clone()), reopened);
    sampler
        .sample(SAMPLE_TIME, SAMPLE_TIME, sink)
        .map_err(|_| Error::Gone { pid: python.pid, when: " while gilprof sampled it".into() })?;
    Ok((recorder.finish(python.abi, &python.version, python.runtime), sampler))
}

/// Takes a recorded sample again through `target`, which reads `dump` or a modified copy of it.
#[cfg(any(test, feature = "internals"))]
pub fn replay(dump: &MemoryDump, target: Box<dyn ProcessAccess>, sink: &mut dyn Sink) -> Result<(super::sampler::SampleOutcome, Sampler)> {
    let head = &dump.head;
    let garbage = || Error::Garbage { pid: Pid(head.pid), what: format!("{:?} is no version", head.python) };
    let minor = crate::python::version::Version::from_text(&head.python).ok_or_else(garbage)?.minor;
    let python = opened(Pid(head.pid), target.memory(), head.abi, minor, &head.python, Addr(head.runtime))?;
    let mut sampler = Sampler::from_target(target, python);
    let outcome = sampler.sample(SAMPLE_TIME, SAMPLE_TIME, sink)?;
    Ok((outcome, sampler))
}

/// The interpreter, by what a dump holds: its layout comes from the memory alone.
fn opened(pid: Pid, mem: &dyn Memory, abi: Abi, minor: Minor, version: &str, runtime: Addr) -> Result<PythonProcess> {
    let mut python = PythonProcess::from_runtime(pid, mem, abi, minor, version.to_owned(), runtime)?;
    python.complete_layout(mem);
    Ok(python)
}
