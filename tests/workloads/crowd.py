"""Many threads, to measure the overhead of profilers: some compute, some hash half of the time, some wait for an event that never comes.

`--busy N` (8), `--mixed N` (0), `--idle N` (0) of them; `--depth N` (2) Python frames each. Counts rounds of the busy and the mixed.
"""
import hashlib
import threading

import harness

BLOCK = b"x" * 200000
DEPTH = harness.number("depth", 2)
never = threading.Event()
rounds = []


def deep(level, work, index):
    if level > 2:
        deep(level - 1, work, index)
    else:
        work(index)


def burn(index):
    while True:
        x = index
        for i in range(20000):
            x = (x * 3 + i) & 65535
        rounds[index] += 1


def mix(index):
    while True:
        x = index
        for i in range(3000):
            x = (x * 3 + i) & 65535
        hashlib.sha256(BLOCK)
        rounds[index] += 1


def idle(index):
    never.wait()


# The idle ones first: the busy ones would delay every later start.
for kind, work, count in (("idle", idle, 0), ("busy", burn, 8), ("mixed", mix, 0)):
    for n in range(harness.number(kind, count)):
        rounds.append(0)
        harness.thread(deep, DEPTH, work, len(rounds) - 1, name="%s-%d" % (kind, n))
harness.ready()
harness.stay(lambda: sum(rounds))
