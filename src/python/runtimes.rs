//! Several Python runtimes in one process: which of them is measured.
//!
//! A program may load several libpythons, each with its own GIL and its own threads. gilprof
//! measures one of them and names the others.

use super::diagnose::printable_path;
use super::interpreters::RuntimeState;
use super::layout::Layout;
use crate::error::{Error, Result};
use crate::ids::Addr;
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
    fn index(&self, all: &[StartedRuntime<'_>]) -> Option<Result<usize>> {
        let found = match self {
            RuntimeChoice::Busiest => return None,
            RuntimeChoice::Number(number) => number.checked_sub(1).filter(|index| *index < all.len()),
            RuntimeChoice::File(path) => all.iter().position(|runtime| is_at(runtime.path, path)),
        };
        let missing = || {
            let named: Vec<String> = all.iter().enumerate().map(|(n, runtime)| format!("{}: {}", n + 1, runtime.name())).collect();
            Error::Usage(format!("the process has no such runtime (--runtime); it has {}", named.join(", ")))
        };
        Some(found.ok_or_else(missing))
    }
}

/// Whether a file's path is `wanted`, or ends in its components.
fn is_at(path: &str, wanted: &str) -> bool {
    path.strip_suffix(wanted).is_some_and(|before| before.is_empty() || before.ends_with('/') || wanted.starts_with('/'))
}

/// A runtime that was started.
#[derive(Clone, Copy, Debug)]
pub(super) struct StartedRuntime<'a> {
    /// Such as `3.11.7`.
    pub version: &'a str,
    /// The file that holds it.
    pub path: &'a str,
    /// `_PyRuntime`.
    pub at: Addr,
    /// Where its fields are.
    pub layout: &'a Layout,
}

impl StartedRuntime<'_> {
    fn name(&self) -> String {
        format!("Python {} ({})", self.version, printable_path(self.path))
    }
}

