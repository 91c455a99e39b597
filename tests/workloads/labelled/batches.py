"""`pool.map` in batches of requests to a local server, which answers after 20 ms: the pool is of threads, or of processes. The server is Python too and shares the cores."""
import concurrent.futures
import json
import multiprocessing
import threading

import local_server
import pair
import requests

BATCH = 64
BODY = json.dumps([{"a": i, "b": "x" * 20} for i in range(200)]).encode()


def get(n):
    return sum(one["a"] for one in requests.get("http://127.0.0.1:%d/%d" % (PORT, n)).json())


def feed(pool, done, first):
    while True:
        for _ in pool.map(get, range(BATCH)):
            done[0] += 1
        first.set()


if __name__ == "__main__":
    PORT = local_server.start(0.02, BODY)
    if pair.PROCESSES:
        fork = multiprocessing.get_context("fork")
        pool = concurrent.futures.ProcessPoolExecutor(pair.WORKERS, mp_context=fork, initializer=pair.end_with_parent)
    else:
        pool = concurrent.futures.ThreadPoolExecutor(pair.WORKERS)
    done, first = [0], threading.Event()
    threading.Thread(target=feed, args=(pool, done, first), daemon=True).start()
    first.wait()
    pair.stay(lambda: done[0])
