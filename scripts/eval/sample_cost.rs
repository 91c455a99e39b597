//! The cost of one sample: CPU time of this thread per sample of a live process. `scripts/eval
//! overhead` runs it.
//!
//! With `floor` it first takes some real samples and records the system calls of each. Then it
//! makes those calls instead of samples, and nothing else, again and again: the cost that samples
//! cannot avoid. Both are given with and without the sleep between two samples, which costs more
//! than some of the calls. Prints JSON.
//!
//! ```text
//! cargo run --release --example sample_cost -- PID [SAMPLES [RATE [floor [RECORDED]]]]
//! ```

#![allow(clippy::print_stdout)]

use gilprof::capture::sampler::Sampler;
use gilprof::capture::schedule::SampleSchedule;
use gilprof::ids::{Addr, Pid, Tid};
use gilprof::process::kernel_stack;
use gilprof::process::live::LiveMemory;
use gilprof::process::memory::{Memory, Part, ReadError};
use gilprof::process::proc_info::TaskStatus;
use gilprof::process::sys_linux;
use gilprof::process::target::{LiveTarget, ProcessAccess};
use gilprof::process::threads::{TaskFile, TaskFiles, TaskFilesBackend};
use gilprof::profile::ProfileBuilder;
use gilprof::python::attach::PythonProcess;
use gilprof::sample::StopCause;
use gilprof::units::Nanos;
use serde_json::{json, Value};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

type Failed = Box<dyn std::error::Error>;

const USAGE: &str = "usage: sample_cost PID [SAMPLES [RATE [floor [RECORDED]]]]";

/// Samples whose calls are recorded.
const RECORDED: usize = 400;

fn main() -> Result<(), Failed> {
    let mut args = std::env::args().skip(1);
    let pid = Pid(args.next().ok_or(USAGE)?.parse()?);
    let samples: usize = args.next().map_or(Ok(5000), |n| n.parse())?;
    let rate: f64 = args.next().map_or(Ok(1000.0), |r| r.parse())?;
    let python = PythonProcess::open(pid)?;
    sys_linux::set_timer_slack();
    sys_linux::request_short_timeslice();
    let mut costs;
    if args.next().is_some() {
        let recorded: usize = args.next().map_or(Ok(RECORDED), |n| n.parse())?;
        let mut floor = Floor::new(python, recorded.max(1), rate)?;
        costs = measure(samples, rate, |_| floor.repeat_sample())?;
        costs["calls"] = floor.calls();
    } else {
        let mut sampler = Sampler::new(python, None);
        let mut builder = ProfileBuilder::new();
        costs = measure(samples, rate, |at| Ok(sampler.sample(at, at, &mut builder).map(|_| ())?))?;
        costs["threads"] = json!(sampler.threads().count());
        costs["deepest_stack"] = json!(sampler.snapshots().iter().map(|(_, thread)| thread.stack.frames.len()).max());
    }
    println!("{costs}");
    Ok(())
}

/// Calls `each` in every slot of a clock, as the sampler does; the number of missed slots.
fn at_rate(count: usize, rate: f64, mut each: impl FnMut() -> Result<(), Failed>) -> Result<u64, Failed> {
    let mut schedule = SampleSchedule::new(sys_linux::monotonic(), rate, 1);
    for _ in 0..count {
        sys_linux::sleep_until(schedule.next(sys_linux::monotonic()));
        each()?;
    }
    Ok(schedule.missed())
}

/// Samples before the measurement: the first ones read every thread and every function for the
/// first time.
fn warm_up(samples: usize) -> usize {
    (samples / 10).min(1000)
}

fn measure(samples: usize, rate: f64, mut sample: impl FnMut(Nanos) -> Result<(), Failed>) -> Result<Value, Failed> {
    let mut costs = Vec::with_capacity(samples.min(1 << 20));
    at_rate(warm_up(samples), rate, || sample(sys_linux::monotonic()))?;
    let begun = sys_linux::thread_cpu_time();
    let missed = at_rate(samples, rate, || {
        let before = sys_linux::thread_cpu_time();
        sample(sys_linux::monotonic())?;
        costs.push(micros(sys_linux::thread_cpu_time().saturating_since(before)));
        Ok(())
    })?;
    let with_sleep = micros(sys_linux::thread_cpu_time().saturating_since(begun)) / samples as f64;
    costs.sort_by(f64::total_cmp);
    let quantile = |share: f64| costs.get((costs.len() as f64 * share) as usize).copied();
    Ok(json!({
        "samples": samples,
        "missed": missed,
        "median_us": quantile(0.5),
        "p90_us": quantile(0.9),
        "p99_us": quantile(0.99),
        "with_sleep_us": with_sleep,
    }))
}

fn micros(time: Nanos) -> f64 {
    time.as_nanos() as f64 / 1e3
}

/// One or two system calls of a sample.
#[derive(Clone, Debug)]
enum Call {
    Batch(Vec<Part>),
    Count,
    List(bool),
    Text(Rc<TaskFiles>, TaskFile),
    /// A rare call, or one for a new thread: its cost is not part of the floor.
    Other,
}

/// The calls made since the last sample ended.
type Calls = Rc<RefCell<Vec<Call>>>;

/// A live process that records the calls made on it.
struct Recording {
    live: LiveTarget,
    calls: Calls,
}

