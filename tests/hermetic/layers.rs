//! The rules of the architecture: what a layer may use, no import cycles, file sizes, where
//! `unsafe` may stand.
//!
//! They read the source as text. A path (`crate::…`, `super::…`, or one that begins with a child
//! module) is an arrow from its file to the file that owns the longest part of it. Comments,
//! strings and `#[cfg(test)]` items do not count. Every rule is a function from text to complaints,
//! and the last module shows that each can complain.

pub mod source;

use source::{arrows, code_only, Tree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const MOST_LINES: usize = 450;
const UNSAFE_ADDRESSES: [&str; 3] = ["process/live.rs", "process/pod.rs", "process/sys_linux/"];

/// The top-level modules, and the modules that each may use. All may use the vocabulary. A module
/// may use nothing that its line does not name.
const MODULES: &[(&str, &[&str])] = &[
    // capture side
    ("process", &[]),
    ("python", &["process"]),
    // only judges: it reads nothing, so the same samples give the same states anywhere
    ("estimate", &[]),
    ("capture", &["python", "process", "estimate"]),
    // report side
    ("profile", &[]),
    ("analysis", &["profile"]),
    ("output", &["analysis", "profile"]),
    // limits for CI: judges reports, and measures nothing
    ("gate", &["profile", "analysis", "output"]),
    // front ends: only they may use both sides
    ("top", &["capture", "python", "process", "profile", "analysis", "output"]),
    ("cli", &["capture", "python", "process", "profile", "analysis", "output", "gate", "top"]),
    ("main", &["cli"]),
    // what a library user sees: the report side, and where to start on the capture side
    ("lib", &["capture"]),
];
const VOCABULARY: [&str; 4] = ["sample", "units", "ids", "error"];

fn top(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or(file);
    first.strip_suffix(".rs").unwrap_or(first)
}

fn may_use(from: &str, to: &str) -> bool {
    let (from_top, to_top) = (top(from), top(to));
    from_top == to_top || VOCABULARY.contains(&to_top) || MODULES.iter().any(|(name, uses)| *name == from_top && uses.contains(&to_top))
}

fn layering(tree: &Tree) -> Vec<String> {
    let known = |file: &str| VOCABULARY.contains(&top(file)) || MODULES.iter().any(|(name, _)| *name == top(file));
    let unlisted =
        tree.files().filter(|f| !known(f)).map(|f| format!("{f}: a top-level module that tests/hermetic/layers.rs does not list"));
    let forbidden = arrows(tree).into_iter().filter(|(from, to)| !may_use(from, to)).map(|(from, to)| format!("{from} may not use {to}"));
    unlisted.chain(forbidden).collect()
}

/// One complaint for each group of files that reach each other. A parent that calls its own
/// children does not count as their user, so that children may use types that the parent declares.
/// A name that the parent only re-exports counts as the child's.
fn cycles(arrows: &BTreeSet<(String, String)>) -> Vec<String> {
    let mut next: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in arrows.iter().filter(|(from, to)| !source::contains(from, to)) {
        next.entry(from).or_default().push(to);
    }
    let reach = |start: &str| {
        let mut seen = BTreeSet::new();
        let mut todo: Vec<&str> = next.get(start).cloned().unwrap_or_default();
        while let Some(file) = todo.pop() {
            if seen.insert(file.to_string()) {
                todo.extend(next.get(file).into_iter().flatten());
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<String>> = next.keys().map(|&f| (f, reach(f))).collect();
    let group = |file: &str| -> Vec<&str> {
        reached.iter().filter(|(other, r)| r.contains(file) && reached[file].contains(**other)).map(|(other, _)| *other).collect()
    };
    let groups: BTreeSet<Vec<&str>> = reached.keys().map(|f| group(f)).filter(|g| !g.is_empty()).collect();
    groups.into_iter().map(|g| format!("import cycle: {}", g.join(", "))).collect()
}

fn size(file: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > MOST_LINES).then(|| format!("{file}: {lines} lines, more than {MOST_LINES}"))
}

fn opening(file: &str, text: &str) -> Option<String> {
    (!text.starts_with("//!")).then(|| format!("{file}: does not open with `//!`, saying what it owns"))
}

fn unsafe_address(file: &str, text: &str) -> Option<String> {
    // An address that ends in a slash is a folder.
    let allowed = UNSAFE_ADDRESSES.iter().any(|a| file == *a || a.ends_with('/') && file.starts_with(a));
    (!allowed && source::has_word(&source::blank(text), "unsafe")).then(|| format!("{file}: `unsafe` outside {UNSAFE_ADDRESSES:?}"))
}

fn unwrapping(file: &str, text: &str) -> Option<String> {
    let code = code_only(text);
    [".unwrap()", ".expect(", ".unwrap_err()", ".expect_err("]
        .iter()
        .find(|w| code.contains(**w))
        .map(|w| format!("{file}: `{w}` outside tests"))
}

fn unfinished(file: &str, text: &str) -> Option<String> {
    let words = ["TODO", "FIXME", "XXX"].iter().find(|w| source::has_word(text, w));
    let code = code_only(text);
    let macros = ["todo!", "unimplemented!", "dbg!"].iter().find(|w| code.contains(**w));
    words.or(macros).map(|w| format!("{file}: `{w}`"))
}

fn none(complaints: impl IntoIterator<Item = String>) {
    let all: Vec<String> = complaints.into_iter().collect();
    assert!(all.is_empty(), "\n  {}\n", all.join("\n  "));
}

fn src() -> Tree {
    let tree = Tree::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(tree.files().count() > 5, "src/ was not found");
    tree
}

#[test]
fn a_layer_uses_only_what_is_below_it() {
    none(layering(&src()));
}

#[test]
fn there_are_no_import_cycles() {
    none(cycles(&arrows(&src())));
}

#[test]
fn files_are_short_and_say_what_they_own() {
    let tests = Tree::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"));
    for tree in [src(), tests] {
        none(tree.iter().filter_map(|(file, text)| size(file, text)));
        none(tree.iter().filter_map(|(file, text)| opening(file, text)));
    }
}

#[test]
fn unsafe_has_three_addresses() {
    none(src().iter().filter_map(|(file, text)| unsafe_address(file, text)));
}

#[test]
fn nothing_unwraps_and_nothing_is_left_to_do() {
    let tree = src();
    let only_for_tests = source::test_files(&tree);
    none(tree.iter().filter(|(file, _)| !only_for_tests.contains(*file)).filter_map(|(file, text)| unwrapping(file, text)));
    none(tree.iter().filter_map(|(file, text)| unfinished(file, text)));
}

mod able_to_fail {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        Tree::of(files.iter().map(|(f, t)| (f.to_string(), t.to_string())))
    }

    #[test]
    fn layering_sees_arrows_that_point_up_or_across() {
        let bad = |from: &str, text: &str, to: &str| {
            let complaints = layering(&tree(&[(from, text), (to, "")]));
            assert_eq!(complaints, [format!("{from} may not use {to}")], "{text}");
        };
        bad("process/live.rs", "use crate::python::gil::Gil;", "python/gil.rs");
        bad("output/text.rs", "use crate::capture::Sampler;", "capture/mod.rs");
        bad("capture/sampler.rs", "use crate::{ids::Pid, analysis::{shares::{self, Share}}};", "analysis/shares.rs");
        bad("profile/stacks.rs", "fn f() { crate::output::text::print() }", "output/text.rs");
        bad("profile/file/mod.rs", "use super::super::analysis::rules::all;", "analysis/rules/mod.rs");
        bad("sample.rs", "use crate::capture::session;", "capture/session.rs");
        bad("capture/mod.rs", "use crate::cli::progress;", "cli/progress.rs");
        bad("gate/mod.rs", "use crate::cli::exit;", "cli/exit.rs");
        assert_eq!(layering(&tree(&[("new/mod.rs", "")])).len(), 1);
    }

    #[test]
    fn layering_lets_allowed_arrows_and_mere_mentions_pass() {
        let good = [
            ("process/live.rs", "use crate::ids::Pid;"),
            ("python/gil.rs", "use crate::process::memory::Memory;"),
            ("process/memory.rs", "//! see [`crate::cli`]\n/* crate::cli::x */ const S: &str = \"crate::cli::x\";"),
            ("profile/stacks.rs", "#[cfg(test)]\nmod tests { use crate::capture::sampler::Sampler; }"),
            ("capture/session.rs", "use crate::{python::gil, sample::{Sink, State}};"),
            ("cli/attach.rs", "use crate::{capture, output::text};"),
            ("output/text.rs", ""),
            ("ids.rs", ""),
            ("sample.rs", "use crate::ids::Tid;"),
        ];
        none(layering(&tree(&good)));
    }

    #[test]
    fn cycles_are_seen_through_several_files_and_through_re_exports() {
        let round = |files: &[(&str, &str)]| cycles(&arrows(&tree(files)));
        let three = [
            ("a/x.rs", "use super::y::Y;"),
            ("a/y.rs", "use crate::a::z::Z;"),
            ("a/z.rs", "use crate::a::x::{self, X};"),
            ("a/mod.rs", ""),
        ];
        assert_eq!(round(&three), ["import cycle: a/x.rs, a/y.rs, a/z.rs"]);
        let re_exported = [("a/mod.rs", "mod x;\nmod y;\npub use x::{X, Z};"), ("a/x.rs", "use super::y;"), ("a/y.rs", "use super::X;")];
        assert_eq!(round(&re_exported), ["import cycle: a/x.rs, a/y.rs"]);
        let two_modules = [("a/mod.rs", "use crate::b::B;"), ("b/mod.rs", "pub use c::B;\nmod c;"), ("b/c.rs", "fn f(x: crate::a::A) {}")];
        assert_eq!(round(&two_modules), ["import cycle: a/mod.rs, b/c.rs"]);
        let parent = [("a/mod.rs", "mod x;\nfn f() { x::g() }\npub struct Y;"), ("a/x.rs", "use super::Y;")];
        none(round(&parent));
        let fine = [
            ("a/mod.rs", "pub mod x;\npub mod y;"),
            ("a/x.rs", "use super::y::Y;"),
            ("a/y.rs", "use super::super::ids::Pid;"),
            ("ids.rs", ""),
        ];
        none(round(&fine));
    }

    #[test]
    fn the_rules_for_one_file_complain() {
        assert!(size("a.rs", &"x\n".repeat(451)).is_some() && size("a.rs", &"x\n".repeat(450)).is_none());
        assert!(opening("a.rs", "// no\n").is_some() && opening("a.rs", "//! yes\n").is_none());
        assert!(unsafe_address("python/x.rs", "fn f() { unsafe { g() } }").is_some());
        assert!(unsafe_address("python/x.rs", "#[cfg(test)]\nmod tests { fn f() { unsafe { g() } } }").is_some());
        assert!(unsafe_address("process/pod.rs", "unsafe impl Pod for u8 {}").is_none());
        assert!(unsafe_address("process/sys_linux/ring.rs", "unsafe impl Pod for u8 {}").is_none());
        assert!(unsafe_address("process/sys_linux.rs", "unsafe impl Pod for u8 {}").is_some());
        assert!(unsafe_address("python/x.rs", "// unsafe\nconst A: &str = \"unsafe\"; fn unsafety() {}").is_none());
        for bad in ["fn f() { g().unwrap() }", "fn f() { g().expect(\"so\") }", "#[cfg(test)]\nmod tests {}\nfn f() { g().unwrap() }"] {
            assert!(unwrapping("a.rs", bad).is_some(), "{bad}");
        }
        let fine =
            "/// `x.unwrap()`\nfn f() { g().unwrap_or(0); let c = '\"'; }\n#[cfg(test)]\nmod tests { fn f() { \"}\"; g().unwrap() } }\n";
        assert_eq!(unwrapping("a.rs", fine), None);
        assert!(unfinished("a.rs", "// TODO: later").is_some() && unfinished("a.rs", "fn f() { todo!() }").is_some());
        assert!(unfinished("a.rs", "// TODOS are fine\nconst A: &str = \"todo!\";").is_none());
    }

    #[test]
    fn files_that_exist_only_for_tests_are_known_as_such() {
        let files = [
            ("a/mod.rs", "#[cfg(test)]\nmod tests;\nmod x;"),
            ("a/tests.rs", ""),
            ("a/x.rs", "#[cfg(test)]\n#[path = \"x_tests.rs\"]\nmod tests;"),
        ];
        let tree = tree(&[&files[..], &[("a/x_tests.rs", "")]].concat());
        assert_eq!(source::test_files(&tree).into_iter().collect::<Vec<_>>(), ["a/tests.rs", "a/x_tests.rs"]);
    }
}
