#!/usr/bin/env python3
"""Runs every labelled workload as threads and as processes, asks gilprof about the threads, and compares: verdict with label, predicted gain with measured.

Third-party packages go into a virtual environment under ~/.cache/gilprof. Prints a line a workload and what holds of what was promised;
--write keeps it in docs/verdicts.md. Ends with 1 when something promised does not hold.
"""
import argparse
import json
import os
import sys

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
sys.path[:0] = [os.path.join(REPOSITORY, "tests", folder) for folder in ("verdicts", "support")]
import cases  # noqa: E402
import measure  # noqa: E402
import modules  # noqa: E402
import table  # noqa: E402
import targets  # noqa: E402

COUNTS = (1, 2, 4, 8)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.13-pyenv", help="the interpreter: the first whose label begins so (default: %(default)s)")
    parser.add_argument("--cases", default="", help="only these, separated by `;`")
    parser.add_argument("--rounds", type=int, default=3, help="of each workload (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="for which the work of each is counted (default: %(default)s)")
    parser.add_argument("--window", type=float, default=3.0, help="seconds that gilprof looks (default: %(default)s)")
    parser.add_argument("--load", action="store_true", help="with a competing process on one CPU: verdicts only")
    parser.add_argument("--sweep", action="store_true", help="threads worth having, against the work that 1, 2, 4 and 8 threads do")
    parser.add_argument("--gilprof", default="", help="the binary (default: the release build)")
    parser.add_argument("--json", default="", help="write all rounds to this file")
    parser.add_argument("--from", dest="earlier", nargs="+", default=[], metavar="JSON", help="measure nothing: print and judge what --json kept earlier")
    parser.add_argument("--write", action="store_true", help="write docs/verdicts.md")
    options = parser.parse_args()
    options.burners = 1 if options.load else 0
    return options


def chosen(options):
    names = [n.strip() for n in options.cases.split(";") if n.strip()]
    unknown = set(names) - {c.name for c in cases.CASES}
    if unknown:
        sys.exit("scripts/verdicts: failed to find %s; there are: %s" % (sorted(unknown), "; ".join(c.name for c in cases.CASES)))
    return [c for c in cases.CASES if not names or c.name in names]


def measured(options, gilprof, python):
    for case in chosen(options):
        # Under load the rates say nothing of the GIL.
        case = case._replace(gain=case.gain and not options.load)
        rounds = [measure.round_of(gilprof, python, case, options, n % 2 == 1) for n in range(options.rounds)]
        yield {"name": case.name, "label": case.verdicts, "why": case.why, "loaded": options.load, "blamed": case.blamed, "rounds": rounds}


def swept(options, gilprof, python):
    """Whether `threads_worth_having` is where more threads stop paying: the most work that any number of them does, in the work of one."""
    for case in (c for c in cases.CASES if c.name in cases.SWEEPS):
        rates = measure.sweep(python, case, options, COUNTS)
        rounds = [measure.round_of(gilprof, python, case._replace(gain=False), options, False) for _ in range(options.rounds)]
        said = table.middle([r["threads_worth_having"] or 0 for r in rounds])
        yield {"name": case.name, "sweep": {"said": said, "knee": max(rates.values()) / rates[1], "rates": rates}}


def keep(options, found):
    """After each workload, so that a long measurement that is cut short is not lost."""
    if options.json:
        with open(options.json + ".new", "w") as file:
            json.dump(found, file)
        os.replace(options.json + ".new", options.json)


def main():
    options = arguments()
    found = []
    for path in options.earlier:
        with open(path) as file:
            found += json.load(file)
    for one in found:
        table.line(one)
    if not options.earlier:
        interpreters = targets.interpreters(options.python) or sys.exit("scripts/verdicts: failed to find an interpreter %s" % options.python)
        try:
            gilprof, python = targets.gilprof(options.gilprof), modules.prepared(interpreters[0])
            for one in (swept if options.sweep else measured)(options, gilprof, python):
                found.append(one)
                table.line(one)
                keep(options, found)
        except targets.Failed as e:
            sys.exit("scripts/verdicts: %s" % e)
    broken = table.summary(found)
    if options.write:
        path = os.path.join(REPOSITORY, "docs", "verdicts.md")
        before = open(path).read() if os.path.exists(path) else ""
        with open(path, "w") as file:
            file.write("\n".join(table.document(found, before)) + "\n")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
