"""Measures an hour's recording of 32 threads at 1 kHz: its size, the memory of writer and reader,
the time to report it.

A minute is recorded of a running program and written again, shifted in time, until it is an hour
(long_recording.rs). The bounds for an hour: 100 MB on disk, 150 MB of memory, 20 s for `gilprof
report`.
"""
import json
import os
import subprocess
import tempfile
import time

import targets
from common import Failed, Measurement, check
from html_page import programs

RESULTS = "recording"
MOST_MB, MOST_MEMORY_MB, MOST_SECONDS = 100, 150, 20
QUICK = {"seconds": 2.0, "times": 5, "threads": 8}


def add_options(parser):
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the recording (default: %(default)s)")
    parser.add_argument("--times", type=int, default=60, help="how often it is repeated (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--python", default="python3", help="the interpreter (default: %(default)s)")


def lengthen(tool, short, long, times):
    """Writes the recording `times` times; the peak memory of the writer in MB."""
    done = subprocess.run([tool, short, long, str(times)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        raise Failed("long_recording ended with %d: %s" % (done.returncode, done.stderr.decode()[-500:]))
    return json.loads(done.stdout)["peak_kb"] * 1024 / 1e6


def report(gilprof, path):
    """The window of the report, the peak memory of `gilprof report` in MB, and the seconds it took.
    """
    start = time.monotonic()
    child = subprocess.Popen([gilprof, "report", path, "--format", "json"], stdout=subprocess.PIPE)
    out = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise Failed("gilprof report ended with %d" % child.returncode)
    return json.loads(out)["window"], usage.ru_maxrss * 1024 / 1e6, time.monotonic() - start


def run(options):
    version, gilprof, tool, rows = targets.python_version(options.python), targets.gilprof(options), targets.example(options, "long_recording"), []
    with tempfile.TemporaryDirectory() as folder:
        for name, workload, args in programs(options.threads):
            short, long = os.path.join(folder, "short.gilprof"), os.path.join(folder, "long.gilprof")
            with targets.Target(targets.this_python(options.python), workload, *args) as target:
                targets.record(gilprof, target, options.seconds, short)
            writer = lengthen(tool, short, long, options.times)
            window, reader, took = report(gilprof, long)
            rows.append({"part": "hour", "program": name, "seconds": window["seconds"], "samples": window["samples"], "mb": os.path.getsize(long) / 1e6,
                         "writer_mb": writer, "report_mb": reader, "report_s": took})
    return Measurement(map(row_check, rows), rows, None, {"python": [version]})


def row_check(row):
    """The check of a row.

    Size and time are scaled to an hour; memory does not grow with the length.
    """
    hour = 3600 / row["seconds"]
    holds = row["mb"] * hour <= MOST_MB and row["report_s"] * hour <= MOST_SECONDS and max(row["report_mb"], row["writer_mb"]) <= MOST_MEMORY_MB
    return check("hour", holds, "%s: %.0f s, %d samples: %.1f MB on disk, writer %.0f MB, report %.0f MB in %.1f s (bounds for an hour: %d MB, %d MB, %d s)" % (
        row["program"], row["seconds"], row["samples"], row["mb"], row["writer_mb"], row["report_mb"], row["report_s"], MOST_MB, MOST_MEMORY_MB, MOST_SECONDS))
