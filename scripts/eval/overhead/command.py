"""Measures gilprof and its peers side by side, on the same targets: py-spy, the sampling profiler
of Python 3.15 (Tachyon), Austin.

Measures the cost to the profiler (CPU time per second of profiling, start-up included; samples;
memory), the cost to the program (paired sections), the time to the first sample, and the cost of
one of gilprof's samples next to the bare system calls it makes (sample_cost.rs). Tachyon and
--engine kernel need root. The peers come from PyPI into a cache of their own; a peer that cannot be
had is left out. Figures are medians, with the lowest and the highest.
"""
import os
import shutil
import tempfile

import paired
import targets
from common import Measurement, UsageError, choose
from overhead import cost, profilers, table

RESULTS = "performance"
TARGETS = {
    "2 busy": ["--busy", 2],
    "8 busy": ["--busy", 8],
    "32 busy": ["--busy", 32],
    "8 busy, 60 frames": ["--busy", 8, "--depth", 60],
    "8 mixed": ["--busy", 0, "--mixed", 8],
    "8 busy, 120 idle": ["--busy", 8, "--idle", 120],
    "128 idle": ["--busy", 0, "--idle", 128],
}
# Profilers with slow samples are measured on these targets only.
SLOW_PROFILERS_ON = ("8 busy", "32 busy")
# The profilers whose cost to the program is measured, and the target.
SLOWDOWN_OF = ("gilprof", "gilprof --engine kernel", "py-spy", "py-spy --nonblocking", "Tachyon --binary")
SLOWDOWN_ON = "8 busy"
MEMORY_ON = "32 busy"
PARTS = ["cost", "slowdown", "first", "sample", "memory"]
# Options that leave out rows.
NARROWING = ("targets", "tools")
QUICK = {"targets": "2 busy", "tools": "gilprof", "parts": "cost,first,sample", "seconds": 1.0, "repeat": 1, "rounds": 2}


def add_options(parser):
    parser.add_argument("--python", default="3.15", help="the target's interpreter: the first whose label begins so (default: %(default)s)")
    parser.add_argument("--targets", default="", help="only these, separated by `;`: " + "; ".join(TARGETS))
    parser.add_argument("--tools", default="", help="only profilers whose name begins with one of these, separated by `;`")
    parser.add_argument("--parts", default=",".join(PARTS), help="only these (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each profile (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="profiles of each kind (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=40, help="paired sections, for the cost to the program (default: %(default)s)")


def rows_of_target(name, options, parts, tools, target):
    if "cost" in parts:
        for rate in (1000, 10000):
            # A profiler that cannot hold the lower rate would need minutes for seconds at the
            # higher one.
            able = [tool for tool in tools if tool.fast or rate == 1000 and name in SLOW_PROFILERS_ON]
            runs = cost.runs(able, target.pid, rate, options.seconds, options.repeat, table.progress(name, rate))
            yield from table.cost_rows(name, rate, runs)
    if "first" in parts:
        for tool in tools:
            seconds = [cost.first_sample(tool, target.pid, 1000) for _ in range(options.repeat)]
            yield {"part": "first", "target": name, "profiler": tool.name, "ms": table.spread(seconds, 1e3)}
    if "sample" in parts:
        tool = targets.example(options, "sample_cost")
        for rate in (1000, 10000):
            yield dict({"part": "sample", "target": name, "rate": rate}, **cost.sample(tool, target.pid, rate, options.seconds))


def measure(options, parts, names, python, tools):
    for name in names:
        with targets.Target(python, "crowd", *TARGETS[name]) as target:
            yield from rows_of_target(name, options, parts, tools, target)
    if "slowdown" in parts:
        with targets.Target(python, "crowd", *TARGETS[SLOWDOWN_ON]) as target:
            yield from slowdown(options, target, tools)
    if "memory" in parts:
        with targets.Target(python, "crowd", *TARGETS[MEMORY_ON]) as target:
            for tool in (tool for tool in tools if tool.name in ("gilprof", "gilprof --engine kernel")):
                figures = cost.run(tool, target.pid, 1000, 60)
                yield {"part": "memory", "target": MEMORY_ON, "profiler": tool.name, "rate": 1000, "seconds": 60, "mb": figures["memory"] / 1e6}


def slowdown(options, target, tools):
    """By how many percent each profiler lowers the program's throughput and its share of a CPU.

    The bare system calls of a sample are measured too, made by a program that does nothing else.
    """
    floor = [targets.example(options, "sample_cost"), str(target.pid), str(1 << 30), "1000", "floor"]
    commands = {("none", 0): None, ("bare system calls", 1000): floor}
    with tempfile.TemporaryDirectory() as folder:
        for tool in (tool for tool in tools if tool.name in SLOWDOWN_OF):
            for rate in (1000, 10000) if tool.name.startswith("gilprof") else (1000,):
                commands[tool.name, rate] = tool.attach(target.pid, rate, None, os.path.join(folder, "profile"))
        by_text = {"%s, %d Hz" % key: key for key in commands}
        rounds = paired.rounds(target, {text: commands[key] for text, key in by_text.items()}, options.rounds, 1.0, 1.0)
    for text, (name, rate) in by_text.items():
        if name != "none":
            yield {"part": "slowdown", "target": SLOWDOWN_ON, "profiler": name, "rate": rate,
                   "throughput": paired.spread(paired.lowered(rounds, "rate", text, "none, 0 Hz")),
                   "cpu_share": paired.spread(paired.lowered(rounds, "share", text, "none, 0 Hz"))}


def run(options):
    parts, names = options.parts.split(","), choose(list(TARGETS), options.targets)
    if set(parts) - set(PARTS):
        raise UsageError("failed to find the parts %s; there are: %s" % (sorted(set(parts) - set(PARTS)), ", ".join(PARTS)))
    python = targets.interpreters(options.python)[0]
    wanted = [name.strip() for name in options.tools.split(";") if name.strip()]
    tools = profilers.available(targets.gilprof(options), python, wanted)
    rows = list(measure(options, parts, names, python, tools))
    table.print_rows(rows)
    versions = {"python": [python["version"]], "peers": [peer for peer in profilers.PEERS if shutil.which(peer.split("==")[0].split("-dist")[0], path=profilers.PROGRAMS)]}
    return Measurement(table.checks(rows), rows, None, versions)
