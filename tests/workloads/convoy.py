"""A convoy: `--hogs N` (1) threads that compute, and `--short N` (1) that need the GIL for microseconds, `--pause-us N` (1000) apart.

With `--hogs 0` the short ones have no competitor. At the end: the number of turns of the short ones.
"""
import time

import harness

PAUSE = harness.number("pause-us", 1000) / 1e6
turns = [0] * harness.number("short", 1)


def hog():
    while True:
        x = 1
        for i in range(20000):
            x = (x * 3 + i) & 65535


def short(index):
    while True:
        time.sleep(PAUSE)
        turns[index] += 1


for n in range(harness.number("hogs", 1)):
    harness.thread(hog, name="hog-%d" % n)
for n in range(len(turns)):
    harness.thread(short, n, name="short-%d" % n)
harness.ready()
harness.stay(lambda: sum(turns))
