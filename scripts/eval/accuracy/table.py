"""Said, true, error: per run in one line, per bound over all runs, and as the document that is kept."""
import os
import platform
import sys

from cases import LIMITS
from measure import STOLEN

# Bounds per thread: worst and mean error. Under competing load only waiting has one.
BOUNDS = {"waiting": (0.03, 0.01), "holding": (0.03, 0.01), "native": (0.05, None), "starved": (0.05, None)}
LOADED = {"waiting": (0.05, None)}
# What `--exact` adds is exact waiting; everything else is as without it.
EXACT = {"waiting": (0.005, None)}
# And counts of waits: how far they may be off, as a part of the true one. A wait at an end of the window may fall on either side of it.
COUNT, AT_THE_ENDS = 0.01, 1
# The probes' own time in take_gil and drop_gil, of a thread's time. Above that they have made another program of it: they run with interrupts
# off, in which no look can begin, so that what they lengthen is met too seldom.
DISTURBED = 0.05


def errors(run, state):
    """(error, row) of each thread for which the truth is known."""
    return [(error(row, state), row) for row in run.get("threads", []) if state in row["true"]]


def name(run):
    return run["case"] + (" --exact" if run.get("exact") else "")


def disturbed(row):
    return row["true"].get("inside", 0) > DISTURBED


def robbed(run):
    """The hypervisor took more of the CPUs' time than probes and workload can bear."""
    return run.get("facts", {}).get("stolen", 0) > STOLEN


def unjudged(run):
    return robbed(run) or run["case"] in LIMITS


def error(row, state):
    """Said - true, to the nearest that may be true. A thread that lost its CPU inside `take_gil` before it ever slept there may want the GIL or
    only a CPU. One that was made to let go and is still on its CPU wants the GIL again, and one that runs at the end of its wait has just got
    it: most of either is the watchpoint's trap. The trap is sprung by the store that takes the GIL, before the one that signs for it: who is in
    it (every second one) still says that it asks, or, where nothing says that (3.14), is a thread that computes without the GIL. Meanwhile
    the GIL is taken and names who had it before, so that one of the others is said to hold."""
    off = row["said"][state] - row["true"][state]
    doubt, trapped, ending, unsigned, named = (row["true"].get(key, 0) for key in ("doubt", "trapped", "ending", "unsigned", "named"))
    below, above = {"waiting": (doubt + ending, trapped + unsigned), "holding": (unsigned, named), "native": (trapped, ending + unsigned),
                    "starved": (0, doubt)}[state]
    return max(0, off - above) if off > 0 else min(0, off + below)


def worst(run, state):
    found = errors(run, state)
    found = [e for e in found if not disturbed(e[1])] or found
    return max(found, key=lambda e: abs(e[0])) if found else None


def cell(run, state):
    found = worst(run, state)
    if not found:
        return "%-18s" % "-"
    error, row = found
    return "%.3f %.3f %+.3f%s" % (row["said"][state], row["true"][state], error, "~" if disturbed(row) else "")


def line(run, threads=False, out=sys.stdout):
    """The thread with the worst error of each state."""
    if "failed" in run:
        print("%-24s %-8s failed: %s" % (name(run), run["version"], run["failed"]), file=out, flush=True)
        return
    note = "  not judged: %.2f stolen by the hypervisor" % run["facts"]["stolen"] if robbed(run) else "  not judged: a limit" if unjudged(run) else ""
    waits = "  waits %d %d" % tuple(run["facts"]["waits"]) if "waits" in run["facts"] else ""
    print("%-24s %-8s %s%s%s" % (name(run), run["version"], "  ".join(s[0] + " " + cell(run, s) for s in BOUNDS), waits, note), file=out, flush=True)
    if threads:
        print("    %s" % run["facts"], file=out)
        for row in run["threads"]:
            for side in ("said", "true"):
                print("    %-18s %s %s" % (row["name"][:18], side, "  ".join("%s %.3f" % i for i in sorted(row[side].items()) if i[1] > 0.0005)), file=out)


def kept(runs, loaded, exact):
    """Those that one bound is about."""
    return [run for run in runs if run["loaded"] == loaded and run.get("exact", False) == exact and not unjudged(run)]


