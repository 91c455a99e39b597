//! Ways to start a Python program: launchers, other names, archives, embedding programs, files that
//! changed on disk. The report of each must be that of the program started directly.

use crate::harness::Suite;
use crate::support::{self, checks, compat};
use crate::{complaining, once, row};
use checks::{attach, Complaints};
use compat::{home, in_this_root, not_computing, state, succeeds, summary, unsound, workload};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{skip, window, Folder, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    once!(suite, [debug_builds_of_the_distribution]);
    complaining!(
        suite,
        shared_then_static(),
        [launchers, a_virtual_environments_python, an_archive, another_name_and_a_file_that_is_gone_or_new, a_library_that_is_gone]
    );
    complaining!(suite, support::interpreters(), [a_program_with_python_inside]);
}

/// Measures a target that runs `cpu.py`, again if other programs had the cores meanwhile.
fn computes(interpreter: &Interpreter, how: &str, target: &Target, complaints: &mut Complaints) -> Value {
    let mut last = None;
    for _ in 0..3 {
        let report = attach(target.pid(), window(0.7, 0.4), &[]);
        row!(interpreter.label, "{how}: {}", summary(&report));
        match not_computing(&report, 3) {
            None => return report,
            Some(wrong) => last = Some((wrong, report)),
        }
    }
    let (wrong, report) = last.unwrap();
    complaints.add(&format!("{how}: {wrong}"));
    report
}

/// The interpreter's real executable: `python3.11` of an installation may be a script.
fn executable(interpreter: &Interpreter) -> PathBuf {
    std::fs::canonicalize(&interpreter.path).unwrap()
}

/// A script in this folder that every user may execute, with this first line.
fn script(folder: &Path, first_line: &str) -> PathBuf {
    std::fs::copy(workload("harness"), folder.join("harness.py")).unwrap();
    let file = folder.join("cpu.py");
    std::fs::write(&file, format!("{first_line}\n{}", std::fs::read_to_string(workload("cpu")).unwrap())).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    file
}

fn shared_then_static() -> Vec<Interpreter> {
    let all = in_this_root();
    all.iter().filter(|i| i.kind.contains("shared")).chain(all.iter().filter(|i| i.kind.contains("static"))).cloned().collect()
}

fn launchers(interpreter: &Interpreter, complaints: &mut Complaints) {
    let folder = Folder::new("launchers");
    let file = script(folder.path(), &format!("#!{}", interpreter.path.display()));
    let mut module = interpreter.command();
    module.current_dir(folder.path()).args(["-m", "cpu"]);
    let report = computes(interpreter, "-m cpu", &Target::start_command(module), complaints);
    complaints.expect(report["target"]["command"].as_array().unwrap().iter().any(|w| w == "-m"), || report["target"].to_string());

    let target = Target::start_command(Command::new(&file));
    computes(interpreter, "a script with #!", &target, complaints);

    let mut options = interpreter.command();
    options.args(["-X", "dev", "-X", "faulthandler", "-O", "-u"]).arg(&file);
    computes(interpreter, "-X dev -O", &Target::start_command(options), complaints);
}

fn a_virtual_environments_python(interpreter: &Interpreter, complaints: &mut Complaints) {
    let folder = Folder::new("venv");
    let venv = folder.path().join("v");
    if !succeeds(interpreter.command().args(["-m", "venv", "--without-pip"]).arg(&venv)) {
        return skip(&format!("{}: venv: it has no module for that", interpreter.label));
    }
    let mut python = Command::new(venv.join("bin/python"));
    python.arg("-B").arg(workload("cpu"));
    computes(interpreter, "venv", &Target::start_command(python), complaints);
}

