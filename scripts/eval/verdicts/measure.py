"""One labelled workload as threads and as processes, and gilprof's report on the threads."""
import contextlib
import os
import statistics
import subprocess
import time

import targets
import turns
from common import WORKLOADS, Failed

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
    """The work of each, and the highest share of stolen time in the turns used."""
    kinds, done, worst = list(running), {kind: [] for kind in running}, 0
    for number in range(max(1, round(seconds / turns.TURN))):
        # The order alternates, so that a machine that gets faster or slower affects all kinds
        # alike.
        order = kinds[::-1] if number % 2 else kinds
        found, stolen = turns.undisturbed(running, order)
        worst = max(worst, stolen)
        for kind in kinds:
            done[kind].append(found[kind])
    return {kind: turns.total(done[kind]) for kind in kinds}, worst


def per_second(work):
    return {kind: one.done / one.seconds for kind, one in work.items()}


def of_groups(case, work, verdict):
    """The predicted gain of each group of workers, and the measured one."""
    predicted = {row["group"]: row["processes"] for row in (verdict["speedup"] or {}).get("by_group", [])}
    found = {}
    for name, (first, last) in case.groups.items():
        rate = {kind: sum(one.each[first:last]) / one.seconds for kind, one in work.items()}
        if not rate["threads"]:
            raise Failed("%s: %s did no unit of work as threads" % (case.name, name))
        found[name] = {"measured": rate["processes"] / rate["threads"], "predicted": predicted.get(name)}
    return found


def report_on(gilprof, target, options):
    command = [gilprof, "attach", "--pid", str(target.pid), "--duration", "%gs" % options.window, "--format", "json"]
    return targets.report_of(command, options.as_user)


def one_round(gilprof, python, case, options, processes_first):
    """Both kinds once: rates, and gilprof's verdict on the threads."""
    case = calibrated(python, case)
    kinds = ["processes", "threads"] if processes_first else ["threads", "processes"]
    with targets.Burners(case.burners + options.burners), contextlib.ExitStack() as until:
        running = {kind: paused(until, python, case, kind) for kind in (kinds if case.gain else ["threads"])}
        work, stolen = rates(running, options.seconds)
        running["threads"].resume()
        report = report_on(gilprof, running["threads"], options)
    verdict, one = report["verdict"], per_second(work)
    one.update(stolen=stolen, verdict=verdict["code"], confidence=verdict["confidence"], headline=verdict["headline"], blame=blame(report),
               predicted=(verdict["speedup"] or {}).get("processes"), gil_saturates_at=verdict.get("gil_saturates_at"), groups=of_groups(case, work, verdict) if case.gain else {})
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
            found.append(per_second(rates({n: paused(until, python, same, "threads", n) for n in counts}, options.seconds)[0]))
    return {n: statistics.median(one[n] for one in found) for n in counts}
