//! Functions by number. Two code objects with the same name, file and first line are one function.

use super::intern::PointerCache;
use crate::sample::Function;
use std::collections::HashMap;
use std::sync::Arc;

/// The largest number of functions.
const MAX_FUNCTIONS: usize = 1 << 16;

/// A function's number within one profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionId(pub(super) u32);

/// Stands for a thread that runs no Python, or whose Python stack is empty.
pub const NO_PYTHON: FunctionId = FunctionId(0);

/// Stands for every function beyond the bound.
pub const OTHER_FUNCTIONS: FunctionId = FunctionId(1);

impl FunctionId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// The functions seen so far.
#[derive(Clone, Debug)]
pub(super) struct Functions {
    by_pointer: PointerCache<Function>,
    by_content: HashMap<Arc<Function>, FunctionId>,
    list: Vec<Arc<Function>>,
}

impl Default for Functions {
    fn default() -> Self {
        let named = |name: &str| Arc::new(Function { name: name.to_string(), file: String::new(), first_line: 0 });
        let list = vec![named("(no Python frame)"), named("(other functions)")];
        Functions { by_pointer: PointerCache::default(), by_content: HashMap::new(), list }
    }
}

impl Functions {
    /// The number of a function; [`OTHER_FUNCTIONS`] when the table is full.
    pub(super) fn intern(&mut self, function: &Arc<Function>) -> FunctionId {
        if let Some(number) = self.by_pointer.get(function) {
            return FunctionId(number);
        }
        let id = match self.by_content.get(function) {
            Some(&id) => id,
            None if self.list.len() >= MAX_FUNCTIONS => OTHER_FUNCTIONS,
            None => {
                let id = FunctionId(self.list.len() as u32);
                self.list.push(Arc::clone(function));
                self.by_content.insert(Arc::clone(function), id);
                id
            }
        };
        self.by_pointer.put(function, id.0, 1);
        id
    }

    /// The function with this number.
    pub(super) fn get(&self, id: FunctionId) -> &Arc<Function> {
        &self.list[id.index().min(self.list.len() - 1)]
    }

    /// All functions, by number.
    pub(super) fn into_list(self) -> Vec<Arc<Function>> {
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_twice_is_one_function() {
        let make = || Arc::new(Function { name: "f".into(), file: "a.py".into(), first_line: 3 });
        let mut functions = Functions::default();
        let (a, b) = (make(), make());
        let first = functions.intern(&a);
        assert_eq!(first, functions.intern(&b));
        assert_eq!(first, functions.intern(&a));
        assert_ne!(first, NO_PYTHON);
        assert_eq!(functions.into_list().len(), 3);
    }
}