/// The index of the runtime to measure, and a warning about the others. `all` is not empty.
pub(super) fn choose(all: &[StartedRuntime<'_>], choice: &RuntimeChoice, mem: &dyn Memory) -> Result<(usize, Option<String>)> {
    let (index, reason) = match choice.index(all) {
        Some(index) => (index?, "which --runtime chose"),
        None if all.len() < 2 => (0, ""),
        None => busiest(all, mem),
    };
    Ok((index, warning(all, index, reason)))
}

/// The runtime whose GIL is held most, and why it is measured.
fn busiest(all: &[StartedRuntime<'_>], mem: &dyn Memory) -> (usize, &'static str) {
    let mut states: Vec<RuntimeState> = all.iter().map(|_| RuntimeState::default()).collect();
    let mut held = vec![0u32; all.len()];
    for _ in 0..READINGS {
        for (n, (runtime, state)) in all.iter().zip(&mut states).enumerate() {
            // A walk fails while the lists change, and finds no GIL that is only being made.
            let walked = !state.gils.is_empty() || state.walk(mem, runtime.layout, runtime.at).is_ok();
            if walked && state.read(mem, runtime.layout, runtime.at, false).is_ok() {
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

fn warning(all: &[StartedRuntime<'_>], chosen: usize, reason: &str) -> Option<String> {
    if all.len() < 2 {
        return None;
    }
    let others = all.iter().enumerate().filter(|(n, _)| *n != chosen);
    let others: Vec<String> = others.map(|(n, runtime)| format!("{}, which --runtime {} measures", runtime.name(), n + 1)).collect();
    Some(format!(
        "the process has {} Python runtimes, each with its own GIL; measured is {}, {reason}; not measured: {}",
        all.len(),
        all[chosen].name(),
        others.join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ReadError;
    use crate::process::replay::ReplayMemory;
    use crate::python::layout::{for_version, LayoutTable, Minor};
    use std::cell::Cell;

    const BOTH: [(u8, &str, &str); 2] =
        [(9, "3.9.18", "/opt/3.9.18/lib/libpython3.9.so.1.0"), (11, "3.11.7", "/opt/3.11.7/lib/libpython3.11.so.1.0")];

    /// `_PyRuntime` of the second.
    const SECOND: Addr = Addr(0x200_0000);

    /// Memory in which the first reads of the second runtime fail.
    struct Late(ReplayMemory, Cell<usize>);

    impl Memory for Late {
        fn read(&self, at: Addr, into: &mut [u8]) -> std::result::Result<(), ReadError> {
            if at >= SECOND && self.1.get() > 0 {
                self.1.set(self.1.get() - 1);
                return Err(ReadError::Unmapped { at, len: into.len() });
            }
            self.0.read(at, into)
        }
    }

    /// Chooses between two runtimes in memory made by hand, with a GIL each, which is held or free.
    fn chosen(held: &[bool], choice: &str) -> Result<(&'static str, Option<String>)> {
        chosen_late(held, choice, 0)
    }

    fn chosen_late(held: &[bool], choice: &str, failing: usize) -> Result<(&'static str, Option<String>)> {
        let (mut mem, mut all) = (ReplayMemory::new(), Vec::new());
        for (n, (&held, (minor, version, path))) in held.iter().zip(BOTH).enumerate() {
            let Some(LayoutTable::Complete(layout)) = for_version(Minor(3, minor)) else { panic!("3.{minor}") };
            let at = Addr(SECOND.0 / 2 * (n as u64 + 1));
            let interpreter = at.offset(0x10_0000);
            mem.map(at, vec![0; 0x1000]).map(interpreter, vec![0; 0x1000]);
            mem.poke_u64(at.offset(layout.runtime.interpreters_head.offset() as u64), interpreter.0);
            mem.poke_u64(at.offset(layout.runtime.interpreters_main.offset() as u64), interpreter.0);
            let gil = at.offset(u64::from(layout.runtime.gil.unwrap()));
            mem.poke_u64(gil.offset(layout.gil.interval.offset() as u64), 5000);
            mem.poke_u64(gil.offset(layout.gil.last_holder.offset() as u64), 0x1234);
            mem.poke_u64(gil.offset(layout.gil.locked.offset() as u64), u64::from(held));
            all.push(StartedRuntime { version, path, at, layout });
        }
        let choice = if choice.is_empty() { RuntimeChoice::Busiest } else { RuntimeChoice::parse(choice).unwrap() };
        choose(&all, &choice, &Late(mem, Cell::new(failing))).map(|(index, warning)| (BOTH[index].1, warning))
    }

    #[test]
    fn the_runtime_whose_gil_is_held_is_measured_and_the_other_named() {
        for (held, measured, other) in [([true, false], "3.9.18", "3.11.7"), ([false, true], "3.11.7", "3.9.18")] {
            let (version, warning) = chosen(&held, "").unwrap();
            let warning = warning.unwrap();
            assert_eq!(version, measured, "{warning}");
            assert!(warning.contains(&format!("measured is Python {measured} (/opt/{measured}/lib")), "{warning}");
            assert!(warning.contains(&format!("not measured: Python {other} (/opt/{other}/lib")), "{warning}");
        }
        assert!(chosen(&[false, false], "").unwrap().1.unwrap().contains("no GIL was held"));
    }

    #[test]
    fn a_runtime_whose_first_reads_fail_is_read_again() {
        for failing in 0..8 {
            assert_eq!(chosen_late(&[false, true], "", failing).unwrap().0, "3.11.7", "{failing} failing reads");
        }
    }

    #[test]
    fn a_path_is_printed_without_control_characters() {
        let Some(LayoutTable::Complete(layout)) = for_version(Minor(3, 9)) else { panic!("3.9") };
        let hostile = format!("/tmp/\x1b[2J\nx{}", "y".repeat(4000));
        let all = [BOTH[0].2, &hostile].map(|path| StartedRuntime { version: "3.9.18", path, at: SECOND, layout });
        let text = warning(&all, 0, "").unwrap();
        let error = RuntimeChoice::Number(3).index(&all).unwrap().unwrap_err().to_string();
        for text in [text, error] {
            assert!(text.contains("/tmp/ [2J x") && !text.contains(char::is_control) && text.len() < 1000, "{text:?}");
        }
    }

    #[test]
    fn the_user_chooses_by_number_or_file() {
        for (choice, measured) in [("1", "3.9.18"), ("2", "3.11.7"), ("libpython3.9.so.1.0", "3.9.18"), (BOTH[1].2, "3.11.7")] {
            assert_eq!(chosen(&[true, false], choice).unwrap().0, measured, "{choice}");
        }
        for choice in ["3", "libpython3.8.so", "python3.9.so.1.0"] {
            let error = chosen(&[true, false], choice).unwrap_err();
            assert!(matches!(&error, Error::Usage(why) if why.contains("1: Python 3.9.18") && why.contains("2: Python 3.11.7")), "{error}");
        }
        assert!(RuntimeChoice::parse("0").is_err() && RuntimeChoice::parse("").is_err());
    }

    #[test]
    fn a_single_runtime_needs_no_warning() {
        assert_eq!(chosen(&[true], "").unwrap(), ("3.9.18", None));
    }
}
