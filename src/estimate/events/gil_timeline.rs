//! Which thread held each GIL at which time, as far as events and ticks have shown it. It says for
//! whom a thread waited, and how often a GIL had switched by some time.

use crate::ids::{Addr, GilId, ThreadId};
use crate::sample::{GilView, Stack};
use crate::units::Nanos;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// How long entries are kept: blame is divided up to a quarter of a second late.
const KEPT: Nanos = Nanos::from_millis(1_000);
/// Entries that are kept for each GIL.
const MAX_ENTRIES: usize = 1 << 13;
/// Drop requests that are kept for each GIL: a doubt of which one decides lasts a quarter of a
/// second.
const MAX_REQUESTS: usize = 256;
/// Entries that are searched for the holder before a thread's own holds.
const MAX_BEFORE: usize = 64;
/// GILs that are followed at once. A hostile target may name any number.
const MAX_GILS: usize = 1 << 10;

/// A holder that may have no thread yet: the thread states of others become known when these hold
/// the GIL at an event of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Thread(ThreadId),
    State(Addr),
}

/// From then on, until the next entry, this thread held the GIL, or nobody held it.
#[derive(Clone, Debug)]
struct Held {
    at: Nanos,
    holder: Named,
    stack: Option<Arc<Stack>>,
}

/// One GIL.
#[derive(Debug, Default)]
struct Timeline {
    /// In order of time.
    holds: VecDeque<Held>,
    /// `switch_number` from some time on, in order of time.
    switches: VecDeque<(Nanos, u64)>,
    /// The values of `switch_number` at which a waiter made a drop request.
    requested: VecDeque<u64>,
}

/// All GILs of a process.
#[derive(Debug, Default)]
pub(super) struct GilTimelines {
    gils: FxHashMap<GilId, Timeline>,
    threads: FxHashMap<(GilId, Addr), ThreadId>,
    /// The stack with which each thread was last known to hold a GIL.
    stacks: FxHashMap<ThreadId, Arc<Stack>>,
}

/// A piece of a wait with the thread that held the GIL in it.
pub(super) type Blamed = (Nanos, Option<(ThreadId, Arc<Stack>)>);

impl GilTimelines {
    /// The thread of a thread state.
    pub fn thread(&self, gil: GilId, tstate: Addr) -> Option<ThreadId> {
        self.threads.get(&(gil, tstate)).copied()
    }

    /// A thread has this thread state, and no other one before.
    pub fn assign(&mut self, thread: ThreadId, (gil, tstate): (GilId, Addr), before: Option<(GilId, Addr)>) {
        if let Some(before) = before {
            self.release(thread, before);
        }
        self.threads.insert((gil, tstate), thread);
    }

    /// A thread has ended: another one may get its thread state's address.
    pub fn release(&mut self, thread: ThreadId, tstate: (GilId, Addr)) {
        if self.threads.get(&tstate) == Some(&thread) {
            self.threads.remove(&tstate);
        }
    }

    /// A thread has ended.
    pub fn forget(&mut self, thread: ThreadId) {
        self.stacks.remove(&thread);
    }

    /// The stack with which a thread holds a GIL.
    pub fn see_stack(&mut self, thread: ThreadId, stack: &Arc<Stack>) {
        self.stacks.insert(thread, stack.clone());
    }

    /// A thread's event showed the GIL so.
    pub fn see(&mut self, at: Nanos, view: &GilView) {
        let holder = match self.thread(view.gil, view.last_holder) {
            Some(thread) => Named::Thread(thread),
            None => Named::State(view.last_holder),
        };
        let stack = self.stack_of(holder);
        let Some(timeline) = self.timeline(view.gil) else { return };
        timeline.see_switches(at, view.switches);
        if view.locked && !view.last_holder.is_null() {
            timeline.see_holder(Held { at, holder, stack });
        }
    }

    /// A thread took the GIL.
    pub fn see_acquired(&mut self, at: Nanos, gil: GilId, thread: ThreadId) {
        let stack = self.stacks.get(&thread).cloned();
        if let Some(timeline) = self.timeline(gil) {
            timeline.see_holder(Held { at, holder: Named::Thread(thread), stack });
        }
    }

    fn stack_of(&self, holder: Named) -> Option<Arc<Stack>> {
        let Named::Thread(thread) = holder else { return None };
        self.stacks.get(&thread).cloned()
    }

    fn timeline(&mut self, gil: GilId) -> Option<&mut Timeline> {
        (self.gils.len() < MAX_GILS || self.gils.contains_key(&gil)).then(|| self.gils.entry(gil).or_default())
    }

