//! The fast path of interning: the same `Arc` met again is known by its address, without looking at what it holds.
//!
//! The cache keeps the `Arc` alive, since a freed address is soon another object's. It is emptied when full: capture may make a
//! new `Arc` per look, and those must not pile up here.

use rustc_hash::FxHashMap;
use std::sync::Arc;

/// How many addresses are remembered.
const MOST: usize = 1 << 14;

/// Numbers by address.
#[derive(Debug)]
pub(super) struct PointerCache<T> {
    known: FxHashMap<usize, (Arc<T>, u32)>,
}

impl<T> Default for PointerCache<T> {
    fn default() -> Self {
        PointerCache { known: FxHashMap::default() }
    }
}

impl<T> PointerCache<T> {
    /// The number given to this very object.
    pub(super) fn get(&self, object: &Arc<T>) -> Option<u32> {
        self.known.get(&address(object)).map(|&(_, number)| number)
    }

    /// Remembers the number of this object.
    pub(super) fn put(&mut self, object: &Arc<T>, number: u32) {
        if self.known.len() >= MOST {
            self.known.clear();
        }
        self.known.insert(address(object), (Arc::clone(object), number));
    }
}

fn address<T>(object: &Arc<T>) -> usize {
    Arc::as_ptr(object) as *const () as usize
}
