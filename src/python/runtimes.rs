//! Several Python runtimes in one process: which of them is measured.
//!
//! A program may load several libpythons, each with its own GIL and its own threads. gilprof
//! measures one of them and names the others.

use super::attach::PythonProcess;
use super::interpreters::RuntimeState;
use crate::error::{Error, Result};
use crate::process::memory::Memory;
use crate::process::sys_linux;
use crate::units::Nanos;

/// Readings of each GIL that decide which one is held most, and the time between them.
const READINGS: u32 = 50;
const PERIOD: Nanos = Nanos::from_millis(1);

/// Which runtime to measure, of a process that has several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RuntimeChoice {
    /// The one whose GIL is held most.
    #[default]
    Busiest,
    /// The one with this number, from 1, in the order of the messages.
    Number(usize),
    /// The one whose file has this path, or a path that ends in it.
    File(String),
}

impl RuntimeChoice {
    /// From the command line: a number or a path.
    pub fn parse(text: &str) -> std::result::Result<RuntimeChoice, String> {
        match text.parse() {
            Ok(0) => Err("runtimes are numbered from 1".into()),
            Ok(number) => Ok(RuntimeChoice::Number(number)),
            Err(_) if text.is_empty() => Err("it is empty; give a number or a path".into()),
            Err(_) => Ok(RuntimeChoice::File(text.into())),
        }
    }

    /// The index of the chosen runtime; `None` if the GILs decide.
    fn index(&self, all: &[PythonProcess]) -> Option<Result<usize>> {
        let found = match self {
            RuntimeChoice::Busiest => return None,
            RuntimeChoice::Number(number) => number.checked_sub(1).filter(|index| *index < all.len()),
            RuntimeChoice::File(path) => all.iter().position(|python| is_at(&python.path, path)),
        };
        let missing = || {
            let named: Vec<String> = all.iter().enumerate().map(|(n, python)| format!("{}: {}", n + 1, name(python))).collect();
            Error::Usage(format!("the process has no such runtime (--runtime); it has {}", named.join(", ")))
        };
        Some(found.ok_or_else(missing))
    }
}

/// Whether a file's path is `wanted`, or ends in its components.
fn is_at(path: &str, wanted: &str) -> bool {
    path.strip_suffix(wanted).is_some_and(|before| before.is_empty() || before.ends_with('/') || wanted.starts_with('/'))
}

fn name(python: &PythonProcess) -> String {
    format!("Python {} ({})", python.version, python.path)
}

/// The runtime to measure, with a warning about the others. `all` is not empty.
pub(super) fn choose(mut all: Vec<PythonProcess>, choice: &RuntimeChoice, mem: &dyn Memory) -> Result<PythonProcess> {
    // A runtime that has ended its interpreters has no threads to measure.
    if all.iter().any(|python| python.has_interpreter(mem)) {
        all.retain(|python| python.has_interpreter(mem));
    }
    let (index, reason) = match choice.index(&all) {
        Some(index) => (index?, "which --runtime chose"),
        None if all.len() < 2 => (0, ""),
        None => busiest(&all, mem),
    };
    let warning = warning(&all, index, reason);
    let mut chosen = all.swap_remove(index);
    chosen.runtimes_warning = warning;
    Ok(chosen)
}

/// The runtime whose GIL is held most, and why it is measured.
fn busiest(all: &[PythonProcess], mem: &dyn Memory) -> (usize, &'static str) {
    let mut states: Vec<RuntimeState> = all.iter().map(|_| RuntimeState::default()).collect();
    let mut held = vec![0u32; all.len()];
    for reading in 0..READINGS {
        for (n, (python, state)) in all.iter().zip(&mut states).enumerate() {
            let walked = reading > 0 || state.walk(mem, &python.layout, python.runtime).is_ok();
            if walked && state.read(mem, &python.layout, python.runtime, false).is_ok() {
                held[n] += u32::from(state.gils.iter().any(|(_, gil)| gil.is_some_and(|gil| gil.holder.is_some())));
            }
        }
        sys_linux::sleep_until(sys_linux::monotonic() + PERIOD);
    }
    let most = held.iter().copied().max().unwrap_or(0);
    let index = held.iter().position(|&count| count == most).unwrap_or(0);
    match most {
        0 => (index, "the first found, as no GIL was held when gilprof attached"),
        _ => (index, "whose GIL was held most when gilprof attached"),
    }
}

