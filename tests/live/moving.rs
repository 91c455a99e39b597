//! Stacks that move while they are read, without stopping the target: what is given as whole is true, what moved keeps its agreed part, and no
//! look is dropped; with the holder stopped nearly all are whole.
//!
//! The program (workloads/call_heavy.py) says which function may call which and from which line, so that a stack put together from two
//! moments shows.

use crate::harness::Suite;
use crate::support::{self, checks};
use crate::{complaining, row};
use checks::Complaints;
use gilprof::capture::sampler::ThreadPauser;
use gilprof::capture::session::{capture, CaptureConfig, CaptureResult};
use gilprof::ids::{Pid, ThreadId};
use gilprof::python::attach::PythonProcess;
use gilprof::sample::{Evidence, Frame, GilSample, Sink, Stack, StackStatus, StateSlice, ThreadInfo, ThreadTotals};
use gilprof::units::Nanos;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use support::{interpreters, repository, window, Interpreter, Target};

/// What this file checks, and on which interpreters.
pub fn cases(suite: &mut Suite) {
    complaining!(
        suite,
        interpreters(),
        [what_is_given_as_whole_is_possible_and_no_look_is_dropped, generators_are_read_no_worse, ordinary_code_is_read_whole]
    );
    #[cfg(feature = "peers")]
    complaining!(suite, interpreters(), [with_the_holder_stopped_nearly_all_are_whole]);
}

/// The worst whole stacks allowed among all: 0.1 %.
const IMPOSSIBLE: f64 = 0.001;
/// The same of the parts that two copies agree on where the top moved. Generators' frames lie on the heap, each read by itself: mostly 0,
/// 0.17 % was seen.
const IMPOSSIBLE_PART: f64 = 0.004;
/// Callers whose line is another's. Up to 3.10 a function's frame stays where it was after its end, with the line it ended at.
const WRONG_LINES: f64 = 0.005;
/// Looks at generators that leave nothing to agree on: up to half of the walks begin in one that is suspended before its caller is read.
const NOTHING_AGREED: f64 = 0.005;
/// Looks at generators that are cut at the root side. 3.12.1 unlinks one from its caller before it leaves it; a thread that loses its CPU just
/// there stands so for milliseconds.
const UNLINKED: f64 = 0.1;
#[cfg(feature = "peers")]
const WHOLE_WHEN_FROZEN: f64 = 0.99;
const WHOLE_ORDINARILY: f64 = 0.95;

/// Which function may call which, and the line that does it.
struct Graph(BTreeMap<String, Vec<String>>);

impl Graph {
    fn of(target: &Target) -> Graph {
        let callees = |v: &serde_json::Value| v.as_array().unwrap().iter().map(|c| c.as_str().unwrap().to_string()).collect();
        Graph(target.fact("graph").as_object().unwrap().iter().map(|(caller, v)| (caller.clone(), callees(v))).collect())
    }

    /// The first pair that the program cannot make, in words.
    fn impossible(&self, stack: &Stack) -> Option<String> {
        let pair = stack.frames.windows(2).find(|pair| !self.may_call(&pair[0], &pair[1]))?;
        Some(format!("{}:{} -> {}", pair[0].function.name, pair[0].line, pair[1].function.name))
    }

    fn may_call(&self, caller: &Frame, callee: &Frame) -> bool {
        match self.0.get(&caller.function.name) {
            Some(callees) => callees.contains(&callee.function.name),
            // Of what is below, only `begin` calls into the graph, and only where it begins.
            None => !self.0.contains_key(&callee.function.name) || callee.function.name == "drive",
        }
    }

    /// The first caller that stands at another line than the one that calls its callee, in words. The second of its function calls the
    /// callee of odd numbers, which is said first, the fourth the other.
    fn wrong_line(&self, stack: &Stack) -> Option<String> {
        let wrong = |pair: &&[Frame]| {
            let (caller, callee) = (&pair[0], &pair[1].function.name);
            let Some([odd, even]) = self.0.get(&caller.function.name).map(Vec::as_slice) else { return false };
            let line = caller.line.wrapping_sub(caller.function.first_line);
            !(callee == odd && line == 2 || callee == even && (line == 3 || line == 4))
        };
        let words = |pair: &[Frame]| {
            let line = pair[0].line.wrapping_sub(pair[0].function.first_line);
            format!("{}+{line} -> {} in {:?} {:?}", pair[0].function.name, pair[1].function.name, stack.status, names(stack))
        };
        stack.frames.windows(2).find(wrong).map(words)
    }
}

fn names(stack: &Stack) -> Vec<String> {
    stack.frames.iter().map(|f| format!("{}:{}", f.function.name, f.line)).collect()
}

