"""One labelled workload as threads and as processes, in turn, and what gilprof says of the threads."""
import contextlib
import json
import os
import subprocess
import time

import targets
import turns

# From the handshake to the first figure: caches warm up, a pool fills.
SETTLE = 0.3


def rate_of(target, seconds):
    """Units of work per second."""
    work = turns.work_of(target, seconds)
    return work.done / work.seconds


def at_work(python, case, kind, workers=None):
    return targets.Target(python, "labelled/" + case.program, *case.args, "--as", kind, "--workers", workers or case.workers)


def calibrated(python, case):
    """The case with the words that make its units the same in every process."""
    if not case.calibrates:
        return case
    path = os.path.join(targets.WORKLOADS, "labelled", case.program + ".py")
    return case._replace(args=case.args + subprocess.check_output([python["path"], path, "--calibrate"], text=True).split())


def ready(until, python, case, *what):
    """At work until `until` closes, and paused."""
    target = until.enter_context(at_work(python, case, *what))
    time.sleep(SETTLE)
    target.pause()
    return target


def rates(at, seconds):
    """Units of work per second of each, and the share of time that was stolen in the worst of the turns that count."""
    kinds, sums, worst = list(at), {kind: turns.Work(0, 0, 0) for kind in at}, 0
    for number in range(max(1, round(seconds / turns.SLICE))):
        # Who is first changes, so that a pace that rises or falls meets both.
        order = kinds[::-1] if number % 2 else kinds
        found, stolen = turns.undisturbed(at, order)
        sums, worst = {kind: turns.Work(*map(sum, zip(sums[kind], found[kind]))) for kind in kinds}, max(worst, stolen)
    return {kind: sums[kind].done / sums[kind].seconds for kind in kinds}, worst


def report(gilprof, target, seconds):
    command = [gilprof, "attach", "--pid", str(target.pid), "--duration", "%gs" % seconds, "--format", "json"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        raise targets.Failed("gilprof ended with %d: %s" % (done.returncode, done.stderr.decode()[-500:]))
    return json.loads(done.stdout)


def round_of(gilprof, python, case, options, processes_first):
    """Both kinds once: rates, and gilprof's verdict on the threads."""
    case = calibrated(python, case)
    kinds = ["processes", "threads"] if processes_first else ["threads", "processes"]
    with targets.Burners(case.burners + options.burners), contextlib.ExitStack() as until:
        at = {kind: ready(until, python, case, kind) for kind in (kinds if case.gain else ["threads"])}
        one, stolen = rates(at, options.seconds)
        at["threads"].resume()
        said = report(gilprof, at["threads"], options.window)
    verdict = said["verdict"]
    one.update(stolen=stolen, verdict=verdict["code"], confidence=verdict["confidence"], headline=verdict["headline"], blame=blame(said),
               predicted=(verdict["speedup"] or {}).get("processes"), threads_worth_having=verdict.get("threads_worth_having"))
    if case.calm:
        one["turn_ms"] = turn_ms(python, case, one["threads"], options)
    return one


def blame(report):
    """Waiting of all threads in seconds, the sum of blame, and of it what has no holder; the pair blamed most; the mean wait of the threads that
    mostly wait."""
    rows, waiting = report["blame"], sum(t["seconds"] * t["states"]["waiting"] for t in report["threads"])
    first = next((row for row in rows if row["holder"]), None)
    victims = [t["wait_ms"]["mean"] for t in report["threads"] if t["states"]["waiting"] > max(0.1, 2 * t["states"]["holding"])]
    return {"waiting": waiting, "sum": sum(row["seconds"] for row in rows), "unattributed": sum(row["seconds"] for row in rows if not row["holder"]),
            "first": [first["waiter"]["name"], first["holder"]["name"]] if first else [], "wait_ms": sum(victims) / len(victims) if victims else 0}


def turn_ms(python, case, rate, options):
    """How much longer a turn of one of the held-up workers is than where nothing holds them up, by their own count."""
    with at_work(python, case._replace(args=case.args + case.calm), "threads") as target:
        time.sleep(SETTLE)
        calm = rate_of(target, options.seconds) / case.workers
    return 1e3 * ((case.workers - 1) / rate - 1 / calm)


def sweep(python, case, options, counts):
    """Units per second by the number of threads: medians of the rounds."""
    found = []
    for _ in range(options.rounds):
        same = calibrated(python, case)
        with contextlib.ExitStack() as until:
            found.append(rates({n: ready(until, python, same, "threads", n) for n in counts}, options.seconds)[0])
    return {n: sorted(one[n] for one in found)[len(found) // 2] for n in counts}
