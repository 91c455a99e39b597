"""The profilers that are measured side by side: the command of each, and what it reports about its
own samples.
"""
import json
import os
import re
import shutil
import subprocess
import sys

from common import CACHE

PEERS_CACHE = os.path.join(CACHE, "peers")
PROGRAMS = os.path.join(PEERS_CACHE, "bin")
# From PyPI, into an environment of their own. gilprof does not use them; they are measured.
PEERS = ["py-spy==0.4.3", "austin-dist==3.7.0"]
# The number of samples of a profiler that takes every sample that was asked for, however late.
ALL = "all"


class Tool:
    """One profiler with one set of flags.

    `attach(pid, rate, seconds, out)` gives its command; with `seconds` None it runs until
    interrupted. `read(stdout, stderr)` gives the figures that it reports about itself.
    `written(out)` is its output file. `fast`: it can hold 10 kHz. `in_kernel`: it has programs in
    the kernel, whose time is none of its own.
    """

    def __init__(self, name, attach, read, written=lambda out: out + ".svg", fast=True, in_kernel=False):
        self.name, self.attach, self.read, self.written, self.fast, self.in_kernel = name, attach, read, written, fast, in_kernel


def install():
    """Installs the peers from PyPI, unless they are there.

    A peer that cannot be installed is left out later.
    """
    if not os.path.isdir(PROGRAMS):
        made = subprocess.run([sys.executable, "-m", "venv", PEERS_CACHE], stdout=sys.stderr).returncode
        for peer in PEERS if made == 0 else []:
            subprocess.run([os.path.join(PROGRAMS, "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", peer], stdout=sys.stderr)


def number(pattern, text):
    found = re.search(pattern, re.sub(r"\x1b\[[0-9;]*m", "", text))
    return float(found.group(1).replace(",", "")) if found else None


def read_gilprof(stdout, stderr):
    window = json.loads(stdout)["window"]
    return {"samples": window["samples"] - window["failed"], "missed": window["missed"], "failed": window["failed"] + window["torn"],
            "seconds": window["seconds"]}


def read_pyspy(stdout, stderr):
    # Its "Samples" are stacks. It takes every sample that was asked for, however long that takes.
    return {"samples": ALL, "missed": None, "failed": number(r"Errors: (\d+)", stdout + stderr), "seconds": None}


def read_tachyon(stdout, stderr):
    text = stdout + stderr
    samples, missed = number(r"Captured ([\d,]+) samples", text), number(r"missed ([\d,]+) samples", text)
    share = number(r"Error rate: ([\d.]+)", text)
    return {"samples": samples, "missed": missed, "failed": samples * share / 100 if samples and share is not None else None,
            "seconds": number(r"samples in ([\d.]+) seconds", text)}


def read_austin(stdout, stderr):
    # It ends with 0 even if it could read nothing, as of a Python it does not know. It counts
    # stacks, not samples.
    bad, total = number(r"Error rate\D*?: \S*?(\d+)/\d+", stdout + stderr), number(r"Error rate\D*?: \S*?\d+/(\d+)", stdout + stderr)
    if not total or bad == total:
        raise ValueError("no valid sample")
    return {"samples": None, "missed": None, "failed": None, "seconds": None}


def timed(flag, seconds, unit=""):
    return [] if seconds is None else [flag, "%g%s" % (seconds, unit)]


def gilprof(binary, *more):
    def attach(pid, rate, seconds, out):
        command = [binary, "attach", "--pid", str(pid), "--rate", str(rate), "--format", "json", "-o", out + ".svg"]
        return command + timed("--duration", seconds, "s") + list(more)
    return attach


def pyspy(*more):
    def attach(pid, rate, seconds, out):
        seconds = 3600 if seconds is None else seconds
        return [os.path.join(PROGRAMS, "py-spy"), "record", "-p", str(pid), "-r", str(rate), "-d", "%g" % seconds, "-o", out + ".svg"] + list(more)
    return attach


def inside(out):
    """Tachyon's output file, as a path within its own root, which need not have our directories."""
    return "/tmp/gilprof-eval-%s.tachyon" % os.path.basename(os.path.dirname(out))


def tachyon(interpreter, *more):
    def attach(pid, rate, seconds, out):
        inner = [interpreter["path"], "-m", "profiling.sampling", "attach", "-a", "-r", str(rate), *more, "-o", inside(out)]
        inner += timed("-d", seconds) + [str(pid)]
        # An interpreter in a chroot has its profiler there too, so the profiler enters the target's
        # root and mounts.
        return ["nsenter", "-t", str(pid), "-m", "-r", *inner] if interpreter["root"] else inner
    return attach


def austin():
    def attach(pid, rate, seconds, out):
        return [os.path.join(PROGRAMS, "austin"), "-i", "%dus" % (1e6 / rate), "-o", out + ".austin", "-p", str(pid)] + timed("-x", seconds)
    return attach


def available(binary, interpreter, wanted):
    """The profilers that can measure this interpreter on this machine, and whose name begins with
    one of `wanted` (all for none).
    """
    if not wanted or any(name.startswith(("py-spy", "Austin")) for name in wanted):
        install()

    def tachyon_output(out):
        return interpreter["root"] + inside(out)

    tools = [
        Tool("gilprof", gilprof(binary), read_gilprof),
        Tool("gilprof --engine kernel", gilprof(binary, "--engine", "kernel"), read_gilprof, in_kernel=True),
        Tool("py-spy", pyspy(), read_pyspy, fast=False),
        Tool("py-spy --nonblocking", pyspy("--nonblocking"), read_pyspy, fast=False),
        Tool("Tachyon --binary", tachyon(interpreter, "--binary"), read_tachyon, tachyon_output),
        Tool("Tachyon --flamegraph", tachyon(interpreter, "--flamegraph"), read_tachyon, tachyon_output),
        Tool("Austin", austin(), read_austin, lambda out: out + ".austin", fast=False),
    ]
    modern = interpreter["version"].startswith("3.15")
    found = {"py-spy": shutil.which("py-spy", path=PROGRAMS), "Austin": shutil.which("austin", path=PROGRAMS), "Tachyon": modern, "gilprof": True}
    tools = [tool for tool in tools if found[tool.name.split()[0]]]
    return [tool for tool in tools if not wanted or any(tool.name.startswith(name) for name in wanted)]
