"""Measures the page for a browser (`-o report.html`): its size, the time until it can be used, and
axe-core's findings.

Records a program with 32 threads for a minute, writes the page and opens it in Chromium
(scripts/setup-viewers installs it), in both themes at 1280 and 400 pixels. The bounds: 5 MB, 2 s,
no serious finding, no error, no network request.
"""
import json
import os
import subprocess
import tempfile

import targets
from common import CACHE, REPOSITORY, Failed, Measurement, NotMeasured, check

RESULTS = "html"
VIEWERS = os.environ.get("GILPROF_VIEWERS") or os.path.join(CACHE, "viewers")
MOST_MB, MOST_SECONDS = 5, 2
QUICK = {"seconds": 2.0, "threads": 8}


def add_options(parser):
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the recording (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--python", default="python3", help="the interpreter (default: %(default)s)")
    parser.add_argument("--shots", metavar="FOLDER", help="a folder for pictures of the page")


def viewers():
    try:
        with open(os.path.join(VIEWERS, "viewers.tsv")) as listed:
            return dict(line.rstrip("\n").split("\t") for line in listed)
    except OSError:
        raise NotMeasured("Chromium is not set up; run scripts/setup-viewers")


def browse(paths, page, shots):
    """What tests/viewers/html.mjs finds in a page."""
    if not {"node", "axe", "modules", "chromium"} <= set(paths):
        raise NotMeasured("Chromium, node or axe-core is not set up; run scripts/setup-viewers")
    command = [paths["node"], os.path.join(REPOSITORY, "tests", "viewers", "html.mjs"), paths["axe"], page]
    if shots:
        folder = os.path.join(shots, os.path.basename(page)[:-5])
        os.makedirs(folder, exist_ok=True)
        command.append(folder)
    env = dict(os.environ, GILPROF_MODULES=paths["modules"], GILPROF_CHROMIUM=paths["chromium"])
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        raise Failed("tests/viewers/html.mjs ended with %d: %s" % (done.returncode, done.stderr.decode()[-500:]))
    return json.loads(done.stdout)


def programs(threads):
    """The two programs that are recorded here and in recording.py: name, workload and its
    arguments.
    """
    yield "all on the CPU", "cpu", ["--threads", threads]
    yield "half compute, half hash and compute", "crowd", ["--busy", threads // 2, "--mixed", threads // 2]


def run(options):
    paths, version, gilprof, rows = viewers(), targets.python_version(options.python), targets.gilprof(options), []
    with tempfile.TemporaryDirectory() as folder:
        for name, workload, args in programs(options.threads):
            recording, page = os.path.join(folder, "run.gilprof"), os.path.join(folder, workload + ".html")
            with targets.Target(targets.this_python(options.python), workload, *args) as target:
                targets.record(gilprof, target, options.seconds, recording)
            targets.run_gilprof([gilprof, "report", recording, "-o", page])
            found = browse(paths, page, options.shots)
            findings = [finding for page_findings in found["axe"].values() for finding in page_findings]
            rows.append({"part": "page", "program": name, "mb": os.path.getsize(page) / 1e6, "ready_s": [ms / 1e3 for ms in found["interactive_ms"]],
                         "findings": len(findings), "serious": sum(finding["impact"] in ("serious", "critical") for finding in findings),
                         "errors": len(found["errors"]), "requests": len(found["requests"])})
    return Measurement(map(row_check, rows), rows, None, {"python": [version]})


def row_check(row):
    """The check of a row."""
    holds = row["mb"] < MOST_MB and max(row["ready_s"]) < MOST_SECONDS and not row["serious"] and not row["errors"] and not row["requests"]
    return check("page", holds, "%s: %.2f MB, ready after %s s (bounds %d MB, %d s), axe-core %d findings, %d of them serious, %d errors, %d requests" % (
        row["program"], row["mb"], ", ".join("%.2f" % seconds for seconds in row["ready_s"]), MOST_MB, MOST_SECONDS, row["findings"], row["serious"],
        row["errors"], row["requests"]))
