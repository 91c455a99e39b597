//! Frozen programs: a bootloader that starts the program as a child, in which Python runs.

use crate::harness::Suite;
use crate::support::{self, checks, cli, compat, gate};
use crate::{on, row};
use compat::{home, in_this_root, library, succeeds};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use support::{oldest_and_newest, skip, Folder, Interpreter};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    on!(
        suite,
        oldest_and_newest(in_this_root().into_iter().filter(|i| library(i).is_some()).collect()),
        [run_and_gate_measure_the_child_that_is_python]
    );
}

/// What a bootloader does: starts a child, waits, and ends with the child's exit code. The child is
/// the same executable, as PyInstaller's, or `UNPACKED`, as Nuitka's.
/// Arguments: a library, its home and a script.
const BOOTLOADER: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <wchar.h>
int main(int count, char **values) {
    if (count < 4) return 1;
    if (!getenv("BOOTLOADER_CHILD")) {
        int status;
        char pid[16], *unpacked = getenv("UNPACKED");
        setenv("BOOTLOADER_CHILD", "1", 1);
        snprintf(pid, sizeof pid, "%d", getpid());
        if (unpacked) setenv("NUITKA_ONEFILE_PARENT", pid, 1);
        pid_t child = fork();
        if (!child) { execv(unpacked ? unpacked : values[0], values); _exit(127); }
        return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    }
    void *library = dlopen(values[1], RTLD_NOW | RTLD_GLOBAL);
    if (!library) { fprintf(stderr, "%s\n", dlerror()); return 1; }
    wchar_t *home = calloc(sizeof(wchar_t), 4096);
    mbstowcs(home, values[2], 4095);
    ((void (*)(wchar_t *))dlsym(library, "Py_SetPythonHome"))(home);
    ((void (*)(int))dlsym(library, "Py_InitializeEx"))(1);
    return ((int (*)(const char *, void *))dlsym(library, "PyRun_SimpleStringFlags"))(values[3], 0) ? 1 : 0;
}
"#;

const SCRIPT: &str = "
import sys, threading, time
def burn(end):
    while time.monotonic() < end:
        for i in range(2000): pass
end = time.monotonic() + 1.2
threads = [threading.Thread(target=burn, args=(end,), name='worker-%d' % n) for n in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
sys.exit(CODE)";

fn bootloader(folder: &Folder) -> Option<PathBuf> {
    let (source, program) = (folder.path().join("boot.c"), folder.path().join("frozen-app"));
    std::fs::write(&source, BOOTLOADER).unwrap();
    let built = succeeds(Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(&source).arg("-ldl").stderr(Stdio::null()));
    built.then_some(program)
}

fn run_and_gate_measure_the_child_that_is_python(interpreter: &Interpreter) {
    let folder = Folder::new("frozen");
    let Some(program) = bootloader(&folder) else { return skip("a frozen program: there is no cc") };
    let frozen = |command: &mut Command, code: &str| {
        command.arg(&program).arg(library(interpreter).unwrap()).arg(home(interpreter)).arg(SCRIPT.replace("CODE", code));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
    };
    let unpacked = folder.path().join("app.bin");
    std::fs::copy(&program, &unpacked).unwrap();
    let one: (&[&str], &[&str]) = (&["--no-subprocesses"], &["frozen-app (pid ", "runs its Python program as process "]);
    for (unpacked, (more, says)) in [(None, one), (Some(&unpacked), one), (Some(&unpacked), (&[], &[]))] {
        let report = folder.path().join("report.json");
        let mut run = support::gilprof_command(&[&["run", "-o", report.to_str().unwrap()], more, &["--"]].concat());
        frozen(&mut run, "5");
        run.envs(unpacked.map(|path| ("UNPACKED", path)));
        let output = cli::Running::spawn(run).end();
        output.ended(5, says);
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
        row!(interpreter.label, "frozen: {}", compat::summary(&report));
        let burn = report["functions"].as_array().unwrap().iter().find(|f| f["name"] == "burn").unwrap();
        assert!(checks::number(burn, "/holding") > 0.5 && compat::named(&report, "worker-").len() == 2, "{report:#}");
    }

    let limits = gate::Folder::new("gate-frozen");
    let mut command = limits.command(&["--max", "waiting <= 10%", "--"]);
    frozen(&mut command, "0");
    let output = cli::Running::spawn(command).end();
    // Inconclusive if other programs have the cores; the culprit is named in any case.
    assert!([Some(1), Some(3)].contains(&output.status.code()), "{}", output.err);
    assert!(output.err.contains("waiting <= 10%") && output.err.contains("burn ("), "{}", output.err);
}
