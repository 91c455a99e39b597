//! Rust source as text, as far as the rules need it: modules, the paths between them, and code
//! without comments and strings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// All `.rs` files below a folder, by their path in it (`process/memory.rs`).
pub struct Tree(BTreeMap<String, String>);

impl Tree {
    pub fn of(files: impl IntoIterator<Item = (String, String)>) -> Tree {
        Tree(files.into_iter().collect())
    }

    pub fn read(root: &Path) -> Tree {
        let mut files = BTreeMap::new();
        let mut folders = vec![root.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "rs") {
                    let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
                    files.insert(name, std::fs::read_to_string(&path).unwrap());
                }
            }
        }
        Tree(files)
    }

    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(f, t)| (f.as_str(), t.as_str()))
    }

    /// The file that owns the longest part of a path from the crate's root. The root owns nothing:
    /// `lib.rs` only lists modules.
    fn owner(&self, path: &[String]) -> Option<&str> {
        (1..=path.len()).rev().find_map(|n| {
            let module = path[..n].join("/");
            [format!("{module}.rs"), format!("{module}/mod.rs")].iter().find_map(|f| self.0.get_key_value(f)).map(|(f, _)| f.as_str())
        })
    }
}

/// `python/layout/mod.rs` and `python/layout.rs` are both `python::layout`; `lib.rs` and `main.rs`
/// are the root.
fn module_of(file: &str) -> Vec<String> {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let mut parts: Vec<String> = stem.split('/').map(str::to_string).collect();
    if parts.last().is_some_and(|p| p == "mod") || parts == ["lib"] || parts == ["main"] {
        parts.pop();
    }
    parts
}

/// Every (user, used) pair of files. A name that a parent re-exports from its child counts as the
/// child's.
pub fn arrows(tree: &Tree) -> BTreeSet<(String, String)> {
    let only_for_tests = test_files(tree);
    let uses: Vec<(&str, Vec<Vec<String>>)> =
        tree.iter().filter(|(f, _)| !only_for_tests.contains(*f)).map(|(file, text)| (file, full_paths(file, text))).collect();
    let mut exports = BTreeMap::new();
    for (file, paths) in &uses {
        let here = module_of(file);
        let from_below = |path: &&Vec<String>| path.len() > here.len() + 1 && path.starts_with(&here) && tree.owner(path) != Some(file);
        for path in paths.iter().filter(from_below) {
            let name = path.last().cloned();
            exports.insert(here.iter().cloned().chain(name).collect::<Vec<_>>(), path.clone());
        }
    }
    let mut found = BTreeSet::new();
    for (file, paths) in &uses {
        for path in paths {
            let meant = (1..=path.len()).rev().find_map(|n| exports.get(&path[..n])).unwrap_or(path);
            if let Some(owner) = tree.owner(meant).filter(|owner| owner != file) {
                found.insert((file.to_string(), owner.to_string()));
            }
        }
    }
    found
}

/// Whether `file` is an ancestor of `other` in the tree of modules.
pub fn contains(file: &str, other: &str) -> bool {
    let (outer, inner) = (module_of(file), module_of(other));
    inner.len() > outer.len() && inner.starts_with(&outer)
}

fn full_paths(file: &str, text: &str) -> Vec<Vec<String>> {
    let code = code_only(text);
    let (here, children) = (module_of(file), declared(&code));
    paths(&code).iter().filter_map(|path| resolve(&here, path, &children)).collect()
}

fn resolve(here: &[String], path: &[String], children: &BTreeSet<String>) -> Option<Vec<String>> {
    let supers = path.iter().take_while(|s| *s == "super").count();
    let (base, rest) = match path.first()?.as_str() {
        "crate" | "gilprof" => (&here[..0], &path[1..]),
        "self" => (here, &path[1..]),
        "super" => (&here[..here.len().checked_sub(supers)?], &path[supers..]),
        child if children.contains(child) => (here, path),
        _ => return None,
    };
    Some(base.iter().chain(rest).filter(|s| *s != "self").cloned().collect())
}

/// Names after `mod`.
fn declared(code: &str) -> BTreeSet<String> {
    let words: Vec<&str> = code.split(|c: char| !is_ident(c)).filter(|w| !w.is_empty()).collect();
    words.windows(2).filter(|w| w[0] == "mod").map(|w| w[1].to_string()).collect()
}

