//! Stacks name function, file and current line as the target itself does, on every interpreter.
//! py-spy's reader is the second source.

use crate::harness::Suite;
use crate::support::{self, checks};
use crate::{complaining, row};
use checks::Complaints;
use serde_json::Value;
use support::{interpreters, report, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    complaining!(
        suite,
        interpreters(),
        [every_frame_matches_the_targets_own_names, a_long_holder_and_the_threads_that_wait_for_it_are_named, py_spy_reads_the_same_stacks]
    );
}

/// Function, file, line; 0 where there is no line.
type Frame = (String, String, u64);

fn dump(target: &Target) -> Value {
    report(&["dump", "--pid", &target.pid().to_string()])
}

/// A dumped thread's stack, root first.
fn dumped(thread: &Value) -> Vec<Frame> {
    let frame = |f: &Value| (text(&f["name"]), text(&f["file"]), f["line"].as_u64().unwrap_or(0));
    thread["frames"].as_array().unwrap().iter().rev().map(frame).collect()
}

/// A stack as the target printed it, root first.
fn printed(thread: &Value) -> Vec<Frame> {
    let frame = |f: &Value| (text(&f[0]), text(&f[1]), f[2].as_u64().unwrap());
    thread["stack"].as_array().unwrap().iter().map(frame).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string")).to_string()
}

fn by_tid<'a>(dump: &'a Value, tid: &Value) -> Option<&'a Value> {
    dump["threads"].as_array().unwrap().iter().find(|t| t["tid"] == *tid)
}

/// The first difference of two stacks, as text.
fn difference(expected: &[Frame], seen: &[Frame]) -> Option<String> {
    let same = expected.iter().zip(seen).take_while(|(a, b)| a == b).count();
    let differ = same < expected.len() || same < seen.len();
    differ.then(|| {
        let (depths, frames) = ((expected.len(), seen.len()), (expected.get(same), seen.get(same)));
        format!("frame {same} of {}: expected {:?}, seen {:?} of {}", depths.0, frames.0, frames.1, depths.1)
    })
}

fn every_frame_matches_the_targets_own_names(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "blocked_states", &[]);
    let dump = dump(&target);
    let mut frames = 0;
    let threads = target.fact("threads").as_array().unwrap();
    for truth in threads {
        let expected = printed(truth);
        frames += expected.len();
        compare(&expected, truth, by_tid(&dump, &truth["tid"]), complaints);
    }
    row!(interpreter.label, "blocked states: {} threads, {frames} frames", threads.len());
}

fn compare(expected: &[Frame], truth: &Value, seen: Option<&Value>, complaints: &mut Complaints) {
    let Some(thread) = seen else { return complaints.add(&format!("{} is not in the dump", truth["name"])) };
    let place = text(&thread["name"]);
    if let Some(difference) = difference(expected, &dumped(thread)) {
        complaints.add(&format!("{place}: {difference}"));
    }
    complaints.expect(thread["status"] == "complete", || format!("{place} is blocked, but its stack is {}", thread["status"]));
    complaints.expect(thread["name"] == truth["name"] || truth["name"].is_null(), || format!("{place} is called {}", truth["name"]));
    let expected = if expected.iter().any(|f| f.0 == "stay") { "io" } else { "lock" };
    complaints.expect(thread["state"] == expected, || format!("{place}: {}, not {expected} ({})", thread["state"], thread["evidence"]));
}

/// The holder is certain when the GIL is held for minutes: asleep in a C call that keeps it, or
/// computing in one.
fn a_long_holder_and_the_threads_that_wait_for_it_are_named(interpreter: &Interpreter, complaints: &mut Complaints) {
    if support::lacks(interpreter, "ctypes") {
        return;
    }
    for (how, part) in [("sleep", "blocked"), ("sum", "native")] {
        let target = Target::start(interpreter, "long_hold", &["--how", how]);
        let dump = dump(&target);
        let threads = dump["threads"].as_array().unwrap();
        let all = |name: &str| threads.iter().filter(|t| text(&t["name"]).starts_with(name)).collect::<Vec<_>>();
        let (holders, waiters) = (all("holder"), all("waiter"));
        let shown = |t: &Value| format!("{} {} {}", t["name"], t["state"], t["holding"]);
        row!(interpreter.label, "long hold ({how}): {}", threads.iter().map(shown).collect::<Vec<_>>().join(", "));
        let holds = holders.len() == 1 && holders[0]["state"] == "holding";
        complaints.expect(holds, || format!("{how}: the holder is not named: {threads:#?}"));
        // The kind of holding is visible in the leaf's instruction: on 3.11 and later, and for C
        // callees of older versions.
        complaints.expect(!holds || holders[0]["holding"] == part, || format!("{how}: holding is not {part}: {}", holders[0]["holding"]));
        complaints.expect(waiters.len() == 2 && waiters.iter().all(|t| t["state"] == "waiting"), || format!("{how}: {waiters:#?}"));
        second_opinion::holder(interpreter, &target, complaints);
    }
}

