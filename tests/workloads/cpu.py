"""CPU-bound pure Python: `--threads N` (3) of them in `burn`, each holding 1/N and waiting the rest.

`--pinned` pins the threads to one core; the main thread may still use all. `--interval-us N` changes the switch interval. At the end: the number of rounds of `--steps N` (20000), to measure a profiler's overhead.
"""
import os
import sys

import harness

THREADS = harness.number("threads", 3)
STEPS = harness.number("steps", 20000)
rounds = [0] * THREADS


def burn(index):
    if harness.given("--pinned"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    while True:
        x = index
        for i in range(STEPS):
            x = (x * 3 + i) & 65535
        rounds[index] += 1


if harness.number("interval-us", 0):
    sys.setswitchinterval(harness.number("interval-us", 0) / 1e6)
for n in range(THREADS):
    harness.thread(burn, n, name="worker-%d" % n)
if harness.given("--facts"):
    harness.fact({"runtime": harness.runtime()})
harness.ready()
harness.stay(lambda: sum(rounds))