/// Every path of two or more segments, with the members of groups written out.
fn paths(code: &str) -> Vec<Vec<String>> {
    let chars: Vec<char> = code.chars().collect();
    let mut all = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let starts = is_ident(chars[at]) && !chars[at].is_ascii_digit() && (at == 0 || !(is_ident(chars[at - 1]) || chars[at - 1] == ':'));
        at = if starts { path_from(&chars, at, &mut Vec::new(), &mut all) } else { at + 1 };
    }
    all
}

/// Reads one path tree at `at`, adds its paths to `all`, and returns where it ends.
fn path_from(chars: &[char], mut at: usize, prefix: &mut Vec<String>, all: &mut Vec<Vec<String>>) -> usize {
    let depth = prefix.len();
    loop {
        at = skip_space(chars, at);
        let start = at;
        while at < chars.len() && is_ident(chars[at]) {
            at += 1;
        }
        if at > start {
            prefix.push(chars[start..at].iter().collect());
            let after = skip_space(chars, at);
            if chars.get(after) == Some(&':') && chars.get(after + 1) == Some(&':') {
                at = after + 2;
                continue;
            }
        } else if chars.get(at) == Some(&'{') {
            at += 1;
            while at < chars.len() && chars[at] != '}' {
                at = path_from(chars, at, prefix, all);
                while at < chars.len() && chars[at] != ',' && chars[at] != '}' {
                    at += 1; // `as name`
                }
                at = skip_space(chars, if chars.get(at) == Some(&',') { at + 1 } else { at });
            }
            prefix.truncate(depth);
            return at + 1;
        }
        if prefix.len() > 1 {
            all.push(prefix.clone());
        }
        prefix.truncate(depth);
        return at.max(start);
    }
}

fn skip_space(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() && chars[at].is_whitespace() {
        at += 1;
    }
    at
}

fn is_ident(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `text` has `word` as a whole word.
pub fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !is_ident(c)).any(|w| w == word)
}

/// The text with comments and the insides of strings and characters blanked. The number of lines
/// stays.
pub fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => find(&chars, at, "\n").unwrap_or(chars.len()),
            '/' if chars.get(at + 1) == Some(&'*') => comment_end(&chars, at),
            'r' if at == 0 || !is_ident(chars[at - 1]) => raw_string_end(&chars, at),
            '"' => quoted_end(&chars, at, '"'),
            // A character, not a lifetime: 'x' or '\…'.
            '\'' if chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'') => quoted_end(&chars, at, '\''),
            _ => at,
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

fn find(chars: &[char], from: usize, what: &str) -> Option<usize> {
    let what: Vec<char> = what.chars().collect();
    (from..chars.len()).find(|at| chars[*at..].starts_with(&what))
}

fn comment_end(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

/// Where a raw string at `start` ends; `start` itself for an ordinary word that begins with r.
fn raw_string_end(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    if chars.get(start + 1 + hashes) != Some(&'"') {
        return start;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    find(chars, start + 2 + hashes, &close).map_or(chars.len(), |at| at + close.len())
}

fn quoted_end(chars: &[char], start: usize, quote: char) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// The blanked text without the items under `#[cfg(test)]`.
pub fn code_only(text: &str) -> String {
    let mut code = blank(text);
    while let Some(start) = code.find("#[cfg(test)]") {
        let end = item_end(&code, start);
        code.replace_range(start..end, "");
    }
    code
}

/// Where the item at `start` ends: after its `;` or its outermost closing brace. Attributes have
/// neither.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0;
    for (offset, c) in code[start..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 && (c == '}' || c == ';') {
            return start + offset + 1;
        }
    }
    code.len()
}

/// Files that are modules under `#[cfg(test)]` only.
pub fn test_files(tree: &Tree) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (file, text) in tree.iter() {
        for (start, _) in text.match_indices("#[cfg(test)]") {
            let item = &text[start..item_end(text, start)];
            let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
            if let Some(path) = item.split_once("#[path = \"").and_then(|(_, rest)| rest.split_once('"')) {
                found.insert(format!("{folder}/{}", path.0).trim_start_matches('/').to_string());
            } else if let Some(name) = item.trim_end_matches(';').rsplit_once("mod ").filter(|_| item.ends_with(';')) {
                let base = module_of(file).join("/");
                found.extend([".rs", "/mod.rs"].map(|end| format!("{base}/{}{end}", name.1.trim()).trim_start_matches('/').to_string()));
            }
        }
    }
    found.retain(|f| tree.0.contains_key(f));
    found
}
