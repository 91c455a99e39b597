//! The folded stacks as trees for the page, one tree for each kind of time.
//!
//! Frames that are too narrow to be seen are left out.

use super::pack::Packed;
use crate::output::collapsed::{fold, FlameInput, FlameMode, FlameRow, GroupBy, WaitRow};
use crate::output::flamegraph::{legend, FrameRole};
use crate::output::{columns, palette, Source};
use crate::sample::State;
use rustc_hash::FxHashMap;
use serde_json::{json, Value};
use std::collections::BTreeMap;

/// The trees, as the page's switch offers them.
const MODES: [(FlameMode, &str); 5] = [
    (FlameMode::Holding, "holding"),
    (FlameMode::Waiting, "waiting"),
    (FlameMode::Native, "native"),
    (FlameMode::Wall, "wall"),
    (FlameMode::Blame, "blame"),
];
/// A frame narrower than this share of the picture is narrower than a fifth of a pixel.
const THINNEST: f64 = 1.0 / 6000.0;
/// Longer names of frames are cut in their middle.
const LONGEST_NAME: usize = 120;
/// Deeper frames are left out: the page would draw them far below what is read.
const DEEPEST: usize = 400;
/// In the place of a state's number: the neutral colour.
const NEUTRAL: usize = State::COUNT;

#[derive(Default)]
struct Node {
    name: usize,
    micros: u64,
    children: Vec<usize>,
}

/// A tree in one list; the first node is the root.
struct Tree {
    nodes: Vec<Node>,
    index: FxHashMap<(usize, usize), usize>,
}

/// A tree as the page gets it.
struct PackedTree {
    /// Frames of so many microseconds or fewer are left out.
    least: u64,
    /// The number of frames that are left out.
    left_out: usize,
    packed: String,
}

/// Names with their colours, shared by all trees.
#[derive(Default)]
struct NameTable {
    index: FxHashMap<(String, usize), usize>,
    list: Vec<Value>,
}

impl NameTable {
    fn number(&mut self, name: &str, frame_style: usize) -> usize {
        let list = &mut self.list;
        *self.index.entry((name.to_string(), frame_style)).or_insert_with(|| {
            list.push(json!([columns::fit(name, LONGEST_NAME), frame_style, palette::hash_shade(name)]));
            list.len() - 1
        })
    }
}

/// `{names, trees}`. A name is its text, the number of its colour's state, and its shade. A tree
/// has a legend of `[state, text]`, and is packed in preorder: each node as its name, its
/// microseconds and its number of children.
pub fn value(source: &Source<'_>, most: usize) -> Value {
    let mut names = NameTable::default();
    let trees: Vec<Value> = MODES
        .iter()
        .map(|&(mode, key)| {
            let stacks = fold(&input(source, mode));
            let legend = legend(mode, stacks.keys().flat_map(|stack| stack.split(';')));
            let legend: Vec<Value> = legend.into_iter().map(|(state, text)| json!([number(state), text])).collect();
            let tree = Tree::from_stacks(mode, &stacks, &mut names);
            let PackedTree { least, left_out, packed } = tree.pack(most);
            let micros = tree.nodes[0].micros;
            json!({
                "mode": key, "weight": mode.weight(), "micros": micros, "least": least, "leftOut": left_out, "legend": legend,
                "packed": packed,
            })
        })
        .collect();
    json!({"names": names.list, "trees": trees})
}

fn input<'a>(source: &Source<'a>, mode: FlameMode) -> FlameInput<'a> {
    let mut input = FlameInput { seconds: source.report.window.seconds, ..FlameInput::empty(mode, GroupBy::Nothing) };
    if mode == FlameMode::Blame {
        let row = |(_, waiter, holder, nanos)| WaitRow { process: None, thread: "", tid: None, waiter, holder, nanos };
        input.waits.extend(source.profile.waited_on().map(row));
    } else {
        input.rows.extend(source.profile.stacks().map(|(_, stack, times)| FlameRow { process: None, thread: "", tid: None, stack, times }));
    }
    input
}

/// The number of the state whose colour a frame has.
fn frame_style(mode: FlameMode, frame: &str) -> usize {
    number(FrameRole::of(mode, frame).state(mode))
}

