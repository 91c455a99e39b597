"""One run of a profiler: its CPU time, memory, time to the first sample, and its samples."""
import contextlib
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time

import programs
from common import Failed
from overhead.profilers import ALL


def run(tool, pid, rate, seconds):
    """One profile of `seconds`, as a dict of figures.

    `cpu` is user and system time of the whole process per second of profiling, `programs` that of
    its programs in the kernel.
    """
    with programs.counted() if tool.in_kernel else contextlib.nullcontext():
        return run_counted(tool, pid, rate, seconds)


def run_counted(tool, pid, rate, seconds):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "profile")
        with open(os.path.join(folder, "stdout"), "w+") as stdout, open(os.path.join(folder, "stderr"), "w+") as stderr:
            begun = time.monotonic()
            child = subprocess.Popen(tool.attach(pid, rate, seconds, out), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
            memory, done, in_kernel = 0, 0, 0
            while not done:
                memory = max(memory, peak_memory(child.pid))
                in_kernel = max(in_kernel, programs.counters(child.pid)[1]) if tool.in_kernel else None
                time.sleep(0.05)
                done, status, usage = os.wait4(child.pid, os.WNOHANG)
            child.returncode = os.waitstatus_to_exitcode(status)
            wall = time.monotonic() - begun
            for file in (stdout, stderr):
                file.seek(0)
            texts = stdout.read(), stderr.read()
        if child.returncode:
            raise Failed("%s ended with %d: %s" % (tool.name, child.returncode, texts[1].strip()[-300:]))
        try:
            figures = tool.read(*texts)
        except (ValueError, KeyError) as e:
            raise Failed("failed to read what %s prints: %r" % (tool.name, e))
        figures["size"] = 0
        if os.path.exists(tool.written(out)):
            figures["size"] = os.path.getsize(tool.written(out))
            os.remove(tool.written(out))
    profiled = figures.pop("seconds") or max(seconds, wall)
    figures["samples"] = rate * seconds if figures["samples"] == ALL else figures["samples"]
    figures["cpu"] = (usage.ru_utime + usage.ru_stime) / profiled
    figures["each"] = (usage.ru_utime + usage.ru_stime) / figures["samples"] if figures["samples"] else None
    figures["programs"] = in_kernel / 1e9 / profiled if tool.in_kernel else None
    figures["memory"] = memory or None
    figures["rate"] = figures["samples"] / profiled if figures["samples"] else None
    figures["wall"] = wall
    for name in ("missed", "failed"):
        if figures[name] is not None and figures["samples"]:
            figures[name + "_share"] = figures[name] / (figures["samples"] + (figures["missed"] or 0))
    return figures


def peak_memory(pid):
    """The peak resident memory of a process so far, in bytes. wait4 would include its parent's,
    from before the exec.
    """
    try:
        with open("/proc/%d/status" % pid) as file:
            return next((1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM")), 0)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def first_sample(tool, pid, rate, for_seconds=0.5):
    """Seconds from the profiler's start to its first sample; None where it does not report the
    length of its window.

    The profiler is interrupted; the length that it then reports leads back to its first sample.
    """
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        child = subprocess.Popen(tool.attach(pid, rate, None, os.path.join(folder, "profile")), stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(for_seconds)
        interrupted = time.monotonic()
        child.send_signal(signal.SIGINT)
        texts = child.communicate()
        try:
            seconds = tool.read(*texts)["seconds"] if child.returncode == 0 else None
        except (ValueError, KeyError):
            seconds = None
    return interrupted - seconds - begun if seconds else None


def runs(tools, pid, rate, seconds, repeat, progress):
    """`repeat` runs of each tool, in turn: a dict of tool name to a list of figures, or to the
    reason why there are none.
    """
    found = {tool.name: [] for tool in tools}
    for _ in range(repeat):
        for tool in tools:
            if isinstance(found[tool.name], str):
                continue
            try:
                found[tool.name].append(run(tool, pid, rate, seconds))
                progress(tool.name, found[tool.name][-1])
            except Failed as e:
                found[tool.name] = str(e)
                progress(tool.name, {})
    return found


def sample(tool, pid, rate, seconds, repeat=3):
    """The cost of a sample and of its bare system calls, in microseconds of CPU time: medians of
    runs that take turns.
    """
    found = {"sample": [], "floor": []}
    for _ in range(repeat):
        for kind, more in (("sample", []), ("floor", ["floor"])):
            command = [tool, str(pid), str(int(rate * min(seconds, 2))), str(rate), *more]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            if done.returncode:
                raise Failed("sample_cost ended with %d: %s" % (done.returncode, done.stderr[-300:]))
            one = json.loads(done.stdout)
            taken, missed = one["samples"], one["missed"]
            found[kind].append({"median_us": one["median_us"], "with_sleep_us": one["with_sleep_us"], "missed_percent": 100 * missed / (taken + missed)})
    return {kind: {name: statistics.median(one[name] for one in figures) for name in figures[0]} for kind, figures in found.items()}
