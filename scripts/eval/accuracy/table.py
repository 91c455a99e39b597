"""Errors and bounds: one line for each run, the checks over all runs, and the rows for
docs/results.
"""
from accuracy.cases import LIMITS
from accuracy.measure import STOLEN
from common import check

# Bounds per thread: worst and mean error. With competing load only waiting has one.
BOUNDS = {"waiting": (0.03, 0.01), "holding": (0.03, 0.01), "native": (0.05, None), "starved": (0.05, None)}
WITH_LOAD = {"waiting": (0.05, None)}
# The kernel engine's goals.
KERNEL = {"waiting": (0.005, 0.001), "starved": (0.01, None), "holding": (0.02, None), "native": (0.02, None)}
# An ordinary user's gilprof has counts of switches in place of kernel stacks.
USER, USER_WITH_LOAD = {"waiting": (0.05, 0.01)}, {"waiting": (0.08, 0.02)}
CONDITIONS = {"idle machine": BOUNDS, "with load": WITH_LOAD, 
              "kernel engine": KERNEL, "kernel engine, with load": KERNEL, "as a user": USER, "as a user, with load": USER_WITH_LOAD,
              # By `replay` alone: samples that root took, classified by what a user may read; and by
              # what remains where neither decides, without a bound.
              "by counts of switches": USER, "by counts of switches, with load": USER_WITH_LOAD,
              "by CPU time": {}, "by CPU time, with load": {}}
# Counts of waits by the kernel engine: the error that is allowed, as a part of the actual count. A
# wait at an end of the window may be counted on either side of it.
COUNT_ERROR, COUNT_AT_ENDS = 0.01, 1
# The share of a thread's time that the probes in take_gil and drop_gil may use. Above that they
# have changed the program: they run with interrupts off, when no sample can be taken, so that
# samples miss the time they add.
DISTURBED = 0.05


def condition(run):
    replayed = {"switch-counts": "by counts of switches", "cpu-time": "by CPU time"}.get(run.get("resolver"))
    mode = replayed or ("kernel engine" if run.get("engine") == "kernel" else "as a user" if run.get("user") else "")
    return mode + ", with load" * run["loaded"] if mode else "with load" if run["loaded"] else "idle machine"


def errors(run, state):
    """(error, row) of each thread whose actual state is known."""
    return [(error(row, state), row) for row in run.get("threads", []) if state in row["actual"]]


def name(run):
    return run["case"] + (" --engine kernel" if run.get("engine") == "kernel" else "")


def disturbed(row):
    return row["actual"].get("inside", 0) > DISTURBED


def stolen_from(run):
    """The hypervisor stole more of the CPUs' time than the probes and the workload can bear."""
    return run.get("facts", {}).get("stolen", 0) > STOLEN


def unbounded(run):
    """The run is shown but no bound applies to it."""
    return stolen_from(run) or run["case"] in LIMITS


def error(row, state):
    """Reported minus actual, to the nearest value that the events leave possible.

    `doubt`: a thread that lost its CPU inside `take_gil` before it ever slept there may want the
    GIL or only a CPU. `trapped`: a thread after a forced switch that is still on its CPU wants the
    GIL again; most of that time is the watchpoint's trap. `ending`: a thread that runs at the end
    of its wait has just taken the GIL; most of that is the trap too. `unsigned`: the trap of a take
    (every second trap) fires between the store to `locked` and the store to `last_holder`, while
    the thread still looks as if it asked for the GIL or, where no field shows that (3.14), as if it
    ran native code. `named`: meanwhile the GIL is locked and names its previous holder, so that
    another thread seems to hold it.
    """
    off = row["reported"][state] - row["actual"][state]
    doubt, trapped, ending, unsigned, named = (row["actual"].get(key, 0) for key in ("doubt", "trapped", "ending", "unsigned", "named"))
    below, above = {"waiting": (doubt + ending, trapped + unsigned), "holding": (unsigned, named), "native": (trapped, ending + unsigned),
                    "starved": (0, doubt)}[state]
    return max(0, off - above) if off > 0 else min(0, off + below)


