"""One run: a workload measured by gilprof and by kernel events at the same time, compared thread by
thread.
"""
import os
import tempfile
import time

import targets
from accuracy import truth
from accuracy.truth import ASLEEP, DROPPING, FORCED, HOLDING, ON, OUT, QUEUED, SECOND, TAKING, TRAPS, UNSEEN, WAITING
from common import Failed

STATES = ["waiting", "holding", "native", "starved"]
# Threads that lived for less than this part of the window are merged into one row.
BRIEF = 0.5
# The events of a thread are complete if they cover this part of its life.
COMPLETE = 0.98
# If the hypervisor stole more than this share of the CPUs' time in the window, the probes and the
# program ran several times slower. Such a run is repeated, up to STOLEN_TRIES times: the kernel
# does not record which thread the time was stolen from.
STOLEN, STOLEN_TRIES = 0.04, 3


def run(gilprof, interpreter, case, options, kept):
    """A run with little stolen time, if one of the tries has it: a list of threads, and facts of
    the run.
    """
    runs = []
    for _ in range(STOLEN_TRIES):
        runs.append(aligned(gilprof, interpreter, case, options, kept))
        if runs[-1][1]["stolen"] <= STOLEN:
            break
    # What is kept is the last of them.
    return runs[-1] if options.keep else min(runs, key=lambda one: one[1]["stolen"])


# Seconds that bpftrace needs to start. On a busy machine it is late; later runs then allow more.
start = {"seconds": 2.6}


def aligned(gilprof, interpreter, case, options, kept, tries=6):
    """A run in which the windows of gilprof and bpftrace agree."""
    for turn in range(tries):
        lead = start["seconds"] + 2.2 * case.burners
        try:
            with targets.Burners(case.burners), targets.Target(interpreter, case.workload, *case.args) as target, \
                    tempfile.TemporaryDirectory(prefix="gilprof-") as folder:
                return attempt(gilprof, interpreter["version"], target, options, lead, folder, kept)
        except truth.Unaligned:
            if turn + 1 == tries:
                raise
            start["seconds"] = min(start["seconds"] + 2, 12)
    raise AssertionError("unreachable")


def kept(options, interpreter, case, number):
    """Where the samples of a run are kept. They have no truth yet, so the name says that."""
    name = "%s %s%s" % (case.name.replace(",", ""), interpreter["label"], " %d" % number if number else "")
    return os.path.join(options.keep, name.replace(" ", "_") + ".part")


def attempt(gilprof, version, target, options, lead, folder, kept):
    seconds = options.seconds
    begin = truth.clock() + int(lead * SECOND)
    tracer = truth.Tracer(target.pid, version, (begin, begin + int(seconds * SECOND)), folder, options.truth, options.engine == "kernel")
    try:
        tracer.wait_until_up()
        for _ in range(3):
            target.write_line(b"")  # a holder without a waiter would never reach a probe
            time.sleep(0.02)
        # The kernel engine loads its programs first.
        ahead = 0.45 if options.engine == "kernel" else 0.03
        time.sleep(max(0, (begin - truth.clock()) / SECOND - ahead))
        command = [gilprof, "attach", "--pid", str(target.pid), "--duration", "%gs" % seconds, "--rate", str(options.rate), "--format", "json"]
        command += ["--engine", options.engine] if options.engine != "samples" else []
        if options.keep:
            command = [gilprof, str(target.pid), "%g" % seconds, str(options.rate), kept]
        before = targets.ticks()
        report = targets.report_of(command, options.as_user)
        after = targets.ticks()
    finally:
        tracer.stop()
    window = report["window"]
    if window["engine"] != options.engine:
        raise Failed("the engine is %s: %s" % (window["engine"], "; ".join(report["warnings"])))
    if options.as_user and window["resolver"] == "kernel-stack":
        raise Failed("the user of `--as-user` may read kernel stacks here")
    began = window["begin_ns"]
    ended = began + int(window["seconds"] * SECOND)
    facts = {"source": tracer.source, "samples": window["samples"], "missed": window["missed"], "profiler_cpu": window["profiler_cpu"],
             "stolen": targets.stolen(before, after)}
    rows = compare(report["threads"], tracer.read(began, ended), ended - began, tracer.source)
    if window["exact"] and tracer.source == "uprobes":
        facts["waits"] = sum(thread["waits"] or 0 for thread in report["threads"]), sum(tracer.waits.values())
    return rows, facts


