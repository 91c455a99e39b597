//! What one look costs: CPU time of this thread per look, at 1 kHz against a live process. `scripts/look-cost` starts the process.
//!
//! ```text
//! cargo run --release --example look_cost -- PID [LOOKS] [RATE]
//! ```

#![allow(clippy::print_stdout)]

use gilprof::capture::clock::Clock;
use gilprof::capture::observe::Observer;
use gilprof::ids::Pid;
use gilprof::process::sys_linux;
use gilprof::profile::ProfileBuilder;
use gilprof::python::attach::Python;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let pid = args.next().ok_or("usage: look_cost PID [LOOKS] [RATE]")?.parse()?;
    let looks: usize = args.next().map_or(Ok(5000), |n| n.parse())?;
    let rate: f64 = args.next().map_or(Ok(1000.0), |r| r.parse())?;
    let mut observer = Observer::new(Python::open(Pid(pid))?, None);
    let mut builder = ProfileBuilder::new();
    sys_linux::precise_timers();
    sys_linux::wake_soon();
    let mut costs = Vec::with_capacity(looks);
    let mut clock = Clock::new(sys_linux::monotonic(), rate, 1);
    for _ in 0..looks {
        let before = sys_linux::thread_cpu();
        observer.look(sys_linux::monotonic(), &mut builder)?;
        costs.push(sys_linux::thread_cpu().since(before).as_nanos() as f64 / 1e3);
        sys_linux::sleep_until(clock.next(sys_linux::monotonic()));
    }
    let threads = observer.threads().len();
    let deepest = observer.threads().iter().map(|t| t.stack.stack().frames.len()).max().unwrap_or(0);
    costs.sort_by(f64::total_cmp);
    let at = |share: f64| costs.get((costs.len() as f64 * share) as usize).copied().unwrap_or(0.0);
    println!(
        "{threads} threads, deepest stack {deepest}: {looks} looks, {} slots missed; CPU per look: median {:.1} us, p90 {:.1} us, p99 {:.1} us",
        clock.missed(),
        at(0.5),
        at(0.9),
        at(0.99)
    );
    Ok(())
}
