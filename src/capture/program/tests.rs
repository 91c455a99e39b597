//! Reasons and counts of a window that outlives its program.

use super::*;
use crate::ids::Addr;
use crate::process::c_library::Abi;
use crate::python::layout::Minor;
use crate::sample::EventCounts;

#[test]
fn a_program_that_only_unloaded_its_python_was_not_replaced() {
    let not_python = || Error::NotPython { pid: Pid(7), what: "cat".into(), why: String::new() };
    let not_ready = || Error::NotReady { pid: Pid(7), why: String::new() };
    let after = |error: Option<Error>, replaced, ms| reason_lost(error.as_ref(), replaced, Nanos::from_millis(ms)).unwrap_or_default();
    assert_eq!(after(Some(not_python()), true, 1_001), "the process replaced itself by cat, which is not Python");
    assert_eq!(after(Some(not_python()), false, 2_000), "", "it may be exiting");
    assert_eq!(after(Some(not_python()), false, 2_001), "the program unloaded its Python");
    assert_eq!(after(Some(not_ready()), false, 2_001), "the program ended its interpreter, but not itself");
    assert!(after(Some(not_ready()), true, 2_001).starts_with("the process replaced itself by another Python"));
    assert_eq!(after(None, false, 2_001), "its interpreter could no longer be read");
    assert_eq!(after(None, true, 2_000), "");
}

#[test]
fn the_counts_of_an_engine_outlive_it() {
    let mut mem = crate::process::replay::ReplayMemory::new();
    mem.map(Addr(0x1000), vec![0; 0x1000]);
    let python = PythonProcess::from_runtime(Pid(7), &mem, Abi::default(), Minor(3, 9), "3.9.18".into(), Addr(0x1000)).unwrap();
    let mut program = InterpreterSource::new(python, &CaptureConfig::default());
    let events = EventCounts { events: 40, lost_events: Some(2) };
    program.earlier.events = events;
    program.warn(["2 kernel events were lost".to_owned()]);
    let mut stats = CaptureStats::default();
    program.fill_stats(&mut stats);
    assert_eq!(stats.events, events);
    assert!(!stats.exact, "the waits of the second program are sampled");
    assert_eq!(stats.warnings, ["2 kernel events were lost"]);
}
