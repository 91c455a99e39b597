#!/usr/bin/env python3
"""Proves gilprof's figures: runs workloads, measures each with gilprof and with the kernel's own events at the same time, prints both.

The table is workload x version: what gilprof said, what was true, the error. docs/accuracy.md keeps it (--write). The exact source is
bpftrace: uprobes on take_gil and drop_gil where the interpreter has symbols, futex tracepoints where not, the scheduler's tracepoints on
all. Needs root, bpftrace and interpreters (scripts/setup-pythons). Ends with 1 when a bound is broken, with 3 when it cannot run here.
"""
import argparse
import json
import os
import shutil
import sys

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
sys.path[:0] = [os.path.join(REPOSITORY, "tests", folder) for folder in ("accuracy", "support")]
import cases  # noqa: E402
import measure  # noqa: E402
import table  # noqa: E402
import targets  # noqa: E402
import truth  # noqa: E402

TRACING = "/sys/kernel/tracing"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", default="3.8-pyenv,3.9-pyenv,3.10-pyenv,3.11-pyenv,3.12-pyenv,3.13-pyenv,3.14,3.15",
                        help="interpreters whose label begins so (default: %(default)s)")
    parser.add_argument("--cases", default="", help="only these, separated by `;`; `quick` is one of each kind")
    parser.add_argument("--load", action="store_true", help="with a competing process on each CPU")
    parser.add_argument("--both", action="store_true", help="without and with competing processes")
    parser.add_argument("--exact", action="store_true", help="measure with `gilprof attach --exact`, whose waiting has a bound of its own")
    parser.add_argument("--truth", choices=["uprobes", "futex"], default="", help="this source of truth only (default: the best there is)")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=1, help="runs of each case; the table keeps them all")
    parser.add_argument("--again", type=int, default=0, help="more runs of what was beyond a bound; the median of its runs is judged (default: %(default)s)")
    parser.add_argument("--gilprof", default="", help="the binary (default: the release build, made if missing)")
    parser.add_argument("--json", default="", help="write all rows of all runs to this file")
    parser.add_argument("--write", action="store_true", help="write docs/accuracy.md")
    parser.add_argument("--from", dest="earlier", nargs="+", default=[], metavar="JSON", help="measure nothing: print and judge what --json kept earlier")
    parser.add_argument("--threads", action="store_true", help="print every thread")
    return parser.parse_args()


def refuse(why):
    print("skipped: " + why)
    sys.exit(3)


def check():
    if os.geteuid() != 0:
        refuse("accuracy: not root, and kernel events need it")
    if not shutil.which("bpftrace"):
        refuse("accuracy: bpftrace is not installed; as root: apt-get install bpftrace")
    if not os.path.exists(TRACING + "/events/sched/sched_switch"):
        if os.environ.get("GILPROF_TRACING"):
            refuse("accuracy: the tracing file system cannot be mounted")
        # In a mount namespace of its own, so that nothing is left behind.
        script = 'mount -t tracefs tracefs %s 2>/dev/null; exec "$0" "$@"' % TRACING
        env = dict(os.environ, GILPROF_TRACING="1")
        os.execvpe("unshare", ["unshare", "--mount", "sh", "-c", script, sys.executable] + sys.argv, env)


def interpreters(wanted):
    return targets.interpreters(wanted) or refuse("accuracy: no interpreter of %s" % wanted)


def chosen(options):
    cpus = len(os.sched_getaffinity(0))
    names = cases.QUICK if options.cases == "quick" else [n.strip() for n in options.cases.split(";") if n.strip()]
    unknown = set(names) - {c.name for c in cases.CASES}
    if unknown:
        sys.exit("scripts/accuracy: failed to find the cases %s; there are: %s" % (sorted(unknown), "; ".join(c.name for c in cases.CASES)))
    plain = [c for c in cases.CASES if not names or c.name in names]
    loaded = cases.loaded(plain, cpus)
    return loaded if options.load else plain + loaded if options.both else plain


def keep(options, runs):
    """After each run, so that a long measurement that is cut short is not lost."""
    if options.json:
        with open(options.json + ".new", "w") as file:
            json.dump(runs, file)
        os.replace(options.json + ".new", options.json)


def measure_all(options):
    check()
    gilprof, runs = targets.gilprof(options.gilprof), []
    for case in chosen(options):
        for interpreter in interpreters(options.versions):
            first = len(runs)
            for number in range(options.repeat + options.again):
                if number >= options.repeat and not any(map(table.beyond, runs[first:])):
                    break
                one = {"case": case.name, "label": interpreter["label"], "version": interpreter["version"], "loaded": case.burners > 0, "exact": options.exact}
                try:
                    one["threads"], one["facts"] = measure.run(gilprof, interpreter, case, options)
                except (targets.Failed, truth.Unaligned) as e:
                    one["failed"] = str(e)
                runs.append(one)
                table.line(one, options.threads)
                keep(options, runs)
    return runs


def main():
    options = arguments()
    if options.earlier:
        runs = []
        for path in options.earlier:
            with open(path) as file:
                runs += json.load(file)
        for one in runs:
            table.line(one, options.threads)
    else:
        runs = measure_all(options)
    broken = table.summary(runs)
    if options.write:
        os.makedirs(os.path.join(REPOSITORY, "docs"), exist_ok=True)
        path = os.path.join(REPOSITORY, "docs", "accuracy.md")
        before = open(path).read() if os.path.exists(path) else ""
        with open(path, "w") as file:
            file.write(table.document(runs, options, before))
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