fn warning(all: &[PythonProcess], chosen: usize, reason: &str) -> Option<String> {
    if all.len() < 2 {
        return None;
    }
    let others = all.iter().enumerate().filter(|(n, _)| *n != chosen);
    let others: Vec<String> = others.map(|(n, python)| format!("{}, which --runtime {} measures", name(python), n + 1)).collect();
    Some(format!(
        "the process has {} Python runtimes, each with its own GIL; measured is {}, {reason}; not measured: {}",
        all.len(),
        name(&all[chosen]),
        others.join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Addr, Pid};
    use crate::process::elf::Machine;
    use crate::process::replay::ReplayMemory;
    use crate::python::layout::Minor;

    /// Two runtimes in memory made by hand: 3.9 and 3.11 with a GIL each, which is held or free.
    fn two(held: [bool; 2]) -> (ReplayMemory, Vec<PythonProcess>) {
        let mut mem = ReplayMemory::new();
        let mut all = Vec::new();
        for (n, (minor, version)) in [(9, "3.9.18"), (11, "3.11.7")].into_iter().enumerate() {
            let base = 0x100_0000 * (n as u64 + 1);
            let (runtime, interpreter) = (Addr(base), Addr(base + 0x10_0000));
            mem.map(runtime, vec![0; 0x1000]).map(interpreter, vec![0; 0x1000]);
            let mut python = PythonProcess::from_runtime(Pid(1), &mem, Machine::X86_64, Minor(3, minor), version.into(), runtime).unwrap();
            python.path = format!("/opt/{version}/lib/libpython3.{minor}.so.1.0");
            let (at, gil) = (&python.layout.runtime, &python.layout.gil);
            mem.poke_u64(runtime.offset(at.interpreters_head.offset() as u64), interpreter.0);
            mem.poke_u64(runtime.offset(at.interpreters_main.offset() as u64), interpreter.0);
            let start = runtime.offset(u64::from(at.gil.unwrap()));
            mem.poke_u64(start.offset(gil.interval.offset() as u64), 5000);
            mem.poke_u64(start.offset(gil.last_holder.offset() as u64), 0x1234);
            mem.poke_u64(start.offset(gil.locked.offset() as u64), u64::from(held[n]));
            all.push(python);
        }
        (mem, all)
    }

    fn chosen(held: [bool; 2], choice: &str) -> Result<PythonProcess> {
        let (mem, all) = two(held);
        let choice = if choice.is_empty() { RuntimeChoice::Busiest } else { RuntimeChoice::parse(choice).unwrap() };
        choose(all, &choice, &mem)
    }

    #[test]
    fn the_runtime_whose_gil_is_held_is_measured_and_the_other_named() {
        for (held, measured, other) in [([true, false], "3.9.18", "3.11.7"), ([false, true], "3.11.7", "3.9.18")] {
            let python = chosen(held, "").unwrap();
            let warning = python.runtimes_warning.unwrap();
            assert_eq!(python.version, measured, "{warning}");
            assert!(warning.contains(&format!("measured is Python {measured} (/opt/{measured}/lib")), "{warning}");
            assert!(warning.contains(&format!("not measured: Python {other} (/opt/{other}/lib")), "{warning}");
        }
        assert!(chosen([false, false], "").unwrap().runtimes_warning.unwrap().contains("no GIL was held"));
    }

    #[test]
    fn the_user_chooses_by_number_or_file() {
        for (choice, measured) in
            [("1", "3.9.18"), ("2", "3.11.7"), ("libpython3.9.so.1.0", "3.9.18"), ("/opt/3.11.7/lib/libpython3.11.so.1.0", "3.11.7")]
        {
            assert_eq!(chosen([true, false], choice).unwrap().version, measured, "{choice}");
        }
        for choice in ["3", "libpython3.8.so", "python3.9.so.1.0"] {
            let error = chosen([true, false], choice).unwrap_err();
            assert!(matches!(&error, Error::Usage(why) if why.contains("1: Python 3.9.18") && why.contains("2: Python 3.11.7")), "{error}");
        }
        assert!(RuntimeChoice::parse("0").is_err() && RuntimeChoice::parse("").is_err());
    }

    #[test]
    fn a_single_runtime_needs_no_warning() {
        let (mem, mut all) = two([true, true]);
        all.truncate(1);
        assert_eq!(choose(all, &RuntimeChoice::Busiest, &mem).unwrap().runtimes_warning, None);
    }
}
