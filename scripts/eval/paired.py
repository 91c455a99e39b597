"""Work that a running program does with and without a profiler, in turn: stretches of one process, compared within a round.

One process throughout, so that rounds differ by what is done to it and by nothing else. A stretch begins when the profiler has been at work for
a moment, and ends before the profiler does: what starting it costs is another figure.
"""
import json
import math
import signal
import subprocess
import sys
import time

from targets import stolen, ticks

# A shell's background job ignores interrupts, and so would the profilers that it starts, which are ended by them.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Stretches of which a hypervisor took more than this share are made again, so many times at most.
STOLEN, TRIES = 0.02, 4


def done(target):
    """(seconds, work done, CPU seconds) since the target was ready, by its own clocks."""
    target.ask(b"?")
    said = json.loads(target.child.stdout.readline())
    return said["seconds"], said["done"], said["cpu"]


class Profiler:
    """A profiler at work on a target until the `with` ends, which interrupts it. `command` None: nobody is at work."""

    def __init__(self, command, settle):
        self.command, self.settle = command, settle

    def __enter__(self):
        self.child = self.command and subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(self.settle)
        return self

    def signal(self, number):
        if self.child:
            self.child.send_signal(number)

    def __exit__(self, *_):
        self.interrupted, self.output = time.monotonic(), b""
        if self.child:
            if self.child.poll() is not None:
                sys.exit("%s ended by itself: %s" % (" ".join(self.command), self.child.communicate()[1].decode()))
            self.child.send_signal(signal.SIGINT)
            self.output = self.child.communicate()[0]


def gilprof_was_there(profiler, began):
    """Its report, after making sure that its first look came before the stretch did."""
    report = json.loads(profiler.output)
    if profiler.interrupted - report["window"]["seconds"] > began:
        sys.exit("gilprof's first look came %.0f ms after the stretch began: let it settle for longer" % (
            1e3 * (profiler.interrupted - report["window"]["seconds"] - began)))
    return report


def stretch(target, command, seconds, settle, check=None):
    """Of one stretch: what was done per second of wall time, CPU seconds per unit of work, and CPU seconds per second of wall time.

    The first is the product of the inverse second and the third. A machine whose cores others share changes the second by itself, from moment to
    moment and by far more than a profiler does; the third it leaves alone.
    """
    for _ in range(TRIES):
        with Profiler(command, settle) as profiler:
            before, began, (start, first, cpu) = ticks(), time.monotonic(), done(target)
            time.sleep(seconds)
            (end, last, cpu_end), after = done(target), ticks()
        if command and check:
            check(profiler, began)
        lost = stolen(before, after)
        if lost <= STOLEN:
            break
    if lost > STOLEN:
        print("kept, though %.0f %% of it was stolen in the last of %d tries" % (100 * lost, TRIES), file=sys.stderr, flush=True)
    return {"rate": (last - first) / (end - start), "cpu": (cpu_end - cpu) / (last - first), "share": (cpu_end - cpu) / (end - start)}


def rounds(target, commands, count, seconds, settle, check):
    """`count` rounds with a stretch of each of `commands` (name to command), in changing order: a list of name to stretch."""
    names, all_rounds = list(commands), []
    for n in range(count):
        turn = names[n % len(names):] + names[:n % len(names)]
        turn = turn if n % 2 else turn[::-1]
        all_rounds.append({name: stretch(target, commands[name], seconds, settle, check.get(name)) for name in turn})
        print("  ".join("%s %.1f" % (name, all_rounds[-1][name]["rate"]) for name in names), file=sys.stderr, flush=True)
    return all_rounds


def median(values):
    values, n = sorted(values), len(values)
    return (values[(n - 1) // 2] + values[n // 2]) / 2


def interval(values):
    """The median's interval, which holds at 95 % or more whatever the distribution: the ranks are those of a fair coin."""
    values, n = sorted(values), len(values)
    rank = next((k for k in range(n // 2, 0, -1) if sum(math.comb(n, i) for i in range(k)) <= 0.025 * 2 ** n), 0)
    return (values[rank - 1], values[n - rank]) if rank else (float("-inf"), float("inf"))


def lowered(all_rounds, figure, name, base):
    """By how many percent `name` lowered a figure of `base`, by round."""
    return [100 * (1 - one[name][figure] / one[base][figure]) for one in all_rounds]


def show(title, values):
    values, n = sorted(values), len(values)
    print("%-48s median %+.2f %% (95 %%: %+.2f to %+.2f)   quartiles %+.2f to %+.2f   extremes %+.2f to %+.2f   %d rounds" % (
        (title, median(values)) + interval(values) + (values[n // 4], values[n - 1 - n // 4], values[0], values[-1], n)))
