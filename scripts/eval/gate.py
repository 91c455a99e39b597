"""Counts how often `gilprof gate` is right: an unchanged program must pass, one with an additional
busy thread must fail.

Each trial starts tests/workloads/gate.py and measures it for --window seconds once its threads are
at work:
  steady   two CPU-bound threads, a limit 5 points above their true waiting of 50 %: must pass
  burner   the same, while another process uses a core: must not fail, and fewer than one in ten may
           be inconclusive
  worse    three CPU-bound threads against a baseline of two: must fail, and name the new thread's
           function
  same     two against that baseline: must pass
"""
import collections
import json
import os
import statistics
import subprocess
import sys
import tempfile

import targets
from common import Failed, Measurement, UsageError, check

RESULTS = "gate"
BURNER = "while True: pass"
TRUE_WAITING, MARGIN = 50, 5
PARTS = ["steady", "burner", "worse", "same"]
QUICK = {"trials": 2, "compared": 2}


def add_options(parser):
    parser.add_argument("--trials", type=int, default=50, help="trials of steady and burner (default: %(default)s)")
    parser.add_argument("--compared", type=int, default=20, help="trials of worse and same (default: %(default)s)")
    parser.add_argument("--parts", default=",".join(PARTS), help="only these (default: %(default)s)")
    parser.add_argument("--window", type=float, default=1.5, help="seconds of each run (default: %(default)s)")
    parser.add_argument("--python", default="python3", help="the interpreter (default: %(default)s)")


class Gate:
    """`gilprof gate` in a directory of its own, without a gilprof.toml."""

    def __init__(self, options, folder):
        self.binary, self.folder, self.options = targets.gilprof(options), folder, options
        self.python = targets.this_python(options.python)

    def outcome(self, arguments, more=0, runs=1):
        """The outcome of one gate on a new process with `more` additional threads."""
        with targets.Target(self.python, "gate", "--threads", 2, "--more", more, "--seconds", 600, "--ready") as target:
            command = [self.binary, "gate", "--format", "json", "--runs", str(runs)] + arguments
            command += ["--pid", str(target.pid), "--duration", "%gs" % self.options.window]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.folder)
            target.child.kill()  # its main thread does not read stdin, so waiting for its end would only cost time
        try:
            outcome = json.loads(done.stdout)
        except ValueError:
            raise Failed("gilprof gate ended with %d: %s" % (done.returncode, done.stderr.decode()[-500:]))
        if done.returncode != outcome["exit_code"]:
            raise Failed("gilprof gate ended with %d, but its JSON has %r" % (done.returncode, outcome))
        return outcome


def with_limit(gate, name):
    """Trials with a limit, as a row."""
    verdicts, waiting, widths = collections.Counter(), [], []
    for _ in range(gate.options.trials):
        outcome = gate.outcome(["--max", "waiting <= %d%%" % (TRUE_WAITING + MARGIN)])
        one = outcome["checks"][0] if outcome["checks"] else {"measured": None, "why": outcome["error"]}
        verdicts[outcome["verdict"]] += 1
        if one["measured"]:
            waiting.append(one["measured"]["value"] * 100)
            widths.append((one["measured"]["high"] - one["measured"]["low"]) * 50)
        if outcome["verdict"] != "pass":
            print("%s: %s: %s" % (name, outcome["verdict"], one["why"]), flush=True)
    return dict(counts(name, gate.options.trials, verdicts), waiting=ends(waiting), half_width=ends(widths))


def with_baseline(gate, name, more):
    """Trials against a baseline, as a row."""
    file = os.path.join(gate.folder, "baseline.json")
    if not os.path.exists(file):
        gate.outcome(["--baseline", file, "--update-baseline"], runs=3)
    verdicts, named, changes = collections.Counter(), 0, []
    for _ in range(gate.options.compared):
        outcome = gate.outcome(["--baseline", file], more)
        one = outcome["checks"][0]
        verdicts[outcome["verdict"]] += 1
        changes.append(one["change"]["value"] * 100)
        named += bool(one["culprit"]) and one["culprit"]["name"] == "added"
    return dict(counts(name, gate.options.compared, verdicts), change=ends(changes), named=named)


def counts(name, trials, verdicts):
    return dict({"part": name, "trials": trials}, **{verdict: verdicts[verdict] for verdict in ("pass", "fail", "inconclusive")})


def ends(values):
    return {"median": statistics.median(values), "low": min(values), "high": max(values)} if values else None


def row_check(row):
    """The check of a row."""
    name, trials = row["part"], row["trials"]
    text = "%s: %d passed, %d failed, %d inconclusive of %d" % (name, row["pass"], row["fail"], row["inconclusive"], trials)
    if name in ("steady", "burner"):
        if row["waiting"]:
            text += ", waiting %.1f %% (%.1f to %.1f), half-width of the interval %.2f points (%.2f to %.2f)" % (
                tuple(row["waiting"][key] for key in ("median", "low", "high")) + tuple(row["half_width"][key] for key in ("median", "low", "high")))
        holds = row["pass"] == trials if name == "steady" else row["fail"] == 0 and row["inconclusive"] * 10 < max(trials, 10)
    else:
        text += ", waiting changed by %+.1f points (%+.1f to %+.1f)" % tuple(row["change"][key] for key in ("median", "low", "high"))
        text += ", added() named %d times" % row["named"] if name == "worse" else ""
        holds = row["fail"] == row["named"] == trials if name == "worse" else row["pass"] == trials
    return check(name, holds, text)


def run(options):
    parts = options.parts.split(",")
    if set(parts) - set(PARTS):
        raise UsageError("failed to find the parts %s; there are: %s" % (sorted(set(parts) - set(PARTS)), ", ".join(PARTS)))
    version, rows = targets.python_version(options.python), []
    with tempfile.TemporaryDirectory() as folder:
        gate = Gate(options, folder)
        for part in (part for part in PARTS if part in parts):
            if part == "burner":
                burner = subprocess.Popen([sys.executable, "-c", BURNER])
                try:
                    rows.append(with_limit(gate, part))
                finally:
                    burner.kill()
                    burner.wait()
            else:
                rows.append(with_limit(gate, part) if part == "steady" else with_baseline(gate, part, 1 if part == "worse" else 0))
    return Measurement(map(row_check, rows), rows, None, {"python": [version]})
