//! The library in one page: measures a running Python program for two seconds and prints the states
//! of each thread.
//!
//! ```text
//! cargo run --release --example shares -- PID
//! ```

#![allow(clippy::print_stdout)]

use gilprof::profile::ProfileBuilder;
use gilprof::sample::State;
use gilprof::units::Nanos;
use gilprof::{CaptureConfig, Target};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pid = std::env::args().nth(1).ok_or("usage: shares PID")?.parse()?;
    let config = CaptureConfig { duration: Some(Nanos::from_millis(2000)), ..CaptureConfig::default() };
    let mut builder = ProfileBuilder::new();
    let window = Target::attach(pid)?.config(config).run(&mut builder)?;
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
