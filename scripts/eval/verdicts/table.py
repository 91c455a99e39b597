"""Label, verdict, predicted and measured gain: one line for each workload, the checks over all, the
rows for docs/results.
"""
from statistics import median

import turns
from common import check

# The promised quality of the prediction: the median error, the worst error, and the share of
# intervals that must contain the measured gain.
MEDIAN_ERROR, WORST_ERROR, COVERED = 0.10, 0.25, 0.90
# Blame: how far its sum may be from all waiting, and the wait of a convoy's victims from the time
# they lose by their own count. Rounds with less waiting than MIN_WAITING seconds have too few
# samples for that.
BLAME_ERROR, TURN_ERROR, MIN_WAITING = 0.02, 0.20, 0.1
# The factor by which `gil_saturates_at` may be off.
SATURATION_FACTOR = 1.5
IDLE, LOADED, SWEEP = "idle machine", "with load", "saturation"


def gains(one):
    return [r["processes"] / r["threads"] for r in one["rounds"] if "processes" in r]


def predicted(one):
    """Medians of estimate, low and high over the rounds that predict."""
    found = [r["predicted"] for r in one["rounds"] if r["predicted"]]
    return {key: median(p[key] for p in found) for key in ("estimate", "low", "high")} if found else None


def verdicts(one):
    """The different verdicts, most frequent first."""
    codes = [r["verdict"] for r in one["rounds"]]
    return sorted(set(codes), key=lambda code: -codes.count(code))


def wrong(one):
    allowed = set(one["label"]) | ({"cpu-starved", "inconclusive"} if one["loaded"] else set())
    return [code for code in verdicts(one) if code not in allowed]


def error(one):
    """Predicted over measured gain, minus 1; None where one is missing."""
    guess = predicted(one)
    return guess["estimate"] / median(gains(one)) - 1 if guess and gains(one) else None


def covers(one):
    guess = predicted(one)
    return guess["low"] <= median(gains(one)) <= guess["high"]


def row(one):
    """What docs/results keeps of a workload."""
    if "sweep" in one:
        return dict({"part": SWEEP, "name": one["name"]}, **one["sweep"])
    guess, real = predicted(one), gains(one)
    return {"part": LOADED if one["loaded"] else IDLE, "name": one["name"], "label": one["label"], "verdicts": verdicts(one), "right": not wrong(one),
            "predicted": guess and {key: round(value, 3) for key, value in guess.items()},
            "measured": {"median": round(median(real), 3), "low": round(min(real), 3), "high": round(max(real), 3)} if real else None,
            "error": round(error(one), 3) if error(one) is not None else None, "covered": covers(one) if error(one) is not None else None,
            "rounds": len(one["rounds"])}


def cells(kept):
    """The cells of a row of docs/results, as text."""
    guess, real = kept["predicted"], kept["measured"]
    off = "-" if kept["error"] is None else "%+.0f %%%s" % (100 * kept["error"], "" if kept["covered"] else ", outside")
    return [kept["name"], " or ".join(kept["label"]), ", ".join(kept["verdicts"]) + ("" if kept["right"] else " WRONG"),
            "%.2f [%.2f, %.2f]" % (guess["estimate"], guess["low"], guess["high"]) if guess else "-",
            "%.2f (%.2f to %.2f)" % (real["median"], real["low"], real["high"]) if real else "-", off]


def print_workload(one):
    if "sweep" in one:
        print(sweep_check(one)["text"], flush=True)
        return
    found = cells(row(one))
    found[0] += " +load" if one["loaded"] else ""
    print("  ".join(form % cell for form, cell in zip(("%-26s", "%-30s", "%-30s", "%-20s", "%-22s", "%s"), found)), flush=True)


def sweep_check(one):
    sweep = one["sweep"]
    rates = ", ".join("%s: %.1f" % pair for pair in sweep["rates"].items())
    holds = 1 / SATURATION_FACTOR <= sweep["predicted"] / sweep["measured"] <= SATURATION_FACTOR
    return check(SWEEP, holds, "%s: the GIL saturates at %.2f threads, measured %.2f (bound: a factor of %g); units/s by threads: %s" % (
        one["name"], sweep["predicted"], sweep["measured"], SATURATION_FACTOR, rates))


def checks(workloads):
    """The checks of everything promised."""
    labelled = [one for one in workloads if "sweep" not in one]
    for part in (IDLE, LOADED):
        some = [one for one in labelled if one["loaded"] == (part == LOADED)]
        if some:
            yield from verdict_checks(some, part)
    idle = [one for one in labelled if not one["loaded"]]
    yield from gain_checks(idle)
    yield from blame_checks(idle)
    yield from (sweep_check(one) for one in workloads if "sweep" in one)


def verdict_checks(some, part):
    bad = [one["name"] for one in some if wrong(one)]
    yield check(part, not bad, "%d of %d verdicts right, %s%s" % (len(some) - len(bad), len(some), part, ": not " + ", ".join(bad) if bad else ""))
    stolen = max(r["stolen"] for one in some for r in one["rounds"])
    yield check(part, None, "the hypervisor stole at most %.3f of the CPUs' time in a turn; a turn above %g was repeated, twice at most" % (stolen, turns.STOLEN))


def gain_checks(idle):
    compared = [one for one in idle if error(one) is not None]
    if compared:
        errors = [abs(error(one)) for one in compared]
        worst = max(compared, key=lambda one: abs(error(one)))
        yield check(IDLE, median(errors) <= MEDIAN_ERROR, "predicted gain: median error %.1f %% over %d workloads (bound %.0f %%)" % (
            100 * median(errors), len(errors), 100 * MEDIAN_ERROR))
        yield check(IDLE, max(errors) <= WORST_ERROR, "predicted gain: worst error %.1f %% (bound %.0f %%), %s" % (
            100 * max(errors), 100 * WORST_ERROR, worst["name"]))
        inside = sum(map(covers, compared))
        yield check(IDLE, inside >= COVERED * len(compared), "%d of %d intervals contain the measured gain (bound %.0f %%)" % (inside, len(compared), 100 * COVERED))


def blame_checks(idle):
    rounds = [r["blame"] for one in idle for r in one["rounds"] if r.get("blame", {}).get("waiting", 0) > MIN_WAITING]
    if rounds:
        apart = max(abs(b["sum"] / b["waiting"] - 1) for b in rounds)
        unattributed = median(b["unattributed"] / b["waiting"] for b in rounds)
        yield check(IDLE, apart <= BLAME_ERROR, "the blame adds up to the waiting within %.2f %% in %d rounds (bound %.0f %%); a median of %.1f %% has no holder" % (
            100 * apart, len(rounds), 100 * BLAME_ERROR, 100 * unattributed))
    for one in idle:
        if any("turn_ms" in r for r in one["rounds"]):
            reported, actual = median(r["blame"]["wait_ms"] for r in one["rounds"]), median(r["turn_ms"] for r in one["rounds"])
            yield check(IDLE, abs(reported / actual - 1) <= TURN_ERROR, "%s: mean wait %.2f ms reported, %.2f ms by the workers' own count (bound %.0f %%)" % (
                one["name"], reported, actual, 100 * TURN_ERROR))
        if one.get("blamed"):
            right = sum(r["blame"]["first"] == list(one["blamed"]) for r in one["rounds"])
            yield check(IDLE, right == len(one["rounds"]), "%s: %s behind %s has the most blame in %d of %d rounds" % (
                one["name"], *one["blamed"], right, len(one["rounds"])))