/// What became of the looks at the threads of one name.
#[derive(Default)]
struct Stacks<'a> {
    graph: Option<&'a Graph>,
    /// Only slices in which the thread holds the GIL, whose stacks are the ones that move.
    only_holding: bool,
    names: HashMap<ThreadId, String>,
    /// The stack of each thread's latest look.
    latest: HashMap<ThreadId, Arc<Stack>>,
    whole: u64,
    moving: u64,
    cut: u64,
    /// From here on, stacks that stand as they stood at the look before are not counted again.
    cuts: u64,
    /// Neither frames nor a reason.
    empty: u64,
    /// Slices of waits in which nobody but the holder can have had the GIL, each of which may stand for several looks, and their time. The drivers
    /// wait where the program's main thread wants something.
    waits: u64,
    waited_ns: f64,
    impossible: [u64; 2],
    wrong_lines: u64,
    depth: [u64; 2],
    example: Option<String>,
}

impl Stacks<'_> {
    fn stacks(&self) -> u64 {
        self.whole + self.moving + self.cut
    }

    /// Whether there is a stack for each look; of those told together the time says how many they were, give or take one each, less the
    /// looks that came too late to be made.
    fn none_dropped(&self, window: &CaptureResult) -> bool {
        let told_together = window.stats.samples as f64 - (self.stacks() - self.waits) as f64;
        let due = self.waited_ns * 1e-9 * window.stats.rate_hz;
        let made = (due - window.stats.missed as f64).max(0.0);
        let waits = self.waits as f64;
        (made - waits..=due + waits).contains(&told_together)
    }

    fn share_whole(&self) -> f64 {
        self.whole as f64 / self.stacks().max(1) as f64
    }

    fn mean_depth(&self, status: StackStatus) -> f64 {
        match status {
            StackStatus::Complete => self.depth[0] as f64 / self.whole.max(1) as f64,
            _ => self.depth[1] as f64 / (self.moving + self.cut).max(1) as f64,
        }
    }
}

impl Sink for Stacks<'_> {
    fn thread(&mut self, facts: &ThreadInfo) {
        self.names.insert(facts.id, facts.name.clone());
    }

    fn slice(&mut self, slice: &StateSlice<'_>) {
        let working = self.names.get(&slice.thread).is_some_and(|n| n.starts_with("driver-") || n.starts_with("worker-"));
        if !working || self.only_holding && slice.evidence != Evidence::GilHolder {
            return;
        }
        if slice.evidence == Evidence::SameHolder {
            self.waits += 1;
            self.waited_ns += slice.times.total();
        }
        let whole = slice.stack.status == StackStatus::Complete;
        match slice.stack.status {
            StackStatus::Complete => self.whole += 1,
            StackStatus::Torn => self.moving += 1,
            StackStatus::Truncated => self.cut += 1,
        }
        self.depth[usize::from(!whole)] += slice.stack.frames.len() as u64;
        // A thread that lost its CPU stands as it stood for dozens of looks: that is wrong once.
        if self.latest.insert(slice.thread, Arc::clone(slice.stack)).is_some_and(|latest| latest == *slice.stack) {
            return;
        }
        self.cuts += u64::from(slice.stack.status == StackStatus::Truncated);
        self.empty += u64::from(slice.stack.frames.is_empty());
        let Some(graph) = self.graph else { return };
        if let Some(pair) = graph.impossible(slice.stack) {
            self.impossible[usize::from(!whole)] += 1;
            self.example.get_or_insert(format!("{:?}: {pair}", slice.stack.status));
        }
        if let Some(pair) = graph.wrong_line(slice.stack) {
            self.wrong_lines += 1;
            self.example.get_or_insert(pair);
        }
    }

    fn gil(&mut self, _: &GilSample) {}
    fn thread_end(&mut self, _: ThreadId, _: ThreadTotals) {}
}

fn look<'a>(target: &Target, rate_hz: f64, seconds: f64, freeze: bool, mut stacks: Stacks<'a>) -> (CaptureResult, Stacks<'a>) {
    let python = PythonProcess::open(Pid(target.pid())).unwrap();
    let plan = CaptureConfig { rate_hz, duration: Some(Nanos::from_secs_f64(seconds)), exact: false };
    let pauser = |pid| -> Option<Box<dyn ThreadPauser>> { freeze.then(|| gilprof::capture::backend::pauser(pid).unwrap()) };
    let window = capture(python, plan, &pauser, &AtomicBool::new(false), &mut stacks, &mut |_, _| {}).unwrap();
    (window, stacks)
}

/// Windows looked at until enough looks saw the stack move: on a busy machine the target may have no core while gilprof has one.
const WINDOWS: usize = 3;
const ENOUGH_MOVING: f64 = 0.3;

