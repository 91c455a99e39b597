//! Short names of source files: the last part of the path, with its directory where the last part
//! alone is ambiguous.

use super::sanitize;
use rustc_hash::{FxHashMap, FxHashSet};

/// File names that say nothing without their directory.
const GENERIC: [&str; 2] = ["__init__.py", "__main__.py"];

/// The files of one page, and which of their base names occur in several directories.
#[derive(Debug, Default)]
pub struct FileNames<'a> {
    ambiguous: FxHashSet<&'a str>,
}

impl<'a> FileNames<'a> {
    /// For the files that a page names.
    pub fn new(files: impl Iterator<Item = &'a str>) -> FileNames<'a> {
        let mut first: FxHashMap<&str, &str> = FxHashMap::default();
        let ambiguous = files.filter_map(|file| {
            let name = sanitize::basename(file);
            (*first.entry(name).or_insert(file) != file).then_some(name)
        });
        FileNames { ambiguous: ambiguous.collect() }
    }

    /// `app.py`, or `shop/models.py` where another `models.py` is on the page; harmless.
    pub fn short(&self, file: &str) -> String {
        let name = sanitize::basename(file);
        let ambiguous = GENERIC.contains(&name) || self.ambiguous.contains(name);
        let directory = file.strip_suffix(name).and_then(|rest| rest.strip_suffix('/')).map(sanitize::basename);
        match directory.filter(|directory| ambiguous && !directory.is_empty()) {
            Some(directory) => sanitize::clean(&format!("{directory}/{name}")),
            None => sanitize::clean(name),
        }
    }

    /// `app.py:12`, or the file alone where the line is not known.
    pub fn place(&self, file: &str, line: u32) -> String {
        match line {
            0 => self.short(file),
            line => format!("{}:{line}", self.short(file)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_stays_where_the_name_alone_is_ambiguous() {
        let names = FileNames::new(["/srv/shop/models.py", "/srv/user/models.py", "/srv/app.py", "/srv/app.py"].into_iter());
        assert_eq!(names.short("/srv/shop/models.py"), "shop/models.py");
        assert_eq!(names.place("/srv/app.py", 12), "app.py:12");
        assert_eq!(names.place("/usr/lib/python3.11/logging/__init__.py", 922), "logging/__init__.py:922");
        assert_eq!(
            ["__init__.py", "/__init__.py", "<string>", "", "/"].map(|file| names.short(file)),
            ["__init__.py", "__init__.py", "<string>", "", "/"]
        );
    }
}
