"""Work that a running program does with and without a profiler, in turn: sections of one process,
compared within a round.

One process is used throughout, so that only the profiler differs between the sections of a round. A
section begins after the profiler has started and ends before the profiler does: the cost of
starting it is another figure.
"""
import json
import math
import signal
import statistics
import subprocess
import sys
import time

from common import Failed
from targets import stolen, ticks

# A shell starts background jobs with SIGINT ignored. Profilers would inherit that, and SIGINT is
# what ends them.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A section of which the hypervisor stole more than this share is repeated, up to TRIES times.
STOLEN, TRIES = 0.02, 4


class Profiler:
    """A profiler at work on a target until the `with` ends, which interrupts it.

    With `command` None there is no profiler.
    """

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
                raise Failed("%s ended by itself: %s" % (" ".join(self.command), self.child.communicate()[1].decode()[-500:]))
            self.child.send_signal(signal.SIGINT)
            self.output = self.child.communicate()[0]


def report_covering(profiler, began):
    """The profiler's report, after a check that its first sample came before the section began."""
    report = json.loads(profiler.output)
    late = profiler.interrupted - report["window"]["seconds"] - began
    if late > 0:
        raise Failed("gilprof's first sample came %.0f ms after the section began; give it a longer --settle" % (1e3 * late))
    return report


def section(target, command, seconds, settle):
    """One section: work per second of wall time, CPU seconds per unit of work, and CPU seconds per
    second of wall time.

    The first is the third divided by the second. A machine that shares its cores changes the second
    by itself, from moment to moment and by far more than a profiler does. It does not change the
    third.
    """
    for _ in range(TRIES):
        with Profiler(command, settle):
            before, first = ticks(), target.progress()
            time.sleep(seconds)
            last, after = target.progress(), ticks()
        lost = stolen(before, after)
        if lost <= STOLEN:
            break
    if lost > STOLEN:
        print("kept, though the hypervisor stole %.0f %% of the last of %d tries" % (100 * lost, TRIES), file=sys.stderr, flush=True)
    wall, work, cpu = (last[name] - first[name] for name in ("seconds", "done", "cpu"))
    return {"rate": work / wall, "cpu": cpu / work, "share": cpu / wall}


def rounds(target, commands, count, seconds, settle):
    """`count` rounds with one section of each of `commands` (name to command), in changing order: a
    list of name to section.
    """
    names, all_rounds = list(commands), []
    for n in range(count):
        order = names[n % len(names):] + names[:n % len(names)]
        order = order if n % 2 else order[::-1]
        all_rounds.append({name: section(target, commands[name], seconds, settle) for name in order})
        print("  ".join("%s %.1f" % (name, all_rounds[-1][name]["rate"]) for name in names), file=sys.stderr, flush=True)
    return all_rounds


def interval(values):
    """An interval of the median that holds at 95 % or more for any distribution (order statistics
    of a binomial).
    """
    values, n = sorted(values), len(values)
    rank = next((k for k in range(n // 2, 0, -1) if sum(math.comb(n, i) for i in range(k)) <= 0.025 * 2 ** n), 0)
    return (values[rank - 1], values[n - rank]) if rank else (-math.inf, math.inf)


def lowered(all_rounds, figure, name, base):
    """By how many percent `name` lowers a figure of `base`, by round."""
    return [100 * (1 - one[name][figure] / one[base][figure]) for one in all_rounds]


def spread(values):
    """Median, 95 % interval of it, and quartiles.

    The interval is None where there are too few rounds for one.
    """
    ordered, n = sorted(values), len(values)
    low, high = interval(ordered)
    return {"median": statistics.median(ordered), "low": low if math.isfinite(low) else None, "high": high if math.isfinite(high) else None,
            "quartiles": [ordered[n // 4], ordered[n - 1 - n // 4]], "rounds": n}


def spread_text(one):
    """A spread as `median (low to high)`, in percent."""
    return "%+.2f" % one["median"] + ("" if one["low"] is None else " (%+.2f to %+.2f)" % (one["low"], one["high"]))
