//! Short names of source files, so that two files of one report never have the same name.
//!
//! A name is the end of the path: of the user's own file the last part, of a library's file the
//! last two parts inside the library, and more parts where another file would have the same name.

use super::own_code;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// File names that say nothing without their directory.
const GENERIC: [&str; 7] = ["__init__.py", "__main__.py", "core.py", "base.py", "_base.py", "utils.py", "common.py"];
/// Parts of a path beyond which the whole path is the name.
const MAX_PARTS: usize = 64;

/// The names of the files of one report or page.
#[derive(Clone, Debug, Default)]
pub struct FileNames {
    /// The number of parts that each file's name has, where it is not the least.
    parts: FxHashMap<String, usize>,
}

impl FileNames {
    /// For the files that a report or page names.
    pub fn new<'f>(files: impl IntoIterator<Item = &'f str>) -> FileNames {
        let files: Vec<&str> = files.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let mut parts: Vec<usize> = files.iter().map(|file| least(file)).collect();
        for round in 0..=MAX_PARTS {
            let mut alike: FxHashMap<&str, Vec<usize>> = FxHashMap::default();
            for (n, file) in files.iter().enumerate() {
                alike.entry(name(file, parts[n])).or_default().push(n);
            }
            let ambiguous: Vec<usize> = alike.into_values().filter(|group| group.len() > 1).flatten().collect();
            if ambiguous.is_empty() {
                break;
            }
            ambiguous.into_iter().for_each(|n| parts[n] = if round < MAX_PARTS { parts[n] + 1 } else { usize::MAX });
        }
        let longer = files.into_iter().zip(parts).filter(|(file, parts)| *parts != least(file));
        FileNames { parts: longer.map(|(file, parts)| (file.to_string(), parts)).collect() }
    }

    /// `app.py`, `json/encoder.py`, or `shop/models.py` where another `models.py` is in the report.
    pub fn short<'f>(&self, file: &'f str) -> &'f str {
        name(file, self.parts.get(file).copied().unwrap_or_else(|| least(file)))
    }
}

/// The number of parts that a name has at least.
fn least(file: &str) -> usize {
    let inside = own_code::path_in_library(file);
    match inside {
        Some(inside) => inside.split('/').count().min(2),
        None if GENERIC.contains(&name(file, 1)) => 2,
        None => 1,
    }
}

/// The last parts of a path, or the whole path if it has no more.
fn name(file: &str, parts: usize) -> &str {
    // `<string>` and the like are no paths.
    if file.starts_with('<') {
        return file;
    }
    let start = file.rmatch_indices('/').nth(parts.saturating_sub(1)).map_or(0, |(slash, _)| slash + 1);
    file.get(start..).filter(|name| !name.is_empty()).unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_files_have_one_part_and_library_files_two() {
        let names = FileNames::default();
        for (file, short) in [
            ("/srv/app.py", "app.py"),
            ("/srv/shop/__init__.py", "shop/__init__.py"),
            ("/usr/lib/python3.11/threading.py", "threading.py"),
            ("/usr/lib/python3.11/json/encoder.py", "json/encoder.py"),
            ("/usr/lib/python3.11/logging/__init__.py", "logging/__init__.py"),
            ("/v/lib/python3.11/site-packages/pandas/core/arrays/string_.py", "arrays/string_.py"),
            ("__init__.py", "__init__.py"),
            ("<string>", "<string>"),
            ("<made by a/b.py>", "<made by a/b.py>"),
            ("", ""),
            ("/", "/"),
        ] {
            assert_eq!(names.short(file), short, "{file}");
        }
    }

    #[test]
    fn two_files_never_have_the_same_name() {
        let files = [
            "/srv/shop/models.py",
            "/srv/user/models.py",
            "/old/user/models.py",
            "models.py",
            "/models.py",
            "/srv/app.py",
            "/srv/app.py",
            "/v/lib/python3.11/site-packages/shop/models.py",
        ];
        let names = FileNames::new(files);
        let distinct: BTreeSet<&str> = files.iter().map(|file| names.short(file)).collect();
        assert_eq!(distinct.len(), files.len() - 1, "{distinct:?}");
        assert_eq!((names.short("/srv/app.py"), names.short("/srv/user/models.py")), ("app.py", "srv/user/models.py"));
    }

    #[test]
    fn endless_paths_end_the_search() {
        let deep = |first: &str| format!("{first}{}", "/a".repeat(2000));
        let (one, other) = (deep("/x"), deep("/y"));
        let names = FileNames::new([one.as_str(), other.as_str()]);
        assert_ne!(names.short(&one), names.short(&other));
    }
}
