//! Folded stacks: a line per stack, frames joined by `;`, then the time in whole microseconds.
//!
//! Also the input of the flamegraph, so that both always show the same. A frame in square brackets is a remark of gilprof's and no
//! Python function; Python frames always end in `(file:line)`, so the two cannot be taken for each other.

use crate::output::plain;
use crate::sample::{Frame, Split, Stack, State, Trust};
use std::collections::BTreeMap;

/// Which time the stacks are weighed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlameMode {
    /// Time in which the thread owned the GIL.
    Holding,
    /// Time in which the thread wanted it.
    Waiting,
    /// All of it, each state as a leaf.
    Wall,
}

/// What stands at the root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// All threads together.
    #[default]
    Merged,
    /// A frame per thread name.
    ByThread,
}

/// One stack of one thread, and the time spent in it.
#[derive(Clone, Copy, Debug)]
pub struct FlameRow<'a> {
    /// Whose.
    pub thread: &'a str,
    /// The stack.
    pub stack: &'a Stack,
    /// Nanoseconds per state; several rows may have the same stack.
    pub split: &'a Split,
}

/// A profile to be folded or drawn.
#[derive(Clone, Debug)]
pub struct FlameInput<'a> {
    /// The target, such as `app.py, pid 4242`.
    pub title: String,
    /// The window, such as `5.0 s, 4 996 looks`.
    pub subtitle: String,
    /// Which time counts.
    pub mode: FlameMode,
    /// Whether threads are kept apart.
    pub roots: Roots,
    /// The stacks, in any order.
    pub rows: Vec<FlameRow<'a>>,
}

/// The root of a stack whose outer frames could not be read.
pub const CUT: &str = "[cut]";
/// The leaf of a stack whose inner frames moved while they were read.
pub const MOVING: &str = "[moving]";
/// The only frame of a thread that runs no Python.
pub const NO_PYTHON: &str = "[no python]";

impl FlameMode {
    /// The states whose time counts.
    pub fn states(self) -> impl Iterator<Item = State> {
        State::ALL.into_iter().filter(move |s| match self {
            FlameMode::Holding => s.is_holding(),
            FlameMode::Waiting => *s == State::Waiting,
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
            FlameMode::Waiting => "time waiting for the GIL",
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
    for row in &input.rows {
        let base = frames_of(row, input.roots);
        for state in input.mode.states() {
            let time = row.split.get(state);
            // Also leaves out what is not a number.
            if time > 0.0 {
                let stack = input.mode.leaf(state).map_or_else(|| base.clone(), |leaf| format!("{base};{leaf}"));
                *nanos.entry(stack).or_default() += time;
            }
        }
    }
    nanos.into_iter().map(|(stack, n)| (stack, (n / 1e3).round() as u64)).filter(|&(_, us)| us > 0).collect()
}

/// The frames of one row without the state's leaf.
fn frames_of(row: &FlameRow<'_>, roots: Roots) -> String {
    let mut frames = Vec::with_capacity(row.stack.frames.len() + 3);
    if roots == Roots::ByThread {
        frames.push(safe(row.thread));
    }
    if row.stack.trust == Trust::Cut {
        frames.push(CUT.into());
    }
    frames.extend(row.stack.frames.iter().map(frame_text));
    match row.stack.trust {
        Trust::Moving => frames.push(MOVING.into()),
        Trust::Whole if row.stack.frames.is_empty() => frames.push(NO_PYTHON.into()),
        _ => {}
    }
    frames.join(";")
}

/// `name (file:line of the function)`, so that all lines of a function make one frame.
fn frame_text(frame: &Frame) -> String {
    let function = &frame.function;
    let file = plain::basename(&function.file);
    match function.first_line {
        0 => format!("{} ({})", safe(&function.name), safe(file)),
        line => format!("{} ({}:{line})", safe(&function.name), safe(file)),
    }
}

/// A name that cannot end a frame or a line, cannot be empty, and cannot make its line a comment.
fn safe(name: &str) -> String {
    let name = plain::clean(name).replace(';', &plain::escape(';'));
    match name.trim() {
        "" => "?".into(),
        name if name.starts_with('#') => plain::escape('#') + &name[1..],
        name => name.into(),
    }
}
