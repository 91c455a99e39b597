"""A thread per request under contention: `--rate N` (50) new threads a second of `--work N` (2000) rounds, and `--threads N` (2) that compute.

A new thread's first act is to wait for the GIL with an empty Python stack. Several threads accept requests, because
starting a thread waits for it to run, which under contention takes longer than the time between two requests.
At the end: the number of served requests.
"""
import threading
import time

import harness

RATE = harness.number("rate", 50)
WORK = harness.number("work", 2000)
ACCEPTORS = 4
served = []


def burn():
    while True:
        x = 1
        for i in range(20000):
            x = (x * 3 + i) & 65535


def answer(x):
    for i in range(WORK):
        x = (x * 3 + i) & 65535
    return x


def handle(request):
    served.append(answer(request))


def accept(index):
    """Keeps to absolute times: one request that started late does not put off all that follow."""
    due = time.time() + float(index) / RATE
    request = index
    while True:
        late = due - time.time()
        if late > 0:
            time.sleep(late)
        threading.Thread(target=handle, args=(request,), name="request-%d" % request).start()
        request += ACCEPTORS
        due += float(ACCEPTORS) / RATE


for n in range(harness.number("threads", 2)):
    harness.thread(burn, name="worker-%d" % n)
for n in range(ACCEPTORS):
    harness.thread(accept, n, name="acceptor-%d" % n)
harness.ready()
harness.stay(lambda: len(served))
