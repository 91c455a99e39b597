"""One run: a workload, gilprof and the truth at the same time, and what each of them says of every thread."""
import json
import subprocess
import tempfile
import time

import targets
import truth
from truth import ASLEEP, DROPPING, FORCED, HOLDING, ON, OUT, QUEUED, SECOND, TAKING, TRAPS, UNSEEN, WAITING

STATES = ["waiting", "holding", "native", "starved"]
# A thread that lived for less of the window than this is counted together with the others like it.
BRIEF = 0.5
# The truth of a thread is whole from this part of its life on.
WHOLE = 0.98
# A hypervisor that took more than this share of the CPUs' time in the window has made the probes, and the program, several times slower: such
# a run is made again, so many times at most. The kernel cannot say which thread it was taken from.
STOLEN, STOLEN_TRIES = 0.04, 3


def run(gilprof, interpreter, case, options):
    """A run on a machine that was all ours, if there is one to be had: a list of threads, and facts of the run."""
    runs = []
    for _ in range(STOLEN_TRIES):
        runs.append(aligned(gilprof, interpreter, case, options))
        if runs[-1][1]["stolen"] <= STOLEN:
            break
    return min(runs, key=lambda one: one[1]["stolen"])


def aligned(gilprof, interpreter, case, options, tries=4):
    """A run whose windows agree."""
    lead = 2.6 + 2.2 * case.burners  # what bpftrace takes to come up
    for turn in range(tries):
        try:
            with targets.Burners(case.burners), targets.Target(interpreter, case.workload, *case.args) as target, \
                    tempfile.TemporaryDirectory(prefix="gilprof-") as folder:
                return attempt(gilprof, interpreter["version"], target, options, lead, folder)
        except truth.Unaligned:
            if turn + 1 == tries:
                raise
            lead += 2
    raise AssertionError("unreachable")


def attempt(gilprof, version, target, options, lead, folder):
    seconds = options.seconds
    begin = truth.clock() + int(lead * SECOND)
    watcher = truth.Truth(target.pid, version, (begin, begin + int(seconds * SECOND)), folder, options.truth, options.exact)
    try:
        watcher.wait_until_up()
        for _ in range(3):
            target.ask(b"")  # a holder whom nobody disturbs would never pass a probe
            time.sleep(0.02)
        time.sleep(max(0, (begin - truth.clock()) / SECOND - 0.03))
        command = [gilprof, "attach", "--pid", str(target.pid), "--duration", "%gs" % seconds, "--rate", str(options.rate), "--format", "json"]
        command += ["--exact"] if options.exact else []
        before = targets.ticks()
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        after = targets.ticks()
        if done.returncode:
            raise targets.Failed("gilprof ended with %d: %s" % (done.returncode, done.stderr.decode()[-500:]))
    finally:
        watcher.stop()
    report = json.loads(done.stdout)
    window = report["window"]
    if options.exact and not window["exact"]:
        raise targets.Failed("exact mode was not to be had: %s" % "; ".join(report["warnings"]))
    began = window["begin_ns"]
    ended = began + int(window["seconds"] * SECOND)
    facts = {"source": watcher.source, "looks": window["looks"], "missed": window["missed"], "profiler_cpu": window["profiler_cpu"],
             "stolen": targets.stolen(before, after)}
    rows = compare(report["threads"], watcher.read(began, ended), ended - began, watcher.source)
    if options.exact and watcher.source == "uprobes":
        facts["waits"] = sum(thread["waits"] or 0 for thread in report["threads"]), sum(watcher.waits.values())
    return rows, facts


def true_shares(states, lived, source):
    """One thread's states as shares of the time it lived. What the kernel never saw move was asleep all along."""
    def part(gils, cpus):
        return sum(states.get((g, c), 0) for g in gils for c in cpus)
    every = (ON, QUEUED, ASLEEP)
    forced = part([FORCED], (QUEUED, ASLEEP))
    # Without uprobes nothing says when `drop_gil` is over, and DROPPING goes on into the next sleep; of the probes' time only the traps count.
    leaving, inside = (0, part([TRAPS], [ON])) if source == "futex" else (part([DROPPING], [ASLEEP]), part([TAKING, DROPPING, FORCED], [ON]))
    shares = {
        "waiting": part([WAITING], every) + part([TAKING], [QUEUED]) + leaving + forced, "holding": part([HOLDING], every),
        "native": part((UNSEEN, OUT, DROPPING, TAKING, FORCED), [ON]), "starved": part((UNSEEN, OUT, DROPPING), [QUEUED]),
        "holding_starved": part([HOLDING], [QUEUED]), "holding_blocked": part([HOLDING], [ASLEEP]),
        "doubt": part([TAKING], [QUEUED]), "trapped": part([FORCED], [ON]), "ending": part([WAITING], [ON]), "unsigned": part([TRAPS], [ON]) / 2, "waiting_awake": part([WAITING, TAKING], [QUEUED]), "forced": forced, "inside": inside,
        "unseen": part([UNSEEN], (ON, QUEUED)), "on": part(range(7), [ON]), "queued": part(range(7), [QUEUED])}
    return {name: ns / lived for name, ns in shares.items()}


def compare(said, true, window, source):
    """Rows of (name, said, true), brief threads in one row. `true` lacks what the source cannot tell."""
    rows, brief, brief_true = [], [], []
    reported = set()
    for thread in said:
        lived = thread["seconds"] * SECOND
        reported.add(thread["tid"])
        states = true.get(thread["tid"], {})
        if lived < BRIEF * window:
            brief.append(thread)
            continue
        # What becomes of every thread is filed without a gap, so that a gap is a line of bpftrace's that was lost.
        filed = sum(ns for (gil, _), ns in states.items() if gil != TRAPS)
        if filed < WHOLE * min(lived, window):
            raise truth.Unaligned("bpftrace told of %.3f s of %s, who lived for %.3f s" % (filed / SECOND, thread["name"], lived / SECOND))
        shares = dict(thread["states"], cpu=thread["cpu"], **{"holding_" + k: v for k, v in thread["holding"].items()})
        life = window
        if filed < WHOLE * window:
            # It began or ended within the window. gilprof's shares are of the life that it saw, the true ones of the whole.
            life = filed
            shares = {name: share * lived / life for name, share in shares.items()}
        rows.append({"tid": thread["tid"], "name": thread["name"], "said": shares, "true": true_shares(states, life, source)})
    for row in rows:
        # While others were in the trap of a take, the GIL may have named this thread.
        row["true"]["named"] = sum(other["true"]["unsigned"] for other in rows if other is not row)
    brief_true = [states for tid, states in true.items() if tid not in {r["tid"] for r in rows}]
    if brief:
        rows.append(together(brief, brief_true, source))
    return rows


def together(brief, states, source):
    """All brief threads as one, as shares of the time that they truly lived: what a look never met counts as missed."""
    total = sum(t["seconds"] for t in brief)
    said = {s: sum(t["states"][s] * t["seconds"] for t in brief) / total for s in brief[0]["states"]}
    merged = {}
    for one in states:
        for key, ns in one.items():
            merged[key] = merged.get(key, 0) + ns
    lived = sum(ns for (gil, _), ns in merged.items() if gil != TRAPS) or 1
    said = {s: share * total * SECOND / lived for s, share in said.items()}
    row = {"tid": 0, "name": "%d brief threads" % len(brief), "said": said, "true": true_shares(merged, lived, source)}
    row["said_seconds"], row["true_seconds"], row["true_threads"] = total, lived / SECOND, len(states)
    return row
