"""One labelled workload as threads and as processes, in turn, and what gilprof says of the threads."""
import json
import subprocess
import time

import targets

# From the handshake to the first figure: caches warm up, a pool fills.
SETTLE = 0.3


def rate_of(target, seconds):
    """Units of work per second."""
    first = asked(target)
    time.sleep(seconds)
    last = asked(target)
    return (last["done"] - first["done"]) / (last["seconds"] - first["seconds"])


def asked(target):
    target.ask(b"?")
    line = target.child.stdout.readline()
    if not line:
        raise targets.Failed("the workload ended: %s" % " ".join(target.command))
    return json.loads(line)


def at_work(python, case, kind, workers=None):
    return targets.Target(python, "labelled/" + case.program, *case.args, "--as", kind, "--workers", workers or case.workers)


def report(gilprof, target, seconds):
    command = [gilprof, "attach", "--pid", str(target.pid), "--duration", "%gs" % seconds, "--format", "json"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        raise targets.Failed("gilprof ended with %d: %s" % (done.returncode, done.stderr.decode()[-500:]))
    return json.loads(done.stdout)


def round_of(gilprof, python, case, options, processes_first):
    """Both kinds once: rates, and gilprof's verdict on the threads."""
    one = {}
    kinds = ("processes", "threads") if processes_first else ("threads", "processes")
    for kind in kinds if case.gain else ("threads",):
        with targets.Burners(case.burners + options.burners), at_work(python, case, kind) as target:
            time.sleep(SETTLE)
            before = targets.ticks()
            one[kind] = rate_of(target, options.seconds)
            one["stolen"] = max(one.get("stolen", 0), targets.stolen(before, targets.ticks()))
            if kind == "threads":
                said = report(gilprof, target, options.window)
                verdict = said["verdict"]
                one["verdict"], one["confidence"], one["headline"] = verdict["code"], verdict["confidence"], verdict["headline"]
                one["predicted"] = (verdict["speedup"] or {}).get("processes")
                one["threads_worth_having"] = verdict.get("threads_worth_having")
                one["blame"] = blame(said)
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
    """Units per second by the number of threads: medians of runs that take turns."""
    rates = {n: [] for n in counts}
    for _ in range(options.rounds):
        for n in counts:
            with at_work(python, case, "threads", n) as target:
                time.sleep(SETTLE)
                rates[n].append(rate_of(target, options.seconds))
    return {n: sorted(all_of_it)[len(all_of_it) // 2] for n, all_of_it in rates.items()}
