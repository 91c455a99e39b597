#!/usr/bin/env python3
"""What measuring costs the measured program: the work its threads do per second without gilprof, with it, and with gilprof --exact.

Three processes of tests/workloads/cpu.py with 8 threads take turns of .2 s (tests/support/turns.py): one has no gilprof, one has it, one has it with
--exact, each paused with its process. A round has every order of them, twice, and then changes who has which, until each process has had each: so that
neither the machine's pace nor what one process is by chance makes a difference. As root, for --exact. Prints by how much each kind lowers the
throughput, and the share of a CPU that the program gets: median of the rounds with its 95 % interval (order statistics), quartiles and extremes; and
what time gilprof's programs in the kernel take, which is part of the program's own.
"""
import argparse
import contextlib
import itertools
import math
import os
import signal
import sys
import time

sys.dont_write_bytecode = True
TESTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests")
sys.path[:0] = [os.path.join(TESTS, folder) for folder in ("bench", "support")]
import stretches  # noqa: E402
import targets  # noqa: E402
import turns  # noqa: E402

KINDS = ("none", "looks", "exact")
PAIRS = (("looks, against nothing", "looks", "none"), ("looks and exact, against nothing", "exact", "none"),
         ("exact, against looks alone", "exact", "looks"))
# Of the work: so small that what is begun and not done at the end of a turn makes no difference.
STEPS = 1000
# Seconds for which a process and its profiler are at work before the profiler is ended.
AWAKE = 0.2
# By how many percent `--exact` may lower the throughput that the looks leave.
BAR = 2
ORDERS = 2 * tuple(itertools.permutations(KINDS))
FIGURES = (("throughput", lambda work: work.done / work.seconds), ("share of a CPU", lambda work: work.cpu / work.seconds))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=12, help="of some 45 s each (default: %(default)s)")
    parser.add_argument("python", nargs="?", default="python3")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--settle", type=float, default=0.4, help="seconds from gilprof's start to the first turn (default: %(default)s)")
    parser.add_argument("--gilprof", default="", help="the binary (default: the release build)")
    return parser.parse_args()


class Watched:
    """A process and the profiler that is at work on it, which are paused together."""

    def __init__(self, target, profiler):
        self.target, self.child, self.profiler = target, target.child, profiler

    def ask(self, line):
        self.target.ask(line)

    def pause(self):
        self.target.pause()
        self.profiler.signal(signal.SIGSTOP)

    def resume(self):
        self.profiler.signal(signal.SIGCONT)
        self.target.resume()

    def wake(self):
        """So that the profiler's last look, with which its report ends, comes after all turns."""
        self.resume()
        time.sleep(AWAKE)


def block(processes, commands, settle):
    """By figure and pair: the logarithm of the ratio, median of all orders. `processes`: who has which of `commands`, both by kind."""
    with contextlib.ExitStack() as until:
        profilers = {kind: stretches.Profiler(commands(kind, processes[kind]), settle) for kind in KINDS}
        at = {}
        for kind in KINDS:
            processes[kind].resume()
            until.enter_context(profilers[kind])
            at[kind] = Watched(processes[kind], profilers[kind])
            until.callback(at[kind].wake)
            at[kind].pause()
        began = time.monotonic()
        found, stolen = zip(*(turns.undisturbed(at, order) for order in ORDERS))
    disturbed = sum(one > turns.STOLEN for one in stolen)
    if disturbed:
        print("kept, though over %g of the CPUs' time was stolen: %d of %d turns" % (turns.STOLEN, disturbed, len(stolen)), file=sys.stderr, flush=True)
    for kind in KINDS[1:]:
        report = stretches.gilprof_was_there(profilers[kind], began)
        if report["window"]["exact"] != (kind == "exact"):
            sys.exit("scripts/exact-cost: exact mode is not to be had here: %s" % "; ".join(report["warnings"]))
    for process in processes.values():
        process.pause()
    return {(name, a, b): stretches.median([math.log(figure(one[a]) / figure(one[b])) for one in found])
            for name, figure in FIGURES for _, a, b in PAIRS}


def one_round(targets_, commands, settle):
    """By how many percent a figure is lowered, by figure and pair: the geometric mean of the blocks in which each process had each kind."""
    blocks = [block(dict(zip(KINDS, targets_[n:] + targets_[:n])), commands, settle) for n in range(len(KINDS))]
    return {key: 100 * (1 - math.exp(sum(one[key] for one in blocks) / len(blocks))) for key in blocks[0]}


def in_kernel_programs(command, settle, seconds=5):
    """The time that gilprof's programs in the kernel take from whom they watch, by the kernel's own count (kernel.bpf_stats_enabled)."""
    switch = "/proc/sys/kernel/bpf_stats_enabled"
    if not os.access(switch, os.W_OK):
        return "not measured: %s is not to be had here" % switch
    with open(switch) as file:
        before = file.read()
    with open(switch, "w") as file:
        file.write("1")
    try:
        with stretches.Profiler(command, settle) as profiler:
            first = counted(profiler.child.pid)
            time.sleep(seconds)
            last = counted(profiler.child.pid)
    finally:
        with open(switch, "w") as file:
            file.write(before)
    if last[0] == first[0]:
        return "not measured: the kernel counts no runs"
    return "%.0f runs a second, %.3f %% of a CPU" % ((last[0] - first[0]) / seconds, (last[1] - first[1]) / seconds / 1e7)


def counted(pid):
    """Runs of all programs that a process has open, and the nanoseconds that they took."""
    runs = nanos = 0
    for name in os.listdir("/proc/%d/fdinfo" % pid):
        with open("/proc/%d/fdinfo/%s" % (pid, name)) as file:
            facts = dict(line.split(":", 1) for line in file if ":" in line)
        runs, nanos = runs + int(facts.get("run_cnt", 0)), nanos + int(facts.get("run_time_ns", 0))
    return runs, nanos


def main():
    options = arguments()
    gilprof = targets.gilprof(options.gilprof)

    def commands(kind, target):
        attach = [gilprof, "attach", "--pid", str(target.pid), "--duration", "0", "--format", "json"]
        return {"none": None, "looks": attach, "exact": attach + ["--exact"]}[kind]

    rounds = []
    with contextlib.ExitStack() as until:
        python = {"path": options.python, "root": ""}
        at_work = [until.enter_context(targets.Target(python, "cpu", "--threads", options.threads, "--steps", STEPS)) for _ in KINDS]
        for target in at_work:
            target.pause()
        for _ in range(options.rounds):
            rounds.append(one_round(at_work, commands, options.settle))
            print("  ".join("%s %+.2f" % (title, rounds[-1]["throughput", a, b]) for title, a, b in PAIRS), file=sys.stderr, flush=True)
        at_work[0].resume()
        programs = in_kernel_programs(commands("exact", at_work[0]), options.settle)
    for title, a, b in PAIRS:
        for name, _ in FIGURES:
            stretches.show("%s: %s" % (title, name), [one[name, a, b] for one in rounds])
    print("gilprof's programs in the kernel: " + programs)
    added = stretches.median([one["throughput", "exact", "looks"] for one in rounds])
    print("%s --exact lowers the throughput by %.2f %% (at most %g)" % ("holds  " if added < BAR else "BROKEN ", added, BAR))
    return added >= BAR


if __name__ == "__main__":
    try:
        sys.exit(main())
    except targets.Failed as e:
        sys.exit("scripts/exact-cost: %s" % e)
