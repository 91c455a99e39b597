//! Where code is, for those who read a gate's findings beside a checkout: paths relative to the working directory, as words and as URIs.
//!
//! The path comes from the target. It is only ever shown or linked, never opened; what is no file's name (`<string>`) has no place.

use std::path::{Component, Path, PathBuf};

/// Longer ones are no paths on Linux.
const MAX_PATH_BYTES: usize = 4096;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLocation {
    /// Relative to the working directory where the file is below it. Not escaped in any way.
    pub path: String,
    /// The line, from 1.
    pub line: u32,
}

impl SourceLocation {
    /// Of a file as the target has it. `None` where that is no file.
    pub fn new(file: &str, line: u32, base: &Path) -> Option<SourceLocation> {
        if file.is_empty() || file.len() > MAX_PATH_BYTES || file.starts_with('<') {
            return None;
        }
        let path = Path::new(file);
        let below = path.strip_prefix(base).unwrap_or(path);
        let plain: PathBuf = below.components().filter(|part| *part != Component::CurDir).collect();
        // The working directory itself is no file.
        let path = plain.to_str().filter(|path| !path.is_empty())?.to_string();
        Some(SourceLocation { path, line: line.max(1) })
    }

    /// Whether it is told relative to the working directory.
    pub fn is_relative(&self) -> bool {
        !self.path.starts_with('/')
    }

    /// A URI reference by RFC 3986: relative, or `file:///…`.
    pub fn uri(&self) -> String {
        let scheme = if self.is_relative() { "" } else { "file://" };
        format!("{scheme}{}", percent_encoded(&self.path))
    }
}

/// The URI of a directory, ending in a slash as bases must.
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
    fn what_is_below_the_working_directory_is_told_relative_to_it() {
        let told = |uri: &str, path: &str| Some((uri.to_string(), path.to_string()));
        assert_eq!(place("/srv/app/src/a.py"), told("src/a.py", "src/a.py"));
        assert_eq!(place("./a.py"), told("a.py", "a.py"));
        assert_eq!(place("/srv/application/a.py"), told("file:///srv/application/a.py", "/srv/application/a.py"));
        assert_eq!(place("../a b:c%.py"), told("../a%20b%3Ac%25.py", "../a b:c%.py"));
        assert_eq!(directory_uri(Path::new("/srv/a b/")), "file:///srv/a%20b/");
        assert_eq!(directory_uri(Path::new("/")), "file:///");
    }

    #[test]
    fn what_is_no_file_has_no_place() {
        assert_eq!(["", "<string>", "<frozen importlib._bootstrap>", "/srv/app"].map(place), [None, None, None, None]);
        assert_eq!(place(&"x".repeat(5_000)), None);
        assert_eq!(SourceLocation::new("a.py", 0, Path::new("/")).unwrap().line, 1);
    }
}
