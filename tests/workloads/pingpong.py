"""Two threads that pass a byte to each other by two pipes as often as they can: tens of thousands of switches a second.

Both are pinned to one core. `--work N` (0) rounds of a loop between two passes. At the end: the number of passes.
"""
import os

import harness

WORK = harness.number("work", 0)
passes = [0]


def play(receive, send):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    while True:
        os.read(receive, 1)
        for _ in range(WORK):
            pass
        passes[0] += 1
        os.write(send, b"x")


(a, b), (c, d) = os.pipe(), os.pipe()
harness.thread(play, a, d, name="ping")
harness.thread(play, c, b, name="pong")
harness.ready()
os.write(b, b"x")
harness.stay(lambda: passes[0])
