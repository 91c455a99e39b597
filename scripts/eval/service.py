"""Measures labelled services of several processes: gilprof's verdict on each, and its prediction
of other numbers of workers and threads against the service that was really changed.

Each service is tests/workloads/labelled/workers.py. All its Python processes are measured at the
same time. For a prediction, the service of today and the changed one take turns of a fraction of a
second, and their own counts of work are compared.
"""
import contextlib
import json
import statistics
import time

import targets
import turns
from common import Measurement, check, choose

RESULTS = "service"
QUICK = {"cases": "contended threads; enough workers", "rounds": 1, "seconds": 1.6, "window": 1.5}
NARROWING = ("cases",)
# Seconds from the handshake to the first figure.
SETTLE = 0.3
# Bound on the median error of the predictions.
BOUND = 0.15


class Case:
    """A labelled service: its kind, workers and threads; the codes that are right, words of the
    headline, and the workers and threads of the changed service, if its gain is predicted.
    """

    def __init__(self, name, kind, workers, threads, codes, words="", changed=None):
        self.name, self.kind, self.workers, self.threads = name, kind, workers, threads
        self.codes, self.words, self.changed = codes, words, changed


CASES = [
    Case("contended threads", "compute", 1, 4, ("switch-to-processes",), "2 workers of 2 threads", (2, 2)),
    Case("enough workers", "compute", 2, 1, ("already-parallel",), "that pays"),
    Case("too many workers", "compute", 6, 1, ("cpu-starved",), "Too many workers", (2, 1)),
    Case("one hot worker", "hot", 3, 1, ("serial", "switch-to-processes"), "One hot worker"),
    Case("I/O workers", "io", 4, 2, ("keep-threads",), "mostly wait"),
    Case("a master that computes", "master", 2, 1, ("serial",), "split (workers.py"),
    Case("mixed", "mixed", 2, 4, ("switch-to-processes",), "in place of 1 of 2"),
    Case("children that are not Python", "other", 2, 1, ("idle",), "not Python"),
    Case("contended, half asleep", "half-asleep", 1, 4, ("switch-to-processes",), "workers", (2, 2)),
    Case("contended, half released", "half-released", 1, 4, ("switch-to-processes",), "workers", (2, 2)),
]


def add_options(parser):
    parser.add_argument("--python", default="3.13-pyenv", help="the first interpreter whose label begins so (default: %(default)s)")
    parser.add_argument("--cases", default="", help="only these services, separated by `;`")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each service (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds of work of each kind in a round (default: %(default)s)")
    parser.add_argument("--window", type=float, default=3.0, help="length of gilprof's window in seconds (default: %(default)s)")


def started(python, case, workers, threads):
    return targets.Target(python, "labelled/workers", "--kind", case.kind, "--workers", workers, "--threads", threads)


def service_report(gilprof, target, options, question):
    command = [gilprof, "attach", "--subprocesses", "--pid", str(target.pid), "--duration", "%gs" % options.window, "--format", "json"]
    return targets.report_of(command + (["--what-if", question] if question else []))["service"]


def measured_gain(today, changed, seconds):
    """The work of the changed service over that of today, and the highest share of stolen time."""
    running, done, worst = {"today": today, "changed": changed}, {"today": [], "changed": []}, 0
    for number in range(max(1, round(seconds / turns.TURN))):
        order = ["changed", "today"] if number % 2 else ["today", "changed"]
        found, stolen = turns.undisturbed(running, order)
        worst = max(worst, stolen)
        for kind in order:
            done[kind].append(found[kind])
    rate = {kind: (lambda work: work.done / work.seconds)(turns.total(works)) for kind, works in done.items()}
    return rate["changed"] / rate["today"], worst


def one_round(gilprof, python, case, options):
    with contextlib.ExitStack() as until:
        today = until.enter_context(started(python, case, case.workers, case.threads))
        time.sleep(SETTLE)
        question = "workers=%d,threads=%d" % case.changed if case.changed else ""
        service = service_report(gilprof, today, options, question)
        verdict = service["verdict"]
        one = {"verdict": verdict["code"], "headline": verdict["headline"], "confidence": verdict["confidence"], "measured_share": service["measured_share"]}
        if case.changed:
            today.pause()
            changed = until.enter_context(started(python, case, *case.changed))
            time.sleep(SETTLE)
            changed.pause()
            one["gain"], one["stolen"] = measured_gain(today, changed, options.seconds)
            one["predicted"] = service["what_if"][0]["gain"]
    return one


def is_right(case, one):
    return one["verdict"] in case.codes and case.words in one["headline"]


def judged(case, rounds):
    right = sum(is_right(case, one) for one in rounds)
    said = next((one for one in rounds if not is_right(case, one)), rounds[0])
    yield check("verdict", right == len(rounds), "%s: right in %d of %d: %s (%s)" % (case.name, right, len(rounds), said["headline"], said["verdict"]), case=case.name)


def error(rounds):
    predicted = [one["predicted"]["estimate"] for one in rounds if one["predicted"]]
    if len(predicted) < len(rounds):
        return None
    return statistics.median(predicted) / statistics.median(one["gain"] for one in rounds) - 1


def row(case, rounds):
    kinds = {"part": "service", "name": case.name, "workers": case.workers, "threads": case.threads, "verdict": rounds[0]["verdict"], "headline": rounds[0]["headline"]}
    if case.changed:
        kinds.update(changed=case.changed, predicted=rounds[0]["predicted"], gain=statistics.median(one["gain"] for one in rounds), error=error(rounds))
    return kinds


def run(options):
    wanted = choose([case.name for case in CASES], options.cases)
    gilprof, interpreter = targets.gilprof(options), targets.interpreters(options.python)[0]
    checks, rows, errors, runs = [], [], [], []
    for case in (case for case in CASES if case.name in wanted):
        rounds = [one_round(gilprof, interpreter, case, options) for _ in range(options.rounds)]
        runs.append({"name": case.name, "rounds": rounds})
        checks += judged(case, rounds)
        rows.append(row(case, rounds))
        if case.changed:
            wrong = error(rounds)
            errors.append(wrong)
            text = "not predicted" if wrong is None else "off by %+.1f %%" % (100 * wrong)
            gains = [json.dumps([one["predicted"], round(one["gain"], 3)]) for one in rounds]
            checks.append(check("gain", None, "%s -> %d workers of %d threads: %s: %s" % ((case.name,) + case.changed + (text, "; ".join(gains))), case=case.name))
    if errors:
        middle = statistics.median(abs(one) if one is not None else 1 for one in errors)
        checks.append(check("gain", middle <= BOUND, "predicted gain: median error %.1f %% over %d changed services (bound %g %%)" % (100 * middle, len(errors), 100 * BOUND)))
    return Measurement(checks, rows, runs, {"python": [interpreter["version"]]})
