//! `gilprof dump`: the state of every thread now, with its Python stack.
//!
//! One sample cannot distinguish native code from a thread without a CPU or one that was just
//! woken. So gilprof takes several samples over some milliseconds and shows the last one. The CPU
//! time used meanwhile decides the states that the last sample leaves open.

use super::outputs::style;
use super::{note, print, wait_for_python};
use crate::capture::sampler::{SampleOutcome, Sampler};
use crate::capture::{backend, program, recorded_sample};
use crate::error::{Error, ReadError, Result};
use crate::ids::{Pid, ThreadId};
use crate::output::{dump, Format};
use crate::process::sys_linux;
use crate::python::attach::{self, Attached, PythonProcess};
use crate::python::runtimes::RuntimeChoice;
use crate::sample::{GilSample, Sink, State, StateSlice, StateTimes, TargetInfo, ThreadInfo, ThreadSnapshot, ThreadTotals};
use crate::units::Nanos;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

/// Samples taken, and the time between them.
const SAMPLES: u32 = 8;
const SAMPLE_PERIOD: Nanos = Nanos::from_millis(3);

/// Runs the command.
pub fn command(pid: Pid, format: Format, freeze: bool, runtime: &RuntimeChoice, recording: Option<&Path>) -> Result<ExitCode> {
    // Ctrl-C loses nothing here, so no handler is installed.
    let Some((pid, target)) = wait_for_python::attach(pid, runtime, &AtomicBool::new(false))? else { return Ok(ExitCode::SUCCESS) };
    let (target, threads) = match target {
        Attached::Python(python) => {
            python.runtimes_warning.iter().for_each(|warning| note(warning));
            if let Some(path) = recording {
                write_recording(&python, path)?;
            }
            let sample = sample(*python, freeze)?;
            sample.notes.iter().for_each(|line| note(line));
            (sample.target, sample.threads)
        }
        Attached::Legacy(version) if recording.is_some() => {
            return Err(Error::UnsupportedVersion { pid, version, why: "its memory cannot be recorded".into() });
        }
        Attached::Legacy(version) => {
            note(&format!(
                "of Python {version}, gilprof sees the thread that holds the GIL but not the threads that wait for it: these are `unknown`"
            ));
            backend::dump(pid, &version)?
        }
    };
    print(&match format {
        Format::Text => dump::text(&target, &threads, style(&std::io::stdout()).colour),
        Format::Json => dump::to_json(&target, &threads)?,
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Takes a separate sample and writes the memory that it reads to a file that only this user may
/// read.
fn write_recording(python: &PythonProcess, path: &Path) -> Result<()> {
    let failed = |source| Error::Output { path: path.into(), source };
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
    let (recording, _) = recorded_sample::record(python, &mut StateTotals::default())?;
    let bytes = recording.to_bytes().map_err(|e| failed(e.into()))?;
    file.write_all(&bytes).map_err(failed)?;
    note(&format!("wrote {}: {} bytes of the program's memory, which may contain secrets", path.display(), bytes.len()));
    Ok(())
}

/// Sums each thread's time since the dump began.
#[derive(Default)]
struct StateTotals(HashMap<ThreadId, StateTimes>);

impl Sink for StateTotals {
    fn thread(&mut self, _: &ThreadInfo) {}
    fn slice(&mut self, slice: &StateSlice<'_>) {
        self.0.entry(slice.thread).or_default().merge(&slice.times);
    }
    fn gil(&mut self, _: &GilSample) {}
    fn thread_end(&mut self, _: ThreadId, _: ThreadTotals) {}
}

/// The dump of a process as text, for a file.
pub fn as_text(pid: Pid, runtime: &RuntimeChoice) -> Result<String> {
    let (target, threads, notes) = match attach::attach(pid, runtime)? {
        Attached::Python(python) => {
            let DumpSample { target, threads, notes } = sample(*python, false)?;
            (target, threads, notes)
        }
        Attached::Legacy(version) => {
            let (target, threads) = backend::dump(pid, &version)?;
            (target, threads, Vec::new())
        }
    };
    let notes: String = notes.into_iter().map(|line| line + "\n").collect();
    Ok(notes + &dump::text(&target, &threads, false))
}

/// The threads at one moment, and what the reader should know.
struct DumpSample {
    target: TargetInfo,
    threads: Vec<ThreadSnapshot>,
    notes: Vec<String>,
}

fn sample(python: PythonProcess, freeze: bool) -> Result<DumpSample> {
    let pid = python.pid;
    let mut target = program::target_info(&python);
    let mut sampler = Sampler::new(python, program::pauser(freeze));
    let mut totals = StateTotals::default();
    let mut now = sys_linux::monotonic();
    let mut read = false;
    for _ in 0..SAMPLES {
        let outcome = sampler.sample(now, now, &mut totals).map_err(|e| match e {
            ReadError::Gone => Error::Gone { pid, when: " during the dump".into() },
            other => Error::Read(other),
        })?;
        read |= outcome == SampleOutcome::Complete;
        sys_linux::sleep_until(now + SAMPLE_PERIOD);
        now = sys_linux::monotonic();
    }
    let mut notes: Vec<String> = sampler.pauser_warning().into_iter().collect();
    if !read {
        notes.push("the interpreter could not be read: it is starting or ending, and the holder of the GIL is not known".into());
    }
    let mut threads: Vec<(ThreadId, ThreadSnapshot)> = sampler.snapshots();
    target.gil_enabled = sampler.stats.gil_enabled;
    sampler.finish(now, &mut totals);
    for (id, view) in threads.iter_mut().filter(|(_, v)| v.state == State::Unknown) {
        if let Some(times) = totals.0.get(id) {
            view.state = longest_state(times);
        }
    }
    Ok(DumpSample { target, threads: threads.into_iter().map(|(_, view)| view).collect(), notes })
}

/// Of the states that one sample leaves open, the one that took most of the time; `Unknown` if none
/// took any.
fn longest_state(times: &StateTimes) -> State {
    let open = [State::Unknown, State::Native, State::Starved, State::Waiting];
    open.into_iter().max_by(|a, b| times.get(*a).total_cmp(&times.get(*b))).filter(|s| times.get(*s) > 0.0).unwrap_or(State::Unknown)
}
