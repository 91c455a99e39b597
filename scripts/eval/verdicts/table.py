"""Label, verdict, prediction and measured gain: per workload in one line, over all of them, and as the document that is kept."""
import os
import platform

import turns

# What was promised of the prediction: the median's error, the worst one's, and how many intervals must hold the measured gain.
MEDIAN, WORST, COVERED = 0.10, 0.25, 0.90
# And of blame: how far its sum may be from all waiting, and a convoy's wait each time from what its victims lose by their own count. Sums over less
# waiting than this, in seconds, are of a few looks.
BLAME, TURN, WAITING = 0.02, 0.20, 0.1
# By which factor `threads_worth_having` may be off.
FACTOR = 1.5


def middle(values):
    values, n = sorted(values), len(values)
    return (values[(n - 1) // 2] + values[n // 2]) / 2


def gains(one):
    return [r["processes"] / r["threads"] for r in one["rounds"] if "processes" in r]


def predicted(one):
    """Estimate, low and high of the rounds that predict: medians."""
    found = [r["predicted"] for r in one["rounds"] if r["predicted"]]
    return {key: middle([p[key] for p in found]) for key in ("estimate", "low", "high")} if found else None


def verdicts(one):
    """Each verdict said, most often first."""
    said = [r["verdict"] for r in one["rounds"]]
    return sorted(set(said), key=lambda code: -said.count(code))


def wrong(one):
    allowed = set(one["label"]) | ({"cpu-starved", "inconclusive"} if one["loaded"] else set())
    return [code for code in verdicts(one) if code not in allowed]


def off(one):
    """Predicted against measured; `None` where either is missing."""
    guess = predicted(one)
    return guess["estimate"] / middle(gains(one)) - 1 if guess and gains(one) else None


def covers(one):
    guess = predicted(one)
    return guess["low"] <= middle(gains(one)) <= guess["high"]


def cells(one):
    guess, real = predicted(one), gains(one)
    return [one["name"] + (" +load" if one["loaded"] else ""), " or ".join(one["label"]), ", ".join(verdicts(one)) + (" WRONG" if wrong(one) else ""),
            "%.2f [%.2f, %.2f]" % (guess["estimate"], guess["low"], guess["high"]) if guess else "-",
            "%.2f (%.2f - %.2f)" % (middle(real), min(real), max(real)) if real else "-",
            "%+.0f %%%s" % (100 * off(one), "" if covers(one) else ", outside") if off(one) is not None else "-"]


def line(one):
    if "sweep" in one:
        print(sweep(one)[1], flush=True)
        return
    print("  ".join(("%-26s", "%-30s", "%-30s", "%-20s", "%-20s", "%s")[n] % cell for n, cell in enumerate(cells(one))), flush=True)


def sweep(one):
    said, knee = one["sweep"]["said"], one["sweep"]["knee"]
    rates = "  ".join("%s: %.1f" % i for i in one["sweep"]["rates"].items())
    return 1 / FACTOR <= said / knee <= FACTOR, "%s: threads worth having %.2f, measured %.2f (within a factor of %g); units/s by threads: %s" % (
        one["name"], said, knee, FACTOR, rates)


def judged(everything):
    """(whether it holds, what) for each thing promised."""
    all_of_them = [one for one in everything if "sweep" not in one]
    yield from runs(all_of_them) if all_of_them else ()
    yield from (sweep(one) for one in everything if "sweep" in one)


def runs(all_of_them):
    for loaded in (False, True):
        yield from verdicts_of([one for one in all_of_them if one["loaded"] == loaded], " beside a competing process" if loaded else "")
    yield from figures([one for one in all_of_them if not one["loaded"]])


def verdicts_of(some, where):
    bad = [one for one in some if wrong(one)]
    if some:
        yield not bad, "%d of %d verdicts right%s%s" % (len(some) - len(bad), len(some), where, ": not " + ", ".join(o["name"] for o in bad) if bad else "")


def figures(all_of_them):
    compared = [one for one in all_of_them if off(one) is not None]
    if compared:
        errors = [abs(off(one)) for one in compared]
        far = max(compared, key=lambda one: abs(off(one)))
        yield middle(errors) <= MEDIAN, "predicted gain off by %.1f %% in the median of %d workloads (bound %.0f %%)" % (100 * middle(errors), len(errors), 100 * MEDIAN)
        yield max(errors) <= WORST, "and by %.1f %% at worst (bound %.0f %%): %s" % (100 * max(errors), 100 * WORST, far["name"])
        inside = sum(map(covers, compared))
        yield inside >= COVERED * len(compared), "%d of %d intervals hold the measured gain (bound %.0f %%)" % (inside, len(compared), 100 * COVERED)
    rounds = [r["blame"] for one in all_of_them for r in one["rounds"] if r.get("blame", {}).get("waiting", 0) > WAITING]
    if rounds:
        apart = max(abs(b["sum"] / b["waiting"] - 1) for b in rounds)
        none = middle([b["unattributed"] / b["waiting"] for b in rounds])
        yield apart <= BLAME, "blame adds up to waiting within %.2f %% in %d rounds (bound %.0f %%); %.1f %% of it, in the median, has no holder" % (
            100 * apart, len(rounds), 100 * BLAME, 100 * none)
    for one in all_of_them:
        if any("turn_ms" in r for r in one["rounds"]):
            said, true = middle([r["blame"]["wait_ms"] for r in one["rounds"]]), middle([r["turn_ms"] for r in one["rounds"]])
            yield abs(said / true - 1) <= TURN, "%s: %.2f ms each time said, %.2f ms by the workers' own count (bound %.0f %%)" % (one["name"], said, true, 100 * TURN)
        if one.get("blamed"):
            right = sum(r["blame"]["first"] == list(one["blamed"]) for r in one["rounds"])
            yield right == len(one["rounds"]), "%s: %s behind %s is blamed most in %d of %d rounds" % (one["name"], *one["blamed"], right, len(one["rounds"]))


def summary(all_of_them):
    """Prints each; true when one does not hold."""
    broken = False
    for holds, text in judged(all_of_them):
        broken = broken or not holds
        print(("holds   " if holds else "BROKEN  ") + text)
    return broken


NOTES = "## Notes"


def document(all_of_them, before):
    """The page; what was written by hand under its notes stays."""
    yield "# Verdicts and predictions, against the same work in processes\n"
    yield "Each workload (`tests/workloads/labelled`) is run as threads and as processes, which work in turn, a slice of %g s each while the other is paused; gilprof then looks at the threads. Measured:" % turns.SLICE
    yield "units of work per second in processes, over those in threads, median of the rounds, lowest and highest. Predicted: what gilprof said of the threads, `[low, high]`. Made by `scripts/verdicts`, `scripts/verdicts --load`"
    yield "and `scripts/verdicts --sweep` with `--json`, then `scripts/verdicts --from … --write`; so many rounds: %s." % ", ".join(sorted({str(len(one["rounds"])) for one in all_of_them if "rounds" in one}))
    yield "\n- machine: %d CPUs, Linux %s, %s" % (len(os.sched_getaffinity(0)), platform.release(), platform.machine())
    stolen = max([r["stolen"] for one in all_of_them if "rounds" in one for r in one["rounds"]], default=0)
    yield "- a hypervisor took up to %.3f of the CPUs' time in a turn; turns of which it took over %g were done again, twice at most\n" % (stolen, turns.STOLEN)
    yield "```"
    yield from (("holds   " if holds else "BROKEN  ") + text for holds, text in judged(all_of_them))
    yield "```\n"
    yield "| workload | label | verdict | predicted | measured | error |\n|---|---|---|---|---|---|"
    yield from ("| %s |" % " | ".join(cells(one)) for one in all_of_them if "sweep" not in one)
    if NOTES in before:
        yield "\n" + before[before.index(NOTES):].rstrip("\n")
