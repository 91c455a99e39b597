"""The figures of scripts/bench as a page: docs/performance.md."""
import os
import sys

from cost import middle
from stretches import interval, median


def say(target, rate):
    def line(tool, figures):
        print("%-18s %6d Hz  %-22s %s" % (target, rate, tool, "  ".join("%s %s" % (k, short(v)) for k, v in figures.items())), file=sys.stderr, flush=True)
    return line


def short(value):
    return "-" if value is None else "%.4g" % value


def spread(figures, name, scale=1.0, form="%.3g"):
    found = middle(figures, name)
    return "–" if found is None else (form + " (" + form + " – " + form + ")") % tuple(scale * v for v in found)


def times(runs, ours, name):
    theirs, ours = middle(runs, name), middle(ours, name)
    return "%.1f" % (theirs[0] / ours[0]) if theirs and ours else "–"


def machine():
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "?")
    return "%s, %d CPUs, Linux %s" % (model, len(os.sched_getaffinity(0)), os.uname().release)


BY_HAND = "## What is not met, and why"


def by_hand(before):
    """The part of the page that people write, as it was."""
    return before[before.index(BY_HAND):].split("\n## ")[0].rstrip() if BY_HAND in before else BY_HAND + "\n"


def page(figures, python, options, before):
    parts = ["# What measuring costs\n",
             "Made by `scripts/bench --repeat %d --seconds %g --rounds %d --write` on %s, against Python %s (%s). Medians, with the lowest and the highest." % (
                 options.repeat, options.seconds, options.rounds, machine(), python["version"], python["label"])]
    parts.append("\n" + by_hand(before))
    if figures["cost"]:
        parts += ["\n## The profilers side by side\n", *cost_table(figures["cost"])]
    if figures["slow"]:
        parts += ["\n## What they cost the program\n", *slow_table(figures["slow"], options)]
    if figures["first"]:
        parts += ["\n## From the start to the first look\n", *first_table(figures["first"])]
    if figures["look"]:
        parts += ["\n## One look, and its bare system calls\n", *look_table(figures["look"])]
    if figures["memory"]:
        parts += ["\n## Memory\n", "A profile of 60 s of 32 busy threads at 1 kHz: %.1f MB at most." % (figures["memory"]["memory"] / 1e6)]
    return "\n".join(parts) + "\n"


def cost_table(table):
    yield "CPU: user and system time of the whole process per second of profiling, start-up included, in %. × gilprof: how many times gilprof's.\n"
    yield "py-spy makes every look that was asked for, however late: its seconds are those that it took. Austin counts stacks, not looks.\n"
    yield "| threads | Hz asked | profiler | CPU % | × gilprof | looks/s | CPU per look µs | × gilprof | missed % | failed % | memory MB | output kB |"
    yield "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for target, rates in table.items():
        for rate, profilers in rates.items():
            ours = profilers["gilprof"] if isinstance(profilers.get("gilprof"), list) else []
            for name, runs in profilers.items():
                if isinstance(runs, str):
                    yield "| %s | %s | %s | failed: %s |||||||||" % (target, rate, name, " ".join(runs.split())[:120])
                    continue
                for one in runs:
                    for figure in ("missed", "failed"):
                        if one.get(figure) is not None and one["looks"]:
                            one[figure + "_share"] = one[figure] / (one["looks"] + (one["missed"] or 0))
                yield "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |" % (
                    target, rate, name, spread(runs, "cpu", 100), times(runs, ours, "cpu"), spread(runs, "rate", form="%.0f"),
                    spread(runs, "each", 1e6), times(runs, ours, "each"), spread(runs, "missed_share", 100, "%.2f"),
                    spread(runs, "failed_share", 100, "%.2f"), spread(runs, "memory", 1e-6, "%.1f"), spread(runs, "size", 1e-3, "%.0f"))


def slow_table(table, options):
    yield "Percent of the program's work per second, and of the CPU time that it gets per second, that are lost while a profiler is at work: median of %d paired" % options.rounds
    yield "stretches of 1 s, its 95 % interval, and the quartiles. What a unit of work costs changes by itself on a machine whose cores others share; the CPU time does not.\n"
    yield "| threads | profiler | throughput % | quartiles | CPU time % | quartiles |"
    yield "|---|---|--:|--:|--:|--:|"
    for target, profilers in table.items():
        for name, lost in profilers.items():
            cells = []
            for figure in ("rate", "share"):
                values = sorted(lost[figure])
                cells += ["%+.2f (%+.2f – %+.2f)" % ((median(values),) + interval(values)),
                          "%+.2f – %+.2f" % (values[len(values) // 4], values[-1 - len(values) // 4])]
            yield "| %s | %s | %s |" % (target, name, " | ".join(cells))


def first_table(table):
    yield "Milliseconds; – where a profiler does not say for how long it has looked.\n"
    yield "| threads | profiler | ms |"
    yield "|---|---|--:|"
    for target, profilers in table.items():
        for name, values in profilers.items():
            yield "| %s | %s | %s |" % (target, name, spread([{"first": v} for v in values], "first", 1e3, "%.0f"))


def look_table(table):
    yield "CPU time of one look, and of its bare system calls, in µs: those of 400 real looks were noted and made again by themselves (`examples/look_cost.rs`). The"
    yield "sleep between two looks is in the last columns only.\n"
    yield "| threads | Hz | look, median | floor, median | ratio | look with sleep, mean | floor with sleep, mean | ratio | missed % | floor's missed % |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for target, rates in table.items():
        for rate, one in rates.items():
            look, floor = one["look"], one["floor"]
            yield "| %s | %s | %.1f | %.1f | %.2f | %.1f | %.1f | %.2f | %.2f | %.2f |" % (
                target, rate, look["median"], floor["median"], look["median"] / floor["median"], look["whole"], floor["whole"],
                look["whole"] / floor["whole"], look["missed"], floor["missed"])