impl Recording {
    fn record(&self, call: Call) {
        self.calls.borrow_mut().push(call);
    }
}

impl Memory for Recording {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        self.record(Call::Batch(vec![Part::new(at, into.len())]));
        self.live.memory().read(at, into)
    }
    fn read_batch(&self, parts: &mut [Part], into: &mut [u8]) -> Result<(), ReadError> {
        self.record(Call::Batch(parts.to_vec()));
        self.live.memory().read_batch(parts, into)
    }
}

impl ProcessAccess for Recording {
    fn pid(&self) -> Pid {
        self.live.pid()
    }
    fn memory(&self) -> &dyn Memory {
        self
    }
    fn tids(&self, into: &mut Vec<Tid>, sure: bool) -> io::Result<()> {
        self.record(Call::List(sure));
        self.live.tids(into, sure)
    }
    fn task_count(&self) -> Option<u64> {
        self.record(Call::Count);
        self.live.task_count()
    }
    fn open(&self, tid: Tid) -> io::Result<TaskFiles> {
        self.record(Call::Other);
        Ok(TaskFiles::from_backend(RecordingTexts { files: Rc::new(self.live.open(tid)?), calls: self.calls.clone() }))
    }
    fn comm(&self, tid: Tid) -> Option<String> {
        self.record(Call::Other);
        self.live.comm(tid)
    }
    fn status(&self, thread: Option<Tid>) -> Option<TaskStatus> {
        self.record(Call::Other);
        self.live.status(thread)
    }
    fn frozen(&self, refresh: bool) -> Option<StopCause> {
        self.record(Call::Other);
        self.live.frozen(refresh)
    }
    fn is_in_inner_namespace(&self) -> bool {
        self.live.is_in_inner_namespace()
    }
    fn inner_tid(&self, tid: Tid) -> Option<i32> {
        self.live.inner_tid(tid)
    }
}

#[derive(Debug)]
struct RecordingTexts {
    files: Rc<TaskFiles>,
    calls: Calls,
}

impl TaskFilesBackend for RecordingTexts {
    fn read(&self, file: TaskFile, into: &mut [u8]) -> io::Result<usize> {
        let read = self.files.read(file, into);
        if read.as_ref().err().is_none_or(|e| e.kind() != io::ErrorKind::Unsupported) {
            self.calls.borrow_mut().push(Call::Text(self.files.clone(), file));
        }
        read
    }
}

/// The calls of some samples, made again without the samples.
struct Floor {
    live: LiveTarget,
    memory: LiveMemory,
    samples: Vec<Vec<Call>>,
    next: usize,
    bytes: Vec<u8>,
    tids: Vec<Tid>,
}

impl Floor {
    fn new(python: PythonProcess, count: usize, rate: f64) -> Result<Floor, Failed> {
        let (pid, calls) = (python.pid, Calls::default());
        let mut sampler = Sampler::from_target(Box::new(Recording { live: LiveTarget::new(pid), calls: calls.clone() }), python);
        let (mut builder, mut samples) = (ProfileBuilder::new(), Vec::with_capacity(count));
        let warm = warm_up(count * 10);
        at_rate(warm + count, rate, || {
            let now = sys_linux::monotonic();
            sampler.sample(now, now, &mut builder)?;
            samples.push(calls.take());
            Ok(())
        })?;
        samples.drain(..warm);
        let room =
            |call: &Call| if let Call::Batch(parts) = call { parts.iter().map(|part| part.len).sum() } else { kernel_stack::TEXT_LEN };
        let most = samples.iter().flatten().map(room).max().ok_or("no calls")?;
        Ok(Floor { live: LiveTarget::new(pid), memory: LiveMemory::new(pid), samples, next: 0, bytes: vec![0; most], tids: Vec::new() })
    }

    fn repeat_sample(&mut self) -> Result<(), Failed> {
        let index = self.next % self.samples.len();
        self.next += 1;
        for call in &mut self.samples[index] {
            match call {
                Call::Batch(parts) => self.memory.read_batch(parts, &mut self.bytes)?,
                Call::Count => drop(self.live.task_count().ok_or("the process ended")?),
                Call::List(sure) => self.live.tids(&mut self.tids, *sure)?,
                // A thread may have ended meanwhile. The call is made all the same.
                Call::Text(files, file) => drop(files.read(*file, &mut self.bytes)),
                Call::Other => {}
            }
        }
        Ok(())
    }

    /// How many calls of each kind a sample makes, on average.
    fn calls(&self) -> Value {
        let mean =
            |wanted: &dyn Fn(&Call) -> bool| self.samples.iter().flatten().filter(|c| wanted(c)).count() as f64 / self.samples.len() as f64;
        let text = |file| mean(&|c| matches!(c, Call::Text(_, of) if *of == file));
        json!({
            "memory": mean(&|c| matches!(c, Call::Batch(_))),
            "schedstat": text(TaskFile::SchedStat),
            "syscall": text(TaskFile::Syscall),
            "stack": text(TaskFile::Stack),
            "threads_counted": mean(&|c| matches!(c, Call::Count)),
            "threads_listed": mean(&|c| matches!(c, Call::List(_))),
            "left_out": mean(&|c| matches!(c, Call::Other)),
        })
    }
}
