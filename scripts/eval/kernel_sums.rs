//! What it costs to add up in the kernel what the threads of many processes do.
//!
//! ```text
//! cargo run --release --example kernel_sums -- SECONDS RATE PID...
//! ```

#![allow(clippy::print_stdout)]

use gilprof::ids::{GilId, Pid};
use gilprof::process::kernel_events::{KernelEvents, ProgramCost, Sums};
use gilprof::process::live::LiveMemory;
use gilprof::process::sys_linux;
use gilprof::python::attach::PythonProcess;
use gilprof::python::interpreters::RuntimeState;
use gilprof::python::kernel_config::kernel_config;
use gilprof::units::Nanos;

type Failed = Box<dyn std::error::Error>;

const UNREAD: &str = "failed to read the programs' counters";
const USAGE: &str = "usage: kernel_sums SECONDS RATE PID...";
/// The sums are read so often.
const PERIOD: Nanos = Nanos::from_millis(1_000);

fn watch(events: &mut KernelEvents, pid: Pid) -> Result<(), Failed> {
    let python = PythonProcess::open(pid)?;
    let mut runtime = RuntimeState::default();
    runtime.walk(&LiveMemory::new(pid), &python.layout, python.runtime)?;
    let gils: Vec<_> = runtime.gils.iter().enumerate().map(|(n, (at, _))| (GilId(n as u32), *at)).collect();
    events.watch(pid, &kernel_config(&python.layout, python.abi, &gils, PERIOD))?;
    Ok(())
}

/// The number of threads of all these processes, and their sums together: time on a CPU, waiting
/// for a GIL, in the run queue, and asleep otherwise, in seconds; and waits.
fn total(events: &KernelEvents) -> (usize, [f64; 4], u64) {
    let now = sys_linux::monotonic();
    let threads: Vec<Sums> = events.sums(now).into_values().flat_map(|process| process.threads).map(|thread| thread.sums).collect();
    let sum = |of: fn(&Sums) -> Nanos| threads.iter().map(|sums| of(sums).as_secs_f64()).sum();
    let times =
        [sum(|sums| sums.on_cpu), sum(|sums| sums.waiting), sum(|sums| sums.queued + sums.queued_after_wait), sum(|sums| sums.asleep)];
    (threads.len(), times, threads.iter().map(|sums| sums.waits).sum())
}

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [seconds, rate, pids @ ..] = args.as_slice() else { return Err(USAGE.into()) };
    let end = Nanos::from_secs_f64(seconds.parse()?);
    let pids: Vec<Pid> = pids.iter().map(|pid| pid.parse().map(Pid)).collect::<Result<_, _>>()?;
    let mut events = KernelEvents::open_sums(rate.parse()?)?;
    for pid in &pids {
        watch(&mut events, *pid)?;
    }
    let (began, cpu, before) = (sys_linux::monotonic(), sys_linux::process_cpu_time(), events.cost().ok_or(UNREAD)?);
    let mut next = began;
    while next < began + end {
        next += PERIOD;
        sys_linux::sleep_until(next);
        let (threads, [on_cpu, waiting, queued, asleep], waits) = total(&events);
        println!(
            "{threads} threads: {on_cpu:.2} s on a CPU, {waiting:.2} waiting in {waits} waits, {queued:.2} queued, {asleep:.2} asleep"
        );
    }
    let (wall, own) = ((sys_linux::monotonic() - began).as_secs_f64(), (sys_linux::process_cpu_time() - cpu).as_secs_f64());
    let ProgramCost { switches, time, clock_time, .. } = events.cost().ok_or(UNREAD)?;
    let percent = |seconds: f64| 100.0 * seconds / wall;
    let (events, clock) = ((time - before.time).as_secs_f64(), (clock_time - before.clock_time).as_secs_f64());
    println!(
        "{} processes, {:.0} switches a second: {:.2} % of a core in the programs, {:.2} % in their clocks, {:.2} % in this process; {:.2} % in all",
        pids.len(),
        (switches - before.switches) as f64 / wall,
        percent(events),
        percent(clock),
        percent(own),
        percent(events + clock + own)
    );
    Ok(())
}
