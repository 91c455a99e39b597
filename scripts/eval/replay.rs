//! Judges kept samples again: the share of each state in each thread's time, one line of JSON for
//! each file. `scripts/eval replay` compares them with the truth.
//!
//! ```text
//! cargo run --release --example replay -- RESOLVER [--without RULE]… FILE…
//! cargo run --release --example replay -- rules
//! ```
//! RESOLVER is kernel-stack, switch-counts or cpu-time.

#![allow(clippy::print_stdout)]

use flate2::read::MultiGzDecoder;
use gilprof::estimate::raw_stream::RawReader;
use gilprof::estimate::replay::{replay, Replayed};
use gilprof::estimate::rules::{Rule, Rules};
use gilprof::sample::{Resolver, State, StateTimes};
use serde_json::{json, Map, Value};
use std::fs::File;
use std::io::BufReader;

type Failed = Box<dyn std::error::Error>;

const USAGE: &str = "usage: replay kernel-stack|switch-counts|cpu-time [--without RULE]… FILE…, or: replay rules";

/// A thread's seconds, and the share of each state in them, as in a report.
fn states(times: &StateTimes) -> Value {
    let total = times.total().max(1.0);
    let share = |of: f64| of / total;
    let mut states: Map<String, Value> = State::ALL
        .iter()
        .filter(|state| !state.is_holding())
        .map(|state| (state.label().into(), share(times.get(*state)).into()))
        .collect();
    states.insert("holding".into(), share(times.holding()).into());
    json!({"seconds": times.total() / 1e9, "states": states})
}

fn main() -> Result<(), Failed> {
    let mut args = std::env::args().skip(1);
    let resolver = match args.next().as_deref() {
        Some("kernel-stack") => Resolver::KernelStack,
        Some("switch-counts") => Resolver::SwitchCounts,
        Some("cpu-time") => Resolver::CpuTime,
        Some("rules") => {
            Rule::ALL.iter().for_each(|rule| println!("{rule:?}"));
            return Ok(());
        }
        _ => return Err(USAGE.into()),
    };
    let mut rules = Rules::default();
    while let Some(path) = args.next() {
        if path == "--without" {
            let name = args.next().ok_or(USAGE)?;
            rules = rules.without(*Rule::ALL.iter().find(|rule| format!("{rule:?}") == name).ok_or("there is no such rule")?);
            continue;
        }
        let mut reader = RawReader::new(BufReader::new(MultiGzDecoder::new(File::open(&path)?)))?;
        let Replayed { threads, samples } = replay(&mut reader, resolver, rules)?;
        let rows: Map<String, Value> = threads.iter().map(|(tid, times)| (tid.0.to_string(), states(times))).collect();
        println!("{}", json!({"file": path, "samples": samples, "threads": rows}));
    }
    Ok(())
}
