//! Folded stacks: a line per stack, frames joined by `;`, then the time in whole microseconds.
//!
//! The flamegraph is made from the same lines, so both always agree. A frame in square brackets is
//! a remark of gilprof and no Python function. A Python frame always ends in `(file:line)`, so the
//! two cannot be confused.

use crate::output::sanitize;
use crate::sample::{Frame, Stack, StackStatus, State, StateTimes};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The time that is the weight of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlameMode {
    /// Time in which the thread held the GIL.
    Holding,
    /// Time in which the thread waited for the GIL.
    Waiting,
    /// Time on a CPU without the GIL.
    Native,
    /// All time, with the state as the leaf.
    Wall,
    /// Time waiting, with two stacks: that of the waiter, and above it, leaf first, that of the
    /// holder.
    Blame,
}

/// The frame at the root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// All threads together.
    #[default]
    Nothing,
    /// A frame per thread, with its id if others have the same name.
    Thread,
    /// A frame per thread name: threads of two windows have other ids.
    ThreadName,
}

/// One stack of one thread, and the time spent in it.
#[derive(Clone, Debug)]
pub struct FlameRow<'a> {
    /// The process, if there are several.
    pub process: Option<Rc<str>>,
    /// The thread's name.
    pub thread: &'a str,
    /// The kernel's id, if other threads have the same name.
    pub tid: Option<i32>,
    /// The stack.
    pub stack: &'a Stack,
    /// Nanoseconds per state; several rows may have the same stack.
    pub times: &'a StateTimes,
}

/// One stack of one thread that waited, and the stack of the holder.
#[derive(Clone, Debug)]
pub struct WaitRow<'a> {
    /// The process, if there are several.
    pub process: Option<Rc<str>>,
    /// The thread's name.
    pub thread: &'a str,
    /// The kernel's id, if other threads have the same name.
    pub tid: Option<i32>,
    /// The waiter's stack.
    pub waiter: &'a Stack,
    /// The holder's stack; `None` if the sample saw no holder.
    pub holder: Option<&'a Stack>,
    /// Nanoseconds of waiting.
    pub nanos: f64,
}

/// A profile to be folded or drawn.
#[derive(Clone, Debug)]
pub struct FlameInput<'a> {
    /// The target, such as `app.py, pid 4242`.
    pub title: String,
    /// The window, such as `5.0 s, 4 996 samples`.
    pub subtitle: String,
    /// The length of the window.
    pub seconds: f64,
    /// The time that counts.
    pub mode: FlameMode,
    /// Whether threads are separate.
    pub group_by: GroupBy,
    /// The stacks, in any order.
    pub rows: Vec<FlameRow<'a>>,
    /// Waits with their holders, in any order.
    pub waits: Vec<WaitRow<'a>>,
}

impl FlameInput<'_> {
    /// An input without rows.
    pub fn empty(mode: FlameMode, group_by: GroupBy) -> FlameInput<'static> {
        FlameInput { title: String::new(), subtitle: String::new(), seconds: 0.0, mode, group_by, rows: Vec::new(), waits: Vec::new() }
    }
}

/// The root of a stack whose outer frames could not be read.
pub const TRUNCATED: &str = "[truncated]";
/// The leaf of a stack whose inner frames changed while they were read.
pub const TORN: &str = "[torn]";
/// The only frame of a thread that runs no Python.
pub const NO_PYTHON: &str = "[no python]";
/// Between the waiter's stack and the holder's.
pub const WAITS_FOR: &str = "[waits for]";
/// In place of a holder's stack if the sample saw no holder, as during a GIL switch.
pub const NO_HOLDER: &str = "[no holder]";
/// The end of each frame of a holder's stack.
pub const HOLDS: &str = " [holds]";

impl FlameMode {
    /// The states whose time counts.
    pub fn states(self) -> impl Iterator<Item = State> {
        State::ALL.into_iter().filter(move |s| match self {
            FlameMode::Holding => s.is_holding(),
            FlameMode::Waiting | FlameMode::Blame => *s == State::Waiting,
            FlameMode::Native => *s == State::Native,
            FlameMode::Wall => true,
        })
    }

    /// The remark on top of a stack for a state; none if the mode implies the state.
    pub fn leaf(self, state: State) -> Option<&'static str> {
        match (self, state) {
            (FlameMode::Wall, _) => Some(wall_leaf(state)),
            (FlameMode::Holding, State::HoldingNative) => Some("[in C call]"),
            (FlameMode::Holding, State::HoldingBlocked) => Some("[asleep with the GIL]"),
            (FlameMode::Holding, State::HoldingStarved) => Some("[no CPU]"),
            _ => None,
        }
    }

    /// The meaning of widths and of the numbers of folded lines.
    pub fn weight(self) -> &'static str {
        match self {
            FlameMode::Holding => "time holding the GIL",
            FlameMode::Waiting | FlameMode::Blame => "time waiting for the GIL",
            FlameMode::Native => "time on a CPU without the GIL",
            FlameMode::Wall => "wall time of threads",
        }
    }
}

