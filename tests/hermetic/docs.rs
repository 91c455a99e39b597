//! The documents: links between them hold, blocks are marked so that they can be checked, and pages
//! are short. `tests/live/docs.rs` runs their console blocks; `scripts/eval render --check`
//! compares their tables with `docs/results/`.
//!
//! Every rule is a function from text to complaints, and the last module shows that each can
//! complain.

use crate::support::documents::{anchors, blocks, comment, documents, links};
use crate::support::repository;
use gilprof::estimate::classify::{Row, ROWS};
use std::path::{Component, Path, PathBuf};

/// The most lines of a page. `CHANGELOG.md` grows with every release.
fn longest(document: &str) -> Option<usize> {
    match document {
        "README.md" => Some(170),
        "CHANGELOG.md" => None,
        _ => Some(250),
    }
}

fn size(document: &str, text: &str) -> Option<String> {
    let (lines, longest) = (text.lines().count(), longest(document)?);
    (lines > longest).then(|| format!("{document}: {lines} lines, more than {longest}"))
}

/// `docs/a/../b.md` as `docs/b.md`.
fn simplified(path: &Path) -> PathBuf {
    let mut simple = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = simple.pop(),
            Component::CurDir => {}
            other => simple.push(other),
        }
    }
    simple
}

/// Links to files and headings that do not exist. Addresses of the web are left alone.
fn broken_links(document: &str, text: &str, read: &dyn Fn(&Path) -> Option<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (line, link) in links(text) {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (path, anchor) = link.split_once('#').map_or((link.as_str(), None), |(path, anchor)| (path, Some(anchor)));
        let to = if path.is_empty() { PathBuf::from(document) } else { Path::new(document).with_file_name("").join(path) };
        match read(&simplified(&to)) {
            None => complaints.push(format!("{document}:{line}: {link} does not exist")),
            Some(there) => {
                if anchor.is_some_and(|anchor| !anchors(&there).iter().any(|heading| heading == anchor)) {
                    complaints.push(format!("{document}:{line}: {link}: no such heading"));
                }
            }
        }
    }
    complaints
}

/// Blocks without a language, console blocks that no shell could run, and marks that mark nothing.
fn unmarked(document: &str, text: &str) -> Vec<String> {
    let blocks = blocks(text);
    let mut complaints = Vec::new();
    let mut complain = |line: usize, what: &str| complaints.push(format!("{document}:{line}: {what}"));
    for block in &blocks {
        let mark = block.mark.as_deref().unwrap_or_default();
        let console = block.language == "console";
        if block.language.is_empty() {
            complain(block.line, "a block without a language");
        }
        if console && !block.lines.iter().all(|line| line.starts_with("$ ")) {
            complain(block.line, "a line of a console block that does not begin with `$ `");
        }
        if !console && block.lines.iter().any(|line| line.starts_with("$ ")) {
            complain(block.line, "commands with `$ ` stand in a console block");
        }
        if mark.starts_with("exit:") && (!console || block.exit_code().is_none_or(|code| code == 0)) {
            complain(block.line, "`exit: N` stands before a console block, and N is not 0");
        }
        if mark.starts_with("output:") && block.language != "text" {
            complain(block.line, "`output: COMMAND` stands before a text block");
        }
    }
    let opened: Vec<usize> = blocks.iter().map(|block| block.line).collect();
    for (n, line) in text.lines().enumerate() {
        let mark = comment(line).is_some_and(|mark| mark.starts_with("exit:") || mark.starts_with("output:"));
        if mark && !opened.contains(&(n + 2)) {
            complain(n + 1, "a mark without a block on the next line");
        }
    }
    complaints
}

fn none(complaints: impl IntoIterator<Item = String>) {
    let all: Vec<String> = complaints.into_iter().collect();
    assert!(all.is_empty(), "\n  {}\n", all.join("\n  "));
}

/// The text of a file of the repository; empty for one that is not text, or a folder.
fn read(path: &Path) -> Option<String> {
    let path = repository().join(path);
    path.exists().then(|| std::fs::read_to_string(path).unwrap_or_default())
}

#[test]
fn pages_are_short() {
    none(documents().iter().filter_map(|(document, text)| size(document, text)));
}

