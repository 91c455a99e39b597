"""`multiprocessing.Pool` over a dataset, or the pool of threads with the same interface: rows of text to sums, a chunk each time."""
import multiprocessing
import multiprocessing.pool
import os
import threading

import pair

ROWS = [",".join(str((n * 7919 + k * 104729) % 1000 / 10) for k in range(12)) for n in range(400)]


def chunk(rows):
    """What a worker does with one chunk: sums of each column, folded about several middles."""
    sums = {}
    for middle in range(10, 100, 10):
        for row in rows:
            for name, cell in enumerate(row.split(",")):
                value = float(cell)
                sums[name] = sums.get(name, 0.0) + (value if value < middle else 2 * middle - value)
    return sums


def feed(pool, done, first):
    for _ in pool.imap_unordered(chunk, endless()):
        done[0] += 1
        first.set()


def quiet():
    """The pool's processes complain of their parent's sudden end."""
    pair.end_with_parent()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def endless():
    """No more chunks than the pool can hold are on their way."""
    while True:
        ROOM.acquire()
        yield ROWS


class Pooled(list):
    def __setitem__(self, index, value):
        list.__setitem__(self, index, value)
        ROOM.release()


if __name__ == "__main__":
    ROOM = threading.Semaphore(4 * pair.WORKERS)
    if pair.PROCESSES:
        pool = multiprocessing.get_context("fork").Pool(pair.WORKERS, quiet)
    else:
        pool = multiprocessing.pool.ThreadPool(pair.WORKERS)
    done, first = Pooled([0]), threading.Event()
    threading.Thread(target=feed, args=(pool, done, first), daemon=True).start()
    first.wait()
    pair.stay(lambda: done[0])
