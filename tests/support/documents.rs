//! The documents of the repository as text: their blocks with the marks before them, their links,
//! their headings.

use super::repository;
use std::path::{Path, PathBuf};

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// The number of the line that opens the block.
    pub line: usize,
    /// `console`, `text`, `sh` and so on; empty if the fence names none.
    pub language: String,
    pub lines: Vec<String>,
    /// `exit: 1` of `<!-- exit: 1 -->`, if a comment stands on the line before the block.
    pub mark: Option<String>,
}

impl Block {
    /// The exit code that a mark names, else 0.
    pub fn exit_code(&self) -> Option<i32> {
        let Some(code) = self.mark.as_deref().and_then(|mark| mark.strip_prefix("exit:")) else { return Some(0) };
        code.trim().parse().ok()
    }

    /// The commands of a console block as one script.
    pub fn script(&self) -> String {
        self.lines.iter().map(|line| line.strip_prefix("$ ").unwrap_or(line)).collect::<Vec<_>>().join("\n")
    }
}

/// Every document, by its path in the repository.
pub fn documents() -> Vec<(String, String)> {
    let mut paths = Vec::new();
    for folder in ["", "docs", "tests"] {
        let entries = std::fs::read_dir(repository().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        paths.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    paths.sort();
    let name = |path: &Path| path.strip_prefix(repository()).unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path: &PathBuf| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// The fenced blocks of a document.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut before = "";
    for (n, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => {
                let mark = comment(before).map(str::to_owned);
                open = Some(Block { line: n + 1, language: language.to_owned(), lines: Vec::new(), mark });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.lines.push(line.to_owned()),
            (None, None) => {}
        }
        before = line;
    }
    blocks
}

/// The text of a line that is a comment.
pub fn comment(line: &str) -> Option<&str> {
    Some(line.trim().strip_prefix("<!--")?.strip_suffix("-->")?.trim())
}

/// A document without its fenced blocks, line by line.
pub fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut inside = false;
    let lines = text.lines().enumerate().filter(|(_, line)| {
        let fence = line.starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    lines.map(|(n, line)| (n + 1, line)).collect()
}

/// The targets of a document's links and pictures, each with its line.
pub fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (n, line) in prose(text) {
        let ends = line.match_indices("](").map(|(at, opening)| &line[at + opening.len()..]);
        let sources = line.match_indices("src=\"").map(|(at, opening)| &line[at + opening.len()..]);
        found.extend(ends.filter_map(|rest| rest.split_once(')')).map(|(target, _)| (n, target.to_owned())));
        found.extend(sources.filter_map(|rest| rest.split_once('"')).map(|(target, _)| (n, target.to_owned())));
    }
    found
}

/// The anchors that a renderer such as GitHub's gives to the headings of a document.
pub fn anchors(text: &str) -> Vec<String> {
    let headings =
        prose(text).into_iter().filter_map(|(_, line)| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
    let anchor = |heading: &str| {
        let kept = heading.trim().to_lowercase();
        kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c)).map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}
