//! Shared by the checks of live programs: complaints, which do not end a check; a table of the
//! figures; and windows that are measured again when other programs used the machine.

mod load;

use crate::support::{self, Interpreter, Target};
use load::Load;
use serde_json::Value;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// Windows, at most, if other programs use the machine.
const WINDOWS: usize = 3;
/// Cores used by other programs that leave two threads short of CPU on a small machine.
const STARVING: f64 = 0.3;

/// Complaints with the interpreter that they are about.
#[derive(Default)]
pub struct Complaints {
    here: String,
    all: Vec<String>,
}

impl Complaints {
    /// Adds a complaint unless the condition holds.
    pub fn expect(&mut self, true_: bool, what: impl FnOnce() -> String) {
        if !true_ {
            self.add(&what());
        }
    }

    /// Adds a complaint.
    pub fn add(&mut self, what: &str) {
        self.all.push(format!("{}: {what}", self.here));
    }
}

/// Runs `check` on this interpreter, and fails with all complaints. A panic is one of them.
pub fn complain(interpreter: &Interpreter, check: impl Fn(&Interpreter, &mut Complaints)) {
    let mut complaints = Complaints { here: interpreter.label.clone(), all: Vec::new() };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(interpreter, &mut complaints))) {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        complaints.add(text.unwrap_or("a panic (above)"));
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    assert!(complaints.all.is_empty(), "\n  {}\n  (load average now: {})", complaints.all.join("\n  "), load.trim());
}

/// A line of the table.
#[macro_export]
macro_rules! row {
    ($label:expr, $($text:tt)*) => { eprintln!("{:22} {}", $label, format_args!($($text)*)) };
}

/// The report of `gilprof attach` on this process.
pub fn attach(pid: i32, seconds: f64, more: &[&str]) -> Value {
    let (pid, duration) = (pid.to_string(), format!("{}ms", (seconds * 1e3) as u64));
    support::report(&[&["attach", "--pid", &pid, "--duration", &duration], more].concat())
}

/// A window, and the load of the machine meanwhile.
pub struct Measured {
    /// gilprof's report.
    pub report: Value,
    /// Cores that other programs used meanwhile.
    pub others: f64,
}

impl Measured {
    /// Whether other programs used so much of the machine that the target had too little CPU. It
    /// then switches less, and the right verdict may be `cpu-starved`. Its states must still be
    /// right, so only `what` is left out, and that is reported.
    pub fn starving(&self, interpreter: &Interpreter, what: &str) -> bool {
        let starving = self.others > STARVING;
        if starving {
            support::leave_out(&format!("{}: {what}: other programs used the machine", interpreter.label));
        }
        starving
    }
}

/// Attaches for `seconds` and checks the report. If other programs used the machine meanwhile
/// ([`STARVING`]), a window with complaints is measured again, up to [`WINDOWS`] times, and each is
/// printed. Otherwise its complaints stand.
pub fn measure(
    interpreter: &Interpreter,
    target: &Target,
    seconds: f64,
    complaints: &mut Complaints,
    check: impl Fn(&Measured, &mut Complaints),
) {
    measure_process(interpreter, target.pid(), seconds, complaints, check);
}

/// The same for a process that is not the target itself, but its child.
pub fn measure_process(
    interpreter: &Interpreter,
    pid: i32,
    seconds: f64,
    complaints: &mut Complaints,
    check: impl Fn(&Measured, &mut Complaints),
) {
    for window in 1..=WINDOWS {
        let before = Load::now(pid);
        let report = attach(pid, seconds, &[]);
        let measured = Measured { report, others: Load::now(pid).others_since(&before) };
        let mut found =
            Complaints { here: format!("{}, others use {:.2} cores", interpreter.label, measured.others), ..Complaints::default() };
        check(&measured, &mut found);
        if found.all.is_empty() {
            return;
        }
        if window == WINDOWS || measured.others <= STARVING {
            return complaints.all.append(&mut found.all);
        }
        row!(interpreter.label, "other programs use {:.2} cores; measured again, because {}", measured.others, found.all.join("; "));
    }
}

/// A number at a JSON pointer. Panics if there is none.
pub fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {pointer} in {value:#}"))
}

/// The thread of this name in a report or a dump.
pub fn thread<'a>(report: &'a Value, name: &str) -> &'a Value {
    let named = |t: &&Value| t["name"] == name;
    report["threads"].as_array().unwrap().iter().find(named).unwrap_or_else(|| panic!("no thread {name:?} in {report:#}"))
}
