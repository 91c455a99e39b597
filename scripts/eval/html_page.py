#!/usr/bin/env python3
"""What the page for a browser (`-o report.html`) costs: size, time until it can be used, and what axe-core finds.

Records a real program of 32 threads for a minute, writes the page, opens it in Chromium (scripts/setup-viewers fetches it) in both themes at
1280 and 400 pixels, and prints. The bounds are issue-given: 5 MB, 2 s, nothing serious; the exit code is 1 when one is passed.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VIEWERS = os.environ.get("GILPROF_VIEWERS") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "gilprof", "viewers")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="how long is recorded")
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--python", default="python3")
    parser.add_argument("--gilprof", help="the program to measure; otherwise it is built")
    parser.add_argument("--shots", help="a folder for pictures of the page")
    args = parser.parse_args()
    gilprof = args.gilprof or build()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for name, words in programs(args.threads):
            recording, page = os.path.join(folder, "run.gilprof"), os.path.join(folder, words[0] + ".html")
            record(gilprof, args, words, recording)
            subprocess.run([gilprof, "report", recording, "-o", page], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            said = look(page, args.shots)
            size, ready = os.path.getsize(page) / 1e6, max(said["interactive_ms"]) / 1e3
            found = [v for look in said["axe"].values() for v in look]
            serious = [v["id"] for v in found if v["impact"] in ("serious", "critical")]
            print("%-36s %.2f MB, ready after %s s; axe-core: %d findings, %d of them serious; %d errors, %d requests" % (
                name, size, ", ".join("%.2f" % (ms / 1e3) for ms in said["interactive_ms"]), len(found), len(serious), len(said["errors"]),
                len(said["requests"])), flush=True)
            good &= size < 5 and ready < 2 and not serious and not said["errors"] and not said["requests"]
    return 0 if good else 1


def build():
    subprocess.run(["cargo", "build", "--release", "--quiet", "--bin", "gilprof"], cwd=ROOT, check=True)
    return os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release", "gilprof")


def record(gilprof, args, words, recording):
    workload = os.path.join(ROOT, "tests", "workloads", words[0] + ".py")
    target = subprocess.Popen([args.python, workload] + words[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        while target.stdout.readline().strip() != b"ready":
            pass
        subprocess.run([gilprof, "record", "--pid", str(target.pid), "--duration", "%gs" % args.seconds, "-o", recording], check=True,
                       stderr=subprocess.DEVNULL)
    finally:
        target.kill()
        target.wait()


def look(page, shots):
    """What tests/viewers/html.mjs says of a page."""
    with open(os.path.join(VIEWERS, "viewers.tsv")) as listed:
        paths = dict(line.rstrip("\n").split("\t") for line in listed)
    words = [paths["node"], os.path.join(ROOT, "tests", "viewers", "html.mjs"), paths["axe"], page]
    if shots:
        folder = os.path.join(shots, os.path.basename(page)[:-5])
        os.makedirs(folder, exist_ok=True)
        words.append(folder)
    env = dict(os.environ, GILPROF_MODULES=paths["modules"], GILPROF_CHROMIUM=paths["chromium"])
    return json.loads(subprocess.run(words, env=env, check=True, stdout=subprocess.PIPE).stdout)


def programs(threads):
    yield "all on the CPU", ["cpu", "--threads", str(threads)]
    yield "half compute, half hash and compute", ["crowd", "--busy", str(threads // 2), "--mixed", str(threads // 2)]


if __name__ == "__main__":
    sys.exit(main())
