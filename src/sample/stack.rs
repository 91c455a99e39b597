//! Python functions, frames and stacks.

use std::sync::Arc;

/// A Python function, as its code object names it. Equal functions may be different `Arc`s, since
/// one code object may be read twice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Function {
    /// `co_qualname` where there is one (3.11+), else `co_name`.
    pub name: String,
    /// `co_filename`, as the target has it.
    pub file: String,
    /// `co_firstlineno`; 0 when the code object has none.
    pub first_line: u32,
}

impl Function {
    /// The name of a function whose code object could not be read.
    pub const UNREADABLE: &'static str = "[unreadable]";
}

/// One frame of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The function.
    pub function: Arc<Function>,
    /// The current line; 0 when the line table gives none for this instruction.
    pub line: u32,
}

/// How much of a stack was read consistently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StackStatus {
    /// Two reads agree from root to leaf.
    #[default]
    Complete,
    /// Two reads agree on the frames given; the frames above them changed while they were read.
    Torn,
    /// The walk reached its bound or unreadable memory. The frames given are those that could be
    /// read; frames nearest the root are missing.
    Truncated,
}

/// A Python stack, root first. Empty for a thread that has not run Python yet, or has no thread
/// state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stack {
    /// Frames, root first, leaf last.
    pub frames: Vec<Frame>,
    /// How much of it was read consistently.
    pub status: StackStatus,
}

impl Stack {
    /// The stack of a thread that runs no Python.
    pub fn empty() -> Stack {
        Stack { frames: Vec::new(), status: StackStatus::Complete }
    }

    /// The innermost frame that is known.
    pub fn leaf(&self) -> Option<&Frame> {
        self.frames.last()
    }

    /// Whether both stacks have the same functions, on any lines.
    pub fn same_functions(&self, other: &Stack) -> bool {
        let same = |(a, b): (&Frame, &Frame)| Arc::ptr_eq(&a.function, &b.function);
        std::ptr::eq(self, other)
            || self.status == other.status
                && self.frames.len() == other.frames.len()
                && self.frames.iter().zip(&other.frames).rev().all(same)
    }
}
