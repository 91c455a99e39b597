"""Runs labelled workloads as threads and as processes, and compares gilprof's verdict and predicted
gain with both.

The verdict on the threads must be one that the label allows, and the predicted gain must agree with
the work that the same program does in processes. Third-party packages go into a virtual environment
under ~/.cache/gilprof. `--write` replaces what was measured: the idle machine, --load, --as-user (either), or --sweep.
"""
from statistics import median

import targets
from common import Measurement, choose, earlier_runs, keep_runs
from verdicts import cases, measure, modules, table

RESULTS = "verdicts"
COUNTS = (1, 2, 4, 8)
# Options that leave out rows.
NARROWING = ("cases",)
QUICK = {"cases": "number crunching; json; hashlib", "rounds": 1, "seconds": 1.6, "window": 1.5}


def add_options(parser):
    parser.add_argument("--python", default="3.13-pyenv", help="the first interpreter whose label begins so (default: %(default)s)")
    parser.add_argument("--cases", default="", help="only these workloads, separated by `;`")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each workload (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds of work of each kind in a round (default: %(default)s)")
    parser.add_argument("--window", type=float, default=3.0, help="length of gilprof's window in seconds (default: %(default)s)")
    parser.add_argument("--load", action="store_true", help="with a competing process on one CPU: verdicts only")
    parser.add_argument("--as-user", action="store_true", help="gilprof and the workload run as an ordinary user: verdicts only")
    parser.add_argument("--sweep", action="store_true", help="compare `gil_saturates_at` with the work of 1, 2, 4 and 8 threads")
    parser.add_argument("--from", dest="earlier", nargs="+", default=[], metavar="FILE", help="measure nothing; use what --output kept")


def labelled(options, gilprof, python):
    wanted = choose([case.name for case in cases.CASES], options.cases)
    for case in (case for case in cases.CASES if case.name in wanted):
        # The rates under load depend on the competing process, so no gain is measured.
        case = case._replace(gain=case.gain and not options.load and not options.as_user)
        rounds = [measure.one_round(gilprof, python, case, options, n % 2 == 1) for n in range(options.rounds)]
        yield {"name": case.name, "label": case.verdicts, "loaded": options.load, "user": options.as_user, "blamed": case.blamed, "rounds": rounds}


def swept(options, gilprof, python):
    """Compares `gil_saturates_at` with the most work that any number of threads does, in units of
    the work of one thread.
    """
    for case in (case for case in cases.CASES if case.name in cases.SWEEPS):
        rates = measure.sweep(python, case, options, COUNTS)
        rounds = [measure.one_round(gilprof, python, case._replace(gain=False), options, False) for _ in range(options.rounds)]
        saturates_at = median(r["gil_saturates_at"] or 0 for r in rounds)
        yield {"name": case.name, "sweep": {"predicted": saturates_at, "measured": max(rates.values()) / rates[1], "rates": rates}}


def run(options):
    options.burners = 1 if options.load else 0
    if options.earlier:
        found = earlier_runs(options.earlier)
        for one in found:
            table.print_workload(one)
        return Measurement(table.checks(found), map(table.row, found), found)
    choose([case.name for case in cases.CASES], options.cases)
    interpreter, found = targets.interpreters(options.python)[0], []
    gilprof, python = targets.gilprof(options), dict(modules.prepared(interpreter), as_user=options.as_user)
    for one in (swept if options.sweep else labelled)(options, gilprof, python):
        found.append(one)
        table.print_workload(one)
        keep_runs(options, found)
    return Measurement(table.checks(found), map(table.row, found), found, {"python": [interpreter["version"]]})
