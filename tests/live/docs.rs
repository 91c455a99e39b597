//! The console blocks of the documents run as they are written: in a copy of the repository, with
//! the built gilprof and a `python3` of the newest interpreter on the PATH.
//!
//! A block is one script of the shell. Its last command ends with 0, or with the code that
//! `<!-- exit: N -->` before the block names; a command before the last one must succeed.

use crate::harness::Suite;
use crate::once;
use crate::support::cli::Running;
use crate::support::documents::{blocks, documents, Block};
use crate::support::{interpreters, repository, skip, Folder};
use std::path::Path;
use std::process::Command;

/// The checks of this file, which find their own interpreter.
pub fn cases(suite: &mut Suite) {
    once!(suite, [console_blocks_run_as_written, a_command_that_fails_is_seen]);
}

/// A copy of the folders that commands of the documents use, and a PATH for them.
struct Checkout {
    folder: Folder,
    path: String,
}

impl Checkout {
    fn new() -> Option<Checkout> {
        let Some(python) = interpreters().into_iter().rfind(|interpreter| interpreter.root.is_none()) else {
            skip("console blocks of the documents: every interpreter found is in another root");
            return None;
        };
        let folder = Folder::new("checkout");
        for name in ["examples", "tests/workloads"] {
            copy(&repository().join(name), &folder.path().join(name));
        }
        let programs = folder.path().join("bin");
        std::fs::create_dir(&programs).unwrap();
        for (name, program) in [("gilprof", Path::new(env!("CARGO_BIN_EXE_gilprof"))), ("python3", &python.path)] {
            std::os::unix::fs::symlink(program, programs.join(name)).unwrap();
        }
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
        Some(Checkout { folder, path })
    }

    /// What is wrong with a block, if something is.
    fn run(&self, block: &Block) -> Option<String> {
        let mut shell = Command::new("bash");
        // A background job of the block ends with its shell.
        let script = format!("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\nset -e\n{}\n", block.script());
        shell.args(["-c", &script]).current_dir(self.folder.path()).env("PATH", &self.path).env("NO_COLOR", "1");
        let finished = Running::spawn(shell).end();
        (finished.status.code() != block.exit_code()).then(|| format!("{}\n{finished:#?}", block.script()))
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if from.is_dir() {
            copy(&from, &to.join(name));
        } else {
            std::fs::copy(&from, to.join(name)).unwrap();
        }
    }
}

fn console_blocks_run_as_written() {
    let all: Vec<(String, Block)> = documents().into_iter().flat_map(|(document, text)| console_blocks(document, &text)).collect();
    // Two at a time, because most of the time the commands wait for the end of a window.
    let run = |first: usize| -> Vec<String> {
        let Some(checkout) = Checkout::new() else { return Vec::new() };
        let mine = all.iter().skip(first).step_by(2);
        mine.filter_map(|(document, block)| Some(format!("{document}:{}: {}", block.line, checkout.run(block)?))).collect()
    };
    let complaints = std::thread::scope(|scope| {
        let other = scope.spawn(|| run(1));
        [run(0), other.join().unwrap()].concat()
    });
    println!("{} console blocks", all.len());
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(all.len() >= 5, "{} console blocks in all documents", all.len());
}

fn console_blocks(document: String, text: &str) -> Vec<(String, Block)> {
    let console = blocks(text).into_iter().filter(|block| block.language == "console");
    console.map(|block| (document.clone(), block)).collect()
}

fn a_command_that_fails_is_seen() {
    let Some(checkout) = Checkout::new() else { return };
    let complaint = |text: &str| checkout.run(&blocks(text)[0]);
    for bad in [
        "```console\n$ gilprof report none.gilprof\n```\n",
        "```console\n$ false\n$ true\n```\n",
        "<!-- exit: 1 -->\n```console\n$ true\n```\n",
    ] {
        assert!(complaint(bad).is_some(), "{bad}");
    }
    for good in ["```console\n$ gilprof --version\n$ python3 -c pass\n```\n", "<!-- exit: 1 -->\n```console\n$ false\n```\n"] {
        assert_eq!(complaint(good), None, "{good}");
    }
}
