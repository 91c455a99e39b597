//! One look that is remembered, and the same look again without the process.

use super::sampler::{SampleOutcome, Sampler};
use crate::error::{Error, Result};
use crate::ids::{Addr, Pid};
use crate::process::memory_dump::{DumpRecorder, MemoryDump};
use crate::process::target::{LiveTarget, Target};
use crate::python::attach::PythonProcess;
use crate::python::version::Version;
use crate::sample::Sink;
use crate::units::Nanos;
use std::rc::Rc;

/// When a look is said to be: later than everything that is done only now and then is due.
pub const SAMPLE_TIME: Nanos = Nanos::from_millis(1000);

/// Looks once at a live process and remembers all that was read. The observer stands as that look left it.
pub fn record(python: &PythonProcess, sink: &mut dyn Sink) -> Result<(MemoryDump, Sampler)> {
    let recorder = Rc::new(DumpRecorder::new(Box::new(LiveTarget::new(python.pid))));
    // The layout is read again, so that it is in the recording too.
    let minor = python.layout.minor;
    let again = PythonProcess::from_runtime(python.pid, recorder.memory(), python.machine, minor, python.version.clone(), python.runtime)?;
    let mut sampler = Sampler::from_target(Box::new(recorder.clone()), again);
    sampler.sample(SAMPLE_TIME, SAMPLE_TIME, sink).map_err(|_| Error::Gone { pid: python.pid, when: " while it was looked at".into() })?;
    Ok((recorder.finish(python.machine, &python.version, python.runtime), sampler))
}

/// Makes a recorded look again, by way of `source`, which is one of `recording` or like it.
pub fn replay(recording: &MemoryDump, source: Box<dyn Target>, sink: &mut dyn Sink) -> Result<(SampleOutcome, Sampler)> {
    let head = &recording.head;
    let garbage = || Error::Garbage { pid: Pid(head.pid), what: format!("{:?} is no version", head.python) };
    let minor = Version::from_text(&head.python).ok_or_else(garbage)?.minor;
    let python = PythonProcess::from_runtime(Pid(head.pid), source.memory(), head.machine, minor, head.python.clone(), Addr(head.runtime))?;
    let mut sampler = Sampler::from_target(source, python);
    let outcome = sampler.sample(SAMPLE_TIME, SAMPLE_TIME, sink)?;
    Ok((outcome, sampler))
}
