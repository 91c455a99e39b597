"""Measures process trees: each worker is found once and soon, with the shares that it has by itself.

Each kind of service is measured by `attach --subprocesses`, and its busiest worker at the same time
by `attach --pid`, twice: two such windows differ by chance too, and by as much. Of processes that come and go, `record -- CMD` must lose none.
"""
import json
import os
import resource
import statistics
import subprocess
import tempfile
import time

import targets
from common import CACHE, Failed, Measurement, check

RESULTS = "trees"
OWN = ["fork", "spawn", "forkserver", "executor"]
SERVERS = ["gunicorn", "celery", "pytest"]
SHARE_BOUND, DELAY_BOUND_MS, COST_BOUND = 0.03, 50, 0.25
TURNS, IDLE, BUSY = 40, 100, 4


def add_options(parser):
    parser.add_argument("--versions", default="3.8-pyenv,3.11-pyenv,3.13-pyenv,3.15-debian-sid", help="prefixes of interpreters' labels")
    parser.add_argument("--kinds", default="", help="separated by commas; all of them when it is empty: " + ", ".join(OWN + SERVERS + ["respawn", "turns", "cost"]))
    parser.add_argument("--seconds", type=float, default=8.0, help="the window")


def descendants(pid):
    """The processes below one, with their parents, from /proc."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % name) as stat:
                parents[int(name)] = int(stat.read().rpartition(")")[2].split()[1])
        except OSError:
            pass
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def cpu_ticks(pid):
    with open("/proc/%d/stat" % pid) as stat:
        fields = stat.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def attach(binary, seconds, *more):
    command = [binary, "attach", "--format", "json", "--duration", "%gs" % seconds] + list(more)
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finished(process):
    out, err = process.communicate()
    if process.returncode:
        raise Failed("gilprof ended with %d: %s" % (process.returncode, err.decode()[-500:]))
    return json.loads(out)


def reports(document):
    return document.get("reports", [document])


def differences(one, other, seconds):
    """By how much the shares of each thread differ that both saw nearly all the time."""
    known = {thread["tid"]: thread for thread in other["threads"]}
    for thread in one["threads"]:
        match = known.get(thread["tid"])
        if match and min(thread["seconds"], match["seconds"]) > 0.7 * seconds:
            yield max(abs(thread["states"][state] - match["states"][state]) for state in thread["states"])


def together(binary, interpreter, kind, options):
    """The worst difference of a share, how many threads were compared, and what was found."""
    packages = os.path.join(CACHE, "services", "3.8")
    inside = packages
    if interpreter["root"] and kind in SERVERS:
        inside = "/tmp/gilprof-services"
        subprocess.run(["cp", "-rT", packages, interpreter["root"] + inside], check=True)
        subprocess.run(["mount", "-t", "proc", "proc", interpreter["root"] + "/proc"], check=True)
    try:
        workload = ("servers", "--how", kind, "--packages", inside) if kind in SERVERS else ("tree", "--how", kind)
        with targets.Target(interpreter, *workload) as target:
            below = descendants(target.pid)[1:]
            before = {pid: cpu_ticks(pid) for pid in below}
            time.sleep(0.5)
            busiest = sorted(below, key=lambda pid: before[pid] - cpu_ticks(pid))[0]
            whole = attach(binary, options.seconds, "--subprocesses", "--max-cpu", "100%", "--pid", str(target.pid))
            alone = [attach(binary, options.seconds, "--pid", str(busiest)) for _ in range(2)]
            found, (one, other) = reports(finished(whole)), [finished(process) for process in alone]
    finally:
        if inside != packages:
            subprocess.run(["umount", interpreter["root"] + "/proc"])
            subprocess.run(["rm", "-rf", interpreter["root"] + inside])
    by_pid = {report["target"]["pid"]: report for report in found}
    off = list(differences(by_pid.get(busiest, {"threads": []}), one, options.seconds))
    return {"off": max(off, default=None), "threads": len(off), "processes": len(found), "twice": len(found) - len(by_pid),
            "by_chance": max(differences(one, other, options.seconds), default=None)}


def recorded(binary, interpreter, how):
    """What the workload says of its processes, and the reports of those that were recorded."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "turns.gilprof")
        target = targets.Target(interpreter, "tree", "--how", how, "--count", TURNS)
        done = subprocess.run([binary, "record", "-o", path, "--"] + target.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode:
            raise Failed("gilprof ended with %d: %s" % (done.returncode, done.stderr.decode()[-500:]))
        return json.loads(done.stdout), reports(targets.report_of([binary, "report", path, "--format", "json"]))


def respawned(binary, interpreter):
    """How many workers that ended after one task were lost, and how many came a second."""
    said, found = recorded(binary, interpreter, "respawn")
    lost = set(said["children"]) - {report["target"]["pid"] for report in found}
    return {"lost": len(lost), "of": len(said["children"]), "a_second": len(said["children"]) / said["seconds"]}


def in_turns(binary, interpreter):
    """How many of the processes were measured, and how long after its begin each was met."""
    said, found = recorded(binary, interpreter, "turns")
    began = dict(zip(said["children"], said["began"]))
    met = {report["target"]["pid"]: report["window"]["begin_ns"] for report in found}
    delays = [(met[pid] - at) / 1e6 for pid, at in began.items() if pid in met]
    return {"lost": len(began) - len(delays), "delays_ms": sorted(delays)}


def cpu_of(process, seconds):
    """What a gilprof cost, as a part of a core, and its report."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = finished(process)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / seconds, report


def cost(binary, interpreter, seconds):
    """The cost of many processes, how many of the contended ones were found, and of one process the
    cost of `attach` and of `attach --subprocesses`, each the median of three."""
    with targets.Target(interpreter, "host", "--idle", IDLE, "--busy", BUSY) as target:
        many, document = cpu_of(attach(binary, seconds, "--subprocesses", "--pid", str(target.pid)), seconds)
        found = sum(report["gil"]["waiters_mean"] > 1 for report in reports(document))
    with targets.Target(interpreter, "cpu", "--threads", 3) as target:
        ways = {"alone": [], "tree": ["--subprocesses"]}
        costs = {way: [] for way in ways}
        for _ in range(3):
            for way, more in ways.items():
                costs[way].append(cpu_of(attach(binary, seconds, "--pid", str(target.pid), *more), seconds)[0])
    return {"many": many, "found": found, "alone": statistics.median(costs["alone"]), "tree": statistics.median(costs["tree"])}


def run(options):
    binary = targets.gilprof(options)
    kinds = options.kinds.split(",") if options.kinds else OWN + SERVERS + ["respawn", "turns", "cost"]
    checks, rows = [], []
    for interpreter in targets.interpreters(options.versions):
        for kind in kinds:
            name = "%s %s" % (interpreter["label"], kind)
            if kind == "respawn":
                row = respawned(binary, interpreter)
                holds = row["lost"] == 0 and row["of"] >= TURNS
                text = "%d of %d workers lost, of which %.0f a second came and went" % (row["lost"], row["of"], row["a_second"])
            elif kind == "turns":
                row = in_turns(binary, interpreter)
                late = row["delays_ms"]
                holds = row["lost"] == 0 and bool(late) and late[-1] <= DELAY_BOUND_MS
                text = "%d of %d lost; met after %.0f ms (median), %.0f at most" % (
                    row["lost"], TURNS, statistics.median(late or [0]), late[-1] if late else 0)
            elif kind == "cost":
                row = cost(binary, interpreter, options.seconds)
                holds = row["many"] <= COST_BOUND and row["found"] == BUSY
                text = "%d idle and %d contended processes cost %.0f %% of a core, %d contended ones found; one process of 3 threads %.1f %% by attach, %.1f %% with --subprocesses" % (
                    IDLE, BUSY, 100 * row["many"], row["found"], 100 * row["alone"], 100 * row["tree"])
            else:
                row = together(binary, interpreter, kind, options)
                holds = row["off"] is not None and row["off"] <= SHARE_BOUND and not row["twice"]
                share = lambda off: "-" if off is None else "%.3f" % off
                text = "%d processes, %d of them twice; %d threads differ by %s at most from attaching to their process alone, and two of those by %s" % (
                    row["processes"], row["twice"], row["threads"], share(row["off"]), share(row["by_chance"]))
            rows.append(dict(row, part=name))
            checks.append(check(name, holds, "%s: %s" % (name, text)))
            print(checks[-1]["text"], flush=True)
    return Measurement(checks, rows)
