//! `--engine`: which one measures, and what the report says of that.

use crate::harness::{newest, Suite};
use crate::support::cli::{gilprof, warnings, without_bpf, Running};
use crate::support::{self, skip, Interpreter, Target};
use crate::{on, row};
use gilprof::process::kernel_events::KernelEvents;
use serde_json::{json, Value};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    let newest = || newest(support::interpreters());
    on!(suite, newest(), [auto_takes_the_kernel_engine_or_says_what_is_missing, both_engines_agree_on_a_simple_program]);
}

fn attach<'a>(pid: &'a str, engine: &'a str) -> Vec<&'a str> {
    vec!["attach", "--pid", pid, "--engine", engine, "--duration", "1s", "--format", "json"]
}

fn waiting(report: &Value) -> f64 {
    report["threads"].as_array().unwrap().iter().map(|thread| thread["states"]["waiting"].as_f64().unwrap()).sum()
}

fn auto_takes_the_kernel_engine_or_says_what_is_missing(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &["--threads", "3"]);
    let pid = target.pid().to_string();
    let report = gilprof(&attach(&pid, "auto")).report();
    match KernelEvents::open(1000.0) {
        Ok(_) => {
            assert_eq!(report["window"]["engine"], "kernel", "{:#}", report["window"]);
            assert_eq!(report["window"].get("engine_reason"), None);
        }
        Err(why) => {
            let reason = (&report["window"]["engine"], &report["window"]["engine_reason"]);
            assert_eq!(reason, (&json!("samples"), &json!(why.to_string())));
        }
    }
    assert!(waiting(&report) > 1.0, "{report:#}");
    let Some(command) = without_bpf(&attach(&pid, "auto")) else { return };
    let report = Running::spawn(command).end().report();
    assert_eq!(report["window"]["engine"], "samples");
    let reason = report["window"]["engine_reason"].as_str().unwrap();
    assert!(reason.contains("CAP_BPF and CAP_PERFMON") && reason.contains("sudo setcap"), "{reason}");
    // Sampling is what was asked for then.
    assert!(!warnings(&report).contains("kernel engine"), "{}", warnings(&report));
    assert!(waiting(&report) > 1.0, "{report:#}");
    let Some(command) = without_bpf(&attach(&pid, "kernel")) else { return };
    let report = Running::spawn(command).end().report();
    assert!(warnings(&report).contains("the program is sampled, not watched by the kernel engine"), "{}", warnings(&report));
}

fn both_engines_agree_on_a_simple_program(interpreter: &Interpreter) {
    if let Err(why) = KernelEvents::open(1000.0) {
        return skip(&format!("kernel events: {why}"));
    }
    let target = Target::start(interpreter, "cpu", &["--threads", "3"]);
    let report = gilprof(&attach(&target.pid().to_string(), "both")).report();
    row!(interpreter.label, "both: {}", warnings(&report));
    assert_eq!(report["window"]["engine"], "kernel", "{:#}", report["window"]);
    assert!(warnings(&report).contains("the engines agree"), "{report:#}");
    // Samples are not compared with samples.
    let pid = target.pid().to_string();
    let Some(command) = without_bpf(&attach(&pid, "both")) else { return };
    let report = Running::spawn(command).end().report();
    assert!(warnings(&report).contains("the engines were not compared"), "{}", warnings(&report));
}
