//! The language of the source: one meaning for a type name within a layer, comments of at most 100
//! columns, and none of the words that an earlier version used where this field has terms.
//!
//! Every rule is a function from text to complaints, and the last module shows that each can
//! complain.

use crate::layers::source::{self, code_only, Tree};
use std::collections::BTreeMap;
use std::path::Path;

/// The widest line that is only a comment.
const COMMENT_COLUMNS: usize = 100;

/// The layers with their files and folders. The vocabulary belongs to all of them.
const LAYERS: &[(&str, &[&str])] = &[
    ("capture side", &["process", "python", "capture"]),
    ("report side", &["profile", "analysis", "output"]),
    ("front ends", &["gate", "cli", "top"]),
];
const VOCABULARY: &[&str] = &["sample", "units", "ids", "error"];

/// Words and phrases with their replacements. Lower case; whole words.
const WORDS: &[(&str, &str)] = &[
    ("look", "sample, or find, read, see"),
    ("looks", "samples, or seems"),
    ("looked", "sampled, or read, searched"),
    ("told", "known, reported"),
    ("judgement", "classification, verdict, decision"),
    ("judgements", "classifications, verdicts, decisions"),
    ("judgment", "classification, verdict, decision"),
    ("whoever", "the thread that, a user who"),
    ("spoken of", "reported"),
    ("as it came", "verbatim"),
    ("by lot", "at random"),
    ("of its own accord", "by itself"),
    ("lets go", "releases"),
    ("let go", "release, released"),
    ("changes hands", "switches"),
    ("change of hands", "GIL switch"),
    ("changes of hands", "GIL switches"),
    ("course of time", "timeline"),
];

/// Files in which a word of the list is right, a part of the line, and the reason.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("src/gate/run.rs", "alias", "baselines written before the rename stay readable"),
    ("tests/hermetic/gate.rs", "let renamed", "the test of that alias"),
    ("src/sample/info.rs", "`looks`", "the doc of the alias below"),
    ("src/sample/info.rs", "alias", "recordings written before the rename stay readable"),
];

fn top(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or(file);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// The types that a file defines at its outermost level, except in tests.
fn types(text: &str) -> Vec<String> {
    let code = code_only(text);
    let defined = code.lines().filter_map(|line| {
        let line = match line.strip_prefix("pub") {
            Some(rest) => {
                rest.trim_start_matches(|c: char| c == '(' || c == ')' || c.is_alphabetic() && rest.starts_with('(')).trim_start()
            }
            None => line,
        };
        let (kind, rest) = line.split_once(' ')?;
        let known = ["struct", "enum", "trait", "type", "union"].contains(&kind);
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        (known && !name.is_empty()).then_some(name)
    });
    defined.collect()
}

/// One complaint for each type name that stands twice in a layer. The vocabulary counts to each
/// layer.
fn twice(tree: &Tree) -> Vec<String> {
    let only_for_tests = source::test_files(tree);
    let mut complaints = Vec::new();
    for (layer, modules) in LAYERS {
        let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        let here = |file: &str| modules.contains(&top(file)) || VOCABULARY.contains(&top(file));
        for (file, text) in tree.iter().filter(|(file, _)| here(file) && !only_for_tests.contains(*file)) {
            types(text).into_iter().for_each(|name| found.entry(name).or_default().push(file));
        }
        let double = found.into_iter().filter(|(_, files)| files.len() > 1);
        complaints.extend(double.map(|(name, files)| format!("{layer}: `{name}` is defined in {}", files.join(", "))));
    }
    complaints
}

/// The lines of a file that are only a comment and are wider than allowed. A line of one unbroken
/// word (an address) is allowed.
fn wide(file: &str, text: &str) -> Vec<String> {
    let only_comment = |line: &str| line.trim_start().starts_with("//");
    let breakable = |line: &str| line.trim_start().trim_start_matches(['/', '!']).trim().contains(' ');
    let lines =
        text.lines().enumerate().filter(|(_, line)| only_comment(line) && breakable(line) && line.chars().count() > COMMENT_COLUMNS);
    lines.map(|(n, line)| format!("{file}:{}: a comment of {} columns, more than {COMMENT_COLUMNS}", n + 1, line.chars().count())).collect()
}

/// The lines of a file that hold a word of the list. Letters around it make it another word; `_`
/// does not, so that names count.
fn words(file: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        let apart = |at: usize, len: usize| {
            let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphabetic());
            !letter(lower[..at].chars().next_back()) && !letter(lower[at + len..].chars().next())
        };
        for (word, instead) in WORDS {
            let stands = lower.match_indices(word).any(|(at, found)| apart(at, found.len()));
            let allowed = ALLOWED.iter().any(|(place, part, _)| file.ends_with(place) && line.contains(part));
            if stands && !allowed {
                complaints.push(format!("{file}:{}: `{word}`; write: {instead}", n + 1));
            }
        }
    }
    complaints
}

