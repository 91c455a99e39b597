//! What the colours and the bracketed frames of a flame graph mean, for the SVG and for the page.
//!
//! A flame graph explains only the frames that occur in it.

use crate::output::collapsed::{FlameMode, HOLDS, NO_HOLDER, NO_PYTHON, TORN, TRUNCATED, WAITS_FOR};
use crate::sample::State;

/// What a frame stands for; in the order of the legend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FrameRole {
    /// A function of the stack that the time belongs to.
    Function,
    /// A state, on the leaf's side of its stack.
    State(State),
    /// Separates the waiting stack from the holding one.
    Behind,
    /// A function of the stack that holds the GIL meanwhile.
    Holder,
    /// Stands for the holding stack where no holder was seen.
    NoHolder,
    /// Stands for frames that were not read.
    Missing(&'static str),
}

impl FrameRole {
    /// The role of a frame in a flame graph.
    pub fn of(mode: FlameMode, frame: &str) -> FrameRole {
        let bare = frame.strip_suffix(HOLDS).unwrap_or(frame);
        if let Some(&missing) = [TRUNCATED, TORN, NO_PYTHON].iter().find(|&&mark| mark == bare) {
            return FrameRole::Missing(missing);
        }
        match frame {
            WAITS_FOR => FrameRole::Behind,
            NO_HOLDER => FrameRole::NoHolder,
            _ => match mode.states().find(|&state| mode.leaf(state) == Some(frame)) {
                Some(state) => FrameRole::State(state),
                None if frame.ends_with(HOLDS) => FrameRole::Holder,
                None => FrameRole::Function,
            },
        }
    }

    /// The state that lends its colour; `None` for the neutral colour.
    pub fn state(self, mode: FlameMode) -> Option<State> {
        match (self, mode) {
            (FrameRole::State(state), _) => Some(state),
            (FrameRole::Holder, _) | (FrameRole::Function, FlameMode::Holding) => Some(State::HoldingPython),
            (FrameRole::Missing(_), _) => Some(State::Unknown),
            (FrameRole::Function, FlameMode::Waiting | FlameMode::Blame) => Some(State::Waiting),
            (FrameRole::Function, FlameMode::Native) => Some(State::Native),
            (FrameRole::Function, FlameMode::Wall) | (FrameRole::Behind | FrameRole::NoHolder, _) => None,
        }
    }

    fn text(self, mode: FlameMode) -> String {
        match self {
            FrameRole::Function if mode == FlameMode::Blame => "function that waits".into(),
            FrameRole::Function => "Python function".into(),
            FrameRole::State(state) => format!("{} {}", mode.leaf(state).unwrap_or_default(), meaning(state)),
            FrameRole::Behind => format!("{WAITS_FOR} below: the stack that holds the GIL meanwhile, innermost frame first"),
            FrameRole::Holder => format!("function that holds the GIL meanwhile, marked{HOLDS}"),
            FrameRole::NoHolder => format!("{NO_HOLDER} no thread held the GIL at the sample"),
            FrameRole::Missing(mark @ TORN) => format!("{mark} inner frames unknown: the stack changed while it was read"),
            FrameRole::Missing(mark @ TRUNCATED) => format!("{mark} outer frames unknown: they could not be read"),
            FrameRole::Missing(mark) => format!("{mark} the thread runs no Python code"),
        }
    }
}

/// What a thread in this state does.
fn meaning(state: State) -> &'static str {
    match state {
        State::HoldingPython => "runs Python code with the GIL",
        State::HoldingNative => "runs a C function with the GIL",
        State::HoldingBlocked => "sleeps in the kernel with the GIL",
        State::HoldingStarved => "has the GIL, but no CPU",
        State::Waiting => "waits for the GIL",
        State::Native => "runs without the GIL",
        State::Starved => "is ready to run, but has no CPU",
        State::Lock => "waits for another lock",
        State::Io => "sleeps in a system call (I/O, sleep, poll)",
        State::Unknown => "state not known",
    }
}

/// The colour and the text of each role that occurs, by [`FrameRole`]'s order.
pub fn legend<'a>(mode: FlameMode, frames: impl Iterator<Item = &'a str>) -> Vec<(Option<State>, String)> {
    let mut roles: Vec<FrameRole> = frames.map(|frame| FrameRole::of(mode, frame)).collect();
    roles.sort_unstable();
    roles.dedup();
    roles.into_iter().map(|role| (role.state(mode), role.text(mode))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_that_occurs_is_explained_once() {
        let holding = legend(FlameMode::Holding, ["main (app.py)", "burn (app.py:1)", "[in C call]", TORN].into_iter());
        let states: Vec<_> = holding.iter().map(|(state, _)| *state).collect();
        assert_eq!(states, [Some(State::HoldingPython), Some(State::HoldingNative), Some(State::Unknown)]);
        assert!(holding[1].1.starts_with("[in C call] ") && holding[2].1.starts_with(TORN), "{holding:?}");
        let holder = format!("burn (app.py:1){HOLDS}");
        let blame = legend(FlameMode::Blame, ["main (app.py)", WAITS_FOR, &holder, NO_HOLDER].into_iter());
        assert_eq!(
            blame.iter().map(|(state, _)| *state).collect::<Vec<_>>(),
            [Some(State::Waiting), None, Some(State::HoldingPython), None]
        );
    }
}