fn moving(interpreter: &Interpreter, workload: &str, seconds: f64, most_lost: (f64, f64), complaints: &mut Complaints) {
    let target = Target::start(interpreter, workload, &[]);
    let graph = Graph::of(&target);
    for _ in 0..WINDOWS {
        let (window, s) = look(&target, 5000.0, seconds, false, Stacks { graph: Some(&graph), ..Stacks::default() });
        let [bad_whole, bad_moving] = s.impossible;
        row!(
            interpreter.label,
            "{workload}: {} looks, {:.1} % whole, impossible {bad_whole} of {} whole, {bad_moving} of {} moving, {} cut, {} empty, \
             {} wrong lines, depth {:.1} whole, {:.1} moving{}",
            window.stats.samples,
            100.0 * s.share_whole(),
            s.whole,
            s.moving,
            s.cuts,
            s.empty,
            s.wrong_lines,
            s.mean_depth(StackStatus::Complete),
            s.mean_depth(StackStatus::Torn),
            s.example.as_ref().map_or(String::new(), |e| format!(", e.g. {e}"))
        );
        let mut expect = |ok, what: String| complaints.expect(ok, || format!("{workload}: {what}"));
        expect(
            s.none_dropped(&window),
            format!(
                "{} stacks in {} looks ({} more missed), {} of waits of {:.0} ns",
                s.stacks(),
                window.stats.samples,
                window.stats.missed,
                s.waits,
                s.waited_ns
            ),
        );
        expect(window.stats.failed == 0, format!("{} looks failed", window.stats.failed));
        expect(few(s.empty, s.stacks(), most_lost.0) && few(s.cuts, s.stacks(), most_lost.1), format!("{} empty, {} cut", s.empty, s.cuts));
        expect(few(bad_whole, s.whole, IMPOSSIBLE), format!("{bad_whole} of {} whole cannot be: {:?}", s.whole, s.example));
        expect(few(bad_moving, s.moving, IMPOSSIBLE_PART), format!("{bad_moving} of {} agreed cannot be: {:?}", s.moving, s.example));
        expect(few(s.wrong_lines, s.stacks(), WRONG_LINES), format!("{} wrong lines: {:?}", s.wrong_lines, s.example));
        if s.share_whole() <= 1.0 - ENOUGH_MOVING {
            return;
        }
    }
}

/// Whether so many can be bad when the share of bad ones is `most`: their mean and four standard deviations (Poisson's) more. One of the 80
/// that moved on a busy machine says nothing of one in a thousand.
fn few(bad: u64, of: u64, most: f64) -> bool {
    let mean = most * of as f64;
    bad as f64 <= (mean + 4.0 * mean.sqrt()).ceil()
}

fn what_is_given_as_whole_is_possible_and_no_look_is_dropped(interpreter: &Interpreter, complaints: &mut Complaints) {
    moving(interpreter, "call_heavy", window(2.5, 1.0), (0.0, 0.0), complaints);
}

fn generators_are_read_no_worse(interpreter: &Interpreter, complaints: &mut Complaints) {
    moving(interpreter, "generator_heavy", window(1.5, 0.8), (NOTHING_AGREED, UNLINKED), complaints);
}

#[cfg(feature = "peers")]
fn with_the_holder_stopped_nearly_all_are_whole(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "call_heavy", &[]);
    let graph = Graph::of(&target);
    let (window, s) = look(&target, 1000.0, window(2.0, 0.8), true, Stacks { graph: Some(&graph), ..Stacks::default() });
    row!(
        interpreter.label,
        "call_heavy, frozen: {} looks, {:.2} % whole, {} impossible, depth {:.1}",
        window.stats.samples,
        100.0 * s.share_whole(),
        s.impossible[0] + s.impossible[1],
        s.mean_depth(StackStatus::Complete)
    );
    complaints.expect(s.share_whole() >= WHOLE_WHEN_FROZEN, || format!("frozen: only {:.4} whole", s.share_whole()));
    complaints.expect(s.impossible == [0, 0], || format!("frozen: impossible {:?}", s.example));
    complaints.expect(s.none_dropped(&window), || format!("frozen: {} stacks, {} looks", s.stacks(), window.stats.samples));
}

fn ordinary_code_is_read_whole(interpreter: &Interpreter, complaints: &mut Complaints) {
    let example = repository().join("examples/cpu_threads.py");
    let target = Target::start_file(interpreter, &example, &["--ready-fd", "1", "--seconds", "0"]);
    let (window, s) = look(&target, 1000.0, window(2.0, 0.8), false, Stacks { only_holding: true, ..Stacks::default() });
    let whole = s.share_whole();
    row!(
        interpreter.label,
        "cpu_threads.py: {} looks, {:.2} % of {} holders' stacks whole",
        window.stats.samples,
        100.0 * whole,
        s.stacks()
    );
    complaints.expect(whole >= WHOLE_ORDINARILY, || format!("ordinary code: only {whole:.4} whole"));
    complaints.expect(s.stacks() > window.stats.samples / 2, || format!("only {} looks at a holder", s.stacks()));
}
