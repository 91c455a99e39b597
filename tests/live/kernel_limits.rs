//! What the kernel engine does where it costs too much, where the kernel refuses it, and where its
//! events are lost.

use crate::harness::{newest, Suite};
use crate::kernel_events::{config, open};
use crate::support::cli::{gilprof, signal, until, without_bpf, Running};
use crate::support::{self, skip, Interpreter, Target};
use crate::{on, row};
use gilprof::ids::{Pid, Tid};
use gilprof::process::kernel_events::{KernelEvents, Record};
use gilprof::python::attach::PythonProcess;
use gilprof::sample::{CpuRun, OffCpu};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    let newest = newest(support::interpreters());
    on!(suite, newest.clone(), [a_program_that_switches_very_often_is_sampled, lost_events_are_counted_per_thread]);
    on!(suite, newest.clone(), [a_stop_is_one_run_that_ended, a_killed_gilprof_leaves_no_program_in_the_kernel]);
    on!(suite, newest, [a_refusal_names_what_is_missing]);
}

/// Runs a kernel engine's `attach` through a command, and returns the report.
fn attach(mut through: Command, target: &Target, seconds: &str) -> Value {
    through.args(["attach", "--engine", "kernel", "--pid", &target.pid().to_string(), "--duration", seconds, "--format", "json"]);
    let out = through.env("NO_COLOR", "1").output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn warnings(report: &Value) -> Vec<&str> {
    report["warnings"].as_array().unwrap().iter().filter_map(Value::as_str).collect()
}

fn a_program_that_switches_very_often_is_sampled(interpreter: &Interpreter) {
    if open().is_none() {
        return;
    }
    let target = Target::start(interpreter, "pingpong", &[]);
    let report = attach(support::gilprof_command(&[]), &target, "2s");
    let warnings = warnings(&report);
    let why = warnings.iter().find(|text| text.contains("the kernel engine stopped after")).unwrap_or_else(|| panic!("{warnings:?}"));
    let after: f64 = why.split("stopped after ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    row!(interpreter.label, "{why}");
    assert!(after <= 1.0 && why.contains("switches a second (bound 20,000); sampled since"), "{why}");
    assert_eq!(report["window"]["engine"], "samples", "{report:#}");
    assert!(report["window"]["samples"].as_u64().unwrap() > 500, "{:#}", report["window"]);
    let threads = report["threads"].as_array().unwrap();
    assert_eq!(threads.len(), 3, "each thread is there once: {threads:#?}");
    // Nothing of their time is missing where one engine ends and the other begins.
    let window = report["window"]["seconds"].as_f64().unwrap();
    for thread in threads {
        let seconds = thread["seconds"].as_f64().unwrap();
        assert!((seconds - window).abs() < 0.03, "{seconds} of {window}: {thread:#}");
    }
}

fn watched(interpreter: &Interpreter, workload: &str) -> Option<(KernelEvents, Target, Pid)> {
    let mut events = open()?;
    let target = Target::start(interpreter, workload, &["--facts"]);
    let pid = Pid(target.pid());
    events.watch(pid, &config(&PythonProcess::open(pid).unwrap())).unwrap();
    Some((events, target, pid))
}

fn runs(events: &mut KernelEvents, runs: &mut BTreeMap<Tid, Vec<CpuRun>>) {
    events.drain(&mut |_, tid, record| {
        if let Record::Run(run, _) = record {
            runs.entry(tid).or_default().push(run);
        }
    });
}

/// A reader that comes late finds a full ring, and then numbers that are missing.
fn lost_events_are_counted_per_thread(interpreter: &Interpreter) {
    let Some((mut events, _target, pid)) = watched(interpreter, "pingpong") else { return };
    until("the ring is full", || events.lost().unwrap() > 1000);
    let mut seen = BTreeMap::new();
    runs(&mut events, &mut seen);
    until("there is room again", || {
        runs(&mut events, &mut seen);
        seen.values().filter(|runs| runs.windows(2).any(|pair| pair[1].number > pair[0].number + 1)).count() == 2
    });
    let mut lost = BTreeMap::new();
    events.lost_by_thread(&mut |of, tid, count| {
        assert_eq!(of, pid);
        lost.insert(tid, count);
    });
    assert!(lost.values().sum::<u64>() <= events.lost().unwrap(), "{lost:?} of {:?}", events.lost());
    for (tid, runs) in seen.iter().filter(|(_, runs)| runs.len() > 100) {
        let missing: u64 = runs.windows(2).map(|pair| u64::from(pair[1].number - pair[0].number - 1)).sum();
        // Ticks may be lost too.
        assert!(missing > 100 && missing <= lost[tid], "{tid}: {missing} missing, {} lost", lost[tid]);
    }
}

fn a_stop_is_one_run_that_ended(interpreter: &Interpreter) {
    let Some((mut events, target, pid)) = watched(interpreter, "cpu") else { return };
    let tids: Vec<Tid> = target.fact("tids").as_object().unwrap().values().map(|tid| Tid(tid.as_i64().unwrap() as i32)).collect();
    let mut seen = BTreeMap::new();
    until("all threads have run", || {
        runs(&mut events, &mut seen);
        tids.iter().all(|tid| seen.contains_key(tid))
    });
    signal(pid.0, libc::SIGSTOP);
    let stopped = |seen: &BTreeMap<Tid, Vec<CpuRun>>| {
        tids.iter().filter(|tid| seen[*tid].last().is_some_and(|run| run.off == OffCpu::Stopped)).count()
    };
    until("all threads are stopped", || {
        runs(&mut events, &mut seen);
        stopped(&seen) == tids.len()
    });
    signal(pid.0, libc::SIGCONT);
    until("all threads go on", || {
        runs(&mut events, &mut seen);
        stopped(&seen) == 0
    });
    for (tid, runs) in &seen {
        assert!(runs.windows(2).all(|pair| pair[0].number + 1 == pair[1].number), "{tid}: runs are missing");
    }
    assert_eq!(events.lost(), Some(0));
}

/// The ids of the programs that a process holds.
fn programs(pid: i32) -> Vec<String> {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return Vec::new() };
    let texts = files.flatten().filter_map(|file| std::fs::read_to_string(file.path()).ok());
    texts.filter_map(|text| Some(text.lines().find_map(|line| line.strip_prefix("prog_id:"))?.trim().to_string())).collect()
}

fn a_killed_gilprof_leaves_no_program_in_the_kernel(interpreter: &Interpreter) {
    let exists = |id: &String| Command::new("bpftool").args(["prog", "show", "id", id]).output().map(|out| out.status.success());
    if open().is_none() || exists(&"0".into()).map_err(|_| skip("no bpftool")).is_err() {
        return;
    }
    let target = Target::start(interpreter, "cpu", &[]);
    let gilprof = Running::start(&["attach", "--engine", "kernel", "--pid", &target.pid().to_string(), "--duration", "60s"]);
    until("the programs are loaded", || programs(gilprof.pid()).len() >= 4);
    let ids = programs(gilprof.pid());
    assert!(ids.iter().all(|id| exists(id).unwrap()), "{ids:?}");
    gilprof.signal(libc::SIGKILL);
    until("the programs are gone", || !ids.iter().any(|id| exists(id).unwrap()));
}

/// Refuses a system call by its number, then runs a command.
const WITH_SECCOMP: &str = "
import ctypes, os, struct, sys
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, int(sys.argv[1])), (6, 0, 0, 0x00050001), (6, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in steps))
class Filter(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('code', ctypes.c_void_p)]
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(len(steps), ctypes.addressof(code)))) == 0
os.execv(sys.argv[2], sys.argv[2:])
";

