//! Names that several threads have. Where such a thread is shown, its id is shown too.

use rustc_hash::FxHashMap;

/// The names of the threads of one page or file, and how many threads have each.
#[derive(Debug, Default)]
pub struct RepeatedNames<'a>(FxHashMap<&'a str, usize>);

impl<'a> RepeatedNames<'a> {
    /// For the threads of a page, by their names.
    pub fn new(names: impl Iterator<Item = &'a str>) -> RepeatedNames<'a> {
        let mut counts = FxHashMap::default();
        names.for_each(|name| *counts.entry(visible(name)).or_default() += 1);
        RepeatedNames(counts)
    }

    /// Whether several threads appear under this name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.get(visible(name)).is_some_and(|&threads| threads > 1)
    }
}

/// White space at the ends of a name cannot be seen.
fn visible(name: &str) -> &str {
    name.trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_the_reader_sees_them() {
        let names = RepeatedNames::new(["a", "b", "b ", "c", "c"].into_iter());
        assert_eq!(["a", "b", "b ", " b", "c", "d"].map(|name| names.contains(name)), [false, true, true, true, true, false]);
    }
}
