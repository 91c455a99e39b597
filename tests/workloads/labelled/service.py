"""An asyncio service that hands its requests to a pool: of threads, or of processes. Each request computes for a few milliseconds."""
import asyncio
import concurrent.futures
import multiprocessing
import os
import threading

import pair

done = [0]


def handle(rounds):
    x = 1
    for i in range(rounds):
        x = (x * 3 + i) & 65535
    return x


async def client(pool):
    loop = asyncio.get_running_loop()
    while True:
        await loop.run_in_executor(pool, handle, 60000)
        await asyncio.sleep(0.001)
        done[0] += 1


async def serve(pool):
    await asyncio.gather(*[client(pool) for _ in range(2 * pair.WORKERS)])


if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    if pair.PROCESSES:
        pool = concurrent.futures.ProcessPoolExecutor(pair.WORKERS, mp_context=fork, initializer=pair.end_with_parent)
    else:
        pool = concurrent.futures.ThreadPoolExecutor(pair.WORKERS)
    for job in [pool.submit(handle, 10) for _ in range(4 * pair.WORKERS)]:
        job.result()
    threading.Thread(target=lambda: asyncio.run(serve(pool)), name="loop", daemon=True).start()
    while not done[0]:
        os.sched_yield()
    pair.stay(lambda: done[0])