def worst(run, state):
    found = errors(run, state)
    found = [one for one in found if not disturbed(one[1])] or found
    return max(found, key=lambda one: abs(one[0])) if found else None


def print_run(run, threads=False):
    """The thread with the worst error of each state: reported, actual, error."""
    if "failed" in run:
        print("%-24s %-8s failed: %s" % (name(run), run["version"], run["failed"]), flush=True)
        return
    cells = []
    for state in BOUNDS:
        found = worst(run, state)
        cells.append("%s %-18s" % (state, "%.3f %.3f %+.3f%s" % (found[1]["reported"][state], found[1]["actual"][state], found[0],
                                                                  "~" if disturbed(found[1]) else "") if found else "-"))
    note = "  no bound: %.2f stolen by the hypervisor" % run["facts"]["stolen"] if stolen_from(run) else "  no bound: a known limit" if unbounded(run) else ""
    waits = "  waits %d %d" % tuple(run["facts"]["waits"]) if "waits" in run["facts"] else ""
    print("%-24s %-8s %s%s%s" % (name(run), run["version"], "  ".join(cells), waits, note), flush=True)
    if threads:
        print("    %s" % run["facts"])
        for row in run["threads"]:
            for side in ("reported", "actual"):
                shares = "  ".join("%s %.3f" % one for one in sorted(row[side].items()) if one[1] > 0.0005)
                print("    %-18s %-8s %s" % (row["name"][:18], side, shares))


def bounded(runs, wanted):
    """The runs of one condition to which its bounds apply."""
    return [run for run in runs if condition(run) == wanted and not unbounded(run)]


