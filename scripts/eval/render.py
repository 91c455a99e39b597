"""Renders the tables of the documents from docs/results.

A table stands between the lines `<!-- table:NAME -->` and `<!-- /table -->`.

With --check it writes nothing and reports the documents whose tables differ from docs/results.
"""
import os
import re
import sys

import results
from common import BROKEN, HOLDS, REPOSITORY, UsageError, replace_file
from paired import spread_text
from verdicts.table import IDLE, LOADED, SWEEP, USER, USER_LOADED, cells, gain_cells

MARKED = re.compile(r"(<!-- table:([a-z-]+) -->\n).*?(<!-- /table -->)", re.DOTALL)
FOLDER = os.path.join(REPOSITORY, "docs")

# docs/results/performance.json has all of them.
SHOWN_TARGETS = ("2 busy", "8 busy", "32 busy", "8 mixed", "8 busy, 120 idle")
HIDDEN_PROFILERS = ("Tachyon --flamegraph", "py-spy --nonblocking")


def add_options(parser):
    parser.add_argument("--check", action="store_true", help="only compare; exit code 1 when a document differs")


def markdown(heads, rows):
    """A table; heads that end in `|` are aligned to the right."""
    yield "| " + " | ".join(head.rstrip("|") for head in heads) + " |"
    yield "|" + "|".join("--:" if head.endswith("|") else "---" for head in heads) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def holds_text(check):
    return {True: "yes", False: "**no**", None: "no bound"}[check["holds"]]


def with_bound(value, bound, form="%.4f"):
    return (form % value) + (" (%g)" % bound if bound is not None else "")


def accuracy():
    """State and condition: mean and worst error with their bounds, and where the worst is."""
    checks = results.entries(results.load("accuracy"), "checks")

    def rows():
        for check in checks:
            if "state" in check:
                yield [check["state"], check["part"], with_bound(check["mean"], check["mean_bound"]), with_bound(check["worst"], check["worst_bound"]),
                       "%s, %s" % (check["worst_case"], check["worst_version"]), "%d threads" % check["threads"], holds_text(check)]
            if "counted" in check:
                yield ["count of waits", check["part"], "–", with_bound(check["worst"], check["worst_bound"]), "%s, %s" % (check["worst_case"], check["worst_version"]),
                       "%d workloads" % check["workloads"], holds_text(check)]
    return markdown(["state", "condition", "mean (bound)|", "worst (bound)|", "worst on", "n|", "holds"], rows())


def measured_on(name):
    """One line for each measurement of a results file: what it covers, and under which
    circumstances it was made.
    """
    for one in results.load(name)["measurements"]:
        parts = sorted({entry["part"] for kind in ("checks", "rows") for entry in one[kind]})
        versions = ", ".join("%s %s" % (key, " ".join(value) if isinstance(value, list) else value) for key, value in one["versions"].items())
        machine = one["machine"]
        described = ["%d CPUs" % machine["cpus"]] + [str(machine[key]) for key in ("model", "architecture") if machine.get(key)] + ["Linux " + machine["linux"]]
        yield "- %s: %s, commit %s; %s; %s" % (
            ", ".join(parts), one["date"] or "date not recorded", one["commit"] or "not recorded", ", ".join(described), versions)


def accuracy_limits():
    """The workloads without a bound: range of the error of each state, and of the lifetime."""
    checks = [check for check in results.entries(results.load("accuracy"), "checks") if "limit" in check and check["part"] == "idle machine"]
    states = ("waiting", "holding", "native", "starved")
    return markdown(["workload"] + [state + "|" for state in states] + ["lifetime reported / actual|", "runs|"],
                    ([check["limit"]] + ["%+.3f to %+.3f" % tuple(check[state]) for state in states] + ["%.3f to %.3f" % tuple(check["lifetime"]), str(check["runs"])]
                     for check in checks))


