//! Who held each GIL when.

use super::pieces::Piece;
use crate::ids::{GilId, ThreadId};
use crate::sample::Stack;
use crate::units::Nanos;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most times of one GIL that are kept.
const MAX_HELD: usize = 1 << 16;

/// A time in which a thread held the GIL.
#[derive(Debug)]
struct Held {
    end: Nanos,
    thread: ThreadId,
    stack: Arc<Stack>,
}

/// The holders of all GILs, by the begin of their time.
#[derive(Debug, Default)]
pub(super) struct Holders {
    gils: BTreeMap<GilId, BTreeMap<Nanos, Held>>,
}

impl Holders {
    /// A thread held a GIL for this piece of its time.
    pub fn add(&mut self, gil: GilId, thread: ThreadId, piece: &Piece) {
        let held = self.gils.entry(gil).or_default();
        if held.len() >= MAX_HELD {
            held.pop_first();
        }
        held.insert(piece.begin, Held { end: piece.end, thread, stack: piece.stack.clone() });
    }

    /// Forgets what ended before `until`.
    pub fn forget(&mut self, until: Nanos) {
        for held in self.gils.values_mut() {
            while held.first_entry().is_some_and(|first| first.get().end < until) {
                held.pop_first();
            }
        }
    }

    /// Divides a time at the changes of the holder: each part by its end, the last one by `end`.
    pub fn within<'a>(&'a self, gil: GilId, begin: Nanos, end: Nanos, part: &mut dyn FnMut(Nanos, Option<(ThreadId, &'a Arc<Stack>)>)) {
        let mut at = begin;
        if let Some(held) = self.gils.get(&gil) {
            let before = held.range(..=begin).next_back();
            for (from, held) in before.into_iter().chain(held.range((std::ops::Bound::Excluded(begin), std::ops::Bound::Excluded(end)))) {
                let (from, to) = ((*from).max(at), held.end.min(end));
                if to <= from {
                    continue;
                }
                if from > at {
                    part(from, None);
                }
                part(to, Some((held.thread, &held.stack)));
                at = to;
            }
        }
        if at < end {
            part(end, None);
        }
    }
}
