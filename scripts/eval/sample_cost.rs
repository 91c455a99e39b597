//! What one look costs: CPU time of this thread per look, against a live process. `scripts/bench --parts look` starts the process.
//!
//! With `floor` it makes some real looks first and notes the system calls of each. Then it makes those calls in the looks' place, and nothing
//! else, again and again: what looks cannot do without. Both are given with and without the sleep between two looks, which costs more than some
//! of the calls.
//!
//! ```text
//! cargo run --release --example look_cost -- PID [LOOKS [RATE [floor [NOTED]]]]
//! ```

#![allow(clippy::print_stdout)]

use gilprof::capture::clock::Clock;
use gilprof::capture::observe::Observer;
use gilprof::ids::{Addr, Pid, Tid};
use gilprof::process::kernel_stack;
use gilprof::process::live::LiveMemory;
use gilprof::process::memory::{Memory, Part, ReadError};
use gilprof::process::source::{LiveSource, Source};
use gilprof::process::sys_linux;
use gilprof::process::threads::{TaskFile, TaskFiles, TaskTexts};
use gilprof::profile::ProfileBuilder;
use gilprof::python::attach::Python;
use gilprof::units::Nanos;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

type Failed = Box<dyn std::error::Error>;

const USAGE: &str = "usage: look_cost PID [LOOKS [RATE [floor [NOTED]]]]";

/// Looks whose calls are noted.
const NOTED: usize = 400;

fn main() -> Result<(), Failed> {
    let mut args = std::env::args().skip(1);
    let pid = Pid(args.next().ok_or(USAGE)?.parse()?);
    let looks: usize = args.next().map_or(Ok(5000), |n| n.parse())?;
    let rate: f64 = args.next().map_or(Ok(1000.0), |r| r.parse())?;
    let python = Python::open(pid)?;
    sys_linux::precise_timers();
    sys_linux::wake_soon();
    if args.next().is_some() {
        let noted: usize = args.next().map_or(Ok(NOTED), |n| n.parse())?;
        let mut floor = Floor::of(python, noted.max(1), rate)?;
        measure("the floor", looks, rate, |_| floor.next_look())?;
        println!("{}", floor.summary());
    } else {
        let mut observer = Observer::new(python, None);
        let mut builder = ProfileBuilder::new();
        measure("a look", looks, rate, |at| Ok(observer.look(at, at, &mut builder).map(|_| ())?))?;
        let threads = observer.threads().len();
        let deepest = observer.threads().iter().map(|t| t.stack.stack().frames.len()).max().unwrap_or(0);
        println!("{threads} threads, deepest stack {deepest}");
    }
    Ok(())
}

/// Does something at every slot of a clock, like the sampler.
fn at_rate(count: usize, rate: f64, mut each: impl FnMut() -> Result<(), Failed>) -> Result<u64, Failed> {
    let mut clock = Clock::new(sys_linux::monotonic(), rate, 1);
    for _ in 0..count {
        sys_linux::sleep_until(clock.next(sys_linux::monotonic()));
        each()?;
    }
    Ok(clock.missed())
}

/// The first looks meet everything for the first time.
fn warm_up(looks: usize) -> usize {
    (looks / 10).min(1000)
}

fn measure(what: &str, looks: usize, rate: f64, mut look: impl FnMut(Nanos) -> Result<(), Failed>) -> Result<(), Failed> {
    let mut costs = Vec::with_capacity(looks.min(1 << 20));
    at_rate(warm_up(looks), rate, || look(sys_linux::monotonic()))?;
    let begun = sys_linux::thread_cpu();
    let missed = at_rate(looks, rate, || {
        let before = sys_linux::thread_cpu();
        look(sys_linux::monotonic())?;
        costs.push(sys_linux::thread_cpu().since(before).as_nanos() as f64 / 1e3);
        Ok(())
    })?;
    let whole = sys_linux::thread_cpu().since(begun).as_nanos() as f64 / 1e3 / looks as f64;
    costs.sort_by(f64::total_cmp);
    let at = |share: f64| costs.get((costs.len() as f64 * share) as usize).copied().unwrap_or(0.0);
    println!(
        "{what}: {looks} made, {missed} slots missed; CPU median {:.1} us, p90 {:.1} us, p99 {:.1} us; mean with the sleep {whole:.1} us",
        at(0.5),
        at(0.9),
        at(0.99)
    );
    Ok(())
}

/// One or two system calls of a look.
#[derive(Clone, Debug)]
enum Call {
    Batch(Vec<Part>),
    Count,
    List(bool),
    Text(Rc<TaskFiles>, TaskFile),
    /// Seldom, or by a new thread: what it costs is not the floor's.
    Other,
}

/// The calls made since the last look ended.
type Notes = Rc<RefCell<Vec<Call>>>;

/// A live process that notes how it is asked.
struct Noting {
    live: LiveSource,
    notes: Notes,
}

