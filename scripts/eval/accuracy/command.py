"""Measures workloads with gilprof and with kernel events at the same time, and compares the states
of each thread.

The kernel events come from bpftrace: uprobes on take_gil and drop_gil where the interpreter has
symbols, futex tracepoints where it has none, the scheduler's tracepoints in both cases. Needs root,
bpftrace and interpreters (scripts/setup-pythons). `--write` replaces the conditions that were
measured (idle machine, with load, kernel engine, as a user): measure all interpreters of a condition,
in pieces with --output and --from if that takes long.
"""
import os
import shutil
import sys

import targets
from accuracy import cases, measure, table, truth
from common import Failed, Measurement, NotMeasured, UsageError, choose, earlier_runs, keep_runs
from replay import keep_truth

RESULTS = "accuracy"
TRACING = "/sys/kernel/tracing"
# Options that leave out rows.
NARROWING = ("cases",)
QUICK = {"cases": "quick", "seconds": 3.0, "versions": "3.13-pyenv"}


def add_options(parser):
    parser.add_argument("--versions", default="3.8-pyenv,3.9-pyenv,3.10-pyenv,3.11-pyenv,3.12-pyenv,3.13-pyenv,3.14,3.15",
                        help="interpreters whose label begins with one of these (default: %(default)s)")
    parser.add_argument("--cases", default="", help="only these workloads, separated by `;`; `quick` is one of each kind")
    parser.add_argument("--load", action="store_true", help="with a competing process on each CPU")
    parser.add_argument("--both", action="store_true", help="without and with competing processes")
    parser.add_argument("--engine", choices=["samples", "kernel"], default="samples", help="what measures (default: %(default)s)")
    parser.add_argument("--as-user", action="store_true", help="gilprof and the workload run as an ordinary user, without kernel stacks")
    parser.add_argument("--truth", choices=["uprobes", "futex"], default="", help="only this source of events (default: the best available)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each window (default: %(default)s)")
    parser.add_argument("--rate", type=int, default=1000, help="sampling rate in Hz (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each workload (default: %(default)s)")
    parser.add_argument("--again", type=int, default=0,
                        help="additional runs of a workload that was beyond a bound; the bound applies to the median (default: %(default)s)")
    parser.add_argument("--from", dest="earlier", nargs="+", default=[], metavar="FILE", help="measure nothing; use what --output kept")
    parser.add_argument("--keep", metavar="FOLDER", default="",
                        help="measure by the same code and keep all that it read, with the truth, for `replay`")
    parser.add_argument("--threads", action="store_true", help="print every thread")


def require_tracing():
    if os.geteuid() != 0:
        raise NotMeasured("kernel events need root")
    if not shutil.which("bpftrace"):
        raise NotMeasured("bpftrace is not installed; as root: apt-get install bpftrace")
    if not os.path.exists(TRACING + "/events/sched/sched_switch"):
        if os.environ.get("GILPROF_TRACING"):
            raise NotMeasured("the tracing file system cannot be mounted")
        # Starts this program again in a mount namespace of its own, so that no mount is left
        # behind.
        script = 'mount -t tracefs tracefs %s 2>/dev/null; exec "$0" "$@"' % TRACING
        env = dict(os.environ, GILPROF_TRACING="1")
        os.execvpe("unshare", ["unshare", "--mount", "sh", "-c", script, sys.executable] + sys.argv, env)


def chosen(options):
    names = cases.QUICK if options.cases == "quick" else choose([case.name for case in cases.CASES], options.cases)
    plain = [case for case in cases.CASES if case.name in names]
    loaded = cases.loaded(plain, len(os.sched_getaffinity(0)))
    return loaded if options.load else plain + loaded if options.both else plain


def measure_all(options):
    wanted = chosen(options)
    if options.keep and (options.engine != "samples" or options.as_user):
        raise UsageError("--keep keeps samples with the evidence of every user, without --engine and --as-user")
    if options.keep:
        os.makedirs(options.keep, exist_ok=True)
    require_tracing()
    interpreters = [dict(one, as_user=options.as_user) for one in targets.interpreters(options.versions)]
    gilprof, runs = targets.example(options, "raw_samples") if options.keep else targets.gilprof(options), []
    for case in wanted:
        for interpreter in interpreters:
            first = len(runs)
            for number in range(options.repeat + options.again):
                if number >= options.repeat and not any(map(table.beyond, runs[first:])):
                    break
                run = {"case": case.name, "label": interpreter["label"], "version": interpreter["version"], "loaded": case.burners > 0,
                       "engine": options.engine, "user": options.as_user}
                kept = measure.kept(options, interpreter, case, number)
                try:
                    run["threads"], run["facts"] = measure.run(gilprof, interpreter, case, options, kept)
                    if options.keep:
                        keep_truth(kept, run)
                except (Failed, truth.Unaligned) as e:
                    run["failed"] = str(e)
                runs.append(run)
                table.print_run(run, options.threads)
                keep_runs(options, runs)
    return runs


def run(options):
    if options.earlier:
        runs = earlier_runs(options.earlier)
        for one in runs:
            table.print_run(one, options.threads)
    else:
        runs = measure_all(options)
    pythons = sorted({one["version"] for one in runs}, key=lambda version: [int(part) for part in version.split(".") if part.isdigit()])
    return Measurement(table.checks(runs), table.rows(runs), runs, {"python": pythons})
