#!/usr/bin/env python3
"""Measures gilprof and its peers side by side, in one run, on the same targets: py-spy, the sampling profiler of Python 3.15 (Tachyon), Austin.

Prints, and with --write puts into docs/performance.md: what each profiler costs itself and gets for it (CPU time per second of profiling, start-up
included; looks; memory), what it costs the program (tests/bench/stretches.py), how soon it looks first, and how far one look of gilprof's is from its
bare system calls (examples/look_cost.rs). As root, for Tachyon and --exact. The peers come from PyPI into a cache of their own; what is not to be had
is named and left out. Medians, with the lowest and the highest.
"""
import argparse
import json
import os
import sys
import tempfile

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
sys.path[:0] = [os.path.join(REPOSITORY, "tests", folder) for folder in ("bench", "support")]
import cost  # noqa: E402
import document  # noqa: E402
import stretches  # noqa: E402
import targets  # noqa: E402
import tools  # noqa: E402

TARGETS = {
    "2 busy": ["--busy", 2],
    "8 busy": ["--busy", 8],
    "32 busy": ["--busy", 32],
    "8 busy, 60 frames": ["--busy", 8, "--depth", 60],
    "8 mixed": ["--busy", 0, "--mixed", 8],
    "8 busy, 120 idle": ["--busy", 8, "--idle", 120],
    "128 idle": ["--busy", 0, "--idle", 128],
}
# Those that take long for each look are measured on these only.
SLOW_TOOLS_ON = ("8 busy", "32 busy")
# Whose cost to the program is measured, and on what.
COSTLY = ("gilprof", "py-spy", "py-spy --nonblocking", "Tachyon --binary")
COSTLY_ON = "8 busy"
PARTS = ["cost", "slow", "first", "look", "memory"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.15", help="the target's interpreter: the first whose label begins so (default: %(default)s)")
    parser.add_argument("--targets", default="", help="only these, separated by `;`: " + "; ".join(TARGETS))
    parser.add_argument("--tools", default="", help="only profilers whose name begins with one of these, separated by `;`")
    parser.add_argument("--parts", default=",".join(PARTS), help="only these (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each profile (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=5, help="profiles of each kind (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=40, help="paired stretches, for the cost to the program (default: %(default)s)")
    parser.add_argument("--gilprof", default="", help="the binary (default: the release build)")
    parser.add_argument("--json", default="", help="write all figures to this file")
    parser.add_argument("--from", dest="earlier", default="", help="measure nothing: print what --json kept earlier")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md")
    return parser.parse_args()


def interpreter(wanted):
    found = targets.interpreters(wanted)
    return found[0] if found else sys.exit(
        "scripts/bench: failed to find an interpreter %s; scripts/setup-pythons --list names those there are" % wanted)


def chosen(names, given):
    wanted = [n.strip() for n in given.split(";") if n.strip()]
    unknown = [n for n in wanted if n not in names]
    if unknown:
        sys.exit("scripts/bench: failed to find %s; there are: %s" % (unknown, "; ".join(names)))
    return wanted or list(names)


def measure(options, python, there):
    figures = {"cost": {}, "slow": {}, "first": {}, "look": {}, "memory": {}}
    parts = options.parts.split(",")
    for name in chosen(TARGETS, options.targets):
        with targets.Target(python, "crowd", *TARGETS[name]) as target:
            if "cost" in parts:
                figures["cost"][name] = {}
                for rate in (1000, 10000):
                    # Those that cannot hold the lower rate would take minutes for seconds of the higher one.
                    able = [tool for tool in there if tool.fast or rate == 1000 and name in SLOW_TOOLS_ON]
                    figures["cost"][name][rate] = cost.runs(able, target.pid, rate, options.seconds, options.repeat, document.say(name, rate))
            if "first" in parts:
                figures["first"][name] = {tool.name: [cost.first_look(tool, target.pid, 1000) for _ in range(options.repeat)] for tool in there}
            if "look" in parts:
                figures["look"][name] = {rate: cost.look(target.pid, rate) for rate in (1000, 10000)}
    if "slow" in parts:
        with targets.Target(python, "crowd", *TARGETS[COSTLY_ON]) as target:
            figures["slow"][COSTLY_ON] = slow_down(options, target, there)
    if "memory" in parts:
        with targets.Target(python, "crowd", *TARGETS["32 busy"]) as target:
            figures["memory"] = cost.run(there[0], target.pid, 1000, 60)
    return figures


def slow_down(options, target, there):
    """Percent of the program's throughput, and of its share of a CPU, that each profiler takes: by round. Also what the bare system calls of a look
    take, made by a program that does nothing else."""
    commands = {"none": None, "bare system calls, 1000 Hz": cost.look_cost(target.pid, 1000, 1 << 30, "floor")}
    with tempfile.TemporaryDirectory() as folder:
        for tool in (tool for tool in there if tool.name in COSTLY):
            for rate in (1000, 10000) if tool.name == "gilprof" else (1000,):
                commands["%s, %d Hz" % (tool.name, rate)] = tool.attach(target.pid, rate, None, os.path.join(folder, "profile"))
        done = stretches.rounds(target, commands, options.rounds, 1.0, 1.0, {})
    return {name: {figure: stretches.lowered(done, figure, name, "none") for figure in ("rate", "share")} for name in commands if name != "none"}


def main():
    options = arguments()
    python = interpreter(options.python)
    there = tools.all_tools(targets.gilprof(options.gilprof), python)
    wanted = [n.strip() for n in options.tools.split(";") if n.strip()]
    there = [tool for tool in there if not wanted or any(tool.name.startswith(n) for n in wanted)]
    if options.earlier:
        with open(options.earlier) as file:
            figures = json.load(file)
    else:
        try:
            figures = measure(options, python, there)
        except targets.Failed as e:
            sys.exit("scripts/bench: %s" % e)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(figures, file)
    path = os.path.join(REPOSITORY, "docs", "performance.md")
    before = open(path).read() if os.path.exists(path) else ""
    page = document.page(figures, python, options, before)
    print(page)
    if options.write:
        with open(path, "w") as file:
            file.write(page)


if __name__ == "__main__":
    main()
