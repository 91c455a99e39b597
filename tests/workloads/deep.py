"""Two threads that do the same work, "deep" below `--depth N` (900) calls and "plain" below none.

At the end: the rounds of both.
"""
import sys
import threading

import harness

DEPTH = harness.number("depth", 900)
rounds = [0, 0]


def burn(index):
    while True:
        for i in range(5000):
            i * i % 7
        rounds[index] += 1


def descend(level):
    if level:
        descend(level - 1)
    else:
        harness.begin(burn, (0,))


sys.setrecursionlimit(DEPTH + 1000)
threading.stack_size(256 << 20)
# The deep one is at work once it is deep.
harness.expect(1)
deep = threading.Thread(target=descend, args=(DEPTH,), name="deep")
deep.daemon = True
deep.start()
harness.thread(burn, 1, name="plain")
harness.ready()
harness.stay(lambda: sum(rounds))
