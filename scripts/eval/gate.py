#!/usr/bin/env python3
"""How often `gilprof gate` is right, which is what it is for: an unchanged program must pass, one with one more busy thread must fail.

Each trial starts tests/workloads/gate.py and measures it for --window seconds once its threads are at work:
  steady   two CPU-bound threads, a limit 5 points above their true waiting of 50 %: must pass
  burner   the same, while another process uses a core: must pass; inconclusive counts as not passing, and stays under one in ten
  worse    three CPU-bound threads against a baseline of two: must fail, and name the new thread's function
  same     two against that baseline: must pass
Prints what came of each, and what holds; the exit code is 1 when it does not.
"""
import argparse
import collections
import json
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORKLOAD = os.path.join(ROOT, "tests", "workloads", "gate.py")
BURNER = "while True: pass"
TRUE_WAITING, MARGIN = 50, 5


def gate(args, options, more=0, runs=1):
    """The outcome of one gate, of a fresh program each; measured once its threads are at work."""
    words = [args.python, "-B", WORKLOAD, "--threads", "2", "--more", str(more), "--seconds", "600", "--ready"]
    target = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        while target.stdout.readline().strip() != b"ready":
            pass
        command = [args.gilprof, "gate", "--format", "json", "--runs", str(runs)] + options
        command += ["--pid", str(target.pid), "--duration", "%gs" % args.window]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    finally:
        target.kill()
        target.wait()
    outcome = json.loads(done.stdout)
    if done.returncode != outcome["exit_code"]:
        sys.exit("ended with %d, said %r" % (done.returncode, outcome))
    return outcome


def steady(args, name):
    """Trials with a limit; the verdicts."""
    verdicts, waiting, widths = collections.Counter(), [], []
    for _ in range(args.trials):
        outcome = gate(args, ["--max", "waiting <= %d%%" % (TRUE_WAITING + MARGIN)])
        check = outcome["checks"][0] if outcome["checks"] else {"measured": None, "why": outcome["error"]}
        verdicts[outcome["verdict"]] += 1
        if check["measured"]:
            waiting.append(check["measured"]["value"] * 100)
            widths.append((check["measured"]["high"] - check["measured"]["low"]) * 50)
        if outcome["verdict"] != "pass":
            print("%s: %s: %s" % (name, outcome["verdict"], check["why"]), flush=True)
    measured = ", waiting %.1f %% in the median (%.1f .. %.1f), +- %.2f points (at most %.2f)" % (
        statistics.median(waiting), min(waiting), max(waiting), statistics.median(widths), max(widths)) if waiting else ""
    print("%-7s passed %d of %d, failed %d, inconclusive %d%s" % (
        name, verdicts["pass"], args.trials, verdicts["fail"], verdicts["inconclusive"], measured), flush=True)
    return verdicts


def compared(args, folder, name, more, bound):
    """Trials against a baseline; the verdicts, and how often the new thread's function was named."""
    file = os.path.join(folder, "baseline.json")
    if not os.path.exists(file):
        gate(args, ["--baseline", file, "--update-baseline"], runs=3)
    verdicts, named, changes = collections.Counter(), 0, []
    for _ in range(bound):
        outcome = gate(args, ["--baseline", file], more)
        check = outcome["checks"][0]
        verdicts[outcome["verdict"]] += 1
        changes.append(check["change"]["value"] * 100)
        named += bool(check["culprit"]) and check["culprit"]["name"] == "added"
    print("%-7s failed %d of %d, passed %d, inconclusive %d, waiting changed by %+.1f points in the median (%+.1f .. %+.1f)%s" % (
        name, verdicts["fail"], bound, verdicts["pass"], verdicts["inconclusive"], statistics.median(changes), min(changes), max(changes),
        ", added() named %d times" % named if more else ""), flush=True)
    return verdicts, named


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50, help="of steady and burner (50)")
    parser.add_argument("--compared", type=int, default=20, help="of worse and same (20)")
    parser.add_argument("--parts", default="steady,burner,worse,same")
    parser.add_argument("--window", type=float, default=1.5, help="seconds of each run (1.5)")
    parser.add_argument("--python", default="python3")
    parser.add_argument("--gilprof", help="the binary (default: the release build)")
    args = parser.parse_args()
    if not args.gilprof:
        subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
        args.gilprof = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release", "gilprof")
    parts, holds = args.parts.split(","), True
    # Relative to a folder without limits of its own.
    args.gilprof = os.path.abspath(args.gilprof)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        if "steady" in parts:
            holds &= steady(args, "steady")["pass"] == args.trials
        if "burner" in parts:
            burner = subprocess.Popen([args.python, "-c", BURNER])
            try:
                verdicts = steady(args, "burner")
            finally:
                burner.kill()
                burner.wait()
            holds &= verdicts["fail"] == 0 and verdicts["inconclusive"] * 10 < max(args.trials, 10)
        if "worse" in parts:
            verdicts, named = compared(args, folder, "worse", 1, args.compared)
            holds &= verdicts["fail"] == named == args.compared
        if "same" in parts:
            verdicts, _ = compared(args, folder, "same", 0, args.compared)
            holds &= verdicts["pass"] == args.compared
    print("holds" if holds else "DOES NOT HOLD")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