fn with_seccomp(refused: i64) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", WITH_SECCOMP, &refused.to_string(), env!("CARGO_BIN_EXE_gilprof")]);
    command
}

/// In a mount namespace in which this command was run.
fn after(change: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &format!("{change} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_gilprof")]);
    command
}

fn a_refusal_names_what_is_missing(interpreter: &Interpreter) {
    let Some(few) = without_bpf(&[]) else { return };
    if open().is_none() {
        return;
    }
    let target = Target::start(interpreter, "cpu", &[]);
    for (how, through, what) in [
        ("no capabilities", few, "need root, or CAP_BPF and CAP_PERFMON: run with sudo"),
        ("seccomp refuses bpf", with_seccomp(libc::SYS_bpf), "--security-opt seccomp=unconfined"),
        ("seccomp refuses perf_event_open", with_seccomp(libc::SYS_perf_event_open), "--security-opt seccomp=unconfined"),
        ("no BTF", after("mount -t tmpfs none /sys/kernel/btf"), "CONFIG_DEBUG_INFO_BTF"),
        ("an empty BTF", after("mount --bind /dev/null /sys/kernel/btf/vmlinux"), "CONFIG_DEBUG_INFO_BTF"),
    ] {
        let report = attach(through, &target, "300ms");
        let warnings = warnings(&report);
        let why = warnings.iter().filter(|text| text.contains("not watched by the kernel engine")).collect::<Vec<_>>();
        assert!(matches!(why.as_slice(), [why] if why.contains(what) && !why.contains('\n')), "{how}: {warnings:?}");
        assert_eq!(report["window"]["engine"], "samples", "{how}");
        assert!(report["window"]["samples"].as_u64().unwrap() > 100, "{how}: {:#}", report["window"]);
        row!(interpreter.label, "{how}: {}", why[0]);
    }
    let exact =
        gilprof(&["attach", "--engine", "kernel", "--pid", &target.pid().to_string(), "--duration", "300ms", "--format", "json"]).report();
    assert_eq!(exact["window"]["engine"], "kernel", "{exact:#}");
}
