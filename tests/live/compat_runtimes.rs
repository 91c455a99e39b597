//! Two Python runtimes in one process: a C program that loads two libpythons.

use crate::harness::Suite;
use crate::once;
use crate::support::{self, checks, cli, compat};
use checks::attach;
use compat::{home, in_this_root, library, succeeds};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use support::{skip, window, Folder, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    once!(suite, [the_busy_runtime_is_measured_and_the_other_named, the_user_chooses_a_runtime]);
}

/// Arguments: a library, its home and a script, twice. The second runtime starts when the first
/// script has written a byte, and `ready` follows that of the second.
const HOST: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <wchar.h>
static char **arguments;
static void *start(void *number) {
    char **of = arguments + (long)number * 3;
    void *library = dlopen(of[0], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    if (!library) { fprintf(stderr, "%s\n", dlerror()); exit(1); }
    void (*set_home)(wchar_t *) = (void (*)(wchar_t *))dlsym(library, "Py_SetPythonHome");
    void (*initialize)(int) = (void (*)(int))dlsym(library, "Py_InitializeEx");
    int (*run)(const char *, void *) = (int (*)(const char *, void *))dlsym(library, "PyRun_SimpleStringFlags");
    wchar_t *home = calloc(sizeof(wchar_t), 4096);
    mbstowcs(home, of[1], 4095);
    set_home(home);
    initialize(0);
    run(of[2], 0);
    return 0;
}
int main(int count, char **values) {
    int started[2];
    char byte, number[16];
    pthread_t thread;
    if (count < 7 || pipe(started)) return 1;
    snprintf(number, sizeof number, "%d", started[1]);
    setenv("STARTED", number, 1);
    arguments = values + 1;
    for (long i = 0; i < 2; i++) {
        if (pthread_create(&thread, 0, start, (void *)i) || read(started[0], &byte, 1) != 1) return 1;
    }
    if (write(1, "ready\n", 6) != 6) return 1;
    while (read(0, &byte, 1) > 0) { }
    _exit(0);
}
"#;

const SCRIPT: &str = "
import os, threading, time
def burn():
    while True:
        x = 0
        for j in range(20000): x += j
for i in range(THREADS): threading.Thread(target=burn, daemon=True).start()
os.write(int(os.environ['STARTED']), b'x')
time.sleep(1e6)";

/// Two interpreters of different versions with their libraries, and the program that loads them.
struct Host {
    _folder: Folder,
    program: PathBuf,
    pair: [(Interpreter, PathBuf); 2],
}

impl Host {
    fn new() -> Option<Host> {
        let mut shared: Vec<(Interpreter, PathBuf)> = in_this_root()
            .into_iter()
            .filter_map(|i| library(&i).map(|library| (i, library)))
            .filter(|(i, _)| i.minor() >= (3, 8))
            .collect();
        let (Some(last), Some(first)) = (shared.pop(), (!shared.is_empty()).then(|| shared.swap_remove(0))) else {
            skip("two runtimes: there are no two interpreters with a shared library");
            return None;
        };
        let folder = Folder::new("runtimes");
        let (source, program) = (folder.path().join("host.c"), folder.path().join("host"));
        std::fs::write(&source, HOST).unwrap();
        let mut cc = Command::new("cc");
        if !succeeds(cc.args(["-O1", "-pthread", "-o"]).arg(&program).arg(&source).arg("-ldl").stderr(Stdio::null())) {
            skip("two runtimes: there is no cc");
            return None;
        }
        Some(Host { _folder: folder, program, pair: [first, last] })
    }

    /// Starts both, each with so many threads that compute.
    fn start(&self, threads: [u32; 2]) -> Target {
        let mut command = Command::new(&self.program);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        for ((interpreter, library), threads) in self.pair.iter().zip(threads) {
            command.arg(library).arg(home(interpreter)).arg(SCRIPT.replace("THREADS", &threads.to_string()));
        }
        Target::start_command(command)
    }

    fn path(&self, n: usize) -> &str {
        self.pair[n].1.to_str().unwrap()
    }

    /// Panics unless the report is of this runtime and its warning names both.
    fn assert_measured(&self, report: &Value, n: usize) {
        let (measured, other) = (&self.pair[n].0.version, &self.pair[1 - n].0.version);
        let warnings = cli::warnings(report);
        assert_eq!(report["target"]["python"], measured.as_str(), "{warnings}");
        assert!(warnings.contains("2 Python runtimes"), "{warnings}");
        assert!(warnings.contains(&format!("measured is Python {measured} ({})", self.path(n))), "{warnings}");
        assert!(warnings.contains(&format!("not measured: Python {other} ({})", self.path(1 - n))), "{warnings}");
    }
}

/// The share of time that a runtime's GIL is held by `burn`.
fn burns(report: &Value) -> f64 {
    report["functions"].as_array().unwrap().iter().find(|f| f["name"] == "burn").map_or(0.0, |f| f["holding"].as_f64().unwrap())
}

fn the_busy_runtime_is_measured_and_the_other_named() {
    let Some(host) = Host::new() else { return };
    for (threads, measured) in [([2, 0], 0), ([0, 2], 1)] {
        let target = host.start(threads);
        let report = attach(target.pid(), window(0.8, 0.5), &[]);
        eprintln!("{threads:?}: {}; {}; {}", report["verdict"]["code"], burns(&report), cli::warnings(&report));
        host.assert_measured(&report, measured);
        assert!(burns(&report) > 0.5, "{report:#}");
    }
    let target = host.start([0, 0]);
    let report = attach(target.pid(), window(0.8, 0.4), &[]);
    assert!(cli::warnings(&report).contains("no GIL was held"), "{}", cli::warnings(&report));
}

fn the_user_chooses_a_runtime() {
    let Some(host) = Host::new() else { return };
    let target = host.start([1, 1]);
    let pid = target.pid().to_string();
    for n in [0, 1] {
        let report = attach(target.pid(), window(0.8, 0.5), &["--runtime", host.path(n)]);
        host.assert_measured(&report, n);
        assert!(burns(&report) > 0.5, "{report:#}");
        let dump = cli::gilprof(&["dump", "--pid", &pid, "--runtime", host.path(n), "--format", "json"]);
        dump.ended(0, &["2 Python runtimes"]);
        assert!(dump.out.contains(&format!("\"python\": \"{}\"", host.pair[n].0.version)), "{}", dump.out);
    }
    let versions = ["1", "2"].map(|number| attach(target.pid(), 0.3, &["--runtime", number])["target"]["python"].clone());
    assert_ne!(versions[0], versions[1]);
    cli::gilprof(&["attach", "--pid", &pid, "--runtime", "3"]).ended(2, &["no such runtime", host.path(0), host.path(1)]);
}
