//! The fast path of interning: an `Arc` that was interned before is found by its address, and its
//! contents are not hashed again.
//!
//! The cache keeps the `Arc` alive, because a freed address may soon belong to another object. The
//! cache is emptied when it is full: capture may make a new `Arc` per sample, and those must not
//! accumulate here.

use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Bounds on the number of cached addresses and on the total weight of their objects: the stacks of
/// a recursive program have a thousand frames each.
const MAX_ENTRIES: usize = 1 << 14;
const MAX_WEIGHT: usize = 1 << 19;

/// Numbers by address.
#[derive(Clone, Debug)]
pub(super) struct PointerCache<T> {
    known: FxHashMap<usize, (Arc<T>, u32)>,
    weight: usize,
}

impl<T> Default for PointerCache<T> {
    fn default() -> Self {
        PointerCache { known: FxHashMap::default(), weight: 0 }
    }
}

impl<T> PointerCache<T> {
    /// The number of the object at this address.
    pub(super) fn get(&self, object: &Arc<T>) -> Option<u32> {
        self.known.get(&address(object)).map(|&(_, number)| number)
    }

    /// Caches the number of an object. `weight` is the number of objects that it contains.
    pub(super) fn put(&mut self, object: &Arc<T>, number: u32, weight: usize) {
        if self.known.len() >= MAX_ENTRIES || self.weight + weight > MAX_WEIGHT {
            self.known.clear();
            self.weight = 0;
        }
        self.weight += weight;
        self.known.insert(address(object), (Arc::clone(object), number));
    }
}

fn address<T>(object: &Arc<T>) -> usize {
    Arc::as_ptr(object) as *const () as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_objects_are_bounded_in_number_and_weight() {
        for weight in [1, 1000] {
            let mut cache = PointerCache::default();
            let objects: Vec<Arc<u32>> = (0..2 * MAX_ENTRIES as u32).map(Arc::new).collect();
            for object in &objects {
                cache.put(object, **object, weight);
                assert_eq!(cache.get(object), Some(**object));
            }
            let alive = objects.iter().filter(|object| Arc::strong_count(object) > 1).count();
            assert!(alive <= MAX_ENTRIES && alive * weight <= MAX_WEIGHT, "{alive}");
        }
    }
}
