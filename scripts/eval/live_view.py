"""Measures the live view: how soon its first screen is there, and what it costs beyond the samples.

`gilprof top` runs in tmux beside a workload. Its CPU time is compared with that of `gilprof attach`
on the same workload, in turns. Then it lists a host of 100 idle Python processes and 4 whose
threads contend.
"""
import os
import shutil
import statistics
import subprocess
import sys
import time

import targets
from common import Failed, Measurement, NotMeasured, check

RESULTS = "live_view"
COST_BOUND, FIRST_BOUND_S, HOST_BOUND = 0.05, 1.0, 0.25
IDLE, BUSY = 100, 4


def add_options(parser):
    parser.add_argument("--python", default="3.13-pyenv", help="the first interpreter whose label begins so (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a turn")
    parser.add_argument("--rounds", type=int, default=3)


def cpu_seconds(pid):
    with open("/proc/%d/stat" % pid) as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Terminal:
    """A command in tmux, until the `with` ends."""

    def __init__(self, command, width=80, height=24):
        self.socket = "gilprof-eval-%d" % os.getpid()
        self.tmux = ["tmux", "-L", self.socket, "-f", "/dev/null"]
        self.command = ["new-session", "-d", "-x", str(width), "-y", str(height)] + command

    def __enter__(self):
        self.began = time.monotonic()
        subprocess.run(self.tmux + self.command, check=True)
        self.pid = int(subprocess.check_output(self.tmux + ["list-panes", "-F", "#{pane_pid}"]))
        return self

    def __exit__(self, *_):
        subprocess.run(self.tmux + ["kill-server"])

    def screen(self):
        return subprocess.check_output(self.tmux + ["capture-pane", "-p"]).decode()

    def first(self, word, limit=10):
        """Seconds until the screen has this word."""
        while word not in self.screen():
            if time.monotonic() - self.began > limit:
                raise Failed("the screen of top has no %r:\n%s" % (word, self.screen()))
            time.sleep(0.02)
        return time.monotonic() - self.began

    def updates(self, seconds):
        """How many different screens there were a second."""
        end, last, count = time.monotonic() + seconds, self.screen(), 0
        while time.monotonic() < end:
            time.sleep(0.04)
            now = self.screen()
            count += now != last
            last = now
        return count / seconds

    def cost(self, seconds):
        before = cpu_seconds(self.pid)
        time.sleep(seconds)
        return (cpu_seconds(self.pid) - before) / seconds


def one_round(binary, pid, seconds):
    with Terminal([binary, "top", str(pid)]) as terminal:
        first = terminal.first("GIL busy")
        time.sleep(1)
        updates = terminal.updates(seconds)
        top = terminal.cost(seconds)
    attach = subprocess.Popen([binary, "attach", "--pid", str(pid), "--duration", "0"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    before = cpu_seconds(attach.pid)
    time.sleep(seconds)
    alone = (cpu_seconds(attach.pid) - before) / seconds
    attach.terminate()
    attach.wait()
    return first, top, alone, updates


def host(binary, python, seconds):
    with targets.Target(python, "host", "--idle", IDLE, "--busy", BUSY):
        with Terminal([binary, "top"], 120, 40) as terminal:
            terminal.first("Python processes")
            time.sleep(3)
            cost = terminal.cost(seconds)
            rows = [line.split() for line in terminal.screen().splitlines() if line.startswith("  ")]
        waiting = [float(row[-3]) for row in rows if len(row) > 4 and row[-3].replace(".", "").isdigit()]
        # Above them is only the process that started all.
        return cost, len([figure for figure in waiting[:BUSY + 2] if figure > 1])


def run(options):
    if not shutil.which("tmux"):
        raise NotMeasured("failed to find tmux; apt-get install tmux")
    binary, python = targets.gilprof(options), targets.interpreters(options.python)[0]
    with targets.Target(python, "mixed") as target:
        rounds = [one_round(binary, target.pid, options.seconds) for _ in range(options.rounds)]
    first = max(one[0] for one in rounds)
    more = [top - alone for _, top, alone, _ in rounds]
    updates = statistics.median(one[3] for one in rounds)
    print("top and attach: " + ", ".join("%.1f %% and %.1f %%" % (100 * top, 100 * alone) for _, top, alone, _ in rounds), file=sys.stderr)
    cost, found = host(binary, python, options.seconds)
    middle = statistics.median(more)
    checks = [check("first", first <= FIRST_BOUND_S, "the first screen after %.2f s at most (bound %g s)" % (first, FIRST_BOUND_S)),
              check("updates", None, "%.1f different screens a second" % updates),
              check("cost", middle <= COST_BOUND, "beyond the samples %.1f %% of a core (median of %d, %.1f to %.1f; bound %g %%)" % (
                  100 * middle, len(more), 100 * min(more), 100 * max(more), 100 * COST_BOUND)),
              check("host", cost <= HOST_BOUND and found == BUSY, "%d idle and %d contended processes: %.0f %% of a core (bound %g %%), %d of %d contended ones on top" % (
                  IDLE, BUSY, 100 * cost, 100 * HOST_BOUND, found, BUSY))]
    return Measurement(checks, [], [], {"python": [python["version"]]})