impl Noting {
    fn note(&self, call: Call) {
        self.notes.borrow_mut().push(call);
    }
}

impl Memory for Noting {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        self.note(Call::Batch(vec![Part::new(at, into.len())]));
        self.live.memory().read(at, into)
    }
    fn read_batch(&self, parts: &mut [Part], into: &mut [u8]) -> Result<(), ReadError> {
        self.note(Call::Batch(parts.to_vec()));
        self.live.memory().read_batch(parts, into)
    }
}

impl Source for Noting {
    fn pid(&self) -> Pid {
        self.live.pid()
    }
    fn memory(&self) -> &dyn Memory {
        self
    }
    fn tids(&self, into: &mut Vec<Tid>, sure: bool) -> io::Result<()> {
        self.note(Call::List(sure));
        self.live.tids(into, sure)
    }
    fn crowd(&self) -> Option<u64> {
        self.note(Call::Count);
        self.live.crowd()
    }
    fn open(&self, tid: Tid) -> io::Result<TaskFiles> {
        self.note(Call::Other);
        Ok(TaskFiles::of(NotingTexts { files: Rc::new(self.live.open(tid)?), notes: self.notes.clone() }))
    }
    fn comm(&self, tid: Tid) -> Option<String> {
        self.note(Call::Other);
        self.live.comm(tid)
    }
    fn stopped(&self) -> bool {
        self.note(Call::Other);
        self.live.stopped()
    }
    fn inner_tids(&self) -> Option<BTreeMap<i32, Tid>> {
        self.live.inner_tids()
    }
}

#[derive(Debug)]
struct NotingTexts {
    files: Rc<TaskFiles>,
    notes: Notes,
}

impl TaskTexts for NotingTexts {
    fn read(&self, file: TaskFile, into: &mut [u8]) -> io::Result<usize> {
        let read = self.files.read(file, into);
        if read.as_ref().err().is_none_or(|e| e.kind() != io::ErrorKind::Unsupported) {
            self.notes.borrow_mut().push(Call::Text(self.files.clone(), file));
        }
        read
    }
}

/// The calls of some looks, made again without the looks.
struct Floor {
    live: LiveSource,
    memory: LiveMemory,
    looks: Vec<Vec<Call>>,
    next: usize,
    bytes: Vec<u8>,
    tids: Vec<Tid>,
}

impl Floor {
    fn of(python: Python, count: usize, rate: f64) -> Result<Floor, Failed> {
        let (pid, notes) = (python.pid, Notes::default());
        let mut observer = Observer::of(Box::new(Noting { live: LiveSource::new(pid), notes: notes.clone() }), python);
        let (mut builder, mut looks) = (ProfileBuilder::new(), Vec::with_capacity(count));
        let warm = warm_up(count * 10);
        at_rate(warm + count, rate, || {
            let now = sys_linux::monotonic();
            observer.look(now, now, &mut builder)?;
            looks.push(notes.take());
            Ok(())
        })?;
        looks.drain(..warm);
        let room = |call: &Call| if let Call::Batch(parts) = call { parts.iter().map(|part| part.len).sum() } else { kernel_stack::TEXT };
        let most = looks.iter().flatten().map(room).max().ok_or("no calls")?;
        Ok(Floor { live: LiveSource::new(pid), memory: LiveMemory::new(pid), looks, next: 0, bytes: vec![0; most], tids: Vec::new() })
    }

    fn next_look(&mut self) -> Result<(), Failed> {
        let index = self.next % self.looks.len();
        self.next += 1;
        for call in &mut self.looks[index] {
            match call {
                Call::Batch(parts) => self.memory.read_batch(parts, &mut self.bytes)?,
                Call::Count => drop(self.live.crowd().ok_or("it ended")?),
                Call::List(sure) => self.live.tids(&mut self.tids, *sure)?,
                // A thread may have ended meanwhile: that is a call too.
                Call::Text(files, file) => drop(files.read(*file, &mut self.bytes)),
                Call::Other => {}
            }
        }
        Ok(())
    }

    fn summary(&self) -> String {
        let mean = |wanted: fn(&Call) -> bool| self.looks.iter().flatten().filter(|c| wanted(c)).count() as f64 / self.looks.len() as f64;
        let text = |file| self.looks.iter().flatten().filter(|c| matches!(c, Call::Text(_, of) if *of == file)).count();
        let each = |file| text(file) as f64 / self.looks.len() as f64;
        format!(
            "calls of a look: memory {:.2}, schedstat {:.2}, syscall {:.2}, stack {:.2}, threads counted {:.2}, listed {:.2}, left out {:.3}",
            mean(|c| matches!(c, Call::Batch(_))),
            each(TaskFile::SchedStat),
            each(TaskFile::Syscall),
            each(TaskFile::Stack),
            mean(|c| matches!(c, Call::Count)),
            mean(|c| matches!(c, Call::List(_))),
            mean(|c| matches!(c, Call::Other))
        )
    }
}
