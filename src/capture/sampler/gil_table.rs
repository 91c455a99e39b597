//! The GILs of the process: an id for each, and what the current sample shows of its holder.

use crate::ids::{Addr, GilId};
use crate::python::interpreters::RuntimeState;

/// One GIL.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrackedGil {
    pub at: Addr,
    /// Its id, which it keeps while it exists; its index does not stay, because CPython's list of
    /// interpreters is newest first.
    pub id: GilId,
    /// The index of the thread that held it when this sample began, if that thread is known.
    pub holder_index: Option<usize>,
    /// The holding thread has no other thread state, so the holder cannot be a foreign thread state
    /// (see `bindings`).
    pub unambiguous: bool,
}

/// All GILs, in the order of `RuntimeState::gils`.
#[derive(Debug, Default)]
pub(super) struct GilTable {
    pub all: Vec<TrackedGil>,
    next_id: u32,
}

impl GilTable {
    /// Follows the current list of GILs. A GIL that is still there keeps its row.
    pub fn update(&mut self, runtime_state: &RuntimeState) {
        if self.all.iter().map(|gil| gil.at).eq(runtime_state.gils.iter().map(|(at, _)| *at)) {
            return;
        }
        let before = std::mem::take(&mut self.all);
        for &(at, _) in &runtime_state.gils {
            let known = before.iter().find(|gil| gil.at == at).copied();
            let gil = known.unwrap_or_else(|| {
                self.next_id += 1;
                TrackedGil { at, id: GilId(self.next_id - 1), holder_index: None, unambiguous: false }
            });
            self.all.push(gil);
        }
    }

    /// The index of the GIL at this address.
    pub fn index_of(&self, at: Addr) -> Option<usize> {
        self.all.iter().position(|gil| gil.at == at)
    }

    /// The id of the GIL at this address.
    pub fn id_at(&self, at: Addr) -> Option<GilId> {
        self.index_of(at).map(|index| self.all[index].id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gil_keeps_its_id_while_it_exists() {
        let (mut gils, mut runtime_state) = (GilTable::default(), RuntimeState::default());
        let mut with = |at: &[u64]| {
            runtime_state.gils = at.iter().map(|&at| (Addr(at), None)).collect();
            gils.update(&runtime_state);
            gils.all.iter().map(|gil| gil.id.0).collect::<Vec<_>>()
        };
        assert_eq!(with(&[1, 5]), [0, 1]);
        assert_eq!(with(&[1, 7, 5]), [0, 2, 1]);
        assert_eq!(with(&[1, 7]), [0, 2]);
        assert_eq!(with(&[1, 5, 7]), [0, 3, 2], "another GIL at an address that was freed");
    }
}
