#!/usr/bin/env python3
"""Installs gilprof as the README says, from this checkout into a new environment, and uses what was installed.

    check_install.py [pip] [cargo]

`pip`: `pip install .` brings the program and the pytest plugin, nothing else; the plugin finds the
program while the environment is not active. `cargo`: `cargo install --path .`. Without arguments
both. Builds use the dev profile and $CARGO_TARGET_DIR, so that what the tests have compiled serves
here too.

Exit codes: 0 both work, 1 one does not, 77 a package that the build needs cannot be fetched (pip
has no network).
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import venv

ROOT = pathlib.Path(__file__).resolve().parents[3]
SKIPPED = 77
# The wheel is built in an environment of its own, which pip fills from the index.
BUILD_NEEDS = "maturin>=1.7,<2"
PYTEST = "pytest>=7"

SUITE = """
import threading, time, pytest

def spin(end):
    while time.monotonic() < end:
        pass

@pytest.mark.gil(max_waiting=0.9)
def test_sleeps():
    time.sleep(0.5)

@pytest.mark.gil(max_waiting=0.01)
def test_contends():
    threads = [threading.Thread(target=spin, args=(time.monotonic() + 1.5,)) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
"""


def run(*command, code=0, **options):
    """The command's output, stdout and stderr together."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "GILPROF", "PYTEST_ADDOPTS", "VIRTUAL_ENV")}
    environment.update(options.pop("env", {}))
    out = subprocess.run([str(argument) for argument in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, **options)
    if code is not None and out.returncode != code:
        sys.exit("failed: %s ended with %d\n%s" % (" ".join(map(str, command)), out.returncode, out.stdout))
    return out.stdout if code is not None else out


def check(holds, what, seen):
    if not holds:
        sys.exit("failed: %s\n%s" % (what, seen))


def version():
    return re.search(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.M).group(1)


def check_version(program):
    output = run(program, "--version").strip()
    check(output == "gilprof " + version(), "%s --version" % program, output)


def check_pip(folder):
    venv.create(folder / "venv", with_pip=True)
    programs = folder / "venv" / "bin"
    pip = [programs / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    fetched = run(*pip, "download", "--no-deps", "--dest", folder / "fetched", BUILD_NEEDS, PYTEST, code=None)
    if fetched.returncode:
        print("skipped: pip install .: maturin and pytest cannot be fetched")
        return SKIPPED
    run(*pip, "install", "--find-links", folder / "fetched", str(ROOT) + "[pytest]", env={"MATURIN_PEP517_ARGS": "--profile dev"})
    check_version(programs / "gilprof")

    listed = run(programs / "python", "-m", "pip", "show", "--files", "gilprof")
    files = {line.strip() for line in listed.partition("Files:\n")[2].splitlines() if "__pycache__" not in line}
    packages = {file.split("/")[0] for file in files if not file.startswith("../")}
    check(packages == {"pytest_gilprof", "gilprof-%s.dist-info" % version()}, "the wheel has the plugin and no other package", listed)

    suite = folder / "suite"
    suite.mkdir()
    (suite / "test_it.py").write_text(SUITE)
    # No -p: the entry point registers the plugin. PATH does not lead to the environment.
    pytest = [programs / "pytest", "-p", "no:cacheprovider", "--strict-markers", "--rootdir", suite, suite]
    output = run(*pytest, code=1)
    check("1 failed, 1 passed" in output and "waiting is " in output, "the plugin measures with the installed program", output)
    # -p beside the entry point loads the plugin once.
    output = run(*pytest, "-p", "pytest_gilprof", "-k", "sleeps", "--gilprof")
    check("1 passed" in output and "gilprof" in output, "-p pytest_gilprof beside the entry point", output)
    print("passed: pip install .")
    return 0


def check_cargo(folder):
    run("cargo", "install", "--quiet", "--debug", "--locked", "--path", ROOT, "--root", folder / "root", cwd=folder)
    check_version(folder / "root" / "bin" / "gilprof")
    print("passed: cargo install --path .")
    return 0


def main():
    checks = {"pip": check_pip, "cargo": check_cargo}
    wanted = sys.argv[1:] or list(checks)
    if not set(wanted) <= set(checks):
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix="gilprof-install-") as folder:
        codes = []
        for name in wanted:
            own = pathlib.Path(folder) / name
            own.mkdir()
            codes.append(checks[name](own))
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
