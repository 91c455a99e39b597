//! Folded stacks: a line per stack, frames joined by `;`, then the time in whole microseconds.
//!
//! Also the input of the flamegraph, so that both always show the same. A frame in square brackets is a remark of gilprof's and no
//! Python function; Python frames always end in `(file:line)`, so the two cannot be taken for each other.

use crate::output::sanitize;
use crate::sample::{Frame, Stack, StackStatus, State, StateTimes};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Which time the stacks are weighed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlameMode {
    /// Time in which the thread owned the GIL.
    Holding,
    /// Time in which the thread wanted it.
    Waiting,
    /// Time on a CPU without it.
    Native,
    /// All of it, each state as a leaf.
    Wall,
    /// Time waiting, two-sided: below the stack that waits, above it, innermost first, the stack that held meanwhile.
    Blame,
}

/// What stands at the root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// All threads together.
    #[default]
    Nothing,
    /// A frame per thread name.
    Thread,
}

/// One stack of one thread, and the time spent in it.
#[derive(Clone, Debug)]
pub struct FlameRow<'a> {
    /// Of which process, where there are several.
    pub process: Option<Rc<str>>,
    /// Whose.
    pub thread: &'a str,
    /// The stack.
    pub stack: &'a Stack,
    /// Nanoseconds per state; several rows may have the same stack.
    pub times: &'a StateTimes,
}

/// One stack of one thread that waited, and the stack that held meanwhile.
#[derive(Clone, Debug)]
pub struct WaitRow<'a> {
    /// Of which process, where there are several.
    pub process: Option<Rc<str>>,
    /// Whose.
    pub thread: &'a str,
    /// The stack that waits.
    pub waiter: &'a Stack,
    /// The stack that holds; `None` where nobody was seen to.
    pub holder: Option<&'a Stack>,
    /// Waiting.
    pub nanos: f64,
}

/// A profile to be folded or drawn.
#[derive(Clone, Debug)]
pub struct FlameInput<'a> {
    /// The target, such as `app.py, pid 4242`.
    pub title: String,
    /// The window, such as `5.0 s, 4 996 looks`.
    pub subtitle: String,
    /// Its length.
    pub seconds: f64,
    /// Which time counts.
    pub mode: FlameMode,
    /// Whether threads are kept apart.
    pub group_by: GroupBy,
    /// The stacks, in any order.
    pub rows: Vec<FlameRow<'a>>,
    /// Who waited behind whom, in any order.
    pub waits: Vec<WaitRow<'a>>,
}

impl FlameInput<'_> {
    /// Nothing as yet.
    pub fn empty(mode: FlameMode, group_by: GroupBy) -> FlameInput<'static> {
        FlameInput { title: String::new(), subtitle: String::new(), seconds: 0.0, mode, group_by, rows: Vec::new(), waits: Vec::new() }
    }
}

/// The root of a stack whose outer frames could not be read.
pub const TRUNCATED: &str = "[cut]";
/// The leaf of a stack whose inner frames moved while they were read.
pub const TORN: &str = "[moving]";
/// The only frame of a thread that runs no Python.
pub const NO_PYTHON: &str = "[no python]";
/// Between the stack that waits and the one that holds.
pub const WAITS_FOR: &str = "[behind]";
/// In the place of a stack that holds, where nobody was seen to: the GIL changed hands.
pub const NO_HOLDER: &str = "[hand-off]";
/// What ends the frames of a stack that holds.
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

    /// The remark that a state leaves on top of its stack; none where the mode's name says it already.
    pub fn leaf(self, state: State) -> Option<&'static str> {
        match (self, state) {
            (FlameMode::Wall, _) => Some(wall_leaf(state)),
            (FlameMode::Holding, State::HoldingNative) => Some("[in C call]"),
            (FlameMode::Holding, State::HoldingBlocked) => Some("[asleep with the GIL]"),
            (FlameMode::Holding, State::HoldingStarved) => Some("[no CPU]"),
            _ => None,
        }
    }

    /// What the widths and the numbers of folded lines are.
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

/// The folded lines, sorted; empty when no time of the mode was seen.
pub fn render(input: &FlameInput<'_>) -> String {
    fold(input).into_iter().map(|(stack, us)| format!("{stack} {us}\n")).collect()
}

/// Microseconds per folded stack. Equal stacks are summed before rounding; what rounds to nothing is left out.
pub fn fold(input: &FlameInput<'_>) -> BTreeMap<String, u64> {
    let mut nanos: BTreeMap<String, f64> = BTreeMap::new();
    // Also leaves out what is not a number.
    let mut add = |stack: String, time: f64| {
        if time > 0.0 {
            *nanos.entry(stack).or_default() += time;
        }
    };
    if input.mode == FlameMode::Blame {
        for row in &input.waits {
            add(two_sided(row, input.group_by), row.nanos);
        }
    } else {
        for row in &input.rows {
            let mut frames = root_frames(row.process.as_deref(), row.thread, input.group_by);
            frames.extend(frames_of(row.stack));
            let base = frames.join(";");
            for state in input.mode.states() {
                add(input.mode.leaf(state).map_or_else(|| base.clone(), |leaf| format!("{base};{leaf}")), row.times.get(state));
            }
        }
    }
    nanos.into_iter().map(|(stack, n)| (stack, (n / 1e3).round() as u64)).filter(|&(_, us)| us > 0).collect()
}

/// The stack that waits, and on top of it the one that holds, upside down: what holds is next to what it holds up.
fn two_sided(row: &WaitRow<'_>, group_by: GroupBy) -> String {
    let mut frames = root_frames(row.process.as_deref(), row.thread, group_by);
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

/// What stands below the stack.
fn root_frames(process: Option<&str>, thread: &str, group_by: GroupBy) -> Vec<String> {
    let thread = (group_by == GroupBy::Thread).then_some(thread);
    process.into_iter().chain(thread).map(safe).collect()
}

/// The frames of a stack, with remarks on what could not be read of it.
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
fn safe(name: &str) -> String {
    let name = sanitize::clean(name).replace(';', &sanitize::escape(';'));
    match name.trim() {
        "" => "?".into(),
        name if name.starts_with('#') => sanitize::escape('#') + &name[1..],
        name => name.into(),
    }
}
