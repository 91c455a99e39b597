//! Whose code a function is: the user's own, a library's, or the standard library's. No other place
//! decides this.
//!
//! The path of the code object decides, as the target has it. The path may be one of a container or
//! of another root, so nothing is opened. A program that is itself installed into site-packages
//! counts as a library.

use crate::sample::Function;

/// Whose code a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The user's own.
    Own,
    /// A package that was installed.
    ThirdParty,
    /// Part of Python.
    StandardLibrary,
}

/// Directories of installed packages, wherever they are: a virtual environment may be inside the
/// user's project.
const PACKAGES: [&str; 3] = ["site-packages", "dist-packages", "__pypackages__"];
/// Endings of packages that are imported from one file, or from a directory of their own.
const PACKAGE_ENDINGS: [&str; 2] = [".egg", ".whl"];
/// Beginnings of file names that Python, IPython and doctest give to code that the user typed.
const TYPED: [&str; 8] = ["<string>", "<stdin>", "<console>", "<input>", "<unknown>", "<ipython-input", "<python-input", "<doctest"];
/// Modules of the standard library that are often in stacks. In a program made into one file, paths
/// of the standard library are relative and begin with them.
const RELATIVE: [&str; 22] = [
    "threading",
    "concurrent",
    "multiprocessing",
    "queue",
    "json",
    "re",
    "asyncio",
    "socketserver",
    "http",
    "logging",
    "selectors",
    "ssl",
    "socket",
    "subprocess",
    "pickle",
    "csv",
    "xml",
    "urllib",
    "runpy",
    "contextlib",
    "functools",
    "random",
];

/// Names of the frames that comprehensions had until Python 3.11, and generator expressions have.
const COMPREHENSIONS: [&str; 4] = ["<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"];

/// Whose code a file has.
pub fn origin(file: &str) -> Origin {
    split(file).0
}

/// The part of a path inside the library that the file belongs to: `json/encoder.py`. `None` for
/// the user's own files.
pub fn path_in_library(file: &str) -> Option<&str> {
    let (origin, inside) = split(file);
    (origin != Origin::Own).then_some(inside)
}

/// Whether a function, by its name and file, is one of the user's own. A comprehension is a part of
/// the function around it, which calls it.
pub fn is_own(name: &str, file: &str) -> bool {
    let has_name = name != Function::UNREADABLE && !COMPREHENSIONS.iter().any(|comprehension| name.ends_with(comprehension));
    has_name && !file.is_empty() && origin(file) == Origin::Own && !is_entry_script(name, file)
}

/// The script of an installed command, such as `bin/gunicorn`: it only calls its package.
fn is_entry_script(name: &str, file: &str) -> bool {
    let mut parts = file.rsplit('/');
    let script = parts.next().unwrap_or_default();
    name == "<module>" && !script.contains('.') && parts.next() == Some("bin")
}

fn split(file: &str) -> (Origin, &str) {
    if file.starts_with('<') {
        let origin = if file.starts_with("<frozen ") {
            Origin::StandardLibrary
        } else if TYPED.iter().any(|typed| file.starts_with(typed)) {
            Origin::Own
        } else {
            // Code that a library generated.
            Origin::ThirdParty
        };
        return (origin, file);
    }
    if !file.starts_with('/') && RELATIVE.contains(&module(file)) {
        return (Origin::StandardLibrary, file);
    }
    let (mut origin, mut inside, mut before, mut at) = (Origin::Own, file, "", 0);
    for part in file.split('/') {
        at += part.len() + 1;
        let is_package = PACKAGES.contains(&part) || PACKAGE_ENDINGS.iter().any(|ending| part.ends_with(ending));
        let found = if is_package {
            Some(Origin::ThirdParty)
        } else if origin == Origin::Own && is_standard_library(before, part) {
            Some(Origin::StandardLibrary)
        } else {
            None
        };
        if let (Some(found), Some(rest)) = (found, file.get(at..).filter(|rest| !rest.is_empty())) {
            (origin, inside) = (found, rest);
        }
        before = part;
    }
    (origin, inside)
}

/// The module of a relative path.
fn module(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or(file);
    first.strip_suffix(".py").unwrap_or(first)
}

/// `lib/python3.11`, `lib64/python3.13t`, `lib/pypy3.10`, `python311.zip`.
fn is_standard_library(directory: &str, part: &str) -> bool {
    let version = part.strip_prefix("python").or_else(|| part.strip_prefix("pypy"));
    let Some(version) = version.filter(|version| version.starts_with(|c: char| c.is_ascii_digit())) else { return false };
    ["lib", "lib64"].contains(&directory) || version.ends_with(".zip")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_tells_whose_code_it_is() {
        for (file, expected) in [
            ("/srv/app.py", Origin::Own),
            ("app.py", Origin::Own),
            ("/home/u/python3.11/app.py", Origin::Own),
            ("/srv/app.pyz/shop/__main__.py", Origin::Own),
            ("/tmp/ipykernel_12/345.py", Origin::Own),
            ("<ipython-input-1-abc>", Origin::Own),
            ("<string>", Origin::Own),
            ("", Origin::Own),
            ("/usr/lib/python3.11/json/encoder.py", Origin::StandardLibrary),
            ("/opt/py/lib64/python3.13t/threading.py", Origin::StandardLibrary),
            ("/usr/lib/python311.zip/json/encoder.py", Origin::StandardLibrary),
            ("/proc/7/root/usr/local/lib/python3.12/queue.py", Origin::StandardLibrary),
            ("json/encoder.py", Origin::StandardLibrary),
            ("<frozen runpy>", Origin::StandardLibrary),
            ("<frozen importlib._bootstrap>", Origin::StandardLibrary),
            ("/usr/lib/python3/dist-packages/yaml/parser.py", Origin::ThirdParty),
            ("/srv/app/.venv/lib/python3.11/site-packages/flask/app.py", Origin::ThirdParty),
            ("/srv/app.pex/.deps/requests-2.31.0-py3-none-any.whl/requests/api.py", Origin::ThirdParty),
            ("<attrs generated init shop.Item>", Origin::ThirdParty),
        ] {
            assert_eq!(origin(file), expected, "{file}");
        }
    }

    #[test]
    fn a_library_file_has_a_path_inside_of_its_library() {
        let inside = path_in_library;
        assert_eq!(inside("/usr/lib/python3.11/json/encoder.py"), Some("json/encoder.py"));
        assert_eq!(inside("/v/lib/python3.11/site-packages/flask/app.py"), Some("flask/app.py"));
        assert_eq!((inside("/srv/app.py"), inside("/v/site-packages"), inside("/v/site-packages/")), (None, None, None));
    }

    #[test]
    fn scripts_of_installed_commands_are_not_the_users() {
        assert!(!is_own("<module>", "/usr/local/bin/gunicorn"));
        assert!(is_own("<module>", "/srv/bin/job.py") && is_own("main", "/home/u/bin/job"));
        assert!(!is_own("(no Python frame)", "") && !is_own(Function::UNREADABLE, "/srv/app.py"));
        assert!(!is_own("total.<locals>.<genexpr>", "/srv/app.py") && is_own("total.<locals>.<lambda>", "/srv/app.py"));
    }
}
