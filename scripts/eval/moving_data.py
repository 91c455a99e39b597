"""Prints what it costs to give a process pool one argument of 0, 1 and 5 MB: the median of five
rounds, in milliseconds a call, with the shortest and the longest. docs/verdicts.md quotes it."""

import statistics
import time
from concurrent.futures import ProcessPoolExecutor

KINDS = {"bytes": lambda size: b"x" * size, "text": lambda size: "x" * size, "numbers": lambda size: list(range(size // 8))}
CALLS = 40


def milliseconds(pool, argument):
    start = time.perf_counter()
    list(pool.map(len, [argument] * CALLS))
    return (time.perf_counter() - start) / CALLS * 1e3


if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        milliseconds(pool, b"")
        for kind, make in KINDS.items():
            for megabytes in (0, 1, 5):
                argument = make(megabytes * 1_000_000)
                rounds = [milliseconds(pool, argument) for _ in range(5)]
                print(f"{kind}, {megabytes} MB: {statistics.median(rounds):.2f} ms ({min(rounds):.2f} - {max(rounds):.2f})")
