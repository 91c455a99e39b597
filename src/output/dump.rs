//! One sample of every thread, as text in the form of py-spy's `dump`, or as JSON, schema
//! `gilprof.dump/1`.

use crate::analysis::file_names::FileNames;
use crate::error::Result;
use crate::output::file_names;
use crate::output::sanitize::clean;
use crate::output::{json, palette};
use crate::sample::{Evidence, Frame, StackStatus, State, TargetInfo, ThreadSnapshot};
use serde::Serialize;

/// The schema's name, in every JSON dump.
pub const SCHEMA: &str = "gilprof.dump/1";

/// The dump for people. Lines are not cut to a width, because the names matter.
pub fn text(target: &TargetInfo, threads: &[ThreadSnapshot], colour: bool) -> String {
    let command = target.command.iter().map(|argument| clean(argument)).collect::<Vec<_>>().join(" ");
    let mut out = format!("Process {}: {command}\n", target.pid);
    let gil = match (target.free_threaded, target.gil_enabled) {
        (true, false) => ", free-threaded, the GIL is off",
        (true, true) => ", free-threaded, the GIL is on",
        _ => "",
    };
    out += &format!("Python {} ({}){gil}\n", clean(&target.python), clean(&target.executable));
    let frames = threads.iter().flat_map(|thread| &thread.stack.frames);
    let names = FileNames::new(frames.map(|frame| &*frame.function.file));
    for thread in threads {
        out.push('\n');
        out += &thread_text(thread, &names, colour);
    }
    out
}

fn thread_text(thread: &ThreadSnapshot, names: &FileNames, colour: bool) -> String {
    let head = format!("Thread {} ({})", thread.tid, clean(&thread.name));
    let state = palette::paint(thread.state.label(), thread.state, colour);
    let mut out = format!("{}: {state}\n", palette::bold(&head, colour));
    let stack = &thread.stack;
    if stack.status == StackStatus::Torn {
        out += "    [torn: the inner frames changed while they were read]\n";
    }
    for frame in stack.frames.iter().rev() {
        let place = file_names::place(names, &frame.function.file, frame.line);
        out += &format!("    {} ({place})\n", clean(&frame.function.name));
    }
    if stack.status == StackStatus::Truncated {
        out += "    [truncated: the outer frames could not be read]\n";
    } else if stack.frames.is_empty() && stack.status == StackStatus::Complete {
        out += if thread.python { "    [no Python frame yet]\n" } else { "    [no python]\n" };
    }
    out
}

#[derive(Serialize)]
struct Dump<'a> {
    schema: &'static str,
    gilprof: &'static str,
    pid: i32,
    python: &'a str,
    executable: &'a str,
    command: &'a [String],
    free_threaded: bool,
    gil_enabled: bool,
    threads: Vec<DumpThread<'a>>,
}

#[derive(Serialize)]
struct DumpThread<'a> {
    tid: i32,
    name: &'a str,
    python: bool,
    state: &'static str,
    /// The split of `holding`; `null` in any other state.
    holding: Option<&'static str>,
    evidence: &'static str,
    status: &'static str,
    /// Leaf first, as in the text.
    frames: Vec<DumpFrame<'a>>,
}

#[derive(Serialize)]
struct DumpFrame<'a> {
    name: &'a str,
    file: &'a str,
    /// `null` if the line table has none.
    line: Option<u32>,
    first_line: Option<u32>,
}

/// The dump for programs.
pub fn to_json(target: &TargetInfo, threads: &[ThreadSnapshot]) -> Result<String> {
    json::to_string(&Dump {
        schema: SCHEMA,
        gilprof: env!("CARGO_PKG_VERSION"),
        pid: target.pid,
        python: &target.python,
        executable: &target.executable,
        command: &target.command,
        free_threaded: target.free_threaded,
        gil_enabled: target.gil_enabled,
        threads: threads.iter().map(dump_thread).collect(),
    })
}

fn dump_thread(thread: &ThreadSnapshot) -> DumpThread<'_> {
    let (state, holding) = state_names(thread.state);
    DumpThread {
        tid: thread.tid.0,
        name: &thread.name,
        python: thread.python,
        state,
        holding,
        evidence: evidence_name(thread.evidence),
        status: match thread.stack.status {
            StackStatus::Complete => "complete",
            StackStatus::Torn => "torn",
            StackStatus::Truncated => "truncated",
        },
        frames: thread.stack.frames.iter().rev().map(dump_frame).collect(),
    }
}

fn dump_frame(frame: &Frame) -> DumpFrame<'_> {
    let known = |line| (line != 0).then_some(line);
    DumpFrame {
        name: &frame.function.name,
        file: &frame.function.file,
        line: known(frame.line),
        first_line: known(frame.function.first_line),
    }
}

/// The state's name in the report's schema, and its part of holding.
fn state_names(state: State) -> (&'static str, Option<&'static str>) {
    match state {
        State::HoldingPython => ("holding", Some("python")),
        State::HoldingNative => ("holding", Some("native")),
        State::HoldingBlocked => ("holding", Some("blocked")),
        State::HoldingStarved => ("holding", Some("starved")),
        other => (other.label(), None),
    }
}

/// The evidence's name, in the dump and in timelines.
pub(super) fn evidence_name(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::GilHolder => "gil-holder",
        Evidence::GilFutex => "gil-futex",
        Evidence::GilRequested => "gil-requested",
        Evidence::WokenNotRun => "woken-not-run",
        Evidence::KernelStack => "kernel-stack",
        Evidence::PushedOff => "pushed-off",
        Evidence::Syscall => "syscall",
        Evidence::NotRunSince => "not-run-since",
        Evidence::SameHolder => "same-holder",
        Evidence::Conservation => "conservation",
        Evidence::Stopped => "stopped",
        Evidence::Unread => "unread",
        Evidence::HolderFault => "holder-fault",
        Evidence::HolderLock => "holder-lock",
        Evidence::SwitchCounts => "switch-counts",
    }
}
