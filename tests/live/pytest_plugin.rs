//! The pytest plugin (`src/pytest_gilprof/__init__.py`) in real pytest on every Python from 3.9 on.
//! Of `pytest_plugin/test_twenty.py` it fails the one test whose threads contend for the GIL, names
//! the function, and lists the tests without a result. scripts/setup-pytest fetches pytest.

use crate::harness::Suite;
use crate::support;
use crate::{on, once};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::{interpreters, repository, skip, Folder, Interpreter};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    on!(suite, with_plugin(), [of_twenty_tests_the_one_that_contends_is_failed]);
    once!(
        suite,
        [
            a_gate_around_pytest_measures_the_workers_of_xdist,
            the_session_is_checked_by_gilprof_toml_beside_marks,
            tests_without_a_result_are_listed_and_fail_on_request,
            marks_that_make_no_sense_are_errors_of_their_tests,
            a_failure_shows_no_frame_of_pytest,
            failures_of_a_test_itself_come_first
        ]
    );
}

/// The output of pytest.
struct Finished {
    code: Option<i32>,
    text: String,
}

impl Finished {
    fn new(output: Output) -> Finished {
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        Finished { code: output.status.code(), text: text.into_owned() }
    }

    /// Checks the exit code, and that the output contains all of these texts.
    #[track_caller]
    fn has(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.text);
        for part in parts {
            assert!(self.text.contains(part), "{part:?} is not in\n{}", self.text);
        }
    }

    #[track_caller]
    fn has_not(&self, parts: &[&str]) {
        for part in parts {
            assert!(!self.text.contains(part), "{part:?} is in\n{}", self.text);
        }
    }
}

/// An interpreter with a pytest that runs on it.
struct Pytest {
    interpreter: Interpreter,
    packages: PathBuf,
}

/// The plugin is for 3.9 and later.
fn with_plugin() -> Vec<Interpreter> {
    interpreters().into_iter().filter(|interpreter| interpreter.minor() >= (3, 9)).collect()
}

/// Every interpreter from 3.9 on.
fn pytests() -> Vec<Pytest> {
    let listed = std::fs::read_to_string(list_path()).unwrap_or_default();
    let parse = |line: &str| {
        let (version, path) = line.split_once('\t')?;
        let (major, minor) = version.split_once('.')?;
        Some(((major.parse().ok()?, minor.parse().ok()?), PathBuf::from(path))).filter(|(_, path): &((u32, u32), PathBuf)| path.exists())
    };
    let fetched: Vec<((u32, u32), PathBuf)> = listed.lines().filter_map(parse).collect();
    let serving = |interpreter: Interpreter| {
        let packages = fetched.iter().filter(|(from, _)| *from <= interpreter.minor()).max_by_key(|(from, _)| *from);
        packages.map(|(_, path)| Pytest { packages: path.clone(), interpreter })
    };
    with_plugin().into_iter().filter_map(serving).collect()
}

/// One that needs no other root, for checks that do not depend on the version.
fn any() -> Option<Pytest> {
    let found = pytests().into_iter().rfind(|pytest| pytest.interpreter.root.is_none());
    if found.is_none() {
        skip("the pytest plugin: there is no pytest for an interpreter of this root; scripts/setup-pytest fetches it");
    }
    found
}

/// The list that scripts/setup-pytest writes.
fn list_path() -> PathBuf {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = || var("XDG_CACHE_HOME").or_else(|| Some(var("HOME")?.join(".cache"))).unwrap_or_default().join("gilprof/pytests");
    var("GILPROF_PYTESTS").unwrap_or_else(cache).join("pytests.tsv")
}

fn suite() -> PathBuf {
    repository().join("tests/live/pytest_plugin")
}

/// Mounts this root at /mnt of another one, and /proc, which the plugin's gilprof needs, in a
/// namespace that ends with the command.
const UNDER_MNT: &str = "mount --rbind / \"$1/mnt\" && mount --rbind /proc \"$1/proc\" && shift && exec \"$@\"";

impl Pytest {
    /// A path as the interpreter sees it.
    fn inside(&self, path: &Path) -> PathBuf {
        match self.interpreter.root {
            None => path.into(),
            Some(_) => Path::new("/mnt").join(path.strip_prefix("/").unwrap()),
        }
    }

