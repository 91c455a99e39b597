//! Prints what the kernel reports of a live process, record by record, and what that cost.
//!
//! ```text
//! cargo run --release --example kernel_stream -- PID SECONDS RATE [quiet]
//! ```

#![allow(clippy::print_stdout)]

use gilprof::ids::{GilId, Pid};
use gilprof::process::kernel_events::{KernelEvents, Record};
use gilprof::process::live::LiveMemory;
use gilprof::process::sys_linux;
use gilprof::python::attach::PythonProcess;
use gilprof::python::interpreters::RuntimeState;
use gilprof::python::kernel_config::kernel_config;
use gilprof::units::Nanos;
use std::collections::BTreeMap;

type Failed = Box<dyn std::error::Error>;

const USAGE: &str = "usage: kernel_stream PID SECONDS RATE [quiet]";
/// The ring is read ten times a second.
const PAUSE: Nanos = Nanos::from_millis(100);

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (pid, seconds, rate, quiet) = match args.as_slice() {
        [pid, seconds, rate] => (pid, seconds, rate, false),
        [pid, seconds, rate, quiet] if quiet == "quiet" => (pid, seconds, rate, true),
        _ => return Err(USAGE.into()),
    };
    let (pid, rate): (Pid, f64) = (Pid(pid.parse()?), rate.parse()?);
    let python = PythonProcess::open(pid)?;
    let mut runtime = RuntimeState::default();
    runtime.walk(&LiveMemory::new(pid), &python.layout, python.runtime)?;
    let gils: Vec<_> = runtime.gils.iter().enumerate().map(|(n, (at, _))| (GilId(n as u32), *at)).collect();
    let config = kernel_config(&python.layout, python.abi, &gils, Nanos::from_secs_f64(1.0 / rate));
    let mut events = KernelEvents::open(rate)?;
    events.watch(pid, &config)?;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let (began, cpu) = (sys_linux::monotonic(), sys_linux::process_cpu_time());
    let end = began + Nanos::from_secs_f64(seconds.parse()?);
    let mut next = began;
    while next < end {
        next += PAUSE;
        sys_linux::sleep_until(next);
        events.drain(&mut |_, tid, record| {
            let (kind, frames) = match &record {
                Record::Run(run, stack) => (format!("{tid} {:?}", run.off), stack.map(|stack| stack.frames.len())),
                Record::Tick { view, stack, .. } => {
                    (format!("{tid} tick holds {:?}", view.holds.map(|gil| gil.0)), stack.map(|s| s.frames.len()))
                }
                Record::Exited { .. } => (format!("{tid} exited"), None),
            };
            *counts
                .entry(format!("{kind}, {}", frames.map_or("no stack", |n| if n > 0 { "stack" } else { "empty stack" })))
                .or_default() += 1;
            if !quiet {
                println!("{tid} {record:?}");
            }
        });
    }
    let (wall, cpu) = (sys_linux::monotonic() - began, sys_linux::process_cpu_time() - cpu);
    for (kind, count) in counts {
        println!("{count:>8} {kind}");
    }
    events.now(&mut |pid, tid, now| println!("now {pid} {tid} {now:?}"));
    let unread = "failed to read the programs' counters";
    let (cost, lost, assumed) = (events.cost().ok_or(unread)?, events.lost().ok_or(unread)?, events.assumed().ok_or(unread)?);
    println!(
        "{} records, {} lost, {} events assumed, {:.0} switches a second, {:.3} % of a core in the programs and {:.3} % in their clocks, \
         {:.3} % in this process",
        cost.events,
        lost,
        assumed,
        cost.switches as f64 / wall.as_secs_f64(),
        100.0 * cost.time.as_secs_f64() / wall.as_secs_f64(),
        100.0 * cost.clock_time.as_secs_f64() / wall.as_secs_f64(),
        100.0 * cpu.as_secs_f64() / wall.as_secs_f64()
    );
    Ok(())
}
