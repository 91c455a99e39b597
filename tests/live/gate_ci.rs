//! The examples for CI systems in `examples/ci`: the shell script is run, and so are the gate's
//! command lines in the YAML files. The YAML files are checked against the schemas of their CI
//! systems, which check-jsonschema contains (scripts/setup-viewers fetches it).

use crate::harness::Suite;
use crate::once;
use crate::support;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};
use support::{repository, Folder};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    once!(suite, [the_shell_script_passes_a_good_program_and_fails_a_bad_one, the_commands_of_the_ci_files_run]);
}

fn example(name: &str) -> PathBuf {
    repository().join("examples/ci").join(name)
}

/// A checkout of a user's program: benchmark.py is one of the examples, and gilprof and Python are
/// on its PATH.
struct Checkout {
    folder: Folder,
}

impl Checkout {
    fn of(program: &str) -> Option<Checkout> {
        let Some(python) = support::interpreters().into_iter().rfind(|interpreter| interpreter.root.is_none()) else {
            support::skip("the files of examples/ci: there is no interpreter that needs no other root");
            return None;
        };
        let folder = Folder::new("checkout");
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for name in ["python", "python3"] {
            symlink(&python.path, bin.join(name)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_gilprof"), bin.join("gilprof")).unwrap();
        std::fs::copy(example("gilprof.toml"), folder.path().join("gilprof.toml")).unwrap();
        let source = std::fs::read_to_string(repository().join("examples").join(program)).unwrap();
        std::fs::write(folder.path().join("benchmark.py"), source.replace("default=10,", "default=1.2,")).unwrap();
        Some(Checkout { folder })
    }

    /// Runs a line of shell there.
    fn sh(&self, line: &str, env: &[(&str, &str)]) -> Output {
        let path = format!("{}:{}", self.folder.path().join("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.args(["-ec", line]).current_dir(self.folder.path()).env("PATH", path).env("NO_COLOR", "1");
        for name in ["GITHUB_STEP_SUMMARY", "GILPROF", "GILPROF_RESULTS", "GILPROF_LIMITS", "GILPROF_INCONCLUSIVE"] {
            command.env_remove(name);
        }
        command.envs(env.iter().copied()).output().unwrap()
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
    }
}

/// The exit code of a gate that can say neither yes nor no.
const INCONCLUSIVE: i32 = 3;

#[track_caller]
fn ended(out: &Output, code: i32) -> String {
    let output = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{output}");
    output.into_owned()
}

/// Runs a gate that must pass. Without cores for gilprof and the program it is inconclusive, which
/// is right: its figures would be those of the machine. False then.
fn passes(checkout: &Checkout, line: &str, env: &[(&str, &str)]) -> bool {
    let out = checkout.sh(line, env);
    let output = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    let busy = output.contains("Short of CPU") || output.contains("the machine is busy");
    if out.status.code() == Some(INCONCLUSIVE) && busy {
        support::skip("the commands of examples/ci: the machine is busy, and gates are inconclusive");
        return false;
    }
    ended(&out, 0);
    true
}

fn the_shell_script_passes_a_good_program_and_fails_a_bad_one() {
    let (Some(good), Some(bad)) = (Checkout::of("io_threads.py"), Checkout::of("cpu_threads.py")) else { return };
    let gate = |of: &Checkout, program: &str, env: &[(&str, &str)]| of.sh(&format!("{} {program}", example("gate.sh").display()), env);
    ended(&gate(&good, "python3 benchmark.py", &[]), 0);
    assert!(good.read("gilprof-results/gate.xml").contains("failures=\"0\" errors=\"0\""));
    let output = ended(&gate(&bad, "python3 benchmark.py", &[("GILPROF_RESULTS", "out")]), 1);
    assert!(output.contains("waiting <= 20%") && output.contains("burn"), "{output}");
    assert!(bad.read("out/gate.xml").contains("<failure message=\"waiting is "), "{}", bad.read("out/gate.xml"));
    assert!(bad.read("out/gate.sarif").contains("\"uri\": \"benchmark.py\""), "{}", bad.read("out/gate.sarif"));
    assert!(bad.read("out/gate.md").contains("burn &#40;benchmark&#46;py&#58;"), "{}", bad.read("out/gate.md"));
    // Too little for a result, and a program that fails by itself.
    let brief = "python3 -c 'import time; time.sleep(0.1)'";
    let output = ended(&gate(&good, brief, &[]), 3);
    assert!(output.contains("gate.sh: inconclusive"), "{output}");
    ended(&gate(&good, brief, &[("GILPROF_INCONCLUSIVE", "0")]), 0);
    let output = ended(&gate(&good, "python3 -c 'import sys, time; time.sleep(1); sys.exit(42)'", &[]), 5);
    assert!(output.contains("the command ended with exit code 42"), "{output}");
    ended(&good.sh(example("gate.sh").to_str().unwrap(), &[]), 2);
}

/// The gate's command lines in a file.
fn lines(file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(example(file)).unwrap();
    let of = |line: &str| line.find("gilprof gate").filter(|_| !line.trim_start().starts_with('#')).map(|at| line[at..].to_string());
    text.lines().filter_map(of).collect()
}

fn the_commands_of_the_ci_files_run() {
    let (Some(good), Some(bad)) = (Checkout::of("io_threads.py"), Checkout::of("cpu_threads.py")) else { return };
    let baseline = "gilprof gate --baseline gilprof-baseline.json --update-baseline --runs 3 -- python benchmark.py";
    let (github, gitlab) = (lines("github.yml"), lines("gitlab.yml"));
    assert_eq!((github.len(), gitlab.len()), (2, 1));
    let summary = [("GITHUB_STEP_SUMMARY", "summary.md")];
    let all = [baseline].into_iter().chain(github.iter().chain(&gitlab).map(String::as_str));
    if !all.into_iter().all(|line| passes(&good, line, &summary)) {
        return;
    }
    assert!(good.read("gate.xml").contains("<testcase ") && good.read("gate.sarif").contains("\"results\": []"));
    // The annotation is on the line that holds, and the summary is in GitHub's file.
    let output = ended(&bad.sh(&github[0], &summary), 1);
    assert!(output.lines().any(|line| line.starts_with("::error file=benchmark.py,line=1")), "{output}");
    let page = bad.read("summary.md");
    assert!(page.contains("gilprof gate: fail") && page.contains("flame graph: <code>gil&#46;svg</code>"), "{page}");
    assert!(bad.read("gil.svg").contains("burn"));
}
