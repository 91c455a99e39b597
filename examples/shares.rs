//! The library in one page: measures a running Python program for two seconds and prints the states
//! of each thread.
//!
//! ```text
//! cargo run --release --example shares -- PID
//! ```

#![allow(clippy::print_stdout)]

use gilprof::capture::session::{capture, CaptureConfig};
use gilprof::ids::Pid;
use gilprof::profile::ProfileBuilder;
use gilprof::python::attach::PythonProcess;
use gilprof::sample::State;
use gilprof::units::Nanos;
use std::sync::atomic::AtomicBool;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pid = std::env::args().nth(1).ok_or("usage: shares PID")?.parse()?;
    let python = PythonProcess::open(Pid(pid))?;
    let config = CaptureConfig {
        rate_hz: 1000.0,
        duration: Some(Nanos::from_millis(2000)),
        exact: false,
        freeze_holder: false,
        all_evidence: false,
    };
    let mut builder = ProfileBuilder::new();
    let window = capture(python, config, &AtomicBool::new(false), &mut builder, &mut |_, _| {})?;
    println!("{:?}\n{:?}", window.stats, window.target);
    let profile = builder.finish(window.target, window.stats);
    for thread in &profile.threads {
        print!("{:>8} {:20}", thread.info.tid, thread.info.name);
        for state in State::ALL {
            let share = thread.times.get(state) / thread.times.total();
            if share >= 0.001 {
                print!("  {} {share:.3}", state.label());
            }
        }
        println!();
    }
    for (thread, stack, times) in profile.stacks() {
        let names: Vec<String> = stack.frames.iter().map(|f| format!("{}:{}", f.function.name, f.line)).collect();
        println!("{} {:.0} ms {:?} {}", thread.info.name, times.total() / 1e6, stack.status, names.join(" "));
    }
    Ok(())
}
