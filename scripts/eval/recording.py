#!/usr/bin/env python3
"""What an hour of 32 threads at 1 kHz costs: a minute is recorded of a real program, told again until it is an hour, and reported.

Prints size on disk, peak memory of the writer and of `gilprof report`, and the time that `report` takes. The bounds are issue-given:
100 MB, 150 MB, 20 s; the exit code is 1 when one is passed.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MB = 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="how long is recorded")
    parser.add_argument("--times", type=int, default=60, help="how often it is told")
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--python", default="python3")
    parser.add_argument("--built", help="folder with gilprof and examples/longer (default: those of a release build, made now)")
    args = parser.parse_args()
    built = args.built or release()
    gilprof, longer = os.path.join(built, "gilprof"), os.path.join(built, "examples", "longer")
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for name, words in programs(args.threads):
            short, long = os.path.join(folder, "short.gilprof"), os.path.join(folder, "long.gilprof")
            workload = os.path.join(ROOT, "tests", "workloads", words[0] + ".py")
            target = subprocess.Popen([args.python, workload] + words[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            while target.stdout.readline().strip() != b"ready":
                pass
            subprocess.run([gilprof, "record", "--pid", str(target.pid), "--duration", "%gs" % args.seconds, "-o", short], check=True,
                           stderr=subprocess.DEVNULL)
            target.kill()
            target.wait()
            peak = json.loads(subprocess.run([longer, short, long, str(args.times)], check=True, stdout=subprocess.PIPE).stdout)["peak_kb"]
            start = time.monotonic()
            report = subprocess.Popen([gilprof, "report", long, "--format", "json"], stdout=subprocess.PIPE)
            out = report.stdout.read()
            _, status, usage = os.wait4(report.pid, 0)
            took = time.monotonic() - start
            window = json.loads(out)["window"]
            size = os.path.getsize(long)
            print("%-36s %6.0f s, %d looks: %.1f MB on disk, writer %.0f MB, report %.0f MB in %.1f s" % (
                name, window["seconds"], window["looks"], size / MB, peak * 1024 / MB, usage.ru_maxrss * 1024 / MB, took), flush=True)
            hour = 3600 / window["seconds"]
            good &= status == 0 and size * hour <= 100 * MB and usage.ru_maxrss * 1024 <= 150 * MB and peak * 1024 <= 150 * MB and took * hour <= 20
    return 0 if good else 1


def release():
    subprocess.run(["cargo", "build", "--release", "--quiet", "--example", "longer", "--bin", "gilprof"], cwd=ROOT, check=True)
    return os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release")


def programs(threads):
    yield "all on the CPU", ["cpu", "--threads", str(threads)]
    yield "half compute, half hash and compute", ["crowd", "--busy", str(threads // 2), "--mixed", str(threads // 2)]


if __name__ == "__main__":
    sys.exit(main())