fn an_archive(interpreter: &Interpreter, complaints: &mut Complaints) {
    let folder = Folder::new("archive");
    let app = folder.path().join("app");
    std::fs::create_dir(&app).unwrap();
    std::fs::rename(script(folder.path(), ""), app.join("__main__.py")).unwrap();
    std::fs::rename(folder.path().join("harness.py"), app.join("harness.py")).unwrap();
    let archive = folder.path().join("app.pyz");
    assert!(succeeds(interpreter.command().args(["-m", "zipapp", "-o"]).arg(&archive).arg(&app)));
    let mut python = interpreter.command();
    python.arg(&archive);
    let report = computes(interpreter, "zipapp", &Target::start_command(python), complaints);
    let burn = report["functions"].as_array().unwrap().iter().find(|f| f["name"] == "burn").cloned().unwrap_or_default();
    complaints.expect(burn["file"].as_str().is_some_and(|f| f.contains("app.pyz")), || format!("burn is in {burn}"));
}

/// The executable under another name. The library that it needs, if any, stays in its place.
fn renamed(interpreter: &Interpreter, folder: &Folder, link: bool) -> Option<(PathBuf, Command)> {
    let bin = folder.path().join("bin");
    if !bin.exists() {
        std::fs::create_dir(&bin).unwrap();
        // Where an executable that names its library relative to itself finds it.
        std::os::unix::fs::symlink(home(interpreter).join("lib"), folder.path().join("lib")).unwrap();
    }
    let (from, to) = (executable(interpreter), bin.join("worker-7 (prod)"));
    if !link {
        std::fs::copy(&from, &to).unwrap();
    } else if let Err(why) = std::fs::hard_link(&from, &to) {
        skip(&format!("{}: a hard link: {why}", interpreter.label));
        return None;
    }
    let mut command = Command::new(&to);
    command.env("PYTHONHOME", home(interpreter)).arg("-B").arg(workload("cpu"));
    Some((to, command))
}

fn another_name_and_a_file_that_is_gone_or_new(interpreter: &Interpreter, complaints: &mut Complaints) {
    let folder = Folder::new("renamed");
    if let Some((path, command)) = renamed(interpreter, &folder, true) {
        computes(interpreter, "hard link", &Target::start_command(command), complaints);
        std::fs::remove_file(path).unwrap();
    }

    let Some((path, command)) = renamed(interpreter, &folder, false) else { return };
    let target = Target::start_command(command);
    computes(interpreter, "copy", &target, complaints);
    std::fs::remove_file(&path).unwrap();
    let report = computes(interpreter, "deleted", &target, complaints);
    complaints.expect(report["target"]["executable"] == path.to_str().unwrap(), || report["target"].to_string());
    // An upgrade puts another program at the path.
    std::fs::copy("/proc/self/exe", &path).unwrap();
    computes(interpreter, "replaced", &target, complaints);
}

/// An upgrade replaces a library while a program runs with the old one.
fn a_library_that_is_gone(interpreter: &Interpreter, complaints: &mut Complaints) {
    let folder = Folder::new("upgraded");
    let Some(library) = compat::library(interpreter).filter(|_| interpreter.kind.contains("shared")) else {
        return skip(&format!("{}: a replaced library: it is static", interpreter.label));
    };
    let copy = folder.path().join(library.file_name().unwrap());
    std::fs::copy(library, &copy).unwrap();
    let mut command = interpreter.command();
    command.env("LD_PRELOAD", &copy).arg(workload("cpu"));
    let target = Target::start_command(command);
    std::fs::remove_file(&copy).unwrap();
    std::fs::copy("/proc/self/exe", &copy).unwrap();
    computes(interpreter, "library replaced", &target, complaints);
}

