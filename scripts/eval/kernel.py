"""Measures what the kernel engine costs the measured program: work per second without gilprof, with
samples, and with --engine kernel.

Three processes of tests/workloads/cpu.py with 8 threads take turns of 0.2 s: one without gilprof,
one sampled, one with --engine kernel, each stopped together with its profiler. A round has every order of
the three, twice, and then exchanges the profilers until each process had each of them. So neither
the machine's speed nor the differences between processes matter. Needs root. Prints by how much
each kind lowers the throughput and the program's share of a CPU: median of the rounds with its 95 %
interval (order statistics). The time of gilprof's BPF programs is part of the program's own.
"""
import contextlib
import itertools
import math
import signal
import statistics
import sys
import time

import paired
import targets
import programs
import turns
from common import Measurement, NotMeasured, check

RESULTS = "kernel"
QUICK = {"rounds": 1}
KINDS = ("none", "samples", "kernel")
PAIRS = (("sampling, against no profiler", "samples", "none"), ("kernel engine, against no profiler", "kernel", "none"),
         ("kernel engine, against sampling", "kernel", "samples"))
# Size of a unit of work: so small that the unfinished unit at the end of a turn makes no
# difference.
STEPS = 1000
# Seconds for which a process and its profiler run before the profiler is ended.
AWAKE = 0.2
# By how many percent `--engine kernel` may lower the throughput: the median, and the upper end of
# its interval; and the share of a core that its programs may use, in percent.
BOUND, UPPER_BOUND, PROGRAMS_BOUND = 0.5, 1.0, 1.0
ORDERS = 2 * tuple(itertools.permutations(KINDS))
FIGURES = (("throughput", lambda work: work.done / work.seconds), ("share of a CPU", lambda work: work.cpu / work.seconds))


def add_options(parser):
    parser.add_argument("--rounds", type=int, default=12, help="rounds of some 45 s each (default: %(default)s)")
    parser.add_argument("--python", default="python3", help="the interpreter (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=8, help="CPU-bound threads of each process (default: %(default)s)")
    parser.add_argument("--settle", type=float, default=0.4, help="seconds from gilprof's start to the first turn (default: %(default)s)")


class Profiled:
    """A process and its profiler, which are stopped and continued together."""

    def __init__(self, target, profiler):
        self.target, self.child, self.profiler = target, target.child, profiler

    def progress(self):
        return self.target.progress()

    def pause(self):
        self.target.pause()
        self.profiler.signal(signal.SIGSTOP)

    def resume(self):
        self.profiler.signal(signal.SIGCONT)
        self.target.resume()

    def wake(self):
        """Lets the profiler take its last sample, which ends its report, after all turns."""
        self.resume()
        time.sleep(AWAKE)


def block(processes, commands, settle):
    """The logarithm of the ratio by figure and pair: median of all orders.

    `processes`: the process of each kind.
    """
    with contextlib.ExitStack() as until:
        profilers = {kind: paired.Profiler(commands(kind, processes[kind]), settle) for kind in KINDS}
        running = {}
        for kind in KINDS:
            processes[kind].resume()
            until.enter_context(profilers[kind])
            running[kind] = Profiled(processes[kind], profilers[kind])
            until.callback(running[kind].wake)
            running[kind].pause()
        began = time.monotonic()
        found, stolen = zip(*(turns.undisturbed(running, order) for order in ORDERS))
    disturbed = sum(one > turns.STOLEN for one in stolen)
    if disturbed:
        print("kept, though the hypervisor stole over %g of the CPUs' time: %d of %d turns" % (turns.STOLEN, disturbed, len(stolen)), file=sys.stderr, flush=True)
    for kind in KINDS[1:]:
        report = paired.report_covering(profilers[kind], began)
        if report["window"]["engine"] != kind:
            raise NotMeasured("the kernel engine is not available: %s" % "; ".join(report["warnings"]))
    for process in processes.values():
        process.pause()
    return {(name, a, b): statistics.median([math.log(figure(one[a]) / figure(one[b])) for one in found])
            for name, figure in FIGURES for _, a, b in PAIRS}


def one_round(processes, commands, settle):
    """By how many percent a figure is lowered, by figure and pair: the geometric mean of the blocks
    in which each process had each kind.
    """
    blocks = [block(dict(zip(KINDS, processes[n:] + processes[:n])), commands, settle) for n in range(len(KINDS))]
    return {key: 100 * (1 - math.exp(sum(one[key] for one in blocks) / len(blocks))) for key in blocks[0]}


def run(options):
    version, gilprof = targets.python_version(options.python), targets.gilprof(options)

    def commands(kind, target):
        attach = [gilprof, "attach", "--pid", str(target.pid), "--duration", "0", "--format", "json"]
        return {"none": None, "samples": attach, "kernel": attach + ["--engine", "kernel"]}[kind]

    rounds = []
    with contextlib.ExitStack() as until:
        python = targets.this_python(options.python)
        processes = [until.enter_context(targets.Target(python, "cpu", "--threads", options.threads, "--steps", STEPS)) for _ in KINDS]
        for process in processes:
            process.pause()
        for _ in range(options.rounds):
            rounds.append(one_round(processes, commands, options.settle))
            print("  ".join("%s %+.2f" % (title, rounds[-1]["throughput", a, b]) for title, a, b in PAIRS), file=sys.stderr, flush=True)
        processes[0].resume()
        in_kernel = programs.cost(commands("kernel", processes[0]), options.settle)
    return Measurement(checks(rounds, in_kernel), rows(rounds, in_kernel), None, {"python": [version]})


def rows(rounds, in_kernel):
    for title, a, b in PAIRS:
        yield dict({"part": "cost", "comparison": title}, **{name: paired.spread([one[name, a, b] for one in rounds]) for name, _ in FIGURES})
    if isinstance(in_kernel, dict):
        yield dict({"part": "cost", "comparison": "BPF programs"}, **in_kernel)


def checks(rounds, in_kernel):
    for row in rows(rounds, {}):
        if "throughput" in row:
            yield check("cost", None, "%s: throughput lowered by %s %%, share of a CPU by %s %%, %d rounds" % (
                row["comparison"], paired.spread_text(row["throughput"]), paired.spread_text(row["share of a CPU"]), len(rounds)))
    measured = isinstance(in_kernel, dict)
    yield check("cost", in_kernel["cpu_percent"] <= PROGRAMS_BOUND if measured else None, "BPF programs: " + (
        "%(runs_per_s).0f runs per second, %(cpu_percent).3f %% of a CPU" % in_kernel if measured else "not measured, " + in_kernel))
    lowered = paired.spread([one["throughput", "kernel", "none"] for one in rounds])
    # Too few rounds have no interval.
    upper = math.inf if lowered["high"] is None else lowered["high"]
    yield check("cost", lowered["median"] <= BOUND and upper <= UPPER_BOUND, "the kernel engine lowers the throughput by %s %% (bounds %g, and %g for the interval)" % (
        paired.spread_text(lowered), BOUND, UPPER_BOUND))