fn wall_leaf(state: State) -> &'static str {
    match state {
        State::HoldingPython => "[holding (python)]",
        State::HoldingNative => "[holding (native)]",
        State::HoldingBlocked => "[holding (blocked)]",
        State::HoldingStarved => "[holding (starved)]",
        State::Waiting => "[waiting]",
        State::Native => "[native]",
        State::Starved => "[starved]",
        State::Lock => "[lock]",
        State::Io => "[io]",
        State::Unknown => "[unknown]",
    }
}

/// The folded lines, sorted; empty if there is no time of the mode.
pub fn render(input: &FlameInput<'_>) -> String {
    fold(input).into_iter().map(|(stack, us)| format!("{stack} {us}\n")).collect()
}

/// Microseconds per folded stack. Equal stacks are summed before rounding; stacks that round to
/// zero are left out.
pub fn fold(input: &FlameInput<'_>) -> BTreeMap<String, u64> {
    let mut nanos: BTreeMap<String, f64> = BTreeMap::new();
    // Also leaves out NaN.
    let mut add = |stack: String, time: f64| {
        if time > 0.0 {
            *nanos.entry(stack).or_default() += time;
        }
    };
    if input.mode == FlameMode::Blame {
        for row in &input.waits {
            add(waiter_and_holder(row, input.group_by), row.nanos);
        }
    } else {
        for row in &input.rows {
            let mut frames = root_frames(row.process.as_deref(), (row.thread, row.tid), input.group_by);
            frames.extend(frames_of(row.stack));
            let base = frames.join(";");
            for state in input.mode.states() {
                add(input.mode.leaf(state).map_or_else(|| base.clone(), |leaf| format!("{base};{leaf}")), row.times.get(state));
            }
        }
    }
    nanos.into_iter().map(|(stack, n)| (stack, (n / 1e3).round() as u64)).filter(|&(_, us)| us > 0).collect()
}

/// The waiter's stack, and on top of it the holder's stack in reverse, so that the two leaves are
/// neighbours.
fn waiter_and_holder(row: &WaitRow<'_>, group_by: GroupBy) -> String {
    let mut frames = root_frames(row.process.as_deref(), (row.thread, row.tid), group_by);
    frames.extend(frames_of(row.waiter));
    match row.holder {
        Some(holder) => {
            frames.push(WAITS_FOR.into());
            frames.extend(frames_of(holder).into_iter().rev().map(|frame| frame + HOLDS));
        }
        None => frames.push(NO_HOLDER.into()),
    }
    frames.join(";")
}

/// The frames below the stack: process and thread.
fn root_frames(process: Option<&str>, (name, tid): (&str, Option<i32>), group_by: GroupBy) -> Vec<String> {
    let thread = match (group_by, tid) {
        (GroupBy::Nothing, _) => None,
        (GroupBy::Thread, Some(tid)) => Some(format!("{} [{tid}]", safe(name))),
        (GroupBy::Thread, None) | (GroupBy::ThreadName, _) => Some(safe(name)),
    };
    process.map(safe).into_iter().chain(thread).collect()
}

/// The frames of a stack, with remarks on frames that could not be read.
fn frames_of(stack: &Stack) -> Vec<String> {
    let mut frames = Vec::with_capacity(stack.frames.len() + 3);
    if stack.status == StackStatus::Truncated {
        frames.push(TRUNCATED.into());
    }
    frames.extend(stack.frames.iter().map(frame_text));
    match stack.status {
        StackStatus::Torn => frames.push(TORN.into()),
        StackStatus::Complete if stack.frames.is_empty() => frames.push(NO_PYTHON.into()),
        _ => {}
    }
    frames
}

/// `name (file:line of the function)`, so that all lines of a function make one frame.
pub fn frame_text(frame: &Frame) -> String {
    let function = &frame.function;
    let file = sanitize::basename(&function.file);
    match function.first_line {
        0 => format!("{} ({})", safe(&function.name), safe(file)),
        line => format!("{} ({}:{line})", safe(&function.name), safe(file)),
    }
}

/// A name that cannot end a frame or a line, cannot be empty, and cannot make its line a comment.
/// White space at its ends, which readers of the lines drop, is escaped.
fn safe(name: &str) -> String {
    let name = sanitize::clean(name).replace(';', &sanitize::escape(';'));
    let escaped = |space: &str| space.chars().map(sanitize::escape).collect::<String>();
    let (rest, inner) = (name.trim_start(), name.trim());
    match inner.strip_prefix('#').filter(|_| rest.len() == name.len()) {
        _ if name.is_empty() => "?".into(),
        Some(inner) => sanitize::escape('#') + inner + &escaped(&rest[inner.len() + 1..]),
        None => escaped(&name[..name.len() - rest.len()]) + inner + &escaped(&rest[inner.len()..]),
    }
}
