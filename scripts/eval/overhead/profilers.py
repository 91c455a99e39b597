"""The profilers that are measured side by side: how each is called, and what it says of its own looks."""
import json
import os
import re
import shutil
import subprocess
import sys

CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "gilprof", "peers")
# From PyPI, into a folder of their own. Not tools of this project: they are here to be measured.
PEERS = ["py-spy==0.4.3", "austin-dist==3.7.0"]


ALL = "all"


class Tool:
    """One profiler with one set of flags. `attach(pid, rate, seconds, out)` gives its command; with `seconds` None it runs until interrupted.
    `read(out, stdout, stderr)` is what it says of itself; looks that it makes all of, however late, are `ALL`. `written(out)` is its file.
    """

    def __init__(self, name, attach, read, written=lambda out: out + ".svg", fast=True):
        self.name, self.attach, self.read, self.written, self.fast = name, attach, read, written, fast


def install():
    """Makes sure of the peers that PyPI has; the folder of their programs."""
    programs = os.path.join(CACHE, "bin")
    if not os.path.isdir(programs):
        made = subprocess.run([sys.executable, "-m", "venv", CACHE]).returncode
        for peer in PEERS if made == 0 else []:
            subprocess.run([os.path.join(programs, "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", peer])
    return programs


def number(pattern, text):
    found = re.search(pattern, re.sub(r"\x1b\[[0-9;]*m", "", text))
    return float(found.group(1).replace(",", "")) if found else None


def read_gilprof(out, stdout, stderr):
    window = json.loads(stdout)["window"]
    return {"looks": window["looks"] - window["failed"], "missed": window["missed"], "failed": window["failed"] + window["torn"],
            "seconds": window["seconds"]}


def read_pyspy(out, stdout, stderr):
    # Its "Samples" are stacks; it makes every look that was asked for, and takes as long as that takes.
    return {"looks": ALL, "missed": None, "failed": number(r"Errors: (\d+)", stdout + stderr), "seconds": None}


def read_tachyon(out, stdout, stderr):
    text = stdout + stderr
    looks, missed = number(r"Captured ([\d,]+) samples", text), number(r"missed ([\d,]+) samples", text)
    share = number(r"Error rate: ([\d.]+)", text)
    return {"looks": looks, "missed": missed, "failed": looks * share / 100 if looks and share is not None else None,
            "seconds": number(r"samples in ([\d.]+) seconds", text)}


def read_austin(out, stdout, stderr):
    # It ends with 0 also where it could read nothing, of a Python that it does not know; it counts stacks, not looks.
    bad, all_of_them = number(r"Error rate\D*?: \S*?(\d+)/\d+", stdout + stderr), number(r"Error rate\D*?: \S*?\d+/(\d+)", stdout + stderr)
    if not all_of_them or bad == all_of_them:
        raise ValueError("no valid sample")
    return {"looks": None, "missed": None, "failed": None, "seconds": None}


def timed(flag, seconds, unit=""):
    return [] if seconds is None else [flag, "%g%s" % (seconds, unit)]


def gilprof(binary, *more):
    def attach(pid, rate, seconds, out):
        command = [binary, "attach", "--pid", str(pid), "--rate", str(rate), "--format", "json", "-o", out + ".svg"]
        return command + timed("--duration", seconds, "s") + list(more)
    return attach


def pyspy(programs, *more):
    def attach(pid, rate, seconds, out):
        seconds = 3600 if seconds is None else seconds
        return [os.path.join(programs, "py-spy"), "record", "-p", str(pid), "-r", str(rate), "-d", "%g" % seconds, "-o", out + ".svg"] + list(more)
    return attach


def inside(out):
    """Where Tachyon writes, as its own root has it: folders of ours need not be there."""
    return "/tmp/gilprof-bench-%s.tachyon" % os.path.basename(os.path.dirname(out))


def tachyon(interpreter, *more):
    def attach(pid, rate, seconds, out):
        inner = [interpreter["path"], "-m", "profiling.sampling", "attach", "-a", "-r", str(rate), *more, "-o", inside(out)]
        inner += timed("-d", seconds) + [str(pid)]
        # Where the interpreter lives in a folder of its own, so does its profiler: in the target's own root and mounts.
        return ["nsenter", "-t", str(pid), "-m", "-r", *inner] if interpreter["root"] else inner
    return attach


def austin(programs):
    def attach(pid, rate, seconds, out):
        return [os.path.join(programs, "austin"), "-i", "%dus" % (1e6 / rate), "-o", out + ".austin", "-p", str(pid)] + timed("-x", seconds)
    return attach


def all_tools(binary, interpreter):
    """Those that can measure this interpreter here."""
    programs = install()
    def tachyons(out):
        return interpreter["root"] + inside(out)

    tools = [
        Tool("gilprof", gilprof(binary), read_gilprof),
        Tool("gilprof --exact", gilprof(binary, "--exact"), read_gilprof),
        Tool("py-spy", pyspy(programs), read_pyspy, fast=False),
        Tool("py-spy --nonblocking", pyspy(programs, "--nonblocking"), read_pyspy, fast=False),
        Tool("Tachyon --binary", tachyon(interpreter, "--binary"), read_tachyon, tachyons),
        Tool("Tachyon --flamegraph", tachyon(interpreter, "--flamegraph"), read_tachyon, tachyons),
        Tool("Austin", austin(programs), read_austin, lambda out: out + ".austin", fast=False),
    ]
    modern = interpreter["version"].startswith("3.15")
    there = {"py-spy": shutil.which("py-spy", path=programs), "Austin": shutil.which("austin", path=programs), "Tachyon": modern, "gilprof": True}
    return [tool for tool in tools if there[tool.name.split()[0]]]