    fn command(&self) -> Command {
        let python = self.interpreter.command();
        let mut command = match &self.interpreter.root {
            None => python,
            Some(root) => {
                let mut launcher = Command::new("unshare");
                launcher.args(["--mount", "sh", "-ec", UNDER_MNT, "sh"]).arg(root);
                support::under(launcher, &python)
            }
        };
        let path = [self.inside(&self.packages), self.inside(&repository().join("src"))];
        command.env("PYTHONPATH", std::env::join_paths(path).unwrap()).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("GILPROF", self.inside(Path::new(env!("CARGO_BIN_EXE_gilprof")))).env("COLUMNS", "120");
        command.env_remove("PYTEST_ADDOPTS").env_remove("GITHUB_STEP_SUMMARY");
        command.args(["-m", "pytest", "-p", "no:cacheprovider", "-p", "pytest_gilprof", "--strict-markers", "-rfE"]);
        command
    }

    /// Runs a folder of tests.
    fn run(&self, folder: &Path, args: &[&str]) -> Finished {
        self.run_with(folder, args, &[])
    }

    fn run_with(&self, folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Finished {
        let folder = self.inside(folder);
        let mut command = self.command();
        command.arg("--rootdir").arg(&folder).arg(&folder).args(args).envs(env.iter().copied());
        Finished::new(command.output().unwrap())
    }
}

/// The contending test fails, with its function and line as in pytest's own output. No other test
/// fails, and every test has a result unless the machine had no cores left for it.
fn offender_failed(output: &Finished, passed: usize) {
    output.has(1, &[&format!("1 failed, {passed} passed"), "crunch (", "test_twenty.py:", "limit <= 20"]);
    output.has(1, &["E   waiting is ", "def crunch(seconds):", ": GilLimit\n"]);
    output.has_not(&["pytest_gilprof/"]);
    let without_result: Vec<&str> =
        output.text.lines().filter(|line| line.contains("could not be checked") && !line.contains("Short of CPU")).collect();
    assert!(without_result.is_empty(), "{without_result:#?}");
    let failed: Vec<&str> = output.text.lines().filter(|line| line.starts_with("FAILED ")).collect();
    assert!(failed.len() == 1 && failed[0].contains("test_twenty.py::test_indexes_documents - waiting is "), "{failed:?}");
}

fn of_twenty_tests_the_one_that_contends_is_failed(interpreter: &Interpreter) {
    if interpreter.has_musl() {
        return skip(&format!("the pytest plugin on {}: gilprof, built for glibc, does not start in its root", interpreter.label));
    }
    let Some(pytest) = pytests().into_iter().find(|pytest| pytest.interpreter == *interpreter) else {
        return skip(&format!("the pytest plugin on {}: there is no pytest; scripts/setup-pytest fetches it", interpreter.label));
    };
    // All twenty tests on one interpreter, three of them on the others.
    let whole = with_plugin().into_iter().find(|i| i.minor() == (3, 13));
    if whole.as_ref() == Some(interpreter) || support::all() {
        offender_failed(&pytest.run(&suite(), &[]), 19);
    } else {
        offender_failed(&pytest.run(&suite(), &["-k", "indexes or hashes_alone or sleeps_in"]), 2);
    }
}

/// A folder with these tests, and with a gilprof.toml if there is one.
fn tests(source: &str, limits: Option<&str>) -> Folder {
    let folder = Folder::new("pytest");
    let crunch = "import threading, time, pytest\n\
        def crunch(seconds):\n    end = time.monotonic() + seconds\n    while time.monotonic() < end:\n        sum(range(1000))\n\
        def contend(seconds=0.6):\n    threads = [threading.Thread(target=crunch, args=(seconds,)) for _ in range(3)]\n    \
        [thread.start() for thread in threads]\n    [thread.join() for thread in threads]\n";
    std::fs::write(folder.path().join("test_it.py"), format!("{crunch}{source}")).unwrap();
    if let Some(limits) = limits {
        std::fs::write(folder.path().join("gilprof.toml"), limits).unwrap();
    }
    folder
}

const CONTENDS: &str = "@pytest.mark.gil(max_waiting=0.2)\ndef test_it():\n    contend()\n";

/// Without the plugin: the gate starts pytest, whose workers do the work.
fn a_gate_around_pytest_measures_the_workers_of_xdist() {
    let Some(pytest) = any() else { return };
    let contends = tests("@pytest.mark.parametrize('n', range(4))\ndef test_it(n):\n    contend()\n", None);
    let calm = tests("@pytest.mark.parametrize('n', range(4))\ndef test_it(n):\n    crunch(0.6)\n", None);
    for (folder, code, says) in [(&contends, 1, &["crunch (", "test_it.py:", "pid "][..]), (&calm, 0, &["The check passed", "pid "])] {
        let mut command = support::gilprof_command(&["gate", "--max", "waiting <= 30%", "--"]);
        command.arg(&pytest.interpreter.path).args(["-m", "pytest", "-n", "2", "-p", "no:cacheprovider"]).arg(folder.path());
        command.env("PYTHONPATH", &pytest.packages).env("PYTHONDONTWRITEBYTECODE", "1");
        let output = Finished::new(command.output().unwrap());
        // On a machine without free cores the calm one may be undecided.
        if !(code == 0 && output.code == Some(3) && output.text.contains("hort of CPU")) {
            output.has(code, says);
        }
    }
}

fn the_session_is_checked_by_gilprof_toml_beside_marks() {
    let Some(pytest) = any() else { return };
    let source = "def test_unmarked():\n    contend()\n@pytest.mark.gil(max='gil.busy <= 50%')\ndef test_marked():\n    time.sleep(0.5)\n";
    let folder = tests(source, Some("[gate]\nmax = [\"waiting <= 20%\"]\n"));
    // Every test passes, and the session fails.
    let output = pytest.run(folder.path(), &["--gilprof"]);
    output.has(1, &["2 passed", "= gilprof =", "session: ", "FAIL waiting is ", "crunch (", "test_it.py:"]);
    let lenient = tests(source, Some("[gate]\nmax = [\"waiting <= 99%\"]\n"));
    let kept = Folder::new("kept");
    let output = pytest.run(lenient.path(), &["--gilprof", "--gilprof-dir", kept.path().to_str().unwrap()]);
    output.has(0, &["2 passed", "ok   waiting is ", "recording: "]);
    assert!(kept.path().join("session.gilprof").exists() && kept.path().join("test_it.py_test_marked.gilprof").exists());
    // Each worker is measured by itself, and checked where its limits are known.
    let output = pytest.run(folder.path(), &["--gilprof", "-n", "2"]);
    output.has(1, &["2 passed", "gw0: ", "gw1: ", "FAIL waiting is "]);
}

fn tests_without_a_result_are_listed_and_fail_on_request() {
    let Some(pytest) = any() else { return };
    let folder = tests(CONTENDS, None);
    let without = [("GILPROF", "/nonexistent/gilprof")];
    let output = pytest.run_with(folder.path(), &[], &without);
    output.has(0, &["1 passed, 1 warning", "GilprofWarning", "failed to find gilprof ($GILPROF is /nonexistent/gilprof)"]);
    pytest
        .run_with(folder.path(), &["--gilprof-strict"], &without)
        .has(1, &["1 failed", "E   the GIL limits of this test could not be checked"]);
    pytest.run_with(folder.path(), &["-W", "error"], &without).has(1, &["1 failed", "GilprofWarning"]);
    pytest.run_with(folder.path(), &["--gilprof"], &without).has(4, &["ERROR: --gilprof: failed to find gilprof"]);
    pytest.run_with(folder.path(), &["--no-gilprof"], &without).has(0, &["1 passed in "]);
    // The process that is measured idles, and its child processes work.
    let pool = "import multiprocessing\npool = multiprocessing.get_context('fork').Pool(2)\n\
        @pytest.mark.gil(max_waiting=0.2)\ndef test_it():\n    pool.map(crunch, [1.0, 1.0])\n";
    let pool = tests(pool, None);
    pytest.run(pool.path(), &[]).has(0, &["1 passed, 1 warning", "was not measured: 2 Python child processes"]);
    pytest.run(pool.path(), &["--gilprof-strict"]).has(1, &["1 failed", "was not measured: 2 Python child processes"]);
    // A test in which nothing runs keeps its limit.
    let idle = tests("@pytest.mark.gil(max_waiting=0.2)\ndef test_it():\n    time.sleep(0.6)\n", None);
    pytest.run(idle.path(), &["--gilprof-strict"]).has(0, &["1 passed"]);
    // The test runs nothing, and is too short for a result.
    let brief = tests("@pytest.mark.gil(max_wait_ms_p99='1ms')\ndef test_it():\n    pass\n", None);
    pytest.run(brief.path(), &[]).has(0, &["1 passed, 1 warning", "could not be checked: wait_ms.p99 is unknown"]);
    pytest.run(brief.path(), &["--gilprof-strict"]).has(1, &["1 failed"]);
}

fn marks_that_make_no_sense_are_errors_of_their_tests() {
    let Some(pytest) = any() else { return };
    for (mark, why) in [
        ("gil(waiting=0.2)", "gil mark: there is no waiting="),
        ("gil(max_waiting=None)", "max_waiting=None is neither a number nor text"),
        ("gil(max=0.2)", "0.2 is no expression"),
        ("gil(max_wating=0.2)", "there is no metric \"wating\""),
        ("gil(max='waiting <= 20ms')", "there is no unit \"ms\""),
        ("gil", "it has no limits, and there is no gilprof.toml"),
    ] {
        let other = "@pytest.mark.gil(max_waiting=0.2)\ndef test_other():\n    time.sleep(0.3)\n";
        let folder = tests(&format!("@pytest.mark.{mark}\ndef test_it():\n    print('it ' + 'ran')\n    assert False\n{other}"), None);
        let output = pytest.run(folder.path(), &[]);
        // A warning stands between the two where gilprof itself got too little CPU time.
        output.has(1, &["= 1 passed, ", " 1 error in ", "ERROR at setup of test_it", "E   gil mark: ", why, ": GilMark\n", "ERROR "]);
        output.has_not(&["it ran", "pytest_gilprof/", "_pytest/", "pluggy/", "For more information"]);
        pytest.run(folder.path(), &["-k", "other"]).has(0, &["1 passed, 1 deselected"]);
    }
    let folder = tests("@pytest.mark.gil\ndef test_it():\n    pass\n", Some("[gate]\nmax = [\"wating <= 20%\"]\n"));
    pytest.run(folder.path(), &[]).has(1, &["1 error", "there is no metric \"wating\""]);
}

/// The main thread's stack begins with pytest's own frames.
fn a_failure_shows_no_frame_of_pytest() {
    let Some(pytest) = any() else { return };
    // The other thread only wakes up, and waits for the main thread then.
    let source = "@pytest.mark.gil(max_waiting=0.05)\ndef test_it():\n    done = []\n    def wake():\n        while not done:\n            \
        time.sleep(0.0001)\n    other = threading.Thread(target=wake)\n    other.start()\n    crunch(0.8)\n    done.append(1)\n    other.join()\n";
    let output = pytest.run(tests(source, None).path(), &[]);
    output.has(1, &["1 failed", "E   waiting is ", "thread MainThread", "E       test_it (", "E       crunch ("]);
    output.has_not(&["_pytest/", "pluggy/", "pytest_gilprof/", "runpy"]);
}

fn failures_of_a_test_itself_come_first() {
    let Some(pytest) = any() else { return };
    // Its own failure comes first, with the gate's result beside it. An expected failure may be the
    // gate's.
    let source = "@pytest.mark.gil(max_waiting=0.2)\ndef test_own():\n    contend()\n    assert 1 == 2\n\
                  @pytest.mark.xfail(strict=True)\n@pytest.mark.gil(max_waiting=0.2)\ndef test_expected():\n    contend()\n";
    let output = pytest.run(tests(source, None).path(), &[]);
    output.has(1, &["1 failed, 1 xfailed", "assert 1 == 2", "Captured gilprof call", "E   waiting is "]);
}
