#!/usr/bin/env python3
"""How often `gilprof diff` is right: two runs of one program must not differ, one whose threads wait some 10 points less must.

Each trial records three fresh processes of tests/workloads/labelled/mix.py (four threads, a part of their time asleep): two alike and one that
sleeps more. On a machine that others use two runs of one program do differ: a recording during which other programs took more than a twentieth of a
core (--others) is made again. Prints the changes of waiting that were seen, and what holds; the exit code is 1 when it does not, 2 when the machine is too busy.
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORKLOAD = os.path.join(ROOT, "tests", "workloads", "labelled", "mix.py")
ALIKE, OTHER = "40", "54"
again = 0


def record(args, asleep, file):
    """In a fresh process, as often as it takes to have the machine for oneself."""
    global again
    while True:
        if record_once(args, asleep, file) <= args.others:
            return
        again += 1
        if again > args.patience:
            print("others use this machine: %d recordings were made in vain" % again)
            sys.exit(2)


def busy():
    """Seconds of CPU time so far, of all programs: user, nice, system, irq, softirq, steal."""
    with open("/proc/stat") as stat:
        words = stat.readline().split()[1:9]
    return sum(int(words[n]) for n in (0, 1, 2, 5, 6, 7)) / os.sysconf("SC_CLK_TCK")


def ours(pid):
    """Seconds of CPU time so far, of the target and of the children that were waited for."""
    with open("/proc/%d/stat" % pid) as stat:
        words = stat.read().rpartition(") ")[2].split()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK") + children.ru_utime + children.ru_stime


def record_once(args, asleep, file):
    """Gives the cores that others used meanwhile."""
    words = [args.python, "-B", WORKLOAD, "--asleep", asleep, "--as", "threads", "--workers", "4"] + args.amounts
    target = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        while target.stdout.readline().strip() != b"ready":
            pass
        command = [args.gilprof, "record", "--pid", str(target.pid), "--duration", "%gs" % args.window, "-o", file]
        before = busy() - ours(target.pid)
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        return (busy() - ours(target.pid) - before) / args.window
    finally:
        target.kill()
        target.wait()


def calibrated(python):
    """Words that make the program the same each time: one that calibrates itself is another by some per cent."""
    return subprocess.run([python, "-B", WORKLOAD, "--calibrate"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()


def diff(args, base, new):
    out = subprocess.run([args.gilprof, "diff", base, new, "--format", "json"], check=True, stdout=subprocess.PIPE).stdout
    said = json.loads(out)
    return said, next(figure for figure in said["figures"] if figure["name"] == "waiting")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--window", type=float, default=3.0, help="seconds of each recording")
    parser.add_argument("--others", type=float, default=0.05, help="cores that other programs may use meanwhile")
    parser.add_argument("--patience", type=int, default=200, help="recordings that may be made in vain")
    parser.add_argument("--python", default="python3")
    parser.add_argument("--gilprof", help="the binary (default: the release build)")
    args = parser.parse_args()
    if not args.gilprof:
        subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
        args.gilprof = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release", "gilprof")
    args.amounts = calibrated(args.python)
    quiet, found, alike, other = 0, 0, [], []
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, name + ".gilprof") for name in ("base", "alike", "other")]
        for trial in range(args.trials):
            for file, asleep in zip(files, (ALIKE, ALIKE, OTHER)):
                record(args, asleep, file)
            said, waiting = diff(args, files[0], files[1])
            alike.append(waiting["change"] * 100)
            quiet += not said["real"]
            if said["real"]:
                print("trial %d: %s" % (trial, said["headline"]), flush=True)
            said, waiting = diff(args, files[0], files[2])
            other.append(waiting["change"] * 100)
            found += waiting["real"]
    print("recordings made again because others used the machine: %d" % again)
    for name, changes in (("alike", alike), ("other", other)):
        print("%s: waiting changed by %+.1f points in the median (%+.1f .. %+.1f)" % (name, statistics.median(changes), min(changes), max(changes)))
    print("no real difference between two runs of one program: %d of %d (bound 19 of 20)" % (quiet, args.trials))
    print("the change of waiting found: %d of %d (bound: all)" % (found, args.trials))
    return 0 if quiet >= 0.95 * args.trials and found == args.trials else 1


if __name__ == "__main__":
    sys.exit(main())
