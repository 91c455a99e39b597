"""A service: a master and `--workers N` forked worker processes with `--threads M` each, whose work is of a `--kind`.

The handshake and the counts are those of pair.py: units of work of all workers together. The master only waits, unless the kind says otherwise.
"""
import os
import subprocess
import threading
import time
import zlib

import pair

KIND = pair.flag("kind", "compute")
WORKERS, THREADS = pair.WORKERS, pair.flag("threads", 1)
ROUNDS, DATA = 20000, bytes(range(256)) * 800
# Seconds that a unit sleeps: about as long as `burn` computes.
ASLEEP = 0.001


def burn():
    x = 1
    for i in range(ROUNDS):
        x = (x * 3 + i) & 65535
    return x


def split():
    x = 1
    for i in range(ROUNDS):
        x = (x * 5 + i) & 65535
    return x


def parse():
    x = 1
    for i in range(ROUNDS):
        x = (x * 7 + i) & 65535
    return x


def fetch():
    time.sleep(10 * ASLEEP)
    parse()


def compute():
    burn()


def half_asleep():
    burn()
    time.sleep(ASLEEP)


def half_released():
    burn()
    zlib.crc32(DATA * 8)


def unit(worker):
    """What a thread of this worker does again and again; None: nothing."""
    units = {"compute": compute, "half-asleep": half_asleep, "half-released": half_released, "io": fetch, "hot": compute if worker == 0 else None,
             "mixed": compute if worker == 0 else fetch, "master": None, "other": None}
    return units[KIND]


def work(done, index, todo, at_work):
    count = 0
    if todo:
        todo()
    at_work()
    while True:
        if todo:
            todo()
        else:
            time.sleep(0.05)
        count += 1
        done.set(index, count)


def threads_of(worker):
    return THREADS if KIND != "mixed" or worker == 0 else 1


def worker(number, done, at_work):
    for n in range(threads_of(number)):
        threading.Thread(target=work, args=(done, number * THREADS + n, unit(number), at_work), name="request-%d" % n, daemon=True).start()
    while True:
        time.sleep(60)


def main():
    done, (there, here) = pair.Counts(WORKERS * THREADS), os.pipe()
    for number in range(WORKERS):
        pair.forked(worker, number, done, lambda: os.write(here, b"."))
    left = sum(threads_of(number) for number in range(WORKERS))
    while left:
        left -= len(os.read(there, left))
    if KIND == "other":
        for _ in range(2):
            subprocess.Popen(["sh", "-c", "while :; do :; done"], preexec_fn=pair.end_with_parent)
    if KIND == "master":
        threading.Thread(target=lambda: [split() for _ in iter(int, 1)], name="split", daemon=True).start()
    pair.stay(done.sum, each=done.each)


if __name__ == "__main__":
    main()
