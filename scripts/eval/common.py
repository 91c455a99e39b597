"""Exit codes, errors, common options and the form of a measurement, for all subcommands."""
import datetime
import json
import os
import platform
import re
import subprocess

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORKLOADS = os.path.join(REPOSITORY, "tests", "workloads")
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "gilprof")
HOLDS, BROKEN, USAGE, NOT_MEASURED, FAILED = range(5)
EXIT_CODES = """exit codes:
  0  every bound holds
  1  a bound is broken, or `render --check` found a document that differs
  2  wrong usage
  3  the measurement could not be made: a missing privilege or program, or a machine that is too busy
  4  gilprof, a workload, a peer or this program failed
"""


class NotMeasured(Exception):
    """This machine cannot make the measurement. Ends with exit code 3."""


class Failed(Exception):
    """gilprof, a workload or a peer ended early or printed nothing that can be read. Ends with exit code 4."""


class UsageError(Exception):
    """The options do not fit together. Ends with exit code 2."""


class Measurement:
    """The result of one subcommand.

    `checks` are dicts with `part`, `holds` (None for a note without a bound) and `text`, and the
    figures that a table needs. `rows` are dicts with `part` and go into docs/results. `runs` are
    raw data for `--from`, too large for docs/results. A `part` is what `--write` replaces as a
    whole.
    """

    def __init__(self, checks, rows=(), runs=None, versions=None):
        self.checks, self.rows, self.runs, self.versions = list(checks), list(rows), runs, versions or {}

    def broken(self):
        return any(check["holds"] is False for check in self.checks)


def check(part, holds, text, **figures):
    return dict({"part": part, "holds": holds, "text": text}, **figures)


def print_check(one):
    print({True: "holds   ", False: "BROKEN  ", None: "note    "}[one["holds"]] + one["text"], flush=True)


def add_common_options(parser):
    group = parser.add_argument_group("options of every subcommand")
    group.add_argument("--write", action="store_true", help="keep the results in docs/results and render the documents anew")
    group.add_argument("--json", action="store_true", help="print the results as JSON on stdout, everything else on stderr")
    group.add_argument("--quick", action="store_true", help="a short run that shows that the subcommand works; cannot be written")
    group.add_argument("--output", metavar="FILE", default="", help="also keep the results in FILE, after each workload where there are several")
    group.add_argument("--gilprof", metavar="PATH", default="", help="the binary to measure (default: the release build, made if it is missing)")


def apply_quick(options, parser, quick):
    """Replaces each option that was left at its default by its short value."""
    for name, value in quick.items():
        if getattr(options, name) == parser.get_default(name):
            setattr(options, name, value)


def choose(names, wanted):
    """Those of `names` that are wanted, a list separated by `;`; all of them when it is empty."""
    chosen = [name.strip() for name in wanted.split(";") if name.strip()]
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise UsageError("failed to find %s; there are: %s" % ("; ".join(unknown), "; ".join(names)))
    return chosen or list(names)


def machine():
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown CPU")
    return {"cpus": len(os.sched_getaffinity(0)), "model": model, "linux": platform.release(), "architecture": platform.machine()}


def commit():
    """The commit of the checkout, with `+` when tracked files differ from it; None outside a
    repository.
    """
    done = subprocess.run(["git", "describe", "--always", "--abbrev=7", "--exclude=*", "--dirty=+"], cwd=REPOSITORY,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return done.stdout.decode().strip() or None


def crate_version():
    with open(os.path.join(REPOSITORY, "Cargo.toml")) as file:
        return re.search(r'^version = "(.*)"', file.read(), re.MULTILINE).group(1)


def described(measurement, options):
    """A measurement as a dict, with the circumstances under which it was made."""
    given = {key: value for key, value in vars(options).items()
             if key not in ("command", "write", "json", "output", "gilprof", "earlier") and value not in (None, "", False)}
    return {"date": datetime.date.today().isoformat(), "commit": commit(), "machine": machine(),
            "versions": dict({"gilprof": crate_version()}, **measurement.versions), "options": given,
            "checks": measurement.checks, "rows": measurement.rows}


def replace_file(path, text):
    """Writes a file whole or not at all."""
    with open(path + ".new", "w") as file:
        file.write(text)
    os.replace(path + ".new", path)


def keep_runs(options, runs):
    """Called after each workload, so that an interrupted measurement keeps what it has."""
    if options.output:
        replace_file(options.output, json.dumps({"runs": runs}))


def earlier_runs(paths):
    """The runs of files that `--output` made."""
    runs = []
    for path in paths:
        try:
            with open(path) as file:
                runs += json.load(file)["runs"]
        except (OSError, ValueError, KeyError) as e:
            raise UsageError("failed to read runs from %s: %r" % (path, e))
    return runs
