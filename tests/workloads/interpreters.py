"""Several interpreters in one process, all of whose threads compute.

`--own` requests a GIL of its own for each of `--interpreters N` (2) subinterpreters (3.12 and later), `--foreign` for interpreters that the main
thread creates and other threads run. A subinterpreter is run by a thread of the main one (driver-0 ...), which computes in `drive`, beside
`--threads N` (1) threads that it starts itself (sub-0-worker-0 ...), which compute in `burn`. `--late` creates one more when a line comes on stdin.
Prints {"skip": why} where this Python does not support it.
"""
import os
import sys
import threading

import harness

try:
    import _xxsubinterpreters as api
except ImportError:
    try:
        import _interpreters as api
    except ImportError:
        api = None

CODE = """
import os, threading
at_work = []
def burn():
    os.write({ready}, b".")
    while True:
        x = 1
        for i in range(20000):
            x = (x * 3 + i) & 65535
def drive():
    os.write({ready}, b".")
    while True:
        x = 1
        for i in range(20000):
            x = (x * 3 + i) & 65535
for n in range({threads}):
    threading.Thread(target=burn, name="sub-{index}-worker-%d" % n).start()
drive()
"""


def create():
    if sys.version_info < (3, 9):
        return api.create()
    own = harness.given("--own")
    if sys.version_info < (3, 13):
        return api.create(isolated=own)  # before 3.12 an isolated one has no threads and no GIL of its own
    return api.create("isolated" if own else "legacy")


def drive(index, number):
    number = create() if number is None else number
    api.run_string(number, CODE.format(ready=ready, threads=THREADS, index=index))


def start(index):
    number = create() if harness.given("--foreign") else None
    threading.Thread(target=drive, args=(index, number), name="driver-%d" % index).start()


def wait_for(count):
    while count:
        count -= len(os.read(arrived, count))


COUNT, THREADS = harness.number("interpreters", 2), harness.number("threads", 1)
if api is None:
    harness.fact({"skip": "no module for subinterpreters"})
elif harness.given("--own") and sys.version_info < (3, 12):
    harness.fact({"skip": "its interpreters share one GIL"})
else:
    harness.fact({"skip": None})
    arrived, ready = os.pipe()
    for n in range(COUNT):
        start(n)
    wait_for(COUNT * (THREADS + 1))
os.write(1, b"ready\n")
if harness.given("--late") and sys.stdin.readline():
    start(COUNT)
    wait_for(THREADS + 1)
    os.write(1, b"late\n")
harness.stay()