def actual_shares(states, lived, source):
    """One thread's states as shares of its lifetime.

    A thread without any event was asleep all the time.
    """
    def part(gils, cpus):
        return sum(states.get((gil, cpu), 0) for gil in gils for cpu in cpus)
    every = (ON, QUEUED, ASLEEP)
    forced = part([FORCED], (QUEUED, ASLEEP))
    # Without uprobes no event marks the end of `drop_gil`, so DROPPING extends into the next sleep.
    # Of the probes' time only the traps count then.
    if source == "futex":
        dropping, inside = 0, part([TRAPS], [ON])
    else:
        dropping, inside = part([DROPPING], [ASLEEP]), part([TAKING, DROPPING, FORCED], [ON])
    shares = {
        "waiting": part([WAITING], every) + part([TAKING], [QUEUED]) + dropping + forced,
        "holding": part([HOLDING], every),
        "native": part((UNSEEN, OUT, DROPPING, TAKING, FORCED), [ON]),
        "starved": part((UNSEEN, OUT, DROPPING), [QUEUED]),
        "holding_starved": part([HOLDING], [QUEUED]),
        "holding_blocked": part([HOLDING], [ASLEEP]),
        "doubt": part([TAKING], [QUEUED]),
        "trapped": part([FORCED], [ON]),
        "ending": part([WAITING], [ON]),
        "unsigned": part([TRAPS], [ON]) / 2,
        "waiting_awake": part([WAITING, TAKING], [QUEUED]),
        "forced": forced,
        "inside": inside,
        "unseen": part([UNSEEN], (ON, QUEUED)),
        "on": part(range(7), [ON]),
        "queued": part(range(7), [QUEUED])}
    return {name: ns / lived for name, ns in shares.items()}


def compare(reported, actual, window, source):
    """A row for each thread, with the shares that gilprof reported and the actual ones; brief
    threads share one row.

    `actual` of a row has no shares that the source cannot give.
    """
    rows, brief = [], []
    for thread in reported:
        lived = thread["seconds"] * SECOND
        states = actual.get(thread["tid"], {})
        if lived < BRIEF * window:
            brief.append(thread)
            continue
        # The events of a thread follow each other without a gap, so a gap is a line that bpftrace
        # lost.
        covered = sum(ns for (gil, _), ns in states.items() if gil != TRAPS)
        if covered < COMPLETE * min(lived, window):
            raise truth.Unaligned("bpftrace has %.3f s of the thread %s, which lived for %.3f s" % (covered / SECOND, thread["name"], lived / SECOND))
        shares = dict(thread["states"], cpu=thread["cpu"], **{"holding_" + key: value for key, value in thread["holding"].items()})
        life = window
        if covered < COMPLETE * window:
            # The thread began or ended within the window. gilprof's shares are of the part of its
            # life that was sampled, the actual ones of the whole life.
            life = covered
            shares = {name: share * lived / life for name, share in shares.items()}
        rows.append({"tid": thread["tid"], "name": thread["name"], "life": life / SECOND, "reported": shares, "actual": actual_shares(states, life, source)})
    for row in rows:
        # While another thread was in the trap of a take, the GIL may have named this one as its
        # holder.
        row["actual"]["named"] = sum(other["actual"]["unsigned"] for other in rows if other is not row)
    if brief:
        with_row = {row["tid"] for row in rows}
        rows.append(merged(brief, [states for tid, states in actual.items() if tid not in with_row], source))
    return rows


def merged(brief, states, source):
    """All brief threads as one, as shares of their actual lifetimes: a thread that no sample met
    counts as missing time.
    """
    total = sum(thread["seconds"] for thread in brief)
    reported = {state: sum(thread["states"][state] * thread["seconds"] for thread in brief) / total for state in brief[0]["states"]}
    together = {}
    for one in states:
        for key, ns in one.items():
            together[key] = together.get(key, 0) + ns
    lived = sum(ns for (gil, _), ns in together.items() if gil != TRAPS) or 1
    reported = {state: share * total * SECOND / lived for state, share in reported.items()}
    return {"tid": 0, "name": "%d brief threads" % len(brief), "reported": reported, "actual": actual_shares(together, lived, source),
            "reported_seconds": total, "actual_seconds": lived / SECOND, "actual_threads": len(states)}
