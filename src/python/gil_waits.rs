//! Which GIL a thread that sleeps on a futex waits for: the one place that knows where the C
//! libraries' condition variables and mutexes sleep.
//!
//! With glibc a waiter sleeps on an address inside the GIL. With musl it does so for the GIL's
//! mutexes only. On a condition variable it sleeps on a word of a node on its own stack, and the
//! condition variable has the list of the nodes. Such a futex is followed from its node towards
//! the head of the list; it belongs to the GIL in whose condition variable the head is.
//!
//! The list may change while it is read. A thread enters it before it sleeps, and is taken off it
//! by the thread that signals, or by itself after a timeout. So a node that was found was there,
//! and one that was not found counts only if its thread still sleeps: see [`FutexOwner::Unlisted`].
//!
//! Folklore: musl 1.2.3 and 1.2.6, `src/thread/pthread_cond_timedwait.c`. The node is
//! `struct waiter { *prev, *next; int state, barrier; int *notify; }`, the futex is its `barrier`,
//! and a new node is put at `_c_head` of the condition variable.

use super::layout::GilLayout;
use crate::ids::Addr;
use crate::process::c_library::CLibrary;
use crate::process::memory::{split_parts, Memory, Part};
use crate::process::pod;
use crate::sample::GilReading;
use std::collections::HashMap;

/// Offset of `_c_head` in musl's `pthread_cond_t`.
const HEAD: u64 = 8;
/// On aarch64 the layout has glibc's mutexes where the C library is not known. musl's are shorter
/// by this, so the second condition variable may be before its place in the layout. Elsewhere no
/// pointer is there.
const SHORTER_MUTEX: u32 = 8;
/// Offset of `barrier` in a node.
const BARRIER: u64 = 20;
/// Alignment of a node.
const NODE_ALIGN: u64 = 8;
/// The most nodes that are read in one sample.
const MAX_READS: usize = 4096;

/// What a futex belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FutexOwner {
    /// The GIL at this address: a thread that sleeps on the futex waits for the GIL.
    Gil(Addr),
    /// Something else.
    Other,
    /// No list of waiters has it. A thread that slept on it before and after this was found sleeps
    /// on something else. A thread that no longer sleeps there may have been taken off a list.
    Unlisted,
    /// Unknown, because the lists are longer than what one sample may read.
    Unknown,
}

/// The waiters that the current sample has found.
#[derive(Debug, Default)]
pub struct GilWaits {
    /// Whether condition variables may have musl's lists.
    lists: bool,
    /// Nodes of the lists, each with its GIL and its `next`. `None`: the list is of no GIL.
    nodes: HashMap<Addr, (Option<Addr>, Addr)>,
    reads: usize,
    /// Buffers, kept from sample to sample.
    path: Vec<(Addr, Addr)>,
    parts: Vec<Part>,
    bytes: Vec<u8>,
}

impl GilWaits {
    /// Finds waiters in a process with this C library. An unknown one may be musl, statically
    /// linked, and nothing in glibc's condition variables is a list of nodes.
    pub fn new(c_library: CLibrary) -> GilWaits {
        GilWaits { lists: c_library != CLibrary::Glibc, ..GilWaits::default() }
    }

    /// Forgets the nodes of the last sample.
    pub fn begin_sample(&mut self) {
        self.nodes.clear();
        self.reads = 0;
    }

    /// The owner of a futex on which a thread sleeps.
    pub fn owner(&mut self, mem: &dyn Memory, layout: &GilLayout, gils: &[(Addr, Option<GilReading>)], futex: Addr) -> FutexOwner {
        let inside = |gil: Addr| futex.within(gil, u64::from(layout.size)) && layout.is_wait(futex.0.wrapping_sub(gil.0));
        match gils.iter().find(|(gil, _)| inside(*gil)) {
            Some((gil, _)) => FutexOwner::Gil(*gil),
            None if self.lists => self.listed(mem, layout, gils, futex),
            None => FutexOwner::Other,
        }
    }

    /// Follows a node to the head of its list.
    fn listed(&mut self, mem: &dyn Memory, layout: &GilLayout, gils: &[(Addr, Option<GilReading>)], futex: Addr) -> FutexOwner {
        let Some(node) = futex.0.checked_sub(BARRIER).filter(|at| at % NODE_ALIGN == 0).map(Addr) else { return FutexOwner::Other };
        let (mut at, mut older) = (node, None);
        self.path.clear();
        let gil = loop {
            let fits = |next: Addr| older.is_none_or(|older| next == older);
            // The thread's own node may have moved from a list of no GIL to that of a GIL since.
            let is_valid = |(gil, next): &&(Option<Addr>, Addr)| fits(*next) && (gil.is_some() || at != node);
            if let Some((gil, _)) = self.nodes.get(&at).filter(is_valid) {
                break *gil;
            }
            if self.reads >= MAX_READS {
                return FutexOwner::Unknown;
            }
            self.reads += 1;
            // A cycle of nodes that name each other in both directions leads back to the first.
            let in_cycle = at == node && !self.path.is_empty();
            let Some((prev, next)) = read_links(mem, at).filter(|(_, next)| fits(*next) && !in_cycle) else {
                return FutexOwner::Unlisted;
            };
            self.path.push((at, next));
            if prev.is_null() {
                break self.gil_with_head(mem, layout, gils, at);
            }
            (older, at) = (Some(at), prev);
        };
        self.nodes.extend(self.path.drain(..).map(|(node, next)| (node, (gil, next))));
        gil.map_or(FutexOwner::Unlisted, FutexOwner::Gil)
    }

    /// The GIL one of whose lists begins with this node.
    fn gil_with_head(&mut self, mem: &dyn Memory, layout: &GilLayout, gils: &[(Addr, Option<GilReading>)], node: Addr) -> Option<Addr> {
        let offsets = [layout.cond.offset, layout.switch_cond.offset, layout.switch_cond.offset.saturating_sub(SHORTER_MUTEX)];
        let heads = |gil: Addr| offsets.map(|cond| gil.offset(u64::from(cond) + HEAD));
        self.parts.clear();
        self.parts.extend(gils.iter().flat_map(|(gil, _)| heads(*gil)).map(|head| Part::new(head, 8)));
        self.bytes.resize(8 * self.parts.len(), 0);
        mem.read_batch(&mut self.parts, &mut self.bytes).ok()?;
        let is_head = |(part, bytes): (&Part, &[u8])| part.ok && bytes == node.0.to_le_bytes();
        let index = split_parts(&self.parts, &self.bytes).position(is_head)?;
        gils.get(index / offsets.len()).map(|(gil, _)| *gil)
    }
}

/// `prev`, the newer node, and `next`, the older one.
fn read_links(mem: &dyn Memory, node: Addr) -> Option<(Addr, Addr)> {
    let mut bytes = [0; 16];
    mem.read(node, &mut bytes).ok()?;
    Some((pod::at(&bytes, 0)?, pod::at(&bytes, 8)?))
}

#[cfg(test)]
mod tests;
