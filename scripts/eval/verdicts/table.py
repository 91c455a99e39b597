"""Label, verdict, predicted and measured gain: one line for each workload, the checks over all, the
rows for docs/results.
"""
import collections
from statistics import median

import turns
from common import check

# The promised quality of the prediction: the median error, the worst error, and the share of
# intervals that must contain the measured gain; how many times its low end an interval's high end
# may be.
MEDIAN_ERROR, WORST_ERROR, COVERED, WIDEST = 0.10, 0.25, 0.90, 2.0
# Blame: how far its sum may be from all waiting, and the wait of a convoy's victims from the time
# they lose by their own count. Rounds with less waiting than MIN_WAITING seconds have too few
# samples for that.
BLAME_ERROR, TURN_ERROR, MIN_WAITING = 0.02, 0.20, 0.1
# The factor by which `gil_saturates_at` may be off.
SATURATION_FACTOR = 1.5
IDLE, LOADED, SWEEP = "idle machine", "with load", "saturation"
USER, USER_LOADED = "as a user", "as a user, with load"


Gain = collections.namedtuple("Gain", "name predicted measured")


def medians(found):
    """Of estimate, low and high over the rounds that predict."""
    found = [one for one in found if one]
    return {key: median(one[key] for one in found) for key in ("estimate", "low", "high")} if found else None


def headline(one):
    measured = [r["processes"] / r["threads"] for r in one["rounds"] if "processes" in r]
    return Gain(one["name"], medians(r["predicted"] for r in one["rounds"]), measured)


def groups(one):
    """The gain of each group of workers."""
    rounds = [r["groups"] for r in one["rounds"] if r.get("groups")]
    for name in rounds[0] if rounds else ():
        yield Gain("%s: %s" % (one["name"], name), medians(r[name]["predicted"] for r in rounds), [r[name]["measured"] for r in rounds])


def verdicts(one):
    """The different verdicts, most frequent first."""
    codes = [r["verdict"] for r in one["rounds"]]
    return sorted(set(codes), key=lambda code: -codes.count(code))


def wrong(one):
    allowed = set(one["label"]) | ({"cpu-starved", "inconclusive"} if one["loaded"] else set())
    return [code for code in verdicts(one) if code not in allowed]


def error(gain):
    """Predicted over measured, minus 1; None where one is missing."""
    return gain.predicted["estimate"] / median(gain.measured) - 1 if gain.predicted and gain.measured and min(gain.measured) > 0 else None


def covers(gain):
    return gain.predicted["low"] <= median(gain.measured) <= gain.predicted["high"]


def too_wide(gain):
    """Whether the interval is wider than the promise, and than what was measured."""
    return gain.predicted["high"] / gain.predicted["low"] > max(WIDEST, max(gain.measured) / min(gain.measured))


def kept_gain(gain):
    """What docs/results keeps of a gain."""
    off = error(gain)
    return {"predicted": gain.predicted and {key: round(value, 3) for key, value in gain.predicted.items()},
            "measured": {"median": round(median(gain.measured), 3), "low": round(min(gain.measured), 3), "high": round(max(gain.measured), 3)} if gain.measured else None,
            "error": None if off is None else round(off, 3), "covered": None if off is None else covers(gain)}


def part_of(one):
    return (USER_LOADED if one["loaded"] else USER) if one.get("user") else LOADED if one["loaded"] else IDLE


def row(one):
    """What docs/results keeps of a workload."""
    if "sweep" in one:
        return dict({"part": SWEEP, "name": one["name"]}, **one["sweep"])
    return {"part": part_of(one), "name": one["name"], "label": one["label"], "verdicts": verdicts(one), "right": not wrong(one),
            **kept_gain(headline(one)), "groups": [{"name": gain.name, **kept_gain(gain)} for gain in groups(one)], "rounds": len(one["rounds"])}


def cells(kept):
    """The cells of a row of docs/results, as text."""
    return [kept["name"], " or ".join(kept["label"]), ", ".join(kept["verdicts"]) + ("" if kept["right"] else " WRONG"), *gain_cells(kept)]


