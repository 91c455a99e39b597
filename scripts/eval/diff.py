"""Counts how often `gilprof diff` is right: two runs of one program must not differ, a run with
less waiting must.

Each trial records three new processes of tests/workloads/labelled/mix.py (four threads, asleep for
a part of their time): two alike, and one that sleeps more, so that its threads wait some 10 points
less. On a machine that others use, two runs of one program do differ. A recording is repeated if
other programs used more than --others cores meanwhile.
"""
import json
import os
import resource
import statistics
import subprocess
import tempfile

import targets
from common import WORKLOADS, Failed, Measurement, NotMeasured, check

RESULTS = "diff"
WORKLOAD = "labelled/mix"
ALIKE, OTHER = "40", "54"
# The share of trials in which two runs of one program may not differ.
QUIET = 0.95
QUICK = {"trials": 2, "window": 1.5, "others": 8.0}


def add_options(parser):
    parser.add_argument("--trials", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--window", type=float, default=3.0, help="seconds of each recording (default: %(default)s)")
    parser.add_argument("--others", type=float, default=0.05, help="cores that other programs may use meanwhile (default: %(default)s)")
    parser.add_argument("--patience", type=int, default=200, help="recordings that may be repeated (default: %(default)s)")
    parser.add_argument("--python", default="python3", help="the interpreter (default: %(default)s)")


class Recorder:
    """Records new processes, each of them as often as it takes for other programs to leave the
    machine alone.
    """

    def __init__(self, options):
        self.options, self.binary, self.repeated = options, targets.gilprof(options), 0
        self.python = targets.this_python(options.python)
        self.amount = calibration(options.python)

    def record(self, asleep, file):
        while self.others_during(asleep, file) > self.options.others:
            self.repeated += 1
            if self.repeated > self.options.patience:
                raise NotMeasured("other programs use this machine: %d recordings were repeated" % self.repeated)

    def others_during(self, asleep, file):
        """Makes one recording; the cores that other programs used meanwhile."""
        with targets.Target(self.python, WORKLOAD, "--asleep", asleep, "--as", "threads", "--workers", 4, *self.amount) as target:
            before = busy_seconds() - own_seconds(target.pid)
            targets.record(self.binary, target, self.options.window, file)
            return (busy_seconds() - own_seconds(target.pid) - before) / self.options.window

    def diff(self, base, new):
        command = [self.binary, "diff", base, new, "--format", "json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode:
            raise Failed("gilprof diff ended with %d: %s" % (done.returncode, done.stderr.decode()[-500:]))
        found = json.loads(done.stdout)
        return found, next(figure for figure in found["figures"] if figure["name"] == "waiting")


def busy_seconds():
    """CPU seconds of all programs so far: user, nice, system, irq, softirq, steal."""
    with open("/proc/stat") as file:
        fields = file.readline().split()[1:9]
    return sum(int(fields[n]) for n in (0, 1, 2, 5, 6, 7)) / os.sysconf("SC_CLK_TCK")


def own_seconds(pid):
    """CPU seconds so far of the target and of this program's finished children."""
    with open("/proc/%d/stat" % pid) as file:
        fields = file.read().rpartition(") ")[2].split()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + children.ru_utime + children.ru_stime


def calibration(python):
    """Arguments that fix the amount of work.

    A program that calibrates itself differs by some per cent from run to run.
    """
    return subprocess.run([python, "-B", os.path.join(WORKLOADS, WORKLOAD + ".py"), "--calibrate"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()


def run(options):
    version, recorder = targets.python_version(options.python), Recorder(options)
    quiet, found, changes = 0, 0, {"alike": [], "other": []}
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, name + ".gilprof") for name in ("base", "alike", "other")]
        for trial in range(options.trials):
            for file, asleep in zip(files, (ALIKE, ALIKE, OTHER)):
                recorder.record(asleep, file)
            alike, waiting = recorder.diff(files[0], files[1])
            changes["alike"].append(waiting["change"] * 100)
            quiet += not alike["real"]
            if alike["real"]:
                print("trial %d: %s" % (trial, alike["headline"]), flush=True)
            _, waiting = recorder.diff(files[0], files[2])
            changes["other"].append(waiting["change"] * 100)
            found += waiting["real"]
    row = {"part": "trials", "trials": options.trials, "quiet": quiet, "found": found, "repeated": recorder.repeated}
    row.update({name: {"median": statistics.median(values), "low": min(values), "high": max(values)} for name, values in changes.items()})
    return Measurement(checks(row), [row], None, {"python": [version]})


def checks(row):
    yield check("trials", None, "%d recordings repeated because other programs used the machine" % row["repeated"])
    for name, what in (("alike", "two runs of one program"), ("other", "a run that sleeps more")):
        yield check("trials", None, "%s: waiting changed by %+.1f points (%+.1f to %+.1f)" % (what, *(row[name][key] for key in ("median", "low", "high"))))
    yield check("trials", row["quiet"] >= QUIET * row["trials"], "no real difference between two runs of one program: %d of %d (bound %.0f %%)" % (
        row["quiet"], row["trials"], 100 * QUIET))
    yield check("trials", row["found"] == row["trials"], "change of waiting found: %d of %d (bound: all)" % (row["found"], row["trials"]))
