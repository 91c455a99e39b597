//! Locations of code for readers with a checkout: paths relative to the working directory, as text
//! and as URIs.
//!
//! The path comes from the target. It is shown or linked, never opened. A name that is not a path
//! (`<string>`) has no location.

use std::path::{Component, Path, PathBuf};

/// Linux has no longer paths.
const MAX_PATH_BYTES: usize = 4096;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLocation {
    /// Relative to the working directory if the file is below it. Not escaped.
    pub path: String,
    /// The line, from 1.
    pub line: u32,
}

impl SourceLocation {
    /// The location of a file with the target's name for it. `None` if the name is not a path.
    pub fn new(file: &str, line: u32, base: &Path) -> Option<SourceLocation> {
        if file.is_empty() || file.len() > MAX_PATH_BYTES || file.starts_with('<') {
            return None;
        }
        let path = Path::new(file);
        let below = path.strip_prefix(base).unwrap_or(path);
        let plain: PathBuf = below.components().filter(|part| *part != Component::CurDir).collect();
        // The working directory itself is not a file.
        let path = plain.to_str().filter(|path| !path.is_empty())?.to_string();
        Some(SourceLocation { path, line: line.max(1) })
    }

    /// Whether the path is relative to the working directory.
    pub fn is_relative(&self) -> bool {
        !self.path.starts_with('/')
    }

    /// Whether the file is below the working directory.
    pub fn is_below(&self) -> bool {
        self.is_relative() && !Path::new(&self.path).components().any(|part| part == Component::ParentDir)
    }

    /// A URI reference by RFC 3986: relative, or `file:///…`.
    pub fn uri(&self) -> String {
        let scheme = if self.is_relative() { "" } else { "file://" };
        format!("{scheme}{}", percent_encoded(&self.path))
    }
}

/// The URI of a directory. A base URI must end in a slash.
pub fn directory_uri(directory: &Path) -> String {
    let path = directory.to_string_lossy();
    format!("file://{}/", percent_encoded(path.trim_end_matches('/')))
}

fn percent_encoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(file: &str) -> Option<(String, String)> {
        SourceLocation::new(file, 3, Path::new("/srv/app")).map(|place| (place.uri(), place.path))
    }

    #[test]
    fn paths_below_the_working_directory_are_relative() {
        let expected = |uri: &str, path: &str| Some((uri.to_string(), path.to_string()));
        assert_eq!(place("/srv/app/src/a.py"), expected("src/a.py", "src/a.py"));
        assert_eq!(place("./a.py"), expected("a.py", "a.py"));
        assert_eq!(place("/srv/application/a.py"), expected("file:///srv/application/a.py", "/srv/application/a.py"));
        assert_eq!(place("../a b:c%.py"), expected("../a%20b%3Ac%25.py", "../a b:c%.py"));
        let below = |file: &str| SourceLocation::new(file, 3, Path::new("/srv/app")).unwrap().is_below();
        assert_eq!(["/srv/app/a.py", "a.py", "../a.py", "a/../../b.py", "/srv/b.py"].map(below), [true, true, false, false, false]);
        assert_eq!(directory_uri(Path::new("/srv/a b/")), "file:///srv/a%20b/");
        assert_eq!(directory_uri(Path::new("/")), "file:///");
    }

    #[test]
    fn names_that_are_not_paths_have_no_location() {
        assert_eq!(["", "<string>", "<frozen importlib._bootstrap>", "/srv/app"].map(place), [None, None, None, None]);
        assert_eq!(place(&"x".repeat(5_000)), None);
        assert_eq!(SourceLocation::new("a.py", 0, Path::new("/")).unwrap().line, 1);
    }
}
