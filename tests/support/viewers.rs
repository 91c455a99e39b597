//! The viewers that scripts/setup-viewers fetched, and the scripts that get figures from them.

use crate::support::{repository, skip, Folder};
use std::path::PathBuf;
use std::process::Command;

/// The path of a viewer; a skip if it is not installed.
pub fn viewer(name: &str) -> Option<PathBuf> {
    let found = std::fs::read_to_string(list_path()).unwrap_or_default();
    let there =
        found.lines().filter_map(|line| line.split_once('\t')).find(|(listed, path)| *listed == name && PathBuf::from(path).exists());
    if there.is_none() {
        skip(&format!("what is shown in {name}: it is not there; scripts/setup-viewers fetches it"));
    }
    there.map(|(_, path)| path.into())
}

/// The list that scripts/setup-viewers writes.
fn list_path() -> PathBuf {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = || var("XDG_CACHE_HOME").or_else(|| Some(var("HOME")?.join(".cache"))).unwrap_or_default().join("gilprof/viewers");
    var("GILPROF_VIEWERS").unwrap_or_else(cache).join("viewers.tsv")
}

/// Runs a script of `tests/viewers` in the cached node, with the browser and the npm packages. It
/// prints one JSON value.
pub fn node(script: &str, args: &[&str]) -> Option<serde_json::Value> {
    let (node, modules, chromium) = (viewer("node")?, viewer("modules")?, viewer("chromium")?);
    let mut command = Command::new(node);
    command.arg(repository().join("tests/viewers").join(script)).args(args);
    command.env("GILPROF_MODULES", modules).env("GILPROF_CHROMIUM", chromium);
    let out = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{script} {args:?}: {}\n{stdout}\n{stderr}", out.status);
    Some(serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{script} {args:?} printed no JSON ({e}): {stdout}\n{stderr}")))
}

/// The output of a command, which must succeed.
pub fn printed(command: &mut Command) -> String {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// The Firefox Profiler's engine with a loaded profile: a process that answers until this is
/// dropped.
pub struct Profiler {
    node: PathBuf,
    cli: PathBuf,
    /// The folder of that process's socket.
    sessions: Folder,
}

impl Profiler {
    /// Loads this file.
    pub fn load(file: &str) -> Option<Profiler> {
        let (node, cli) = (viewer("node")?, viewer("profiler-cli")?);
        let profiler = Profiler { node, cli, sessions: Folder::new("pq") };
        printed(&mut profiler.command(&["load", file]));
        Some(profiler)
    }

    /// The answer to a command.
    pub fn ask(&self, words: &[&str]) -> serde_json::Value {
        serde_json::from_str(&printed(self.command(words).arg("--json"))).unwrap()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.node);
        command.arg(self.cli.join("dist/profiler-cli.js")).args(words).args(["--session", "gilprof"]);
        command.env("PROFILER_CLI_SESSION_DIR", self.sessions.path());
        command
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        let _ = self.command(&["stop"]).output();
    }
}
