//! The view of stacks: a flame graph whose root is on top, of the threads that the filter accepts.

use super::filter::Filter;
use super::picture::Picture;
use crate::output::collapsed::{frame_text, FlameMode};
use crate::sample::{Frame, State};
use std::collections::BTreeMap;

/// Levels that are shown; the frames above them count to their callers.
const MAX_DEPTH: usize = 100;

/// One frame with its time and the frames that it calls.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Nanoseconds.
    pub nanos: f64,
    /// Nanoseconds by state.
    states: [f64; State::COUNT],
    /// By their text, so that a frame keeps its place from one picture to the next.
    pub calls: BTreeMap<String, Node>,
}

impl Node {
    /// The state that took most of its time.
    pub fn state(&self) -> State {
        let longest = State::ALL.into_iter().max_by(|a, b| self.states[*a as usize].total_cmp(&self.states[*b as usize]));
        longest.unwrap_or(State::Unknown)
    }

    /// The number of levels below it.
    pub fn depth(&self) -> usize {
        self.calls.values().map(|node| 1 + node.depth()).max().unwrap_or(0)
    }

    fn add(&mut self, state: State, nanos: f64) {
        self.nanos += nanos;
        self.states[state as usize] += nanos;
    }
}

/// One frame as it is drawn.
#[derive(Clone, Debug)]
pub struct Block<'a> {
    /// The row, from 0.
    pub depth: usize,
    /// Its first column, and the column behind its last.
    pub columns: (usize, usize),
    /// The frame.
    pub text: &'a str,
    /// The frame's time.
    pub node: &'a Node,
}

/// The frames of a picture.
pub fn tree(picture: &Picture, mode: FlameMode, filter: &Filter) -> Node {
    let mut root = Node::default();
    let states: Vec<State> = mode.states().collect();
    for (thread, stack, times) in picture.profile.stacks() {
        let parts: Vec<(State, f64)> = states.iter().map(|&state| (state, times.get(state))).filter(|part| part.1 > 0.0).collect();
        let texts = || stack.frames.iter().flat_map(|frame| [frame.function.name.as_str(), frame.function.file.as_str()]);
        if parts.is_empty() || !filter.accepts(std::iter::once(thread.info.name.as_str()).chain(texts())) {
            continue;
        }
        let mut node = &mut root;
        parts.iter().for_each(|&(state, nanos)| node.add(state, nanos));
        let frames = if stack.frames.is_empty() { vec!["[no python]".to_string()] } else { texts_of(&stack.frames) };
        for text in frames {
            node = node.calls.entry(text).or_default();
            parts.iter().for_each(|&(state, nanos)| node.add(state, nanos));
        }
    }
    root
}

fn texts_of(frames: &[Frame]) -> Vec<String> {
    frames.iter().take(MAX_DEPTH).map(frame_text).collect()
}

/// The frames of at least a column, on so many columns.
pub fn blocks(root: &Node, width: usize) -> Vec<Block<'_>> {
    let mut out = Vec::new();
    place(root, (0.0, width as f64), 0, &mut out);
    out
}

fn place<'a>(node: &'a Node, (from, to): (f64, f64), depth: usize, out: &mut Vec<Block<'a>>) {
    let mut at = from;
    for (text, call) in &node.calls {
        let end = at + if node.nanos > 0.0 { call.nanos / node.nanos * (to - from) } else { 0.0 };
        let columns = (at.round() as usize, end.round() as usize);
        if columns.1 > columns.0 {
            out.push(Block { depth, columns, text, node: call });
            place(call, (at, end), depth + 1, out);
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_wide_as_its_share_and_lies_within_its_caller() {
        let leaf = |nanos| Node { nanos, ..Node::default() };
        let main = Node { nanos: 75.0, calls: BTreeMap::from([("burn".into(), leaf(50.0))]), ..Node::default() };
        let calls = BTreeMap::from([("main".to_string(), main), ("poll".to_string(), leaf(25.0))]);
        let root = Node { nanos: 100.0, calls, ..Node::default() };
        let drawn: Vec<_> = blocks(&root, 40).into_iter().map(|b| (b.text, b.depth, b.columns)).collect();
        assert_eq!(drawn, [("main", 0, (0, 30)), ("burn", 1, (0, 20)), ("poll", 0, (30, 40))]);
        assert_eq!(root.depth(), 2);
    }
}
