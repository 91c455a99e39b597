"""`--threads N` (3) that compute with one `threading.Lock` in turns: with the GIL off, one of them at a time works.

At the end: the number of turns.
"""
import threading

import harness

THREADS = harness.number("threads", 3)
lock = threading.Lock()
turns = [0] * THREADS


def in_turn(index):
    while True:
        with lock:
            x = index
            for i in range(20000):
                x = (x * 3 + i) & 65535
        turns[index] += 1


for n in range(THREADS):
    harness.thread(in_turn, n, name="worker-%d" % n)
harness.ready()
harness.stay(lambda: sum(turns))
