"""One labelled workload as threads and as processes, and gilprof's report on the threads."""
import contextlib
import os
import statistics
import subprocess
import time

import targets
import turns
from common import WORKLOADS

# Seconds from the handshake to the first figure, for caches and pools to warm up.
SETTLE = 0.3


def rate_of(target, seconds):
    """Units of work per second."""
    work = turns.work_during(target, seconds)
    return work.done / work.seconds


def started(python, case, kind, workers=None):
    return targets.Target(python, "labelled/" + case.program, *case.args, "--as", kind, "--workers", workers or case.workers)


def calibrated(python, case):
    """The case with the arguments that make its unit of work the same in every process."""
    if not case.calibrates:
        return case
    path = os.path.join(WORKLOADS, "labelled", case.program + ".py")
    return case._replace(args=case.args + subprocess.check_output([python["path"], path, "--calibrate"], text=True).split())


def paused(until, python, case, *what):
    """A target that runs until `until` closes, warmed up and stopped."""
    target = until.enter_context(started(python, case, *what))
    time.sleep(SETTLE)
    target.pause()
    return target


def rates(running, seconds):
    """Units of work per second of each, and the highest share of stolen time in the turns used."""
    kinds, sums, worst = list(running), {kind: turns.Work(0, 0, 0) for kind in running}, 0
    for number in range(max(1, round(seconds / turns.TURN))):
        # The order alternates, so that a machine that gets faster or slower affects all kinds
        # alike.
        order = kinds[::-1] if number % 2 else kinds
        found, stolen = turns.undisturbed(running, order)
        sums, worst = {kind: turns.Work(*map(sum, zip(sums[kind], found[kind]))) for kind in kinds}, max(worst, stolen)
    return {kind: sums[kind].done / sums[kind].seconds for kind in kinds}, worst


def report_on(gilprof, target, seconds):
    return targets.report_of([gilprof, "attach", "--pid", str(target.pid), "--duration", "%gs" % seconds, "--format", "json"])


def one_round(gilprof, python, case, options, processes_first):
    """Both kinds once: rates, and gilprof's verdict on the threads."""
    case = calibrated(python, case)
    kinds = ["processes", "threads"] if processes_first else ["threads", "processes"]
    with targets.Burners(case.burners + options.burners), contextlib.ExitStack() as until:
        running = {kind: paused(until, python, case, kind) for kind in (kinds if case.gain else ["threads"])}
        one, stolen = rates(running, options.seconds)
        running["threads"].resume()
        report = report_on(gilprof, running["threads"], options.window)
    verdict = report["verdict"]
    one.update(stolen=stolen, verdict=verdict["code"], confidence=verdict["confidence"], headline=verdict["headline"], blame=blame(report),
               predicted=(verdict["speedup"] or {}).get("processes"), gil_saturates_at=verdict.get("gil_saturates_at"))
    if case.calm:
        one["turn_ms"] = turn_ms(python, case, one["threads"], options)
    return one


def blame(report):
    """Figures of the blame.

    Seconds of waiting of all threads, the sum of the blame, and its part without a holder; the pair
    with the most blame; the mean wait of the threads that mostly wait.
    """
    rows, waiting = report["blame"], sum(t["seconds"] * t["states"]["waiting"] for t in report["threads"])
    first = next((row for row in rows if row["holder"]), None)
    victims = [t["wait_ms"]["mean"] for t in report["threads"] if t["states"]["waiting"] > max(0.1, 2 * t["states"]["holding"])]
    return {"waiting": waiting, "sum": sum(row["seconds"] for row in rows), "unattributed": sum(row["seconds"] for row in rows if not row["holder"]),
            "first": [first["waiter"]["name"], first["holder"]["name"]] if first else [], "wait_ms": sum(victims) / len(victims) if victims else 0}


def turn_ms(python, case, rate, options):
    """By how many milliseconds the CPU-bound thread lengthens a turn of one of the other workers,
    by their own count of turns.
    """
    with started(python, case._replace(args=case.args + case.calm), "threads") as target:
        time.sleep(SETTLE)
        calm = rate_of(target, options.seconds) / case.workers
    return 1e3 * ((case.workers - 1) / rate - 1 / calm)


def sweep(python, case, options, counts):
    """Units per second by the number of threads: medians of the rounds."""
    found = []
    for _ in range(options.rounds):
        same = calibrated(python, case)
        with contextlib.ExitStack() as until:
            found.append(rates({n: paused(until, python, same, "threads", n) for n in counts}, options.seconds)[0])
    return {n: statistics.median(one[n] for one in found) for n in counts}
