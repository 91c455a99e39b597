"""A process that starts others, whose threads contend for their GILs.

--how fork, spawn, forkserver   two workers of a multiprocessing pool, started in this way
      executor                  the same by concurrent.futures
      respawn                   a pool whose workers end after one task of 0.08 s of CPU time: --count N tasks
      turns                     one worker after another, each for 0.1 s of CPU time: --count N of them
--seconds N                     ends after N tenths of a second; else when stdin closes
--rest                          the workers sleep
--calm                          each worker has one thread
"""
import multiprocessing
import os
import sys
import threading
import time

import harness


def compute(until):
    while until():
        for _ in range(20000):
            pass


def exists(pid):
    try:
        os.kill(pid, 0)
        return True
    except OSError:
        return False


def work(first, seconds, how):
    """Three threads that want the GIL, until `seconds` of CPU time have passed or the first process is gone."""
    wanted = time.process_time() + seconds
    is_needed = lambda: exists(first) and (not seconds or time.process_time() < wanted)
    if how == "rest":
        while is_needed():
            time.sleep(0.05)
        os._exit(0)
    threads = [threading.Thread(target=compute, args=(is_needed,)) for _ in range(0 if how == "calm" else 2)]
    for thread in threads:
        thread.start()
    compute(is_needed)
    for thread in threads:
        thread.join()
    if not exists(first):
        os._exit(0)


def kind():
    return "rest" if harness.given("--rest") else "calm" if harness.given("--calm") else ""


def begin(queue):
    queue.put(os.getpid())


def of_pool(how):
    context = multiprocessing.get_context(how)
    queue = context.SimpleQueue()
    workers = context.Pool(2, begin, (queue,))
    pids = [queue.get() for _ in range(2)]
    for _ in pids:
        workers.apply_async(work, (os.getpid(), 0, kind()))
    return pids, workers


def of_executor():
    import concurrent.futures
    executor = concurrent.futures.ProcessPoolExecutor(2)
    jobs = [executor.submit(work, os.getpid(), 0, kind()) for _ in range(2)]
    while len(executor._processes) < 2:
        time.sleep(0.01)
    return sorted(executor._processes), (executor, jobs)


def one_task(_):
    until = time.process_time() + 0.08
    compute(lambda: time.process_time() < until)
    return os.getpid()


def respawned(count):
    """The workers of a pool, each of which ended after one task."""
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as workers:
        return {"children": sorted(set(workers.map(one_task, range(count), chunksize=1))), "seconds": time.monotonic()}


def in_turns(count):
    """Processes that end, each before the next one starts; and when each began, on the monotonic clock."""
    pids, began = [], []
    for _ in range(count):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(write, b"%d" % int(time.monotonic() * 1e9))
            work(os.getppid(), 0.1, "")
            os._exit(0)
        began.append(int(os.read(read, 100)))
        os.waitpid(pid, 0)
        os.close(read)
        os.close(write)
        pids.append(pid)
    return {"children": pids, "began": began}


def main():
    how = sys.argv[sys.argv.index("--how") + 1]
    if how == "respawn":
        begin_at = time.monotonic()
        fact = respawned(harness.number("count", 10))
        harness.fact(dict(fact, seconds=fact["seconds"] - begin_at))
        return
    if how == "turns":
        harness.fact(in_turns(harness.number("count", 10)))
        return
    pids, keep = of_executor() if how == "executor" else of_pool(how)
    seconds = harness.number("seconds", 0) / 10.0
    if seconds:
        time.sleep(seconds)
        for pid in pids:
            os.kill(pid, 9)
        os._exit(0)
    harness.fact({"children": pids})
    harness.ready()
    harness.stay()


if __name__ == "__main__":
    main()