    /// `switch_number` as last known at that time.
    pub fn switches_at(&self, gil: GilId, at: Nanos) -> Option<u64> {
        let switches = &self.gils.get(&gil)?.switches;
        let last = switches.partition_point(|(time, _)| *time <= at).checked_sub(1)?;
        switches.get(last).map(|(_, number)| *number)
    }

    /// A waiter's sleep has timed out without a GIL switch: it has made a drop request.
    pub fn see_drop_request(&mut self, gil: GilId, number: u64) {
        let Some(timeline) = self.timeline(gil).filter(|timeline| timeline.requested.back() != Some(&number)) else { return };
        if timeline.requested.len() >= MAX_REQUESTS {
            timeline.requested.pop_front();
        }
        timeline.requested.push_back(number);
    }

    /// Whether a waiter made a drop request while `switch_number` was this.
    pub fn was_requested(&self, gil: GilId, number: u64) -> bool {
        self.gils.get(&gil).is_some_and(|timeline| timeline.requested.contains(&number))
    }

    /// Divides the wait of a thread from `begin` to `end` at each change of the holder: the end of
    /// each piece with its holder. `is_final`: the thread that took the GIL after the waiter had it
    /// will not become known any more; the one that had it before the waiter stands for it.
    pub fn blame(&self, waiter: ThreadId, gil: GilId, (begin, end): (Nanos, Nanos), is_final: bool, pieces: &mut Vec<Blamed>) {
        pieces.clear();
        let Some(timeline) = self.gils.get(&gil) else { return pieces.push((end, None)) };
        let first = timeline.holds.partition_point(|held| held.at <= begin);
        // What the thread itself held does not keep it waiting: the holders before and after do.
        let other = |held: &Held| {
            match held.holder {
                Named::Thread(thread) => Some(thread),
                Named::State(tstate) => self.thread(gil, tstate),
            }
            .filter(|thread| *thread != waiter)
            .map(|thread| (thread, held.stack.clone()))
        };
        let mut holder = timeline.holds.get(first.wrapping_sub(1)).and_then(other);
        for held in timeline.holds.range(first..).take_while(|held| held.at < end) {
            let Some(next) = other(held) else { continue };
            match &holder {
                // Before the first holder that is known, the GIL was on its way to it.
                None => holder = Some(next),
                Some(same) if is_same(same, &next) => {}
                Some(_) => {
                    let before = holder.replace(next);
                    pieces.push((held.at, before.map(with_stack)));
                }
            }
        }
        let next = || timeline.holds.range(first..).find_map(other);
        let before = || timeline.holds.range(..first).rev().take(MAX_BEFORE).find_map(other).filter(|_| is_final);
        let holder = holder.or_else(next).or_else(before);
        pieces.push((end, holder.map(with_stack)));
    }

    /// Forgets all: the process runs another program now.
    pub fn clear(&mut self) {
        *self = GilTimelines::default();
    }
}

fn is_same(a: &(ThreadId, Option<Arc<Stack>>), b: &(ThreadId, Option<Arc<Stack>>)) -> bool {
    a.0 == b.0 && same_stack(&a.1, &b.1)
}

fn same_stack(a: &Option<Arc<Stack>>, b: &Option<Arc<Stack>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.same_functions(b),
        (None, None) => true,
        _ => false,
    }
}

fn with_stack((thread, stack): (ThreadId, Option<Arc<Stack>>)) -> (ThreadId, Arc<Stack>) {
    (thread, stack.unwrap_or_else(|| Arc::new(Stack::empty())))
}

impl Timeline {
    /// Keeps the order of time: events of several threads arrive slightly out of order.
    fn see_holder(&mut self, held: Held) {
        // The entry before the oldest that is kept says who held the GIL until then.
        while self.holds.len() >= MAX_ENTRIES || self.holds.get(1).is_some_and(|second| second.at + KEPT < held.at) {
            self.holds.pop_front();
        }
        let place = self.holds.partition_point(|other| other.at <= held.at);
        let is_known =
            self.holds.get(place.wrapping_sub(1)).is_some_and(|last| last.holder == held.holder && same_stack(&last.stack, &held.stack));
        if !is_known {
            self.holds.insert(place, held);
        }
    }

    fn see_switches(&mut self, at: Nanos, number: u64) {
        while self.switches.len() >= MAX_ENTRIES || self.switches.get(1).is_some_and(|(second, _)| *second + KEPT < at) {
            self.switches.pop_front();
        }
        let place = self.switches.partition_point(|(time, _)| *time <= at);
        if self.switches.get(place.wrapping_sub(1)).is_some_and(|(_, before)| *before >= number) {
            return;
        }
        // The number was reached earlier than an entry says that came first.
        while self.switches.get(place).is_some_and(|(_, next)| *next <= number) {
            self.switches.remove(place);
        }
        self.switches.insert(place, (at, number));
    }
}
