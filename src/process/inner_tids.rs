//! Thread ids of a process in another PID namespace. There a thread has another id than here, and
//! the interpreter's memory and kernel events contain that one.

use crate::ids::Tid;
use std::collections::{BTreeMap, HashSet};

/// gilprof's ids of one process's threads, by their ids in the process's own PID namespace.
#[derive(Clone, Debug, Default)]
pub struct InnerTids {
    outer: BTreeMap<i32, Tid>,
}

impl InnerTids {
    /// Follows the list of threads. Only of threads that it does not know yet it reads the inner
    /// id, by `inner`. It forgets threads that are not listed.
    pub fn update(&mut self, listed: &[Tid], inner: impl Fn(Tid) -> Option<i32>) {
        let set: HashSet<Tid> = listed.iter().copied().collect();
        self.outer.retain(|_, tid| set.contains(tid));
        let known: HashSet<Tid> = self.outer.values().copied().collect();
        let new = listed.iter().filter(|tid| !known.contains(tid));
        self.outer.extend(new.filter_map(|&tid| Some((inner(tid)?, tid))));
    }

    /// gilprof's id of a thread.
    pub fn outer(&self, inner: i32) -> Option<Tid> {
        self.outer.get(&inner).copied()
    }

    /// The inner ids of all threads.
    pub fn inner(&self) -> impl Iterator<Item = i32> + '_ {
        self.outer.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn only_new_threads_are_read() {
        let (mut tids, read) = (InnerTids::default(), RefCell::new(Vec::new()));
        let mut update = |listed: &[i32], ended: &[i32]| {
            let listed: Vec<Tid> = listed.iter().copied().map(Tid).collect();
            tids.update(&listed, |tid| {
                read.borrow_mut().push(tid.0);
                (!ended.contains(&tid.0)).then_some(tid.0 - 100)
            });
            (read.take(), tids.inner().collect::<Vec<_>>(), tids.outer(7))
        };
        assert_eq!(update(&[101, 107], &[]), (vec![101, 107], vec![1, 7], Some(Tid(107))));
        assert_eq!(update(&[101, 107, 108], &[]), (vec![108], vec![1, 7, 8], Some(Tid(107))));
        assert_eq!(update(&[101, 108, 109], &[109]), (vec![109], vec![1, 8], None));
        assert_eq!(update(&[101, 108, 109], &[]), (vec![109], vec![1, 8, 9], None));
    }
}
