"""Asleep in a C function: with the GIL held (`ctypes.PyDLL`), or released with `--release` (`ctypes.CDLL`).

`--threads N` (2) sleep 3 ms and compute about 1 ms in turns. At the end: the number of sleeps.
"""
import ctypes

import harness

libc = ctypes.CDLL(None) if harness.given("--release") else ctypes.PyDLL(None)
THREADS = harness.number("threads", 2)
sleeps = [0] * THREADS


def repeat(index):
    usleep = libc.usleep
    while True:
        usleep(3000)
        x = 1
        for i in range(15000):
            x = (x * 3 + i) & 65535
        sleeps[index] += 1


for n in range(THREADS):
    harness.thread(repeat, n, name="sleeper-%d" % n)
harness.ready()
harness.stay(lambda: sum(sleeps))
