"""Native code that releases the GIL: `--threads N` (2), each `--sha` or `--zlib` of a block of some milliseconds.

`--half`: between two blocks, Python code for as long as a block takes. At the end: the number of blocks.
"""
import hashlib
import os
import time

import harness

try:
    import zlib
except ImportError:  # musl's Python of the tests lacks the library
    zlib = None

THREADS = harness.number("threads", 2)
BLOCK = os.urandom(1 << 20)
blocks = [0] * THREADS
if harness.given("--zlib"):
    BLOCK = BLOCK[:1 << 17]


def native():
    if harness.given("--zlib"):
        zlib.compress(BLOCK, 6)
    else:
        hashlib.sha256(BLOCK)


def python(rounds):
    x = 1
    for i in range(rounds):
        x = (x * 3 + i) & 65535


def cost(work):
    """Seconds of CPU time that a call takes: the least of some, before there is anyone to contend with."""
    best = 1e9
    for _ in range(9):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


ROUNDS = int(20000 * cost(native) / cost(lambda: python(20000))) if harness.given("--half") else 0


def repeat(index):
    while True:
        native()
        if ROUNDS:
            python(ROUNDS)
        blocks[index] += 1


for n in range(THREADS):
    harness.thread(repeat, n, name="worker-%d" % n)
harness.ready()
harness.stay(lambda: sum(blocks))