const EMBED: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>
void Py_Initialize(void); void PyEval_InitThreads(void); int PyRun_SimpleString(const char *); void *PyEval_SaveThread(void);
int PyGILState_Ensure(void); void PyGILState_Release(int);
static volatile unsigned long native;
static void *worker(void *name) {
    prctl(PR_SET_NAME, name);
    int state = PyGILState_Ensure();
    PyRun_SimpleString("burn()");
    PyGILState_Release(state);
    return NULL;
}
static void *hum(void *name) { prctl(PR_SET_NAME, name); for (;;) native++; }
int main(void) {
    pthread_t thread;
    Py_Initialize();
    PyRun_SimpleString("import sys\nat_work = []\ndef burn():\n    at_work.append(1)\n    while True:\n        x = 1\n"
                       "        for i in range(20000):\n            x = (x * 3 + i) & 65535\n");
    PyEval_SaveThread();
    pthread_create(&thread, NULL, worker, "worker-0");
    pthread_create(&thread, NULL, worker, "worker-1");
    pthread_create(&thread, NULL, hum, "hum");
    int state = PyGILState_Ensure();
    PyRun_SimpleString("import time\nwhile len(at_work) < 2:\n    time.sleep(0.001)\nprint('ready', flush=True)");
    PyGILState_Release(state);
    char c;
    while (read(0, &c, 1) > 0) { }
    _exit(0);
}
"#;

/// A C program with an embedded interpreter, stripped, built without Python's headers.
fn embedding(interpreter: &Interpreter, folder: &Folder) -> Option<PathBuf> {
    let (major, minor) = interpreter.minor();
    let library = format!("-lpython{major}.{minor}{}", if minor < 8 { "m" } else { "" });
    let lib = home(interpreter).join("lib");
    let (source, exe) = (folder.path().join("engine.c"), folder.path().join("engine"));
    std::fs::write(&source, EMBED).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-s", "-pthread", "-o"]).arg(&exe).arg(source).arg("-L").arg(&lib).arg(library);
    succeeds(cc.arg(format!("-Wl,-rpath,{}", lib.display())).stderr(Stdio::null())).then_some(exe)
}

fn a_program_with_python_inside(interpreter: &Interpreter, complaints: &mut Complaints) {
    let folder = Folder::new("embedding");
    let built = interpreter.root.is_none().then(|| embedding(interpreter, &folder)).flatten();
    let Some(exe) = built else {
        return skip(&format!("{}: embedding it needs cc and a libpython to link with", interpreter.label));
    };
    let mut command = Command::new(&exe);
    command.env("PYTHONHOME", home(interpreter)).env("PYTHONDONTWRITEBYTECODE", "1");
    let target = Target::start_command(command);
    checks::measure(interpreter, &target, window(1.0, 0.6), complaints, |measured, complaints| {
        let report = &measured.report;
        row!(interpreter.label, "engine: {}", summary(report));
        unsound(report).or_else(|| not_computing(report, 2)).into_iter().for_each(|what| complaints.add(&what));
        // A thread without a thread state computes without the GIL.
        let hum = checks::thread(report, "hum");
        complaints.expect(state(hum, "native") + state(hum, "starved") > 0.95 && hum["python"] == false, || hum.to_string());
        complaints.expect(report["target"]["executable"] == exe.to_str().unwrap(), || report["target"].to_string());
    });
}

/// Debian's `python3.11-dbg` and its like, which no list of interpreters has.
fn debug_builds_of_the_distribution() {
    let paths = (11..=15).map(|minor| PathBuf::from(format!("/usr/bin/python3.{minor}-dbg")));
    let installed: Vec<PathBuf> = paths.filter(|path| path.exists()).collect();
    if installed.is_empty() {
        return skip("a debug build: no python3-dbg of the distribution is installed");
    }
    for python in installed {
        let mut command = Command::new(&python);
        command.arg("-B").arg(workload("cpu"));
        let target = Target::start_command(command);
        let report = attach(target.pid(), window(0.7, 0.5), &[]);
        row!(python.display(), "{}", summary(&report));
        assert!(compat::named(&report, "worker-").len() == 3, "{report:#}");
        let functions = report["functions"].as_array().unwrap();
        let burn = functions.iter().find(|f| f["name"] == "burn").unwrap_or_else(|| panic!("{functions:#?}"));
        assert!(burn["file"].as_str().unwrap().ends_with("cpu.py") && burn["holding"].as_f64() > Some(0.3), "{burn}");
    }
}