fn py_spy_reads_the_same_stacks(interpreter: &Interpreter, complaints: &mut Complaints) {
    second_opinion::stacks(interpreter, complaints);
}

#[cfg(not(feature = "peers"))]
mod second_opinion {
    use super::*;
    pub fn holder(_: &Interpreter, _: &Target, _: &mut Complaints) {}
    pub fn stacks(interpreter: &Interpreter, _: &mut Complaints) {
        support::skip(&format!("{}: py-spy's second opinion needs the feature `peers`", interpreter.label));
    }
}

#[cfg(feature = "peers")]
mod second_opinion {
    use super::*;
    use gilprof::ids::Pid;
    use gilprof::process::{live::LiveMemory, pthread, task_list::TaskList};
    use py_spy::{config::LockingStrategy, Config, PythonSpy, StackTrace};

    /// py-spy's result for every thread; `None` with a skip where it cannot read this interpreter.
    fn ask(interpreter: &Interpreter, target: &Target) -> Option<Vec<StackTrace>> {
        let config = Config { blocking: LockingStrategy::NonBlocking, ..Config::default() };
        match PythonSpy::new(target.pid(), &config).and_then(|mut spy| spy.get_stack_traces()) {
            Ok(traces) => Some(traces),
            Err(e) => {
                support::skip(&format!("{}: py-spy cannot read it: {e:#}", interpreter.label));
                None
            }
        }
    }

    /// The kernel's id of a trace's thread.
    fn tids(target: &Target, traces: &[StackTrace]) -> Vec<Option<i32>> {
        let pid = Pid(target.pid());
        let mut listed = Vec::new();
        TaskList::new(pid).read(&mut listed, true).unwrap();
        let mem = LiveMemory::new(pid);
        let pthreads: Vec<u64> = traces.iter().map(|t| t.thread_id).collect();
        let offset = pthread::calibrate(&mem, &pthreads, &listed.iter().map(|t| t.0).collect::<Vec<_>>());
        let tid = |t: &StackTrace| t.os_thread_id.map(|id| id as i32).or_else(|| pthread::tid(&mem, t.thread_id, offset?.offset));
        traces.iter().map(tid).collect()
    }

    pub fn holder(interpreter: &Interpreter, target: &Target, complaints: &mut Complaints) {
        let Some(traces) = ask(interpreter, target) else { return };
        let owners: Vec<_> = traces.iter().filter(|t| t.owns_gil).collect();
        let named = |t: &StackTrace| t.frames.iter().any(|f| f.name == "hold");
        let agree = owners.len() == 1 && named(owners[0]);
        complaints.expect(agree, || format!("py-spy names another holder: {owners:?}"));
    }

    pub fn stacks(interpreter: &Interpreter, complaints: &mut Complaints) {
        let target = Target::start(interpreter, "blocked_states", &[]);
        let Some(traces) = ask(interpreter, &target) else { return };
        let dump = dump(&target);
        let (mut same, mut frames) = (0, 0);
        for (trace, tid) in traces.iter().zip(tids(&target, &traces)) {
            let Some(thread) = tid.and_then(|tid| by_tid(&dump, &tid.into())) else {
                complaints.add(&format!("py-spy knows a thread that gilprof does not: {:?}", trace.thread_name));
                continue;
            };
            let frame = |f: &py_spy::Frame| (f.name.clone(), f.filename.clone(), u64::try_from(f.line).unwrap_or(0));
            let theirs: Vec<Frame> = trace.frames.iter().rev().map(frame).collect();
            let ours = dumped(thread);
            frames += ours.len();
            same += ours.iter().zip(&theirs).filter(|(a, b)| a == b).count();
            // If only py-spy has no line, py-spy may be wrong: seen on 3.11, far down in a long
            // function (the target's own line is above).
            let theirs = with_lines_of(&ours, theirs);
            if let Some(difference) = difference(&theirs, &ours) {
                complaints.add(&format!("{}: py-spy differs: {difference}", thread["name"]));
            }
        }
        row!(interpreter.label, "py-spy: {} threads, {same} of {frames} frames the same", traces.len());
    }

    fn with_lines_of(ours: &[Frame], mut theirs: Vec<Frame>) -> Vec<Frame> {
        for (theirs, ours) in theirs.iter_mut().zip(ours).filter(|(t, _)| t.2 == 0) {
            theirs.2 = ours.2;
        }
        theirs
    }
}
