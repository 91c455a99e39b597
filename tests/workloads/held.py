"""Long C calls that keep the GIL: `--threads N` (2) inside one of `--re`, `--json`, `--sorted`, `--pickle` (some milliseconds a call).

`--gc`: instead a storm of garbage collections over many objects. At the end: the number of calls.
"""
import gc
import json
import pickle
import re

import harness

THREADS = harness.number("threads", 2)
NUMBERS = [(i * 7919) % 100003 for i in range(30000)]
RECORDS = [{"id": i, "name": "n%d" % i, "tags": ["a", "b", str(i)]} for i in range(3000)]
TEXT = "ab" * 2000 + "c"
PATTERN = re.compile("(?:a|b)*d")
calls = [0] * THREADS


def collect():
    """Cycles die by the thousand while many more live on, which each collection walks."""
    for _ in range(200):
        cycle = []
        cycle.append(cycle)
    gc.collect()


if harness.given("--gc"):
    _alive = [[i] for i in range(100000)]
CALLS = {
    "--re": lambda: PATTERN.search(TEXT, 0, 200),
    "--json": lambda: json.dumps(RECORDS),
    "--sorted": lambda: sorted(NUMBERS),
    "--pickle": lambda: pickle.dumps(RECORDS, 2),
    "--gc": collect,
}
work = next(call for flag, call in CALLS.items() if harness.given(flag))


def repeat(index):
    while True:
        work()
        calls[index] += 1


for n in range(THREADS):
    harness.thread(repeat, n, name="caller-%d" % n)
harness.ready()
harness.stay(lambda: sum(calls))