fn number(state: Option<State>) -> usize {
    state.map_or(NEUTRAL, |state| state as usize)
}

impl Tree {
    fn from_stacks(mode: FlameMode, stacks: &BTreeMap<String, u64>, names: &mut NameTable) -> Tree {
        let mut tree = Tree { nodes: vec![Node::default()], index: FxHashMap::default() };
        for (stack, &micros) in stacks {
            let mut at = 0;
            tree.nodes[0].micros += micros;
            for frame in stack.split(';').take(DEEPEST) {
                let name = names.number(frame, frame_style(mode, frame));
                at = tree.child(at, name);
                tree.nodes[at].micros += micros;
            }
        }
        for n in 0..tree.nodes.len() {
            let mut children = std::mem::take(&mut tree.nodes[n].children);
            children.sort_by_key(|&child| std::cmp::Reverse(tree.nodes[child].micros));
            tree.nodes[n].children = children;
        }
        tree
    }

    fn child(&mut self, parent: usize, name: usize) -> usize {
        if let Some(&known) = self.index.get(&(parent, name)) {
            return known;
        }
        let number = self.nodes.len();
        self.nodes.push(Node { name, ..Node::default() });
        self.index.insert((parent, name), number);
        self.nodes[parent].children.push(number);
        number
    }

    /// Packs at most so many frames, those with the most time.
    fn pack(&self, most: usize) -> PackedTree {
        let mut least = (self.nodes[0].micros as f64 * THINNEST) as u64;
        // A parent has no less time than its child, so the frames that are kept form a tree.
        while self.nodes.iter().filter(|node| node.micros > least).count() > most {
            least = least * 3 / 2 + 1;
        }
        let (mut packed, mut count) = (Packed::default(), 0);
        let mut todo = vec![0];
        while let Some(n) = todo.pop() {
            count += 1;
            let node = &self.nodes[n];
            let kept: Vec<usize> = node.children.iter().copied().filter(|&child| self.nodes[child].micros > least).collect();
            packed.push(node.name as u64);
            packed.push(node.micros);
            packed.push(kept.len() as u64);
            todo.extend(kept.into_iter().rev());
        }
        PackedTree { least, left_out: self.nodes.len() - count, packed: packed.into_text() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pack::unpack;
    use super::*;
    use crate::output::testing::measured;

    #[test]
    fn trees_have_the_time_of_their_states() {
        let written = measured();
        let value = value(&written.source(), 1000);
        let total = |state: State| written.profile.threads.iter().map(|t| t.times.get(state)).sum::<f64>() / 1e3;
        let holding: f64 = State::ALL.into_iter().filter(|s| s.is_holding()).map(total).sum();
        let wanted = [holding, total(State::Waiting), total(State::Native), State::ALL.into_iter().map(total).sum(), total(State::Waiting)];
        for (tree, wanted) in value["trees"].as_array().unwrap().iter().zip(wanted) {
            let numbers = unpack(tree["packed"].as_str().unwrap());
            assert!((tree["micros"].as_f64().unwrap() - wanted).abs() < 10.0, "{tree} {wanted}");
            assert_eq!(numbers[1], tree["micros"].as_u64().unwrap());
            let children = numbers.chunks(3).map(|node| node[2]).sum::<u64>();
            assert_eq!(children + 1, numbers.len() as u64 / 3, "a tree");
        }
    }

    #[test]
    fn a_wide_tree_is_bounded_and_keeps_its_root() {
        let mut tree = Tree { nodes: vec![Node::default()], index: FxHashMap::default() };
        for n in 0..50_000 {
            let child = tree.child(0, n);
            tree.nodes[child].micros = 1 + n as u64 % 97;
            tree.nodes[0].micros += tree.nodes[child].micros;
        }
        let kept = tree.pack(4000);
        let numbers = unpack(&kept.packed);
        assert!(numbers.len() / 3 <= 4000, "{}", numbers.len());
        assert_eq!(numbers.len() / 3 + kept.left_out, 50_001);
        assert_eq!(numbers[1], tree.nodes[0].micros);
    }
}
