"""Judges kept samples again, and compares the states with the kernel's truth that is kept with them.

`accuracy --keep FOLDER` keeps both. No program runs and no privilege is needed, so that a change of
src/estimate is tried on hours of samples in seconds, and with the evidence that another user would
have had. (While they were taken, kernel stacks decided which threads were read twice.)
"""
import gzip
import json
import os
import subprocess

import targets
from accuracy import table
from common import REPOSITORY, Failed, Measurement, NotMeasured, check

RESULTS = "replay"
RESOLVERS = ["kernel-stack", "switch-counts", "cpu-time"]
NARROWING = ("files",)
QUICK = {}
KEPT = os.path.join(REPOSITORY, "tests", "dumps", "truth")


def add_options(parser):
    parser.add_argument("files", nargs="*", default=[], help="kept samples (default: those of tests/dumps/truth)")
    parser.add_argument("--resolver", choices=RESOLVERS, default="kernel-stack",
                        help="the best evidence for a runnable thread that counts (default: %(default)s)")
    parser.add_argument("--without", action="append", default=[], metavar="RULE", help="leave out a rule of src/estimate/rules.rs")
    parser.add_argument("--ablate", action="store_true", help="leave out each rule in turn, and say what that changes")
    parser.add_argument("--threads", action="store_true", help="print every thread")


def keep_truth(path, run):
    """Adds a run's truth to its samples, as a remark at their end, and gives them their name."""
    kept = {key: run[key] for key in ("case", "label", "version", "loaded", "facts")}
    kept["threads"] = [{key: row[key] for key in ("tid", "name", "life", "actual")} for row in run["threads"] if row["tid"]]
    with open(path, "ab") as file:
        file.write(gzip.compress(("# %s\n" % json.dumps(kept)).encode(), 9))
    os.replace(path, os.path.splitext(path)[0] + ".gz")


def truth_of(path):
    with gzip.open(path) as file:
        last = file.read().rstrip().rpartition(b"\n")[2]
    if not last.startswith(b"# "):
        raise Failed("%s has no truth at its end" % path)
    return json.loads(last[2:])


def compared(path, replayed, resolver):
    """A run like those of `accuracy`."""
    run, threads = truth_of(path), replayed["threads"]
    rows = []
    for row in run["threads"]:
        found = threads.get(str(row["tid"]))
        if not found:
            raise Failed("%s: the samples do not have thread %d" % (path, row["tid"]))
        share = found["seconds"] / row["life"]
        rows.append(dict(row, reported={state: share * part for state, part in found["states"].items()}))
    return dict(run, threads=rows, resolver=resolver)


def replayed(options, files, without, resolver):
    command = [targets.example(options, "replay"), resolver] + [part for rule in without for part in ("--without", rule)] + files
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        raise Failed("replay ended with %d: %s" % (done.returncode, done.stderr.decode()[-500:]))
    return [compared(path, json.loads(line), resolver) for path, line in zip(files, done.stdout.splitlines())]


def figures(runs):
    """The worst and the mean error of each state, with and without load."""
    found = {}
    for one in runs:
        for state in table.BOUNDS if not table.unbounded(one) else ():
            found.setdefault((one["loaded"], state), []).extend(abs(off) for off, row in table.errors(one, state) if not table.disturbed(row))
    return {key: (max(errors), sum(errors) / len(errors)) for key, errors in found.items()}


def ablate(options, files):
    """What leaving out each rule changes: a row for each rule, kind of evidence and condition."""
    rules = subprocess.check_output([targets.example(options, "replay"), "rules"], text=True).split()
    for resolver in RESOLVERS:
        whole = figures(replayed(options, files, [], resolver))
        for rule in rules:
            without = figures(replayed(options, files, [rule], resolver))
            for loaded in sorted({loaded for loaded, _ in whole}):
                changes = {state: [round(now - before, 4) for now, before in zip(without[loaded, state], whole[loaded, state])] for state in table.BOUNDS}
                print("%-20s %-13s %-9s %s" % (rule, resolver, "with load" if loaded else "quiet", "  ".join(
                    "%s worst %+.4f mean %+.4f" % (state, *change) for state, change in changes.items() if any(change))), flush=True)
                yield dict(part="rules", rule=rule, resolver=resolver, loaded=loaded, **changes)


def run(options):
    files = options.files or (sorted(os.path.join(KEPT, name) for name in os.listdir(KEPT) if name.endswith(".gz")) if os.path.isdir(KEPT) else [])
    if not files:
        raise NotMeasured("there are no kept samples; make some with: python3 scripts/eval accuracy --keep FOLDER")
    if options.ablate:
        return Measurement([], list(ablate(options, files)))
    runs = replayed(options, files, options.without, options.resolver)
    for one in runs:
        table.print_run(one, options.threads)
    return Measurement(table.checks(runs), table.rows(runs), runs)