#[test]
fn links_between_documents_hold() {
    none(documents().iter().flat_map(|(document, text)| broken_links(document, text, &read)));
}

#[test]
fn blocks_have_a_language_and_marks_have_a_block() {
    none(documents().iter().flat_map(|(document, text)| unmarked(document, text)));
}

/// The table of docs/states.md, from the code.
#[test]
fn the_table_of_states_is_that_of_the_code() {
    let result = |code: &str| code.split_whitespace().collect::<String>().replace("State::", "").replace("Evidence::", "");
    let plain = |code: &str| match result(code).as_str() {
        "HoldingRunnable(o.holding())" => "HoldingRunnable".into(),
        "NearWait(o.without_cpu())" => "NearWait(Waiting; Unknown if no sample ever decided)".into(),
        "Known(o.holding(),GilHolder)" => "Known(Holding, GilHolder)".into(),
        "Known(o.off_cpu_state.unwrap_or(Unknown),NotRunSince)" => "Known(as before, NotRunSince)".into(),
        other => other.split('{').next().unwrap().replace(',', ", "),
    };
    let row = |(n, row): (usize, &Row)| format!("| {} | {} | {} | {} |\n", n + 1, row.when, plain(row.result), row.because);
    let table =
        "| | the thread is | result | because |\n|--:|---|---|---|\n".to_owned() + &ROWS.iter().enumerate().map(row).collect::<String>();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/states.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("<!-- rows -->\n").unwrap();
    let (found, after) = rest.split_once("<!-- /rows -->").unwrap();
    if std::env::var_os("GILPROF_BLESS").is_some() {
        std::fs::write(&path, format!("{before}<!-- rows -->\n{table}<!-- /rows -->{after}")).unwrap();
    } else {
        assert_eq!(found, table, "docs/states.md is not the code's table");
    }
}

mod able_to_fail {
    use super::*;

    #[test]
    fn a_long_page_is_seen() {
        assert!(size("README.md", &"x\n".repeat(171)).is_some() && size("README.md", &"x\n".repeat(170)).is_none());
        assert!(size("docs/a.md", &"x\n".repeat(251)).is_some() && size("docs/a.md", &"x\n".repeat(250)).is_none());
        assert!(size("CHANGELOG.md", &"x\n".repeat(999)).is_none());
    }

    #[test]
    fn a_broken_link_is_seen() {
        let read = |path: &Path| (path == Path::new("docs/b.md")).then(|| "## Exit codes of `gate`\n".to_owned());
        let broken = |link: &str| broken_links("docs/a.md", &format!("see [it]({link})\n"), &read).len();
        for good in ["b.md", "../docs/b.md", "b.md#exit-codes-of-gate", "https://example.org/x"] {
            assert_eq!(broken(good), 0, "{good}");
        }
        for bad in ["c.md", "docs/b.md", "b.md#exit-codes", "../b.md"] {
            assert_eq!(broken(bad), 1, "{bad}");
        }
        assert_eq!(broken_links("docs/a.md", "```text\n[it](c.md)\n```\n", &read), [""; 0]);
        assert_eq!(broken_links("docs/a.md", "<img src=\"c.png\">\n", &read).len(), 1);
    }

    #[test]
    fn a_block_without_its_marks_is_seen() {
        for bad in [
            "```\na\n```\n",
            "```console\n$ a\nits output\n```\n",
            "```text\n$ a\n```\n",
            "<!-- exit: 0 -->\n```console\n$ a\n```\n",
            "<!-- exit: one -->\n```console\n$ a\n```\n",
            "<!-- exit: 1 -->\n```text\na\n```\n",
            "<!-- output: a -->\n```console\n$ a\n```\n",
            "<!-- output: a -->\n\n```text\na\n```\n",
        ] {
            assert_eq!(unmarked("a.md", bad).len(), 1, "{bad}: {:?}", unmarked("a.md", bad));
        }
        for good in ["<!-- exit: 1 -->\n```console\n$ a\n$ b\n```\n", "<!-- output: a -->\n```text\na\n```\n", "<!-- table:a -->\n\n|a|\n"]
        {
            assert_eq!(unmarked("a.md", good), [""; 0], "{good}");
        }
    }
}