def cost():
    """CPU and samples at 1 kHz, of the targets and profilers that fit into a short document."""
    found = [row for row in results.entries(results.load("performance"), "rows") if row["part"] == "cost" and row["rate"] == 1000 and "failed" not in row
             and row["target"] in SHOWN_TARGETS and row["profiler"] not in HIDDEN_PROFILERS]
    ours = {row["target"]: row["cpu_percent"]["median"] for row in found if row["profiler"] == "gilprof"}

    def figure(row, name, form):
        one = row.get(name)
        return "–" if one is None else (form + " (" + form + " – " + form + ")") % (one["median"], one["low"], one["high"])

    def rows():
        for row in found:
            ratio = "%.1f" % (row["cpu_percent"]["median"] / ours[row["target"]]) if row["target"] in ours else "–"
            yield [row["target"], row["profiler"], figure(row, "cpu_percent", "%.3g"), ratio, figure(row, "samples_per_s", "%.0f"), figure(row, "missed_percent", "%.2f")]
    return markdown(["threads", "profiler", "CPU %|", "× gilprof|", "samples/s|", "missed %|"], rows())


def slowdown():
    """What each profiler takes from the program, also in turns of three processes."""
    found = [row for row in results.entries(results.load("performance"), "rows") if row["part"] == "slowdown"]
    found += [row for row in results.entries(results.load("kernel"), "rows") if row["comparison"].startswith("kernel engine")]

    def rows():
        for row in found:
            share = row.get("cpu_share") or row.get("share of a CPU")
            yield [row.get("profiler") or row["comparison"], str(row.get("rate", 1000)), spread_text(row["throughput"]), spread_text(share) if share else "–"]
    return markdown(["profiler", "Hz|", "throughput lowered by %|", "CPU share lowered by %|"], rows())


def sample():
    """One sample at 1 kHz next to its bare system calls."""
    found = [row for row in results.entries(results.load("performance"), "rows") if row["part"] == "sample" and row["rate"] == 1000
             and row["target"] in SHOWN_TARGETS]

    def rows():
        for row in found:
            one, floor = row["sample"], row["floor"]
            yield [row["target"], "%.1f" % one["median_us"], "%.1f" % floor["median_us"], "%.2f" % (one["median_us"] / floor["median_us"]),
                   "%.1f" % one["with_sleep_us"], "%.1f" % floor["with_sleep_us"], "%.2f" % (one["with_sleep_us"] / floor["with_sleep_us"])]
    return markdown(["threads", "sample µs|", "system calls µs|", "ratio|", "sample and sleep µs|", "system calls and sleep µs|", "ratio|"], rows())


def verdicts():
    """Label, verdict without and with load, predicted and measured gain; a row for each group too."""
    found = results.entries(results.load("verdicts"), "rows")
    loaded = {row["name"]: cells(row)[2] for row in found if row["part"] == LOADED}

    def rows():
        for row in (row for row in found if row["part"] == IDLE):
            name, label, verdict, guess, real, off = cells(row)
            yield [name, label, "same" if verdict == label else verdict, "same" if loaded.get(name) == label else loaded.get(name, "-"), guess, real, off]
            for group in row.get("groups", ()):
                yield [group["name"], "", "", "", *gain_cells(group)]
    return markdown(["workload", "label", "verdict", "with load", "predicted gain", "measured gain", "error|"], rows())


def verdict_checks():
    checks = results.entries(results.load("verdicts"), "checks")
    return markdown(["holds", "what"], ([holds_text(check), check["text"]] for check in checks if check["part"] in (IDLE, LOADED, USER, USER_LOADED, SWEEP) and check["holds"] is not None))


def rules():
    """What each rule of the estimate is worth: how much worse waiting is without it."""
    found = results.entries(results.load("replay"), "rows")
    columns = [(resolver, loaded) for resolver in ("kernel-stack", "switch-counts", "cpu-time") for loaded in (False, True)]

    def cell(rule, resolver, loaded):
        for row in found:
            if (row["rule"], row["resolver"], row["loaded"]) == (rule, resolver, loaded):
                return "·" if not any(row["waiting"]) else "%+.3f / %+.4f" % tuple(row["waiting"])
        return "-"

    def others(rule):
        """The state with the largest change of its mean error, in any column."""
        changes = [(row[state][1], state) for row in found if row["rule"] == rule for state in ("holding", "native", "starved")]
        most, state = max(changes, key=lambda one: abs(one[0]))
        return "%s %+.4f" % (state, most) if most else "·"
    return markdown(["rule"] + [resolver + ", with load" * loaded + "|" for resolver, loaded in columns] + ["other states|"],
                    ([rule] + [cell(rule, *column) for column in columns] + [others(rule)] for rule in dict.fromkeys(row["rule"] for row in found)))


