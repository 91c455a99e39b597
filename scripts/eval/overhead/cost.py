"""What one run of a profiler costs itself: CPU time, memory, time to its first look; and what it got for it."""
import os
import re
import signal
import subprocess
import tempfile
import time

from stretches import median
from targets import Failed, built
from tools import ALL


def run(tool, pid, rate, seconds):
    """One profile of `seconds`: a dict of figures. `cpu` is user and system time of the whole process per second of profiling."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "profile")
        with open(os.path.join(folder, "stdout"), "w+") as stdout, open(os.path.join(folder, "stderr"), "w+") as stderr:
            begun = time.monotonic()
            child = subprocess.Popen(tool.attach(pid, rate, seconds, out), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
            memory, done = 0, 0
            while not done:
                memory = max(memory, peak(child.pid))
                time.sleep(0.05)
                done, status, usage = os.wait4(child.pid, os.WNOHANG)
            child.returncode = os.waitstatus_to_exitcode(status)
            wall = time.monotonic() - begun
            for file in (stdout, stderr):
                file.seek(0)
            said = stdout.read(), stderr.read()
        if child.returncode:
            raise Failed("%s ended with %d: %s" % (tool.name, child.returncode, said[1].strip()[-300:]))
        try:
            figures = tool.read(out, *said)
        except (ValueError, KeyError) as e:
            raise Failed("%s said nothing that can be read: %r" % (tool.name, e))
        figures["size"] = 0
        if os.path.exists(tool.written(out)):
            figures["size"] = os.path.getsize(tool.written(out))
            os.remove(tool.written(out))
    profiled = figures.pop("seconds") or max(seconds, wall)
    figures["looks"] = rate * seconds if figures["looks"] == ALL else figures["looks"]
    figures["cpu"] = (usage.ru_utime + usage.ru_stime) / profiled
    figures["each"] = (usage.ru_utime + usage.ru_stime) / figures["looks"] if figures["looks"] else None
    figures["memory"] = memory or None
    figures["rate"] = figures["looks"] / profiled if figures["looks"] else None
    figures["wall"] = wall
    return figures


def peak(pid):
    """The most memory that a process had in RAM so far, in bytes; what wait4 says of it includes its parent's, from before the exec."""
    try:
        with open("/proc/%d/status" % pid) as file:
            return next((1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM")), 0)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def first_look(tool, pid, rate, for_seconds=0.5):
    """Seconds from the profiler's start to its first look: it is interrupted, and says for how long it had been looking by then. `None` where it
    does not say."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        child = subprocess.Popen(tool.attach(pid, rate, None, os.path.join(folder, "profile")), stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(for_seconds)
        interrupted = time.monotonic()
        child.send_signal(signal.SIGINT)
        said = child.communicate()
        try:
            seconds = tool.read("", *said)["seconds"] if child.returncode == 0 else None
        except (ValueError, KeyError):
            seconds = None
    return interrupted - seconds - begun if seconds else None


def runs(tools, pid, rate, seconds, repeat, say):
    """`repeat` runs of each tool, in turn: a dict of tool name to a list of figures, or to the reason why there are none."""
    table = {tool.name: [] for tool in tools}
    for turn in range(repeat):
        for tool in tools:
            if isinstance(table[tool.name], str):
                continue
            try:
                table[tool.name].append(run(tool, pid, rate, seconds))
                say(tool.name, table[tool.name][-1])
            except Failed as e:
                table[tool.name] = str(e)
                say(tool.name, {})
    return table


def middle(figures, name):
    """(median, lowest, highest) of one figure over runs; `None` where no run has it."""
    values = sorted(one[name] for one in figures if one.get(name) is not None)
    return (median(values), values[0], values[-1]) if values else None


def look_cost(pid, rate, looks, *last):
    """The command of examples/look_cost.rs."""
    return [built("example", "look_cost"), str(pid), str(looks), str(rate), *last]


def look(pid, rate, seconds=2, repeat=3):
    """What a look costs, and what its bare system calls do: medians of the runs of examples/look_cost.rs, which take turns."""
    said = {"look": [], "floor": []}
    for _ in range(repeat):
        for kind, last in (("look", []), ("floor", ["floor"])):
            command = look_cost(pid, rate, int(rate * seconds), *last)
            text = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
            made, missed, middle_one, whole = re.search(r"(\d+) made, (\d+) slots missed; CPU median ([\d.]+) .*with the sleep ([\d.]+)", text).groups()
            said[kind].append({"median": float(middle_one), "whole": float(whole), "missed": 100 * int(missed) / (int(made) + int(missed))})
    return {kind: {name: middle(runs, name)[0] for name in ("median", "whole", "missed")} for kind, runs in said.items()}
