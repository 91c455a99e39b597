//! The frames that are copied one by one, because they lie in no chunk: all frames up to 3.10,
//! later those of generators and of the C stack.

use crate::ids::Addr;

/// Reads without a visit after which a frame is no longer copied.
const MAX_IDLE_READS: u8 = 32;
/// The largest number of frames: a deep stack, and what earlier stacks left.
const MAX_FRAMES: usize = 2 * super::MAX_DEPTH;
/// See [`HeapFrame::called`].
const CALLED_VOTES: u8 = 64;

#[derive(Clone, Copy, Debug)]
struct HeapFrame {
    at: Addr,
    visited: bool,
    idle: u8,
    /// How often this frame must end a walk before it may be a root: set when the frame was seen
    /// with a caller.
    called: u8,
}

/// The frames, by address.
#[derive(Debug, Default)]
pub(super) struct HeapFrames(Vec<HeapFrame>);

impl HeapFrames {
    /// Their addresses, ascending.
    pub(super) fn addresses(&self) -> impl Iterator<Item = Addr> + '_ {
        self.0.iter().map(|frame| frame.at)
    }

    pub(super) fn contains(&self, at: Addr) -> bool {
        self.find(at, 0).is_some()
    }

    /// The index of the frame at `at`. The search begins beside `hint`: recursion puts frames next
    /// to each other.
    fn find(&self, at: Addr, hint: usize) -> Option<usize> {
        let beside = [hint + 1, hint, hint.wrapping_sub(1)];
        let near = beside.into_iter().find(|&i| self.0.get(i).is_some_and(|frame| frame.at == at));
        near.or_else(|| self.0.binary_search_by_key(&at, |frame| frame.at).ok())
    }

    pub(super) fn add(&mut self, at: Addr) {
        self.add_all(&[at]);
    }

    pub(super) fn add_all(&mut self, new: &[Addr]) {
        if self.0.len() + new.len() > MAX_FRAMES {
            self.0.clear();
        }
        self.0.extend(new.iter().map(|&at| HeapFrame { at, visited: false, idle: 0, called: 0 }));
        // Stable: of two entries for a frame the older one, with its history, stays.
        self.0.sort_by_key(|frame| frame.at);
        self.0.dedup_by_key(|frame| frame.at);
    }

    /// Notes that a walk met the frame at `at`, and whether the frame had a caller. Returns the
    /// hint for the next frame.
    pub(super) fn visit(&mut self, at: Addr, hint: usize, has_caller: bool) -> usize {
        let Some(index) = self.find(at, hint) else { return hint };
        let frame = &mut self.0[index];
        frame.visited = true;
        if has_caller {
            frame.called = CALLED_VOTES;
        }
        index
    }

    /// Whether the frame at `at` was seen with a caller lately, so that it cannot be a root. Each
    /// call counts as a vote against that.
    pub(super) fn was_called(&mut self, at: Addr) -> bool {
        let Some(index) = self.find(at, 0).filter(|&i| self.0[i].called > 0) else { return false };
        self.0[index].called -= 1;
        true
    }

    /// Drops frames that no walk has visited for a while.
    pub(super) fn forget_idle(&mut self) {
        for frame in &mut self.0 {
            frame.idle = if std::mem::take(&mut frame.visited) { 0 } else { frame.idle.saturating_add(1) };
        }
        self.0.retain(|frame| frame.idle <= MAX_IDLE_READS);
    }
}