fn tree(folder: &str) -> Tree {
    Tree::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
}

fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n  {}\n", complaints.join("\n  "));
}

#[test]
fn a_type_name_stands_once_in_a_layer() {
    none(twice(&tree("src")));
}

#[test]
fn comments_are_at_most_100_columns_wide() {
    for folder in ["src", "tests", "examples"] {
        none(tree(folder).iter().flat_map(|(file, text)| wide(&format!("{folder}/{file}"), text)).collect());
    }
}

#[test]
fn the_private_words_do_not_come_back() {
    for folder in ["src", "tests", "examples"] {
        let others = |(file, _): &(&str, &str)| *file != "hermetic/language.rs"; // the list itself
        none(tree(folder).iter().filter(others).flat_map(|(file, text)| words(&format!("{folder}/{file}"), text)).collect());
    }
}

mod able_to_fail {
    use super::*;

    fn made(files: &[(&str, &str)]) -> Tree {
        Tree::of(files.iter().map(|(f, t)| (f.to_string(), t.to_string())))
    }

    #[test]
    fn two_types_of_one_name_are_seen_within_a_layer_only() {
        let files = [("capture/a.rs", "pub struct Kind;"), ("python/b.rs", "pub(crate) enum Kind {}"), ("output/c.rs", "struct Kind;")];
        assert_eq!(twice(&made(&files)), ["capture side: `Kind` is defined in capture/a.rs, python/b.rs"]);
        let vocabulary = [("sample/slice.rs", "pub enum State {}"), ("gate/b.rs", "type State = u8;")];
        assert_eq!(twice(&made(&vocabulary)), ["front ends: `State` is defined in gate/b.rs, sample/slice.rs"]);
        let fine = [
            ("capture/a.rs", "pub struct Kind;\nimpl Iterator for X {\n    type Item = u8;\n}"),
            ("capture/b.rs", "impl Iterator for Y {\n    type Item = u8;\n}\n#[cfg(test)]\nmod tests {\nstruct Kind;\n}"),
            ("output/c.rs", "struct Kind;\n// struct Kind;"),
        ];
        none(twice(&made(&fine)));
    }

    #[test]
    fn a_wide_comment_is_seen_and_wide_code_is_not() {
        let text = |start: &str, width: usize| format!("{start} {}", "a ".repeat(width)).chars().take(width).collect::<String>();
        assert_eq!(wide("a.rs", &text("    ///", 101)).len(), 1);
        assert_eq!(wide("a.rs", &text("//!", 120)).len(), 1);
        none(wide("a.rs", &text("//", 100)));
        none(wide("a.rs", &text("let a =", 130)));
        none(wide("a.rs", &format!("// {}", "a".repeat(120))));
    }

    #[test]
    fn a_word_of_the_list_is_seen_in_prose_names_and_strings() {
        for bad in ["// one look at it", "fn first_look() {}", "\"4 986 looks\"", "// Told apart.", "// it lets go of the GIL"] {
            assert_eq!(words("a.rs", bad).len(), 1, "{bad}");
        }
        for good in ["// a lookup table", "// overlook", "// outlook", "fn sample() {}"] {
            none(words("a.rs", good));
        }
    }
}
