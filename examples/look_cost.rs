//! What one look costs: CPU time of this thread per look, against a live process. `scripts/look-cost` starts the process.
//!
//! With `floor` it makes no looks but the system calls of one, with everything about them known beforehand: those that a look at a process
//! cannot do without, whose GIL somebody holds. Both are given with and without the sleep between two looks, which costs more than some of them.
//!
//! ```text
//! cargo run --release --example look_cost -- PID [LOOKS [RATE [floor]]]
//! ```

#![allow(clippy::print_stdout)]

use gilprof::capture::clock::Clock;
use gilprof::capture::observe::Observer;
use gilprof::ids::{Addr, Pid};
use gilprof::process::live::LiveMemory;
use gilprof::process::memory::{Memory, Part};
use gilprof::process::sys_linux;
use gilprof::process::task_list::TaskList;
use gilprof::process::threads::TaskFiles;
use gilprof::profile::ProfileBuilder;
use gilprof::python::attach::Python;
use gilprof::python::interpreters::Roster;
use gilprof::units::Nanos;

type Failed = Box<dyn std::error::Error>;

/// Bytes of a chunk of frames that are copied: about what twenty frames take.
const FRAMES: usize = 2048;

fn main() -> Result<(), Failed> {
    let mut args = std::env::args().skip(1);
    let pid = Pid(args.next().ok_or("usage: look_cost PID [LOOKS [RATE [floor]]]")?.parse()?);
    let looks: usize = args.next().map_or(Ok(5000), |n| n.parse())?;
    let rate: f64 = args.next().map_or(Ok(1000.0), |r| r.parse())?;
    let python = Python::open(pid)?;
    if args.next().is_some() {
        let mut floor = Floor::of(&python)?;
        measure("the floor", looks, rate, |_| floor.calls())
    } else {
        let mut observer = Observer::new(python, None);
        let mut builder = ProfileBuilder::new();
        measure("a look", looks, rate, |at| Ok(observer.look(at, &mut builder).map(|_| ())?))?;
        let threads = observer.threads().len();
        let deepest = observer.threads().iter().map(|t| t.stack.stack().frames.len()).max().unwrap_or(0);
        println!("{threads} threads, deepest stack {deepest}");
        Ok(())
    }
}

fn measure(what: &str, looks: usize, rate: f64, mut look: impl FnMut(Nanos) -> Result<(), Failed>) -> Result<(), Failed> {
    sys_linux::precise_timers();
    sys_linux::wake_soon();
    let mut costs = Vec::with_capacity(looks.min(1 << 20));
    // The first looks meet everything for the first time.
    for _ in 0..(looks / 10).min(1000) {
        look(sys_linux::monotonic())?;
    }
    let mut clock = Clock::new(sys_linux::monotonic(), rate, 1);
    let begun = sys_linux::thread_cpu();
    for _ in 0..looks {
        sys_linux::sleep_until(clock.next(sys_linux::monotonic()));
        let before = sys_linux::thread_cpu();
        look(sys_linux::monotonic())?;
        costs.push(sys_linux::thread_cpu().since(before).as_nanos() as f64 / 1e3);
    }
    let whole = sys_linux::thread_cpu().since(begun).as_nanos() as f64 / 1e3 / looks as f64;
    costs.sort_by(f64::total_cmp);
    let at = |share: f64| costs.get((costs.len() as f64 * share) as usize).copied().unwrap_or(0.0);
    println!(
        "{what}: {looks} made, {} slots missed; CPU median {:.1} us, p90 {:.1} us, p99 {:.1} us; mean with the sleep {whole:.1} us",
        clock.missed(),
        at(0.5),
        at(0.9),
        at(0.99)
    );
    Ok(())
}

/// The calls of a look and the room for what they bring.
struct Floor {
    tasks: TaskList,
    memory: LiveMemory,
    thread: TaskFiles,
    states: Vec<Part>,
    stack: Vec<Part>,
    bytes: Vec<u8>,
}

impl Floor {
    fn of(python: &Python) -> Result<Floor, Failed> {
        let (memory, layout) = (LiveMemory::new(python.pid), &python.layout);
        let mut roster = Roster::default();
        roster.walk(&memory, layout, python.runtime)?;
        let tstate = roster.threads.first().ok_or("no thread state")?.at;
        let gil = roster.gils.first().ok_or("no GIL")?.0;
        let head = roster.interpreters.first().ok_or("no interpreter")?.at.offset(layout.interpreter.threads_head.offset() as u64);
        let size = layout.thread.size as usize;
        let states = vec![Part::new(gil, layout.gil.size as usize), Part::new(head, 8), Part::new(tstate, size)];
        let data = layout.thread.datastack.map_or(Ok(tstate), |data| memory.read_ptr(tstate.offset(data.chunk.offset() as u64)))?;
        let once = [Part::new(tstate, size), Part::new(Addr(data.0), FRAMES)];
        let stack = [once, once].concat();
        let mut tids = Vec::new();
        let tasks = TaskList::of(python.pid);
        tasks.read(&mut tids, false)?;
        let thread = TaskFiles::open(python.pid, *tids.last().ok_or("no thread")?)?;
        Ok(Floor { tasks, memory, thread, states, stack, bytes: vec![0; 4 * FRAMES + 8 * size] })
    }

    fn calls(&mut self) -> Result<(), Failed> {
        self.tasks.count().ok_or("it ended")?;
        self.memory.read_batch(&mut self.states, &mut self.bytes)?;
        self.memory.read_batch(&mut self.stack, &mut self.bytes)?;
        self.thread.schedstat()?;
        self.thread.kernel()?;
        Ok(())
    }
}
