"""asyncio with an executor of `--threads N` (3): the loop ticks each millisecond while the executor computes, or with `--sleep` only sleeps.

At the end: the number of jobs done.
"""
import asyncio
import concurrent.futures
import time

import harness

THREADS = harness.number("threads", 3)
done = [0]


def compute():
    x = 1
    for i in range(100000):
        x = (x * 3 + i) & 65535


def nap():
    time.sleep(0.01)


async def feed(loop, pool, job):
    while True:
        await loop.run_in_executor(pool, job)
        done[0] += 1


async def tick():
    while True:
        await asyncio.sleep(0.001)


def serve():
    loop = asyncio.new_event_loop()
    pool = concurrent.futures.ThreadPoolExecutor(THREADS)
    job = nap if harness.given("--sleep") else compute
    for _ in range(THREADS):
        loop.create_task(feed(loop, pool, job))
    loop.create_task(tick())
    loop.run_forever()


harness.thread(serve, name="loop")
harness.ready()
harness.stay(lambda: done[0])
