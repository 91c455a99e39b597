//! Runs one parser on many inputs and stops at the first that makes it panic, hang, or allocate too
//! much.
//!
//! `GILPROF_FUZZ_INPUTS` is the number of inputs of each parser. Without it the number is such that
//! each parser takes some seconds. `GILPROF_FUZZ_FIRST` is the number of the first input: it
//! repeats a failure, or continues a long run.

use super::heap;
use super::mutate::Mutator;
use crate::support;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::time::Duration;

/// The most heap that one input may use at a time.
pub const MOST_BYTES: usize = 64 << 20;
/// The longest time of an input. Inputs take far less on a busy machine, because their cost is
/// bounded in work, not in time.
const HANG: Duration = Duration::from_secs(60);
/// Inputs of a cheap parser without `GILPROF_FUZZ_INPUTS`, with `--all`.
const DEFAULT: u64 = 300_000;
/// The same without `--all`.
const BRIEF: u64 = 30_000;

/// Tries one input.
pub type Parse<'a> = Box<dyn FnMut(usize, &[u8]) -> bool + 'a>;

/// One parser.
pub struct Fuzz<'a> {
    pub name: &'static str,
    /// Its cost as a multiple of a cheap parser's.
    pub cost: u64,
    pub inputs: Mutator,
    /// Gets the number of the seed and the input, and returns whether the input was accepted. A
    /// panic is a failure.
    pub parse: Parse<'a>,
}

/// The result of a run.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    pub inputs: u64,
    pub accepted: u64,
    pub peak: usize,
}

/// The input that made a parser fail.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    pub number: u64,
    pub why: String,
    pub input: Vec<u8>,
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.replace('_', "").parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Runs a parser on the wanted number of inputs. Panics with the input on which it fails.
pub fn fuzz(parser: Fuzz<'_>) {
    let inputs = number("GILPROF_FUZZ_INPUTS").unwrap_or(if support::all() { DEFAULT } else { BRIEF } / parser.cost).max(1);
    let first = number("GILPROF_FUZZ_FIRST").unwrap_or(0);
    let name = parser.name;
    match run(parser, first..first.saturating_add(inputs)) {
        Ok(table) => eprintln!("{}", row(name, &table)),
        Err(failure) => panic!("{}", story(name, &failure)),
    }
}

/// A line of the table.
fn row(name: &str, table: &Table) -> String {
    let refused = table.inputs - table.accepted;
    format!(
        "fuzz  {name:18} {:>11} inputs {:>11} accepted {refused:>11} refused {:>11} bytes at most",
        table.inputs, table.accepted, table.peak
    )
}

/// Everything that a regression test of a failure needs.
fn story(name: &str, failure: &Failure) -> String {
    let hex: String = failure.input.iter().take(4096).map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{name}: input {} {}\n  again: GILPROF_FUZZ_FIRST={} GILPROF_FUZZ_INPUTS=1\n  {} bytes: {}\n  hex: {hex}",
        failure.number,
        failure.why,
        failure.number,
        failure.input.len(),
        failure.input.escape_ascii().to_string().chars().take(2000).collect::<String>(),
    )
}

/// Runs a parser on these inputs.
pub fn run(mut parser: Fuzz<'_>, numbers: std::ops::Range<u64>) -> Result<Table, Failure> {
    let watch = Watch::start(parser.name);
    let mut table = Table { inputs: numbers.end - numbers.start, accepted: 0, peak: 0 };
    for number in numbers {
        watch.begins(number);
        let (seed, input) = parser.inputs.input(number);
        let parse = &mut parser.parse;
        let (result, peak) = heap::peak_of(|| catch_unwind(AssertUnwindSafe(|| parse(seed, input))));
        let failed = |why: String| Failure { number, why, input: input.to_vec() };
        match result {
            Ok(accepted) => table.accepted += u64::from(accepted),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
                return Err(failed(format!("panics: {}", text.unwrap_or("(above)"))));
            }
        }
        if peak > MOST_BYTES {
            return Err(failed(format!("allocates {peak} bytes")));
        }
        table.peak = table.peak.max(peak);
    }
    Ok(table)
}

/// Ends the process when one input takes too long: an endless loop cannot be stopped from outside.
struct Watch {
    number: Arc<AtomicU64>,
    /// Closed when the run is over.
    _open: Sender<()>,
}

impl Watch {
    fn start(name: &'static str) -> Watch {
        let number = Arc::new(AtomicU64::new(u64::MAX));
        let (seen, (open, over)) = (number.clone(), channel());
        std::thread::spawn(move || {
            let mut before = u64::MAX;
            while over.recv_timeout(HANG) == Err(RecvTimeoutError::Timeout) {
                let number = seen.load(Ordering::Relaxed);
                if number == before && number != u64::MAX {
                    eprintln!(
                        "{name}: input {number} takes longer than {HANG:?}; again: GILPROF_FUZZ_FIRST={number} GILPROF_FUZZ_INPUTS=1"
                    );
                    std::process::abort();
                }
                before = number;
            }
        });
        Watch { number, _open: open }
    }

    fn begins(&self, number: u64) {
        self.number.store(number, Ordering::Relaxed);
    }
}
