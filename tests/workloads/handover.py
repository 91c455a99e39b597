"""Threads that hand work to one another by `--lock`, `--queue` or `--condition`, while `--hogs N` (0) others compute.

Without hogs they wait for the lock and never for the GIL; with one they wait for both. At the end: the number of items handed over.
"""
import queue
import threading

import harness

done = [0]


def compute(rounds):
    x = 1
    for i in range(rounds):
        x = (x * 3 + i) & 65535


def hog():
    while True:
        compute(20000)


def guarded(lock):
    """The same lock, mostly held by the other: the work inside is longer than the work outside."""
    while True:
        with lock:
            compute(30000)
            done[0] += 1
        compute(3000)


def put(work):
    while True:
        compute(30000)
        work.put(1)


def get(work):
    while True:
        work.get()
        compute(3000)
        done[0] += 1


def notify(condition, box):
    while True:
        compute(30000)
        with condition:
            box.append(1)
            condition.notify()


def await_notice(condition, box):
    while True:
        with condition:
            while not box:
                condition.wait()
            box.pop()
        compute(3000)
        done[0] += 1


if harness.given("--lock"):
    shared = threading.Lock()
    harness.thread(guarded, shared, name="guarded-0")
    harness.thread(guarded, shared, name="guarded-1")
elif harness.given("--queue"):
    shared = queue.Queue(8)
    harness.thread(put, shared, name="producer")
    harness.thread(get, shared, name="consumer")
else:
    shared, letters = threading.Condition(), []
    harness.thread(notify, shared, letters, name="notifier")
    harness.thread(await_notice, shared, letters, name="awaiter")
for n in range(harness.number("hogs", 0)):
    harness.thread(hog, name="hog-%d" % n)
harness.ready()
harness.stay(lambda: done[0])
