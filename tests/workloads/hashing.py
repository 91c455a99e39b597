"""Native code without the GIL: `--threads N` (2) that hash blocks of `--bytes N` (1 MiB), the GIL taken for microseconds a block.

With smaller blocks the GIL matters again: at 60 kB it is taken some ten thousand times a second.
"""
import hashlib
import os

import harness

THREADS = harness.number("threads", 2)
BLOCK = os.urandom(harness.number("bytes", 1 << 20))
blocks = [0] * THREADS


def digest(index):
    sha256 = hashlib.sha256
    while True:
        sha256(BLOCK)
        blocks[index] += 1


for n in range(THREADS):
    harness.thread(digest, n, name="hasher-%d" % n)
harness.ready()
harness.stay(lambda: sum(blocks))
