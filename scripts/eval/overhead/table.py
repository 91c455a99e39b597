"""The rows of the overhead measurement: as text, and as what docs/results keeps."""
import statistics
import sys

from common import check
from paired import spread_text

# What docs/performance.md promises of gilprof: the name of the check, and by which row and figure
# it is judged.
MISSED_BOUND, CPU_SHARE_BOUND, CPU_SHARE_BOUND_10KHZ, MEMORY_BOUND = 1.0, 0.5, 2.0, 30
COST_FIGURES = (("cpu_percent", "cpu", 100), ("programs_percent", "programs", 100), ("samples_per_s", "rate", 1), ("cpu_per_sample_us", "each", 1e6), ("missed_percent", "missed_share", 100),
                ("failed_percent", "failed_share", 100), ("memory_mb", "memory", 1e-6), ("output_kb", "size", 1e-3))


def progress(target, rate):
    def line(tool, figures):
        print("%-18s %6d Hz  %-22s %s" % (target, rate, tool, "  ".join("%s %s" % (key, "-" if value is None else "%.4g" % value)
                                                                        for key, value in figures.items())), file=sys.stderr, flush=True)
    return line


def spread(values, scale=1.0):
    """Median, lowest and highest of those that are there; None where none is."""
    found = sorted(scale * value for value in values if value is not None)
    return {"median": statistics.median(found), "low": found[0], "high": found[-1]} if found else None


def cost_rows(target, rate, runs):
    for name, figures in runs.items():
        row = {"part": "cost", "target": target, "rate": rate, "profiler": name}
        if isinstance(figures, str):
            row["failed"] = " ".join(figures.split())[:120]
        else:
            row.update({key: spread([one.get(figure) for one in figures], scale) for key, figure, scale in COST_FIGURES})
        yield row


def checks(rows):
    """The bounds that apply to one row alone; docs/performance.md compares the others by hand."""
    for row in rows:
        where = "%s, %s Hz" % (row.get("target"), row.get("rate"))
        if row["part"] == "cost" and row["profiler"] == "gilprof" and row["rate"] == 10000 and row.get("missed_percent"):
            missed = row["missed_percent"]["median"]
            yield check("cost", missed < MISSED_BOUND, "missed samples, %s: %.2f %% (bound %g %%)" % (where, missed, MISSED_BOUND))
        if row["part"] == "slowdown" and row["profiler"] == "gilprof":
            bound = CPU_SHARE_BOUND if row["rate"] == 1000 else CPU_SHARE_BOUND_10KHZ
            lost = row["cpu_share"]["median"]
            yield check("slowdown", lost <= bound, "CPU time that the program loses, %s: %.2f %% (bound %g %%)" % (where, lost, bound))
        if row["part"] == "memory":
            yield check("memory", row["mb"] <= MEMORY_BOUND, "peak memory, %s, %g s: %.1f MB (bound %g MB)" % (where, row["seconds"], row["mb"], MEMORY_BOUND))


def text_of(row):
    if row["part"] == "cost":
        if "failed" in row:
            return "failed: " + row["failed"]
        return "  ".join("%s %.4g (%.4g to %.4g)" % (key, row[key]["median"], row[key]["low"], row[key]["high"]) for key, *_ in COST_FIGURES if row[key])
    if row["part"] == "slowdown":
        return "throughput lowered by %s %%  CPU share by %s %%" % (spread_text(row["throughput"]), spread_text(row["cpu_share"]))
    if row["part"] == "first":
        return "first sample after %.0f ms (%.0f to %.0f)" % (row["ms"]["median"], row["ms"]["low"], row["ms"]["high"]) if row["ms"] else "first sample: not reported"
    if row["part"] == "sample":
        return "  ".join("%s %.1f us, with sleep %.1f us, missed %.2f %%" % (kind, row[kind]["median_us"], row[kind]["with_sleep_us"], row[kind]["missed_percent"])
                         for kind in ("sample", "floor"))
    return "peak memory %.1f MB" % row["mb"]


def print_rows(rows):
    for row in rows:
        print("%-9s %-18s %-8s %-22s %s" % (row["part"], row.get("target", ""), "%d Hz" % row["rate"] if "rate" in row else "", row.get("profiler", ""), text_of(row)))