def services():
    """Labelled services: the verdict, and the predicted and measured gain of the changed one."""
    rows = results.entries(results.load("service"), "rows")

    def gain(row):
        if "changed" not in row:
            return ["", "", ""]
        predicted = row["predicted"]
        said = "%.2f (%.2f - %.2f)" % tuple(predicted[key] for key in ("estimate", "low", "high")) if predicted else "not predicted"
        return ["%d x %d" % tuple(row["changed"]), said, "%.2f" % row["gain"]]
    heads = ["service", "workers x threads|", "verdict", "changed to|", "predicted gain|", "measured|"]
    return markdown(heads, ([row["name"], "%d x %d" % (row["workers"], row["threads"]), "`%s`" % row["verdict"]] + gain(row) for row in rows))


def trees():
    """Process trees: what was found, and how far shares are from those of attaching to one process."""
    def share(row, key):
        return "" if row.get(key) is None else "%.3f" % row[key]

    def cells(row):
        if "a_second" in row:
            return ["%d, %d lost" % (row["of"], row["lost"]), "", "", ""]
        if "delays_ms" in row:
            late = row["delays_ms"]
            return ["%d, %d lost" % (len(late) + row["lost"], row["lost"]), "", "", "%.0f, %.0f at most" % (late[len(late) // 2], late[-1])]
        return ["%d" % row["processes"], share(row, "off"), share(row, "by_chance"), ""]
    rows = results.entries(results.load("trees"), "rows")
    heads = ["interpreter and service", "processes|", "worst difference|", "by chance|", "met after ms|"]
    return markdown(heads, ([row["part"]] + cells(row) for row in rows if "many" not in row))


TABLES = {"services": services, "services-measured": lambda: measured_on("service"), "trees": trees, "trees-measured": lambda: ["- " + line.partition(": ")[2] for line in measured_on("trees")], "rules": rules, "rules-measured": lambda: measured_on("replay"), "accuracy": accuracy, "accuracy-limits": accuracy_limits, "accuracy-measured": lambda: measured_on("accuracy"), "performance": cost, "performance-slowdown": slowdown,
          "performance-sample": sample, "performance-measured": lambda: measured_on("performance"), "verdicts": verdicts,
          "verdicts-checks": verdict_checks, "verdicts-measured": lambda: measured_on("verdicts")}


def rendered(text):
    """The document with its tables made anew."""
    def table(found):
        if found.group(2) not in TABLES:
            raise UsageError("failed to render the table %s; there are: %s" % (found.group(2), ", ".join(TABLES)))
        return found.group(1) + "\n".join(TABLES[found.group(2)]()) + "\n" + found.group(3)
    return MARKED.sub(table, text)


def documents():
    """(path, text) of each document with a table."""
    for name in sorted(os.listdir(FOLDER)):
        if name.endswith(".md"):
            path = os.path.join(FOLDER, name)
            with open(path) as file:
                text = file.read()
            if MARKED.search(text):
                yield path, text


def render_all():
    """Renders every document; the paths of those that changed."""
    changed = []
    for path, text in documents():
        new = rendered(text)
        if new != text:
            replace_file(path, new)
            changed.append(path)
    return changed


def run(options):
    if not options.check:
        for path in render_all():
            print("rendered " + os.path.relpath(path, REPOSITORY))
        return HOLDS
    stale = [path for path, text in documents() if rendered(text) != text]
    for path in stale:
        print("%s differs from docs/results; run: python3 scripts/eval render" % os.path.relpath(path, REPOSITORY), file=sys.stderr)
    return BROKEN if stale else HOLDS
