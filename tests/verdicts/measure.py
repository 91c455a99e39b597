"""One labelled workload as threads and as processes, in turn, and what gilprof says of the threads."""
import contextlib
import json
import os
import subprocess
import time

import targets

# From the handshake to the first figure: caches warm up, a pool fills.
SETTLE = 0.3
# Threads and processes take turns of so many seconds: the pace of each CPU of a shared machine changes from second to second, which so meets both.
SLICE = 0.2
# The share of the CPUs' time in a turn of each that a hypervisor may take; else it is done again, so often.
STOLEN, TRIES = 0.04, 3


def rate_of(target, seconds):
    """Units of work per second."""
    units, passed = work_of(target, seconds)
    return units / passed


def work_of(target, seconds):
    """Units of work that it does, and in how many seconds."""
    first = asked(target)
    time.sleep(seconds)
    last = asked(target)
    return last["done"] - first["done"], last["seconds"] - first["seconds"]


def asked(target):
    target.ask(b"?")
    line = target.child.stdout.readline()
    if not line:
        raise targets.Failed("the workload ended: %s" % " ".join(target.command))
    return json.loads(line)


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


def turns(at, order):
    """Each of the paused targets works for a slice: units and seconds of each, and the share of the CPUs' time that was stolen meanwhile."""
    found, before = {}, targets.ticks()
    for kind in order:
        at[kind].resume()
        found[kind] = work_of(at[kind], SLICE)
        at[kind].pause()
    return found, targets.stolen(before, targets.ticks())


def rates(at, seconds):
    """Units of work per second of each, and the share of time that was stolen in the worst of the turns that count."""
    kinds, sums, worst = list(at), {kind: (0, 0) for kind in at}, 0
    for number in range(max(1, round(seconds / SLICE))):
        # Who is first changes, so that a pace that rises or falls meets both.
        order = kinds[::-1] if number % 2 else kinds
        tries = []
        while len(tries) < TRIES and not any(stolen <= STOLEN for _, stolen in tries):
            tries.append(turns(at, order))
        found, stolen = min(tries, key=lambda one: one[1])
        sums, worst = {kind: tuple(map(sum, zip(sums[kind], found[kind]))) for kind in kinds}, max(worst, stolen)
    return {kind: units / passed for kind, (units, passed) in sums.items()}, worst


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