def gain_cells(kept):
    guess, real = kept["predicted"], kept["measured"]
    return ["%.2f [%.2f, %.2f]" % (guess["estimate"], guess["low"], guess["high"]) if guess else "-",
            "%.2f (%.2f to %.2f)" % (real["median"], real["low"], real["high"]) if real else "-",
            "-" if kept["error"] is None else "%+.0f %%%s" % (100 * kept["error"], "" if kept["covered"] else ", outside")]


def print_workload(one):
    if "sweep" in one:
        print(sweep_check(one)["text"], flush=True)
        return
    kept = row(one)
    found = cells(kept)
    found[0] += " +load" if one["loaded"] else ""
    for line in [found] + [[group["name"], "", "", *gain_cells(group)] for group in kept["groups"]]:
        print("  ".join(form % cell for form, cell in zip(("%-26s", "%-30s", "%-30s", "%-20s", "%-22s", "%s"), line)), flush=True)


def sweep_check(one):
    sweep = one["sweep"]
    rates = ", ".join("%s: %.1f" % pair for pair in sweep["rates"].items())
    holds = 1 / SATURATION_FACTOR <= sweep["predicted"] / sweep["measured"] <= SATURATION_FACTOR
    return check(SWEEP, holds, "%s: the GIL saturates at %.2f threads, measured %.2f (bound: a factor of %g); units/s by threads: %s" % (
        one["name"], sweep["predicted"], sweep["measured"], SATURATION_FACTOR, rates))


def checks(workloads):
    """The checks of everything promised."""
    labelled = [one for one in workloads if "sweep" not in one]
    for part in (IDLE, LOADED, USER, USER_LOADED):
        some = [one for one in labelled if part_of(one) == part]
        if some:
            yield from verdict_checks(some, part)
    idle = [one for one in labelled if part_of(one) == IDLE]
    yield from gain_checks(idle)
    yield from blame_checks(idle)
    yield from (sweep_check(one) for one in workloads if "sweep" in one)


def verdict_checks(some, part):
    bad = [one["name"] for one in some if wrong(one)]
    yield check(part, not bad, "%d of %d verdicts right, %s%s" % (len(some) - len(bad), len(some), part, ": not " + ", ".join(bad) if bad else ""))
    stolen = max(r["stolen"] for one in some for r in one["rounds"])
    yield check(part, None, "the hypervisor stole at most %.3f of the CPUs' time in a turn; a turn above %g was repeated, twice at most" % (stolen, turns.STOLEN))


def gain_checks(idle):
    compared = [gain for one in idle for gain in (headline(one), *groups(one)) if error(gain) is not None]
    silent = [gain.name for one in idle for gain in groups(one) if not gain.predicted]
    if silent:
        yield check(IDLE, False, "no gain predicted for " + ", ".join(silent))
    if compared:
        errors = [abs(error(gain)) for gain in compared]
        worst = max(compared, key=lambda gain: abs(error(gain)))
        yield check(IDLE, median(errors) <= MEDIAN_ERROR, "predicted gain: median error %.1f %% over %d workloads and groups (bound %.0f %%)" % (
            100 * median(errors), len(errors), 100 * MEDIAN_ERROR))
        yield check(IDLE, max(errors) <= WORST_ERROR, "predicted gain: worst error %.1f %% (bound %.0f %%), %s" % (
            100 * max(errors), 100 * WORST_ERROR, worst.name))
        inside = sum(map(covers, compared))
        yield check(IDLE, inside >= COVERED * len(compared), "%d of %d intervals contain the measured gain (bound %.0f %%)" % (inside, len(compared), 100 * COVERED))
        wide = [gain.name for gain in compared if too_wide(gain)]
        yield check(IDLE, not wide, "%d of %d intervals are wider than a factor of %g, and than the measured gain varied%s" % (
            len(wide), len(compared), WIDEST, ": " + ", ".join(wide) if wide else ""))


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