def middles(runs, state):
    """(error, run) of each thread; of a workload that was measured more than once on a version, the error in the middle of its runs."""
    same = {}
    for run in runs:
        for off, row in errors(run, state):
            if not disturbed(row):
                # Brief threads have one row, whose name says how many there were.
                same.setdefault((run["case"], run["label"], row["name"] if row["tid"] else ""), []).append((off, run))
    for found in same.values():
        found.sort(key=lambda f: f[0])
        # Of two in the middle the worse.
        yield max(found[(len(found) - 1) // 2], found[len(found) // 2], key=lambda f: abs(f[0]))


def judged(runs):
    """For each bound: (state, loaded, worst allowed, worst found, its run, mean allowed, mean found, threads, runs beyond what is allowed)."""
    kinds = ((False, False, BOUNDS), (True, False, LOADED), (False, True, EXACT), (True, True, EXACT))
    for loaded, exact, bounds in kinds:
        of_kind = kept(runs, loaded, exact)
        for state, (most, mean) in bounds.items():
            found = [(abs(e), run) for e, run in middles(of_kind, state)]
            beyond = [(e, run) for run in of_kind for e, row in errors(run, state) if abs(e) > most and not disturbed(row)]
            if found:
                highest, where = max(found, key=lambda f: f[0])
                yield state, loaded, most, highest, where, mean, sum(f for f, _ in found) / len(found), len(found), beyond


def miscounted(run):
    """How far the count of waits is off, as a part of the true one."""
    said, true = run["facts"]["waits"]
    return max(0, abs(said - true) - AT_THE_ENDS) / max(true, 1)


def counted(runs, loaded):
    """(off, run) of each workload whose waits were counted; of one that was measured more than once the run in the middle."""
    same = {}
    for run in kept(runs, loaded, True):
        if "waits" in run.get("facts", {}):
            same.setdefault((run["case"], run["label"]), []).append((miscounted(run), run))
    return [sorted(found, key=lambda f: f[0])[len(found) // 2] for found in same.values()]


def beyond(run):
    """Whether a thread of this run is beyond a bound, or its waits are."""
    return any(one[-1] for one in judged([run])) or any(off > COUNT for off, _ in counted([run], run["loaded"]))


def verdicts(runs):
    for state, loaded, most, highest, where, mean, average, count, beyond in judged(runs):
        bad = highest > most or (mean is not None and average > mean)
        yield bad, "%-8s%s  worst %.4f (bound %g, %s on %s)  mean %.4f%s  %d threads" % (
            state, (" exact" if where.get("exact") else "") + (" with load" if loaded else ""), highest, most, where["case"], where["version"], average,
            "" if mean is None else " (bound %g)" % mean, count)
        for off, run in beyond if not bad else ():
            times = sum(one["case"] == run["case"] and one["label"] == run["label"] for one in kept(runs, loaded, run.get("exact", False)))
            yield False, "%-8s  beyond it in one run of %d, which the median leaves out: %+.4f, %s on %s" % (state, times, off, run["case"], run["version"])
    for loaded in (False, True):
        found = counted(runs, loaded)
        if found:
            off, where = max(found, key=lambda f: f[0])
            yield off > COUNT, "waits counted%s  worst off by %.2f %% (bound %g %% and %d at the ends, %s on %s)  %d of %d in all  %d workloads" % (
                " with load" if loaded else "", 100 * off, 100 * COUNT, AT_THE_ENDS, where["case"], where["version"],
                sum(run["facts"]["waits"][0] for _, run in found), sum(run["facts"]["waits"][1] for _, run in found), len(found))
    left = sum(disturbed(row) for run in runs for row in run.get("threads", []))
    if left:
        yield False, "%d threads not judged: over %.2f of their time went into the probes themselves" % (left, DISTURBED)
    if any(map(robbed, runs)):
        yield False, "%d runs not judged: the hypervisor took over %.2f of the CPUs' time" % (sum(map(robbed, runs)), STOLEN)
    for run in runs:
        if "failed" in run:
            yield True, "%s on %s: %s" % (run["case"], run["version"], run["failed"])


def limits(runs):
    """Of the workloads that are shown and not judged: the errors of all their brief threads together, lowest and highest, and how long those lived
    in all, said against true."""
    for case in LIMITS:
        rows = [row for run in runs if run["case"] == case and not robbed(run) for row in run.get("threads", []) if "said_seconds" in row]
        if rows:
            spread = ["%s %+.3f .. %+.3f" % ((state,) + ends([row["said"][state] - row["true"][state] for row in rows])) for state in BOUNDS]
            yield "%s, %d runs: %s; lives said / true %.3f .. %.3f" % (
                (case, len(rows), ", ".join(spread)) + ends([row["said_seconds"] / row["true_seconds"] for row in rows]))


def ends(values):
    return min(values), max(values)


def lines(runs):
    yield from (("BROKEN  " if bad else "holds   ") + text for bad, text in verdicts(runs))
    yield from ("limit   " + text for text in limits(runs))


def summary(runs):
    """Prints each bound; true when one is broken."""
    for text in lines(runs):
        print(text)
    return any(bad for bad, _ in verdicts(runs))


def machine():
    model = ""
    with open("/proc/cpuinfo") as file:
        model = next((l.split(":")[1].strip() for l in file if l.startswith("model name")), "unknown CPU")
    return "%d CPUs (%s), Linux %s, %s" % (len(os.sched_getaffinity(0)), model, platform.release(), platform.machine())


def judgement(before):
    """What people wrote into the document between its head and its bounds: it outlives a new table, whose reader must check it."""
    start, end = before.find("## What is not held"), before.find("## Bounds")
    return before[start:end].splitlines() if 0 <= start < end else []


def made_by(runs):
    kinds = {}
    for run in runs:
        flags = " --exact" * bool(run.get("exact")) + " --load" * run["case"].endswith("+load")
        kinds.setdefault(flags, {}).setdefault(run["label"], set()).add(run["case"])
    for flags, labels in kinds.items():
        yield "- made by `scripts/accuracy%s --versions V`, V being %s" % (flags, ", ".join("%s (%d workloads)" % (l, len(c)) for l, c in labels.items()))


def document(runs, options, before):
    """docs/accuracy.md; `before`: as it was."""
    text = ["# Accuracy", "",
            "gilprof and the kernel's own events, at the same time, on the same run of a workload. Per thread and state: the share of the",
            "thread's wall time that gilprof said, the share that was true, the error. The table shows for each run the thread with the",
            "worst error; `~`: not judged, the probes took over %.2f of the thread's time; (stolen): nor this run, a hypervisor took" % DISTURBED,
            "over %.2f of the CPUs' time in three tries; (limit): nor this workload, shown for what it is (tests/accuracy/cases.py)." % STOLEN,
            "A workload that was beyond a bound was measured again (`--again`, or by hand), and the median of its runs is judged; all of them are in the table.",
            "`scripts/accuracy --help` says what the truth is made of.",
            "",
            *made_by(runs),
            "- machine: %s" % machine(),
            "- window: %g s at %d Hz" % (options.seconds, options.rate), ""] + judgement(before) + ["## Bounds", "", "```"]
    text += list(lines(runs))
    text += ["```", "", "## Runs", "", "| workload | version | truth | %s |" % " | ".join("%s said | true | error" % s for s in BOUNDS),
             "|---|---|---|" + "---:|" * 3 * len(BOUNDS)]
    for run in runs:
        if "failed" in run:
            continue
        cells = []
        for state in BOUNDS:
            found = worst(run, state)
            cells += ["%.3f" % found[1]["said"][state], "%.3f" % found[1]["true"][state], "%+.3f%s" % (found[0], " ~" if disturbed(found[1]) else "")] if found else ["", "", ""]
        text.append("| %s | %s | %s | %s |" % (name(run) + (" (stolen)" if robbed(run) else " (limit)" if unjudged(run) else ""), run["version"], run["facts"]["source"], " | ".join(cells)))
    counts = ["| %s | %s | %d | %d |" % (name(run), run["version"], *run["facts"]["waits"]) for run in runs if "waits" in run.get("facts", {})]
    if counts:
        text += ["", "## Waits counted", "", "| workload | version | said | true |", "|---|---|---:|---:|"] + counts
    return "\n".join(text) + "\n"
