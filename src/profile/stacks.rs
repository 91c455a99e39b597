//! Stacks by number, and the time that each thread spent on each.
//!
//! The key of a stack is the list of its functions' numbers and lines. No string is hashed for a
//! known stack that arrives in a new `Arc`.

use super::functions::{FunctionId, Functions, NO_PYTHON, OTHER_FUNCTIONS};
use super::intern::PointerCache;
use super::Losses;
use crate::sample::{Frame, Stack, StackStatus, StateTimes};
use rustc_hash::FxHashMap;
use std::collections::HashMap;
use std::sync::Arc;

/// The largest number of stacks.
const MAX_STACKS: usize = 1 << 16;
/// The largest number of frames in all stacks together; at worst each takes about 24 bytes.
const MAX_FRAMES: usize = 1 << 21;
/// The largest number of pairs of thread and stack.
const MAX_STACK_TIMES: usize = 1 << 17;

/// A stack's number within one profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackId(u32);

/// Stands for every stack beyond the bound.
pub(super) const OTHER_STACKS: StackId = StackId(0);

impl StackId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// The time of one thread on one stack.
#[derive(Clone, Copy, Debug)]
pub struct StackTime {
    /// Index into the profile's threads.
    pub thread: usize,
    /// Which stack.
    pub stack: StackId,
    /// Nanoseconds per state.
    pub times: StateTimes,
}

type StackKey = (Box<[(FunctionId, u32)]>, StackStatus);

/// The stacks seen so far.
#[derive(Clone, Debug)]
pub(super) struct Stacks {
    by_pointer: PointerCache<Stack>,
    by_content: HashMap<StackKey, StackId>,
    list: Vec<Arc<Stack>>,
    leaves: Vec<FunctionId>,
    frames: usize,
    stack_times: FxHashMap<(usize, StackId), StateTimes>,
}

impl Stacks {
    /// A table with only the stack that stands for others.
    pub(super) fn new(functions: &Functions) -> Stacks {
        let other = Frame { function: Arc::clone(functions.get(OTHER_FUNCTIONS)), line: 0 };
        Stacks {
            by_pointer: PointerCache::default(),
            by_content: HashMap::new(),
            list: vec![Arc::new(Stack { frames: vec![other], status: StackStatus::Truncated })],
            leaves: vec![OTHER_FUNCTIONS],
            frames: 0,
            stack_times: FxHashMap::default(),
        }
    }

    /// The number of a stack, and its leaf function.
    pub(super) fn intern(&mut self, stack: &Arc<Stack>, functions: &mut Functions, losses: &mut Losses) -> (StackId, FunctionId) {
        let id = match self.by_pointer.get(stack) {
            Some(number) => StackId(number),
            None => {
                let id = self.by_content(stack, functions, losses);
                self.by_pointer.put(stack, id.0, stack.frames.len());
                id
            }
        };
        if id == OTHER_STACKS {
            losses.stacks += 1;
            return (id, stack.leaf().map_or(NO_PYTHON, |leaf| functions.intern(&leaf.function)));
        }
        (id, self.leaves[id.index()])
    }

    fn by_content(&mut self, stack: &Arc<Stack>, functions: &mut Functions, losses: &mut Losses) -> StackId {
        let numbered: Box<[(FunctionId, u32)]> = stack.frames.iter().map(|f| (functions.intern(&f.function), f.line)).collect();
        losses.functions += numbered.iter().filter(|(id, _)| *id == OTHER_FUNCTIONS).count() as u64;
        let key = (numbered, stack.status);
        if let Some(&id) = self.by_content.get(&key) {
            return id;
        }
        if self.list.len() >= MAX_STACKS || self.frames + key.0.len() > MAX_FRAMES {
            return OTHER_STACKS;
        }
        let id = StackId(self.list.len() as u32);
        // Built from the interned functions, so that the stack does not keep the target's many
        // copies of one name alive.
        let frames = key.0.iter().map(|&(f, line)| Frame { function: Arc::clone(functions.get(f)), line }).collect();
        self.list.push(Arc::new(Stack { frames, status: stack.status }));
        self.leaves.push(key.0.last().map_or(NO_PYTHON, |&(leaf, _)| leaf));
        self.frames += key.0.len();
        self.by_content.insert(key, id);
        id
    }

    /// Adds a thread's time on a stack.
    pub(super) fn add_time(&mut self, thread: usize, stack: StackId, times: &StateTimes, losses: &mut Losses) {
        let full = self.stack_times.len() >= MAX_STACK_TIMES && !self.stack_times.contains_key(&(thread, stack));
        losses.stacks += u64::from(full && stack != OTHER_STACKS);
        let stack = if full { OTHER_STACKS } else { stack };
        self.stack_times.entry((thread, stack)).or_default().merge(times);
    }

    /// Stacks by number, leaf functions by stack, and the times sorted by thread and stack.
    pub(super) fn finish(self) -> (Vec<Arc<Stack>>, Vec<FunctionId>, Vec<StackTime>) {
        let mut stack_times: Vec<StackTime> =
            self.stack_times.into_iter().map(|((thread, stack), times)| StackTime { thread, stack, times }).collect();
        stack_times.sort_by_key(|w| (w.thread, w.stack));
        (self.list, self.leaves, stack_times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Function;

    fn stack(lines: &[u32]) -> Arc<Stack> {
        let frame = |&line: &u32| Frame { function: Arc::new(Function { name: "f".into(), file: "a.py".into(), first_line: 1 }), line };
        Arc::new(Stack { frames: lines.iter().map(frame).collect(), status: StackStatus::Complete })
    }

    #[test]
    fn stacks_are_distinguished_by_content() {
        let (mut functions, mut losses) = (Functions::default(), Losses::default());
        let mut stacks = Stacks::new(&functions);
        let mut number = |s: &Arc<Stack>| stacks.intern(s, &mut functions, &mut losses).0;
        let once = stack(&[1, 2]);
        assert_eq!(number(&once), number(&once));
        assert_eq!(number(&once), number(&stack(&[1, 2])));
        assert_ne!(number(&once), number(&stack(&[1, 3])));
        let empty = Arc::new(Stack::empty());
        assert_eq!(stacks.intern(&empty, &mut functions, &mut losses).1, NO_PYTHON);
        assert_eq!(losses, Losses::default());
    }
}