def median_errors(runs, state):
    """(error, run) of each thread.

    A workload that ran several times on a version gives the median error of its runs.
    """
    same = {}
    for run in runs:
        for off, row in errors(run, state):
            if not disturbed(row):
                # Brief threads share one row, whose name contains their number.
                same.setdefault((run["case"], run["label"], row["name"] if row["tid"] else ""), []).append((off, run))
    for found in same.values():
        found.sort(key=lambda one: one[0])
        # Of two in the middle the worse.
        yield max(found[(len(found) - 1) // 2], found[len(found) // 2], key=lambda one: abs(one[0]))


def state_checks(runs, wanted):
    for state, (most, most_mean) in CONDITIONS[wanted].items():
        of_condition = bounded(runs, wanted)
        found = [(abs(off), run) for off, run in median_errors(of_condition, state)]
        if not found:
            continue
        highest, where = max(found, key=lambda one: one[0])
        mean = sum(off for off, _ in found) / len(found)
        holds = highest <= most and (most_mean is None or mean <= most_mean)
        yield check(wanted, holds, "%s, %s: worst %.4f (bound %g, %s on %s), mean %.4f%s, %d threads" % (
            state, wanted, highest, most, where["case"], where["version"], mean, "" if most_mean is None else " (bound %g)" % most_mean, len(found)),
            state=state, worst=highest, worst_bound=most, worst_case=where["case"], worst_version=where["version"], mean=mean, mean_bound=most_mean,
            threads=len(found))
        for off, run in ((off, run) for run in of_condition for off, row in errors(run, state) if abs(off) > most and not disturbed(row)) if holds else ():
            times = sum(one["case"] == run["case"] and one["label"] == run["label"] for one in of_condition)
            yield check(wanted, None, "%s, %s: one run of %d beyond the bound, which the median leaves out: %+.4f, %s on %s" % (
                state, wanted, times, off, run["case"], run["version"]))


def miscounted(run):
    """The error of the count of waits, as a part of the actual count."""
    reported, actual = run["facts"]["waits"]
    return max(0, abs(reported - actual) - COUNT_AT_ENDS) / max(actual, 1)


def median_counts(runs, wanted):
    """(error, run) of each workload with counted waits; of several runs of one workload the median.
    """
    same = {}
    for run in bounded(runs, wanted):
        if "waits" in run.get("facts", {}):
            same.setdefault((run["case"], run["label"]), []).append((miscounted(run), run))
    return [sorted(found, key=lambda one: one[0])[len(found) // 2] for found in same.values()]


def count_checks(runs, wanted):
    found = median_counts(runs, wanted)
    if found:
        off, where = max(found, key=lambda one: one[0])
        reported, actual = (sum(run["facts"]["waits"][side] for _, run in found) for side in (0, 1))
        yield check(wanted, off <= COUNT_ERROR, "count of waits, %s: worst off by %.2f %% (bound %g %%, and %d at the ends; %s on %s), %d of %d in %d workloads" % (
            wanted, 100 * off, 100 * COUNT_ERROR, COUNT_AT_ENDS, where["case"], where["version"], reported, actual, len(found)),
            counted="waits", worst=off, worst_bound=COUNT_ERROR, worst_case=where["case"], worst_version=where["version"], reported=reported, actual=actual,
            workloads=len(found))


def limit_checks(runs, wanted):
    """Notes on the workloads without a bound: the lowest and highest error of their brief threads
    together, and of their total lifetime.
    """
    for case in LIMITS:
        of_case = [run for run in runs if run["case"] == case and condition(run) == wanted and not stolen_from(run)]
        rows = [row for run in of_case for row in run.get("threads", []) if "reported_seconds" in row]
        if rows:
            ranges = {state: extremes([row["reported"][state] - row["actual"][state] for row in rows]) for state in BOUNDS}
            lifetime = extremes([row["reported_seconds"] / row["actual_seconds"] for row in rows])
            yield check(wanted, None, "%s, %s, %d runs, no bound: %s; lifetime reported / actual %.3f to %.3f" % (
                case, wanted, len(rows), ", ".join("%s %+.3f to %+.3f" % ((state,) + ends) for state, ends in ranges.items()), *lifetime),
                limit=case, runs=len(rows), lifetime=lifetime, **ranges)


def extremes(values):
    return min(values), max(values)


def checks(runs):
    for wanted in CONDITIONS:
        some = [run for run in runs if condition(run) == wanted]
        yield from state_checks(some, wanted)
        yield from count_checks(some, wanted)
        left_out = sum(disturbed(row) for run in some for row in run.get("threads", []))
        if left_out:
            yield check(wanted, None, "%d threads left out, %s: the probes used over %.2f of their time" % (left_out, wanted, DISTURBED))
        left_out = sum(map(stolen_from, some))
        if left_out:
            yield check(wanted, None, "%d runs left out, %s: the hypervisor stole over %.2f of the CPUs' time" % (left_out, wanted, STOLEN))
        yield from limit_checks(some, wanted)
        for run in some:
            if "failed" in run:
                yield check(wanted, False, "%s on %s failed: %s" % (run["case"], run["version"], run["failed"]))


def beyond(run):
    """Whether a thread of this run is beyond a bound, or its count of waits is."""
    wanted = condition(run)
    over = any(abs(off) > most for state, (most, _) in CONDITIONS[wanted].items()
               for off, row in errors(run, state) if not disturbed(row) and not unbounded(run))
    return over or any(off > COUNT_ERROR for off, _ in median_counts([run], wanted))


def rows(runs):
    """What docs/results keeps of each run: of each state the thread with the worst error."""
    for run in runs:
        if "failed" in run:
            continue
        row = {"part": condition(run), "case": run["case"], "version": run["version"], "source": run["facts"]["source"]}
        if unbounded(run):
            row["unbounded"] = "stolen" if stolen_from(run) else "limit"
        for state in BOUNDS:
            found = worst(run, state)
            if found:
                # Reported, actual, error.
                row[state] = [round(found[1]["reported"][state], 3), round(found[1]["actual"][state], 3), round(found[0], 3)]
                if disturbed(found[1]):
                    row.setdefault("disturbed", []).append(state)
        if "waits" in run["facts"]:
            row["waits"] = list(run["facts"]["waits"])
        yield row
